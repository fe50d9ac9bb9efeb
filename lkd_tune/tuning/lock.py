"""The lock of a run: one driver at a time."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

from filelock import FileLock, Timeout

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.records.run import RunFolder

# A file server releases a lost machine's locks when their lease ends: after 90 s on Linux.
_LEASE_S = 150.0


@contextlib.contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Locks the run for this driver; the lock ends with its process, however that ends.

    The process that holds the lock may take it again. If a driver on another machine holds it,
    that machine may be lost. The file server then keeps the lock for a while, so this waits.

    Raises:
        SpecError: If another driver holds the lock, or the folder can't be written.
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
            message = (
                f"{run.where} is locked by {where}; waiting up to {_LEASE_S:g} s, "
                "because that machine may be lost"
            )
            print(message, file=sys.stderr, flush=True)
            lock.acquire(timeout=_LEASE_S, poll_interval=0.5)
        holder.write_text(here, "utf-8")
    except Timeout:
        message = "is being searched by another process; stop that process first"
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
