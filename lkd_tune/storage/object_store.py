"""Folders in object stores, `s3://bucket/folder` and `gs://bucket/folder`.

All access to object stores is in this module. An object appears under its name when all of it has
arrived, or not at all; there is no renaming and no appending.

Credentials, region and endpoint come from the store's own variables and files (AWS_PROFILE,
AWS_ENDPOINT_URL, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS) or the machine's role. They are neither
kept nor printed here.
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
from lkd_tune.config.uri import uri_problem
from lkd_tune.files.atomic import atomic_file

_T = TypeVar("_T")
_STORE_NAMES = {"s3": "S3", "gs": "Google Cloud Storage"}
_CHUNK_BYTES = 8 * 2**20
# How long a call is retried where an outage must not end a search, and the pauses between tries.
_RETRY_S = 3600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Variables and (variable, default path) of files that hold credentials. If none of them exists, the
# message about denied access asks for credentials.
_CREDENTIAL_VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
}  # fmt: skip
_CREDENTIAL_FILES = {
    "s3": (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
           ("AWS_CONFIG_FILE", "~/.aws/config")),
    "gs": (("", "~/.config/gcloud/application_default_credentials.json"),),
}  # fmt: skip
_CREDENTIAL_ADVICE = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a machine whose "
    "role has access",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
}


class StorageError(SpecError):
    """An object store can't be reached, or refuses a request."""


def retry_until_available(
    call: Callable[[], _T], give_up: Callable[[], bool] = lambda: False
) -> _T:
    """Returns the result of a call, repeated while the store can't be reached.

    Args:
        call: What to do; may be called several times.
        give_up: Asked after each failure whether to stop trying.

    Raises:
        StorageError: The last error, after an hour or when `give_up` returns True.
    """
    deadline, pause_s = time.monotonic() + _RETRY_S, _FIRST_PAUSE_S
    while True:
        try:
            return call()
        except StorageError:
            if give_up() or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def cache_path(address: str) -> Path:
    """Returns the relative path of an address in a cache: `s3/bucket/folder`."""
    return Path(address.replace("://", "/", 1))


