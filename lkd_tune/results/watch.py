"""A run's page, written anew every few seconds and served to this machine alone."""

from __future__ import annotations

import functools
import http.server
import signal
import threading
from collections.abc import Callable
from typing import Any

from lkd_tune.results.report import write_report
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.run import RunFolder


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing of requests."""

    def end_headers(self) -> None:
        """Keeps browsers from showing an earlier page."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


def serve_report(
    read: Callable[[], RunFolder], *, port: int, every_s: int, tell: Callable[[str], None]
) -> None:
    """Serves a run's page on loopback until Ctrl-C; then writes it once more, without refreshing.

    Args:
        read: Called before each writing: the run, as it is then; it may be searched meanwhile.
        port: 0: any free one.
        every_s: Seconds from one writing to the next.
        tell: Given the page's address as soon as it can be opened, and why it was not renewed.

    Raises:
        SpecError: If the folder is not that of a run, or the port is taken.
    """
    run = read()
    write_report(run, refresh_s=every_s)
    handler = functools.partial(_Handler, directory=str(run.report))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        message = f"{port} can't be had: {error.strerror}; name another, or 0 for any free one"
        raise SpecError(Problem("--port", "", message)) from None
    stopped = threading.Event()
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/report.html"
        tell(f"{address}  (Ctrl-C ends this, not the search)")
        # Set, as a shell starts what it puts in the background with SIGINT ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        try:
            while not stopped.wait(every_s):
                _write_again(read, every_s, tell)
        finally:
            server.shutdown()
            _write_again(read, None, tell)


def _write_again(
    read: Callable[[], RunFolder], every_s: int | None, tell: Callable[[str], None]
) -> None:
    """Writes the page as the run is now; where that can't be read for once, it stays as it was."""
    try:
        write_report(read(), refresh_s=every_s)
    except SpecError as error:
        tell(f"not up to date: {error.problems[0]}")
