"""One driver for a run at a time."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

from filelock import FileLock, Timeout

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.records.run import RunFolder

# A file server lets go of a lost machine's locks after its lease: 90 s on Linux.
_LEASE_S = 150.0


@contextlib.contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Holds the run for this driver; a lock ends with its process, however that ends.

    Who holds it may take it again. Where a driver on another machine has it, that may be lost:
    then its file server holds the lock for a while, which is waited for.

    Raises:
        SpecError: If another driver has it, or the folder can't be written.
    """
    holder, here = run.path / ".driver", socket.gethostname()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.path / ".driver.lock", is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            where = holder.read_text("utf-8") if holder.exists() else here
            if where == here:
                raise
            wait = f"{run.where} is held by {where}; waiting {_LEASE_S:g} s, as that may be lost"
            print(wait, file=sys.stderr, flush=True)
            lock.acquire(timeout=_LEASE_S, poll_interval=0.5)
        holder.write_text(here, "utf-8")
    except Timeout:
        message = "is being searched by another process; end that first"
        raise SpecError(Problem(run.where, "", message)) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    except OSError as error:
        message = f"can't be written by the driver: {error.strerror or error}"
        raise SpecError(Problem(run.where, "", message)) from None
    try:
        yield
    finally:
        lock.release()
