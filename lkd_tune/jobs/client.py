"""Searches as jobs of a Ray cluster: sent there, followed and stopped through its job server."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lkd_tune import __version__
from lkd_tune.cluster.ray import quieten_ray
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.uri import is_address
from lkd_tune.jobs.uploads import absolute_paths, ship_files
from lkd_tune.storage.object_store import Store
from lkd_tune.tuning.progress.events import from_line
from lkd_tune.tuning.progress.view import BEGUN, EVENTS_VARIABLE

# A job's start on an idle cluster takes about ten seconds; beyond this it waits for something.
BEGIN_S = 120.0
_CONNECT_S = 5.0
# How long an answer may take: where something is asked, and where it is sent or started.
_ANSWER_S, _TAKEN_S = 20.0, 120.0
# For so long a connection that is lost is tried again: a tunnel is made anew, a laptop wakes up.
_PATIENCE_S = 45.0
# Characters of a log that is followed.
_MOST_PER_S = 200_000
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_MARK = "lkd_tune"


@dataclass(frozen=True)
class Job:
    """A submitted search.

    Attributes:
        name: What `logs` and `stop` are told.
        state: Ray's: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        run: The run's folder on the cluster.
        started: UTC, ISO 8601; None while it waits.
        exit_code: The driver's, as of `lkd-tune search`; None if it was lost or still runs.
        message: What Ray says of its state.
    """

    name: str
    state: str
    run: str
    started: str | None
    exit_code: int | None
    message: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in _ENDED


class JobServer:
    """The job server of a cluster.

    Args:
        address: `http://HEAD:8265`.

    Raises:
        SpecError: If there is none, it does not take our token, or it has another Ray.
    """

    def __init__(self, address: str):
        self.address = address
        _check_reachable(address)
        quieten_ray()
        # Ray takes the address from its variables, RAY_ADDRESS too, before the one it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        import ray

        with self._told():
            self._client = _client(address)
            self._client.list_jobs()  # the first call that needs the token
            version = self._client.get_version()
            found = self._client._do_request("GET", "/api/version").json()["ray_version"]
        if found != ray.__version__:
            message = (
                f"the cluster runs Ray {found} (job API {version}), this client {ray.__version__}; "
                f"pip install 'ray[default]=={found}' here, or start the cluster with "
                f"Ray {ray.__version__}"
            )
            raise SpecError(Problem(address, "", message))

    def submit(
        self,
        *,
        run: str,
        spaces: Mapping[str, SearchSpace],
        resume: bool = False,
        overrides: Sequence[str] = (),
        allow_changed: bool = False,
        quiet: bool = False,
        ship: bool = False,
        cache: str | None = None,
    ) -> str:
        """Sends a search; returns the job's name.

        Args:
            run: The run's folder, absolute and seen by all nodes, or its address. If there is a
                run already, the job goes on with that.
            spaces: What is searched, by the name ''; or one for each of several tasks, by theirs;
                none to go on with the run as it is.
            resume: Whether there has to be a run.
            overrides: For a run that goes on without a space.
            allow_changed: Has a run that is there take over what differs and may change.
            quiet: Shows no progress.
            ship: Takes local data and models along, into the run's folder.
            cache: LKD_TUNE_CACHE on the cluster.

        Raises:
            SpecError: If the run is no absolute path, or what is shipped is too large.
        """
        if is_address(run):
            run = Store(run).address  # refused here if there is a secret in it
        if ship and is_address(run):
            message = (
                f"files can't be taken along to {run}; put them where all nodes see them, or give "
                "a folder that all nodes share by --run-dir"
            )
            raise SpecError(Problem("--ship", "", message))
        if not os.path.isabs(run) and not is_address(run):
            message = (
                f"{run!r} has to be absolute: a folder that every node of the cluster sees, or an "
                "address in an object store, s3:// or gs://"
            )
            raise SpecError(Problem("--resume" if resume else "--run-dir", "", message))
        folder = Path(tempfile.mkdtemp(prefix="lkd-tune-job-"))
        try:
            each = spaces.values()
            trees = ship_files(each, folder) if ship else absolute_paths(each)
            request = {
                "run": run,
                "resume": resume,
                "spaces": {
                    name: {
                        "name": space.source.name,
                        "tree": tree,
                        "places": [*space.source.places.items()],
                    }
                    for (name, space), tree in zip(spaces.items(), trees, strict=True)
                },
                "overrides": [*overrides],
                "allow_changed": allow_changed,
                "quiet": quiet,
            }
            (folder / "job.json").write_text(json.dumps(request), "utf-8")
            name = _job_name(run)
            with self._told():
                self._client.submit_job(
                    # No text of the user's is read by a shell: it is all in job.json.
                    entrypoint="exec python -m lkd_tune.jobs.driver",
                    submission_id=name,
                    runtime_env=_runtime_env(folder, cache),
                    metadata={_MARK: __version__, "run": run},
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return name

    def wait_for_begin(self, name: str) -> Job | None:
        """Returns None once a search has begun, or the job if that takes longer than `BEGIN_S`.

        Raises:
            SpecError: If it can't begin; with what the driver said.
        """
        deadline = time.monotonic() + BEGIN_S
        while True:
            job = self.job(name)
            with self._told():
                lines = self._client.get_job_logs(name).split("\n")
            if job.state == "SUCCEEDED" or {"event": BEGUN} in map(from_line, lines):
                return None
            if job.ended:
                said = [
                    Problem("", "", line.removeprefix("lkd-tune: "))
                    for line in lines
                    if line.startswith("lkd-tune: ")
                ]
                message = f"the search did not begin: {job.message.strip()[-600:]}"
                raise SpecError(said or Problem(name, "", message))
            if time.monotonic() > deadline:
                return job
            time.sleep(0.5)

    def jobs(self) -> list[Job]:
        """Returns all searches that were submitted to the cluster, the newest first."""
        with self._told():
            found = self._client.list_jobs()
        ours = [_job(each) for each in found if _MARK in (each.metadata or {})]
        return sorted(ours, key=lambda job: job.started or "9", reverse=True)

    def job(self, name: str) -> Job:
        """Returns a search by its name.

        Raises:
            SpecError: If there is no such job.
        """
        for job in self.jobs():
            if job.name == name:
                return job
        message = f"the cluster has no such search; `lkd-tune jobs --address {self.address}`"
        raise SpecError(Problem(name, "", f"{message} lists those it has"))

    def logs(self, name: str, *, follow: bool = False) -> Iterator[str]:
        """Gives what a search printed, as it comes if it is followed."""
        shown = 0
        while True:
            ended = self.job(name).ended  # before the log is read, so that its end is not missed
            with self._told():
                text = self._client.get_job_logs(name)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if ended or not follow:
                return
            # The server sends all of it each time.
            time.sleep(max(1.0, len(text) / _MOST_PER_S))

    def stop(self, name: str, wait: Callable[[], None] = lambda: None) -> Job:
        """Stops a search as Ctrl-C would; returns it when it has ended."""
        job = self.job(name)
        if not job.ended:
            with self._told():
                self._client.stop_job(name)
        while not (job := self.job(name)).ended:
            wait()
            time.sleep(0.5)
        return job

    def _told(self) -> _Told:
        return _Told(self.address)


class _Told:
    """Turns what the client raises into a `SpecError` that says what to do."""

    def __init__(self, address: str):
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import ray

        if error is None or isinstance(error, SpecError):
            return
        if isinstance(error, ray.exceptions.AuthenticationError):
            message = (
                "the cluster does not take this token; put the one of its head node "
                "(`ray get-auth-token` there) into RAY_AUTH_TOKEN or ~/.ray/auth_token here, "
                "and set RAY_AUTH_MODE=token"
            )
        elif isinstance(error, ConnectionError | OSError):
            message = "gives no answer; is the head node up, and its dashboard running?"
        elif isinstance(error, RuntimeError | ValueError):
            message = " ".join(str(error).split())[:400]
        else:
            return
        raise SpecError(Problem(self._address, "", message)) from None


def _client(address: str) -> Any:
    """Returns Ray's client, but it waits for no answer without end, and asks more than once."""
    import requests
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        answered = False

        def _do_request(self, method: str, endpoint: str, **arguments: Any) -> Any:
            asks = method == "GET"
            arguments["timeout"] = (_CONNECT_S, _ANSWER_S if asks else _TAKEN_S)
            # What was sent is not sent again: it may have arrived.
            deadline = time.monotonic() + (_PATIENCE_S if asks and self.answered else 0)
            while True:
                try:
                    answer = super()._do_request(method, endpoint, **arguments)
                except requests.RequestException:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(1)
                else:
                    self.answered = True
                    return answer

    return Client(address)


