"""Telling a disk without room from other errors; loads nothing."""

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
# All that is left of the codes in errors of Rust, which writes weights and tokenizers, and of Ray
# Tune; numpy tells of a write cut short in words of its own.
_TEXT = re.compile("|".join([*map(os.strerror, _CODES), r"\d+ requested and \d+ written"]))

IN_CACHE = "in the cache (LKD_TUNE_CACHE may name another)"


class FullDiskError(OSError):
    """A disk has no room; the message says for what, which one, and how much of it is free."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error is, or comes from, a lack of room on a disk or a quota that is used up."""
    return any(
        isinstance(each, FullDiskError)
        or getattr(each, "errno", None) in _CODES
        or _TEXT.search(str(each)) is not None
        for each in _chain(error)
    )


def explain(error: BaseException, folder: Path) -> str:
    """Returns what to tell of a lack of room; `folder` is looked at where the error names none."""
    for each in _chain(error):
        if isinstance(each, FullDiskError):
            return str(each)
    return f"{str(error).strip().splitlines()[-1]}; {describe_disk(folder)}"


def describe_disk(folder: Path) -> str:
    """Returns on which machine's disk a folder is, and how much of that is free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    return f"the disk of {folder} on {socket.gethostname()} has {free:.2f} GB free"


@contextmanager
def room_for(what: str, folder: Path) -> Iterator[None]:
    """Turns a lack of room into a FullDiskError that tells of the disk of a folder."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FullDiskError) or not is_full_disk(error):
            raise
        raise FullDiskError(f"no room for {what}: {describe_disk(folder)}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
