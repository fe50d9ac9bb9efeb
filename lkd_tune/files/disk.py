"""Recognising a full disk among other errors. Imports only the standard library."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CODES = (errno.ENOSPC, errno.EDQUOT)
# Errors of Ray Tune, and of Rust libraries that write weights and tokenizers, have only the text of
# the code. numpy has its own text for an incomplete write.
_TEXT = re.compile("|".join([*map(os.strerror, _CODES), r"\d+ requested and \d+ written"]))

IN_CACHE = "in the cache (set LKD_TUNE_CACHE to use another folder)"


class FullDiskError(OSError):
    """A disk is full. The message says for what, which disk, and how much of it is free."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is about a full disk or an exceeded quota."""
    return any(
        isinstance(each, FullDiskError)
        or getattr(each, "errno", None) in _CODES
        or _TEXT.search(str(each)) is not None
        for each in _chain(error)
    )


def describe_full_disk(error: BaseException, folder: Path) -> str:
    """Returns the message for an error that `is_full_disk`.

    Args:
        error: The error.
        folder: A folder on the disk that is described if the error does not name one.
    """
    for each in _chain(error):
        if isinstance(each, FullDiskError):
            return str(each)
    return f"{str(error).strip().splitlines()[-1]}; {describe_disk(folder)}"


def describe_disk(folder: Path) -> str:
    """Returns the free space of a folder's disk, and the machine it is on, in words."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    return f"the disk of {folder} on {socket.gethostname()} has {free:.2f} GB free"


@contextmanager
def disk_space_for(what: str, folder: Path) -> Iterator[None]:
    """Turns an error about a full disk into a FullDiskError.

    Args:
        what: The name of what is written, for the message.
        folder: Where it is written.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FullDiskError) or not is_full_disk(error):
            raise
        raise FullDiskError(f"no disk space for {what}: {describe_disk(folder)}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
