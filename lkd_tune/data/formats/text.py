"""Text files in any encoding: opened, rewritten as UTF-8, and where they can't be decoded."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path
from typing import Any

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.files.cache import get_or_build
from lkd_tune.files.digest import digest, file_digest

_HEAD_BYTES = 4096
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def find_encoding(task: TaskSettings, path: Path) -> str:
    """Returns a file's encoding: `task.encoding`, that of its byte order mark, or UTF-8.

    Raises:
        ValueError: If the file holds NUL bytes, which text in UTF-8 does not.
    """
    if task.encoding is not None:
        return task.encoding
    with _open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        raise ValueError(
            "it holds NUL bytes, so it is not text in UTF-8; for UTF-16 without a byte order mark "
            "set task.encoding to utf-16-le"
        )
    return "utf-8"


def open_text(task: TaskSettings, path: Path) -> Any:
    """Returns a file, also one that is compressed, opened as text with its own line ends.

    Raises:
        ValueError: As `find_encoding`.
    """
    return _open(path, "rt", encoding=find_encoding(task, path), newline="")


def as_utf8(task: TaskSettings, path: Path, cache: Path) -> Path:
    """Returns a file's path if it is in UTF-8, else that of a copy which is.

    Args:
        task: The task.
        path: The file.
        cache: Folder for copies.

    Raises:
        ValueError: If it can't be decoded.
    """
    encoding = codecs.lookup(find_encoding(task, path)).name
    if encoding in ("utf-8", "utf-8-sig", "ascii"):
        return path

    def copy(draft: Path) -> None:
        draft.mkdir()
        name = path.name.removesuffix(".gz")
        with (
            open_text(task, path) as old,
            (draft / name).open("w", encoding="utf-8", newline="") as new,
        ):
            for line in old:
                new.write(line)

    folder = cache / "utf8" / digest(encoding, file_digest(path), path.name)
    get_or_build(folder, copy, "the text as UTF-8")
    return folder / path.name.removesuffix(".gz")


def decoding_problem(task: TaskSettings, path: Path) -> str | None:
    """Returns which line of a file can't be decoded, and what to do; None if all can.

    Reads the whole file.
    """
    encoding = find_encoding(task, path)
    with _open(path, "rb") as file:
        content = file.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        message = f"line {line} is not {encoding.upper()} (byte 0x{content[error.start]:02x})"
        if task.encoding is not None:
            return f"{message}; correct task.encoding"
        return (
            f"{message}; save it as UTF-8, or set task.encoding: cp1252 for files that Excel saved "
            "in western Europe or America, cp949 in Korea, cp932 in Japan, gb18030 in China"
        )
    return None


def _open(path: Path, mode: str, **options: Any) -> Any:
    return (gzip.open if path.suffix == ".gz" else open)(path, mode, **options)
