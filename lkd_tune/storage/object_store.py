"""Folders in object stores, `s3://bucket/folder` and `gs://bucket/folder`: the only door to them.

An object appears under its name when all of it has been sent, or not at all; there is no renaming
and no appending. Credentials, region and endpoint are the business of the store's own variables
and files (AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS, the machine's
role); nothing of them is kept or told here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.uri import address_problem
from lkd_tune.files.atomic import atomic_file

_T = TypeVar("_T")
_NAMES = {"s3": "S3", "gs": "Google Cloud Storage"}
_CHUNK_BYTES = 8 * 2**20
# So long an outage is waited for where one must not end a search.
_PATIENCE_S = 3600.0
_LONGEST_PAUSE_S = 10.0
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
# What tells that credentials are meant to be there; which of them count is the store's business.
_CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
}  # fmt: skip
_FILES = {
    "s3": (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
           ("AWS_CONFIG_FILE", "~/.aws/config")),
    "gs": (("", "~/.config/gcloud/application_default_credentials.json"),),
}  # fmt: skip
_HOW = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role "
    "gives them",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or call `gcloud auth application-default login`",
}


class StorageError(SpecError):
    """A store can't be reached, or does not let us do what is needed."""


def patiently(call: Callable[[], _T], give_up: Callable[[], bool] = lambda: False) -> _T:
    """Returns what a call gives, after calling again and again while the store can't be reached.

    Args:
        call: What may be called again.
        give_up: Asked after each failure whether to let it be.

    Raises:
        StorageError: What the call raised last, after an hour.
    """
    deadline, pause = time.monotonic() + _PATIENCE_S, 0.5
    while True:
        try:
            return call()
        except StorageError:
            if give_up() or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def cache_path(address: str) -> Path:
    """Returns the relative path by which caches know an address: `s3/bucket/folder`."""
    return Path(address.replace("://", "/", 1))


