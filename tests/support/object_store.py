"""Servers of object stores' protocols on this machine, and buckets on them."""

from __future__ import annotations

import json
import os
import secrets
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from lkd_tune.storage import object_store as storage

KEYS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "secret-of-someone",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


_s3_servers: dict[str, Any] = {}  # those that run, by their endpoint


@contextmanager
def s3_server() -> Iterator[str]:
    """Gives the address of a new bucket on a server of S3's protocol, set in the environment."""
    endpoint, bucket = _start_s3(), _new_name()
    try:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")).close()
        with _environment(**KEYS, AWS_ENDPOINT_URL=endpoint):
            yield f"s3://{bucket}"
    finally:
        _s3_servers.pop(endpoint).stop()


@contextmanager
def outage() -> Iterator[None]:
    """Has the server of S3's protocol be away for a while; it forgets nothing."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    port = int(endpoint.rpartition(":")[2])
    _s3_servers[endpoint].stop()
    with socket.socket() as held:  # or another test's server may be given its port
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("0.0.0.0", port))
        yield
    _start_s3(port)


def _start_s3(port: int = 0) -> str:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    _s3_servers[endpoint] = server
    return endpoint


@contextmanager
def gs_server(folder: Path) -> Iterator[str]:
    """Gives the address of a bucket on a server of Google's protocol, set in the environment.

    Args:
        folder: For the key of an account that there is not; no one checks what it signs.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from gcp_storage_emulator.server import create_server

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "someone@example.org",
    }
    (folder / "account.json").write_text(json.dumps(account))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bucket = _new_name()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    server.start()
    try:
        with _environment(
            CLOUD_STORAGE_EMULATOR_ENDPOINT=f"http://127.0.0.1:{port}",
            GOOGLE_APPLICATION_CREDENTIALS=str(folder / "account.json"),
        ):
            yield f"gs://{bucket}"
    finally:
        server.stop()


def _new_name() -> str:
    return f"lkd-{secrets.token_hex(6)}"


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    storage._file_system.cache_clear()
    with mock.patch.dict(os.environ, variables):
        yield
    storage._file_system.cache_clear()