def _check_reachable(address: str) -> None:
    """Fails at once where Ray's client would wait for minutes."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"{address!r} is no address of a job server; it looks like http://HEAD:8265"
        raise SpecError(Problem("--address", "", message))
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        message = (
            f"{address} does not answer ({error}); give the address of the head's dashboard, "
            "which serves jobs too (port 8265), or a tunnel to it: ssh -L 8265:localhost:8265 HEAD"
        )
        raise SpecError(Problem("--address", "", message)) from None


def _runtime_env(folder: Path, cache: str | None) -> dict[str, Any]:
    package = Path(__file__).parents[1]
    variables = {
        # A search that is stopped ends its trials and writes what it knows before it goes.
        "RAY_JOB_STOP_SIGNAL": "SIGTERM",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        EVENTS_VARIABLE: "1",
    }
    if cache is not None:
        variables["LKD_TUNE_CACHE"] = cache
    return {
        "working_dir": str(folder),
        # The client's own package, so that the cluster runs the very version that was asked.
        "py_modules": [str(package)],
        "excludes": ["__pycache__/"],
        "env_vars": variables,
    }


def _job_name(run: str) -> str:
    word = re.sub(r"[^A-Za-z0-9-]+", "-", Path(run).name).strip("-")[:40] or "run"
    return f"{word}-{secrets.token_hex(3)}"


def _job(details: Any) -> Job:
    began = details.start_time
    return Job(
        name=details.submission_id,
        state=str(getattr(details.status, "value", details.status)),
        run=details.metadata.get("run", ""),
        started=datetime.fromtimestamp(began / 1000, UTC).isoformat(timespec="seconds")
        if began
        else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
