"""Files and folders that are there completely or not at all, also after a crash.

A draft is next to its final location, under a name that starts with a dot. It is flushed to the
disk and then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lkd_tune.files.disk import disk_space_for
from lkd_tune.files.tombstones import add_tombstone

# Errors of file systems without hard links, such as those over object stores.
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def atomic_file(final: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Gives a file to write to, which replaces `final` when the block ends without an error.

    Args:
        final: The file; its folder is created if necessary. All users may read it.
        sync: Whether to flush it to the disk first, so that it survives a power failure.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.replace(draft, final)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file as UTF-8, completely or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_once(path: Path, text: str) -> str:
    """Returns the content of a file, which is created with `text` if it does not exist.

    If several processes write it at the same time, one of them does, and all get its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_atomically(draft, text)
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.replace(draft, path)  # the last writer wins, but the file is complete
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text("utf-8")


def append_line(path: Path, line: str) -> None:
    """Appends a line to a text file; replaces a last line that a crash or a full disk cut off."""
    if path.exists():
        lines, end, rest = path.read_bytes().rpartition(b"\n")
        if rest:
            write_atomically(path, (lines + end).decode())
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextmanager
def atomic_folder(final: Path, what: str | None = None) -> Iterator[Path]:
    """Gives an empty folder to write into, which replaces `final` if the block raises no error.

    Only one process may write the same folder at a time.

    Args:
        final: The folder.
        what: Its name in messages. Default: the folder's own.

    Raises:
        FullDiskError: If the disk is full. What was written is removed.
    """
    draft = final.with_name(f".{final.name}")
    remove_tree(draft)  # left by a crash
    try:
        with disk_space_for(what or final.name, final.parent):
            draft.mkdir(parents=True)
            yield draft
            sync_tree(draft)
    except BaseException:
        remove_tree(draft)
        raise
    remove_folder(final)
    os.replace(draft, final)
    sync(final.parent)  # before the caller removes what this folder replaces


def remove_folder(path: Path) -> None:
    """Removes a folder, if there is one; what a crash leaves of it has another name.

    A run that is mirrored to an object store gets a tombstone for it.
    """
    doomed = path.with_name(f".removed-{path.name}")
    remove_tree(doomed)
    try:
        os.replace(path, doomed)
    except FileNotFoundError:
        return
    add_tombstone(path)
    remove_tree(doomed)


def remove_tree(path: Path) -> None:
    """Removes a file or a folder, if there is one, as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_tree(path: Path) -> None:
    """Flushes a file, or a folder with all that is in it, to the disk."""
    for each in (*path.rglob("*"), path):
        sync(each)


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk, so that they survive a power loss."""
    # Network file systems may not support this for folders.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
