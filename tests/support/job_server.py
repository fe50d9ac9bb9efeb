"""A job server as far as a client of Ray's asks one, which notes all that it is sent."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ray


class JobServer(ThreadingHTTPServer):
    """Answers on loopback.

    Attributes:
        received: The bodies of all requests; of packages each file in them.
        dropped: Requests that are still to be left without an answer.
    """

    def __init__(self, ray_version: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ray_version = ray_version
        self.received: list[bytes] = []
        self.dropped = 0

    @property
    def address(self) -> str:
        """For `--address`."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: JobServer

    def do_GET(self):
        if self.server.dropped:
            self.server.dropped -= 1
            self.close_connection = True
            return
        version = {"version": "4", "ray_version": self.server.ray_version, "session_name": ""}
        if self.path.startswith("/api/packages"):
            self.answer({}, 404)
        else:
            self.answer([] if self.path.startswith("/api/jobs") else version)

    def do_PUT(self):
        body = self.body()
        with zipfile.ZipFile(io.BytesIO(body)) as package:
            for name in package.namelist():
                self.server.received += [name.encode(), package.read(name)]
        self.answer({})

    def do_POST(self):
        self.server.received.append(self.body())
        self.answer({"job_id": "sent", "submission_id": "sent"})

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def job_server(ray_version: str = ray.__version__) -> Iterator[JobServer]:
    """Gives a job server that answers while the context lasts."""
    with JobServer(ray_version) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
