"""Addresses of folders in object stores: `s3://bucket/folder` and `gs://bucket/folder`."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(s3|gs)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_uri(text: str) -> bool:
    """Whether a text names a place in an object store, and no path or hub id."""
    return _ADDRESS.match(text) is not None


def uri_problem(address: str) -> str | None:
    """Returns why an address can't be used, without repeating it: it may have a secret in it.

    Addresses stand in manifests, logs and lists of jobs, so there is no place for keys in them.
    """
    scheme, _, path = address.partition("://")
    bucket = path.partition("/")[0]
    if not bucket:
        return f"names no bucket; {scheme}://BUCKET/RUN"
    if "?" in path or "@" in path or not _BUCKET.fullmatch(bucket):
        return (
            f"is not of the form {scheme}://BUCKET/FOLDER; keys and options have no place in it, "
            "credentials and endpoint are taken from variables and files such as AWS_PROFILE, "
            "AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS"
        )
    return None