class Store:
    """A folder in an object store; names are relative to it, with `/` between their parts.

    All methods raise StorageError with what to do about it, if the store can't be reached, the
    bucket is not there, credentials or rights are lacking, or this pyarrow was built without it.

    Args:
        address: `s3://bucket/folder` or `gs://bucket/folder`.

    Attributes:
        address: The same without needless slashes.
        scheme: `s3` or `gs`.

    Raises:
        StorageError: If the address names no bucket, or has more in it than bucket and folder.
    """

    def __init__(self, address: str):
        self.scheme, _, path = address.partition("://")
        if (problem := address_problem(address)) is not None:
            raise StorageError(Problem(f"{self.scheme}://…", "", problem))
        self._root = re.sub("/+", "/", path).strip("/")
        self._bucket = path.partition("/")[0]
        self.address = f"{self.scheme}://{self._root}"

    def check_writable(self) -> None:
        """Writes an object and removes it, to find out whether that can be done."""
        name = f".seen-{os.urandom(8).hex()}"
        self.write(name, b"driver")
        self.remove(name)

    def list(self, below: str = "") -> dict[str, tuple[int, int]]:
        """Returns size and time of change (ns) of all objects below a folder, by name."""
        from pyarrow.fs import FileSelector, FileType

        with self._told():
            start = self._at(below)
            selector = FileSelector(start, recursive=True, allow_not_found=True)
            found = self._files.get_file_info(selector)
            if not found and self._files.get_file_info(self._bucket).type == FileType.NotFound:
                raise self._error("NO_SUCH_BUCKET")
        return {
            info.path[len(self._root) + 1 :]: (info.size, info.mtime_ns or 0)
            for info in found
            if info.type == FileType.File
        }

    def read(self, name: str) -> bytes | None:
        """Returns an object's content, None if there is no such object."""
        with self._told():
            try:
                with self._files.open_input_stream(self._at(name)) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, whole or not at all."""
        with self._told(), self._files.open_output_stream(self._at(name)) as out:
            out.write(content)

    def upload(self, name: str, file: BinaryIO) -> None:
        """Writes an object from a file, as far as that goes if it fails on the way."""
        with self._told(), self._files.open_output_stream(self._at(name)) as out:
            shutil.copyfileobj(file, out, _CHUNK_BYTES)

    def download(self, name: str, path: Path) -> None:
        """Writes an object to a file, whole or not at all.

        Raises:
            FileNotFoundError: If there is no such object (any more).
        """
        with (
            atomic_file(path, sync=False) as out,
            self._told(missing_is_told=False),
            self._files.open_input_stream(self._at(name)) as file,
        ):
            shutil.copyfileobj(file, out, _CHUNK_BYTES)

    def remove(self, name: str) -> None:
        """Removes an object, if it is there."""
        with self._told(), contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._at(name))

    def remove_folder(self, name: str) -> None:
        """Removes all objects below a folder."""
        with self._told(), contextlib.suppress(FileNotFoundError):
            self._files.delete_dir(self._at(name))

    @property
    def _files(self) -> Any:
        return _file_system(f"{self.scheme}://{self._bucket}")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextlib.contextmanager
    def _told(self, *, missing_is_told: bool = True) -> Iterator[None]:
        """Turns what the store's client raises into a `StorageError`.

        Args:
            missing_is_told: Whether that also holds of what is not there, which then can only be
                the bucket: so Google's client has it.
        """
        from pyarrow import ArrowException

        try:
            yield
        except FileNotFoundError:
            if not missing_is_told:
                raise
            raise self._error("NO_SUCH_BUCKET") from None
        except (OSError, ArrowException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_IS_FULL:
                raise  # this machine's
            raise self._error(str(error)) from None

    def _error(self, said: str) -> StorageError:
        bucket, where = f"{self.scheme}://{self._bucket}", self.address
        if "NO_SUCH_BUCKET" in said or "bucket does not exist" in said:
            message = f"there is no bucket {bucket}; make it first, or mend its name"
        elif _has(said, "UNAUTHENTICATED", "OAuth2", "oauth2", "INVALID_ACCESS_KEY", "SIGNATURE",
                  "INVALID_CLIENT_TOKEN", "EXPIRED_TOKEN", "ExpiredToken", "UNRECOGNIZED_CLIENT",
                  "InvalidAccessKeyId"):  # fmt: skip
            what = "finds no credentials, or none that it takes"
            message = f"{_NAMES[self.scheme]} {what}; {_HOW[self.scheme]}"
        elif _has(said, "ACCESS_DENIED", "PERMISSION_DENIED", "HTTP status 403", "Forbidden"):
            if _has_credentials(self.scheme):
                needed = "to list, read, write and delete objects below it"
                message = f"access is denied; these credentials lack the rights {needed}"
            else:
                message = f"no credentials are found for it; {_HOW[self.scheme]}"
        elif _has(said, "NETWORK_CONNECTION", "UNAVAILABLE", "curlCode"):
            endpoint = " (AWS_ENDPOINT_URL is set)" if os.environ.get("AWS_ENDPOINT_URL") else ""
            message = f"{_NAMES[self.scheme]} can't be reached{endpoint}: {_short(said)}"
        else:
            message = _short(said)
        return StorageError(Problem(where, "", message))


@functools.cache
def _file_system(bucket: str) -> Any:
    """Returns pyarrow's file system of a bucket, one for each process."""
    try:
        from pyarrow.fs import FileSystem

        # By the address, as only then the variables of the store's endpoint are looked at.
        options = "?retry_limit_seconds=60" if bucket.startswith("gs:") else ""  # not 15 minutes
        return FileSystem.from_uri(f"{bucket}/x{options}")[0]
    except (ImportError, NotImplementedError) as error:
        what = _NAMES[bucket.partition(":")[0]]
        message = f"this pyarrow has no {what}; install the one of PyPI: pip install 'pyarrow>=15'"
        raise StorageError(Problem(bucket, "", f"{message} ({error})")) from None


def _has(text: str, *words: str) -> bool:
    return any(word in text for word in words)


def _has_credentials(scheme: str) -> bool:
    files = (os.environ.get(variable) or path for variable, path in _FILES[scheme])
    return any(os.environ.get(name) for name in _CREDENTIALS[scheme]) or any(
        os.path.exists(os.path.expanduser(path)) for path in files
    )


def _short(said: str) -> str:
    return " ".join(said.partition("(Request ID")[0].split())[:300]
