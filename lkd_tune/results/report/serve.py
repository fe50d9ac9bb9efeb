"""The report of a run, rewritten every few seconds and served to this machine only."""

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
        """Logs no requests."""

    def end_headers(self) -> None:
        """Forbids browsers to cache the page."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


def serve_report(
    read: Callable[[], RunFolder], *, port: int, every_s: int, notify: Callable[[str], None]
) -> None:
    """Serves a run's report on loopback until Ctrl-C; then rewrites it without the reloading.

    Args:
        read: Called before each update; returns the run as it is then.
        port: Port to listen on; 0: any free one.
        every_s: Seconds between updates.
        notify: Receives the page's address once it is served, and the reason if an update fails.

    Raises:
        SpecError: If the folder is not a run folder, or the port is in use.
    """
    run = read()
    write_report(run, refresh_s=every_s)
    handler = functools.partial(_Handler, directory=str(run.report))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise port_error(port, error) from None
    address = f"http://127.0.0.1:{server.server_address[1]}/report.html"
    with server:
        try:
            serve_until_stopped(
                server,
                address,
                lambda: write_report(read(), refresh_s=every_s),
                every_s=every_s,
                notify=notify,
            )
        finally:
            _update(lambda: write_report(read()), notify)


def port_error(port: int, error: OSError) -> SpecError:
    """Returns the error for a port that can't be listened on."""
    message = f"can't listen on {port} ({error.strerror}); use another port, or 0 for any free one"
    return SpecError(Problem("--port", "", message))


def serve_until_stopped(
    server: socketserver.BaseServer,
    address: str,
    update: Callable[[], Any],
    *,
    every_s: float,
    notify: Callable[[str], None],
) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        server: A server that is listening.
        address: Address of the page, for the user.
        update: Called every `every_s` seconds. If it raises a SpecError, the user is notified and
            the server continues.
        every_s: Seconds between updates.
        notify: Receives the address at first, and the reason if an update fails.
    """
    stopped = threading.Event()
    # Both are set explicitly, because a shell starts background processes with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    notify(f"{address}  (Ctrl-C stops this server, not the search)")
    try:
        while not stopped.wait(every_s):
            _update(update, notify)
    finally:
        server.shutdown()


def _update(update: Callable[[], Any], notify: Callable[[str], None]) -> None:
    try:
        update()
    except SpecError as error:
        notify(f"not up to date: {error.problems[0]}")
