"""Optuna Dashboard on a run's study, read-only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.records.run import RunFolder
from lkd_tune.results.report.serve import port_error, serve_until_stopped

# Seconds between fetches of a run on an object store. A local run is read with each request.
_FETCH_INTERVAL_S = 15.0

_WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class ReadOnlyJournal(JournalFileBackend):
    """A journal that can be read while a search writes it, but not written.

    `optuna-dashboard FILE` can write notes, end trials and delete the study. The search expects to
    be the only writer and would not see such changes.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuses to write.

        Raises:
            PermissionError: Always.
        """
        raise PermissionError("the study of a run is read-only")


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Logs no requests."""


class _Server(WSGIServer):
    # Browsers send several requests at a time.
    daemon_threads = True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers each request in its own thread."""
        threading.Thread(target=self._answer, args=(request, client_address), daemon=True).start()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)


def read_only_dashboard(study: Path) -> _WsgiApp:
    """Returns Optuna Dashboard on a journal; it refuses requests that would change the study.

    Raises:
        SpecError: If optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        message = f"optuna-dashboard is needed ({error}): pip install 'lkd-tune[dashboard]'"
        raise SpecError(Problem("dashboard", "", message)) from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    app: _WsgiApp = wsgi(JournalStorage(ReadOnlyJournal(str(study))))

    def read_only(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "the study of a run is read-only here"}).encode()]

    return read_only


def serve_dashboard(
    read: Callable[[], RunFolder], *, port: int, notify: Callable[[str], None]
) -> None:
    """Serves Optuna Dashboard on a run's study, on loopback, until Ctrl-C.

    Args:
        read: Called every few seconds; returns the run as it is then.
        port: Port to listen on; 0: any free one.
        notify: Receives the page's address once it is served.

    Raises:
        SpecError: If the run has no study yet, the port is in use, or the package is missing.
    """
    run = read()
    run.read_manifest()
    if not run.study.exists():
        raise SpecError(Problem(run.where, "", "has no study yet, because no trial has started"))
    app = read_only_dashboard(run.study)
    try:
        server = make_server("127.0.0.1", port, app, _Server, _Quiet)
    except OSError as error:
        raise port_error(port, error) from None
    address = f"http://127.0.0.1:{server.server_port}/dashboard"
    with server:
        serve_until_stopped(server, address, read, every_s=_FETCH_INTERVAL_S, notify=notify)
