"""A run's page, written anew every few seconds and served to this machine alone."""

from __future__ import annotations

import functools
import http.server
import signal
import socketserver
import threading
from collections.abc import Callable
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.records.run import RunFolder
from lkd_tune.results.report.page import write_report


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
    address = f"http://127.0.0.1:{server.server_address[1]}/report.html"
    with server:
        try:
            serve_until_stopped(
                server,
                address,
                lambda: write_report(read(), refresh_s=every_s),
                every_s=every_s,
                tell=tell,
            )
        finally:
            _renew(lambda: write_report(read()), tell)


def serve_until_stopped(
    server: socketserver.BaseServer,
    address: str,
    again: Callable[[], Any],
    *,
    every_s: float,
    tell: Callable[[str], None],
) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        server: It listens already.
        address: What is to be opened in a browser.
        again: Called every so many seconds; where the run can't be read for once, that is told.
        every_s: How many.
        tell: Given the address at first, and why something was not renewed.
    """
    stopped = threading.Event()
    # Set, as a shell starts what it puts in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell(f"{address}  (Ctrl-C ends this, not the search)")
    try:
        while not stopped.wait(every_s):
            _renew(again, tell)
    finally:
        server.shutdown()


def _renew(again: Callable[[], Any], tell: Callable[[str], None]) -> None:
    try:
        again()
    except SpecError as error:
        tell(f"not up to date: {error.problems[0]}")