class Store:
    """A folder in an object store; names are relative to it, with `/` between their parts.

    All methods raise a StorageError that says what to do if the store can't be reached, if the
    bucket does not exist, if credentials or rights are missing, or if the installed pyarrow does
    not support the store.

    Args:
        address: `s3://bucket/folder` or `gs://bucket/folder`.

    Attributes:
        address: The same without superfluous slashes.
        scheme: `s3` or `gs`.

    Raises:
        StorageError: If the address has no bucket, or more in it than bucket and folder.
    """

    def __init__(self, address: str):
        self.scheme, _, path = address.partition("://")
        if (problem := uri_problem(address)) is not None:
            raise StorageError(Problem(f"{self.scheme}://…", "", problem))
        self._root = re.sub("/+", "/", path).strip("/")
        self._bucket = path.partition("/")[0]
        self.address = f"{self.scheme}://{self._root}"

    def check_writable(self) -> None:
        """Writes an object and removes it, to find out whether both are possible."""
        name = f".seen-{os.urandom(8).hex()}"
        self.write(name, b"driver")
        self.remove(name)

    def list(self, below: str = "") -> dict[str, tuple[int, int]]:
        """Returns size and time of change (ns) of all objects below a folder, by name."""
        from pyarrow.fs import FileSelector, FileType

        with self._errors_explained():
            start = self._path(below)
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
        """Returns the content of an object, None if it does not exist."""
        with self._errors_explained():
            try:
                with self._files.open_input_stream(self._path(name)) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, completely or not at all."""
        with self._errors_explained(), self._files.open_output_stream(self._path(name)) as out:
            out.write(content)

    def upload(self, name: str, file: BinaryIO) -> None:
        """Writes an object from a file; if that fails on the way, the object may be incomplete."""
        with self._errors_explained(), self._files.open_output_stream(self._path(name)) as out:
            shutil.copyfileobj(file, out, _CHUNK_BYTES)

    def download(self, name: str, path: Path) -> None:
        """Writes an object to a file, completely or not at all.

        Raises:
            FileNotFoundError: If the object does not exist.
        """
        with (
            atomic_file(path, sync=False) as out,
            self._errors_explained(missing_is_bucket=False),
            self._files.open_input_stream(self._path(name)) as file,
        ):
            shutil.copyfileobj(file, out, _CHUNK_BYTES)

    def remove(self, name: str) -> None:
        """Removes an object, if it exists."""
        with self._errors_explained(), contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def remove_folder(self, name: str) -> None:
        """Removes all objects below a folder."""
        with self._errors_explained(), contextlib.suppress(FileNotFoundError):
            self._files.delete_dir(self._path(name))

    @property
    def _files(self) -> Any:
        return _file_system(f"{self.scheme}://{self._bucket}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextlib.contextmanager
    def _errors_explained(self, *, missing_is_bucket: bool = True) -> Iterator[None]:
        """Turns an error of the store's client into a `StorageError`.

        Args:
            missing_is_bucket: Whether a FileNotFoundError means that the bucket does not exist, as
                with Google's client; otherwise it is raised as it is.
        """
        from pyarrow import ArrowException

        try:
            yield
        except FileNotFoundError:
            if not missing_is_bucket:
                raise
            raise self._error("NO_SUCH_BUCKET") from None
        except (OSError, ArrowException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                raise  # the disk of this machine
            raise self._error(str(error)) from None

    def _error(self, details: str) -> StorageError:
        """Returns the error to raise, from the text of the client's error."""
        store, bucket = _STORE_NAMES[self.scheme], f"{self.scheme}://{self._bucket}"
        advice = _CREDENTIAL_ADVICE[self.scheme]
        if "NO_SUCH_BUCKET" in details or "bucket does not exist" in details:
            message = f"there is no bucket {bucket}; create it, or correct its name"
        elif _contains(details, "UNAUTHENTICATED", "OAuth2", "oauth2", "INVALID_ACCESS_KEY",
                       "SIGNATURE", "INVALID_CLIENT_TOKEN", "EXPIRED_TOKEN", "ExpiredToken",
                       "UNRECOGNIZED_CLIENT", "InvalidAccessKeyId"):  # fmt: skip
            message = f"{store} finds no credentials, or none that it accepts; {advice}"
        elif _contains(details, "ACCESS_DENIED", "PERMISSION_DENIED", "HTTP status 403",
                       "Forbidden"):  # fmt: skip
            if _has_credentials(self.scheme):
                needed = "to list, read, write and delete objects below it"
                message = f"access is denied; these credentials lack the rights {needed}"
            else:
                message = f"no credentials are found for it; {advice}"
        elif _contains(details, "NETWORK_CONNECTION", "UNAVAILABLE", "curlCode"):
            endpoint = " (AWS_ENDPOINT_URL is set)" if os.environ.get("AWS_ENDPOINT_URL") else ""
            message = f"{store} can't be reached{endpoint}: {_shortened(details)}"
        else:
            message = _shortened(details)
        return StorageError(Problem(self.address, "", message))


@functools.cache
def _file_system(bucket: str) -> Any:
    """Returns pyarrow's file system of a bucket, one for each process."""
    try:
        from pyarrow.fs import FileSystem

        # From an address, because only then pyarrow reads the variables of the store's endpoint.
        options = "?retry_limit_seconds=60" if bucket.startswith("gs:") else ""  # not 15 minutes
        return FileSystem.from_uri(f"{bucket}/x{options}")[0]
    except (ImportError, NotImplementedError) as error:
        store = _STORE_NAMES[bucket.partition(":")[0]]
        message = f"this pyarrow does not support {store}; run pip install 'pyarrow>=15'"
        raise StorageError(Problem(bucket, "", f"{message} ({error})")) from None


def _contains(text: str, *words: str) -> bool:
    return any(word in text for word in words)


def _has_credentials(scheme: str) -> bool:
    files = (os.environ.get(variable) or path for variable, path in _CREDENTIAL_FILES[scheme])
    return any(os.environ.get(name) for name in _CREDENTIAL_VARIABLES[scheme]) or any(
        os.path.exists(os.path.expanduser(path)) for path in files
    )


def _shortened(details: str) -> str:
    return " ".join(details.partition("(Request ID")[0].split())[:300]
