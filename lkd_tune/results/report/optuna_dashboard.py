"""Optuna Dashboard on a run's study, such that nothing can be written to it."""

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
from lkd_tune.results.report.serve import serve_until_stopped

# From an object store; what lies in a folder is read anew with each page.
_FETCH_S = 15.0

_Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class ReadOnlyJournal(JournalFileBackend):
    """A journal that is read while a search writes it.

    `optuna-dashboard FILE` may write: a note, a trial's end, the removal of the whole study. The
    search, which is the only writer there is meant to be, would not see that.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuses.

        Raises:
            PermissionError: Always.
        """
        raise PermissionError("the study of a run is not written to")


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing of requests."""


class _Server(WSGIServer):
    # Browsers ask for several things at a time.
    daemon_threads = True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers each request in a thread."""
        threading.Thread(target=self._answer, args=(request, client_address), daemon=True).start()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)


def dashboard(study: Path) -> _Wsgi:
    """Returns Optuna Dashboard on a journal, which refuses all requests that would change it.

    Raises:
        SpecError: If it is not installed.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        message = f"optuna-dashboard is needed ({error}): pip install 'lkd-tune[dashboard]'"
        raise SpecError(Problem("dashboard", "", message)) from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    app: _Wsgi = wsgi(JournalStorage(ReadOnlyJournal(str(study))))

    def read_only(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "the study of a run is only shown here"}).encode()]

    return read_only


def serve_dashboard(
    read: Callable[[], RunFolder], *, port: int, tell: Callable[[str], None]
) -> None:
    """Serves Optuna Dashboard on a run's study, on loopback, until Ctrl-C.

    Args:
        read: Called every few seconds: the run, as it is then; it may be searched meanwhile.
        port: 0: any free one.
        tell: Given the page's address as soon as it can be opened.

    Raises:
        SpecError: If the run has no study yet, the port is taken, or the package is missing.
    """
    run = read()
    run.read_manifest()
    if not run.study.exists():
        raise SpecError(Problem(run.where, "", "has no study yet: no trial was drawn"))
    app = dashboard(run.study)
    try:
        server = make_server("127.0.0.1", port, app, _Server, _Quiet)
    except OSError as error:
        message = f"{port} can't be had: {error.strerror}; name another, or 0 for any free one"
        raise SpecError(Problem("--port", "", message)) from None
    address = f"http://127.0.0.1:{server.server_port}/dashboard"
    with server:
        serve_until_stopped(server, address, read, every_s=_FETCH_S, tell=tell)
