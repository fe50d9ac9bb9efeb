"""URIs of folders in object stores: `s3://bucket/folder` and `gs://bucket/folder`."""

from __future__ import annotations

import re

_URI = re.compile(r"(s3|gs)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_uri(text: str) -> bool:
    """Returns whether a text is the URI of an object store, not a path or hub id."""
    return _URI.match(text) is not None


def uri_problem(uri: str) -> str | None:
    """Returns why a URI can't be used, or None.

    The message does not repeat the URI, which may contain a secret. URIs are written to manifests,
    logs and lists of jobs, so they must not contain keys.
    """
    scheme, _, path = uri.partition("://")
    bucket = path.partition("/")[0]
    if not bucket:
        return f"has no bucket; write {scheme}://BUCKET/RUN"
    if "?" in path or "@" in path or not _BUCKET.fullmatch(bucket):
        return (
            f"is not of the form {scheme}://BUCKET/FOLDER; keys and options are not allowed. Set "
            "credentials and endpoint by environment variables and files such as AWS_PROFILE, "
            "AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS"
        )
    return None
