"""Searches as jobs of a Ray cluster: submitted, followed and stopped through its job server."""

from __future__ import annotations

import json
import logging
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

from lkd_tune.cluster.ray import quieten_ray
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.uri import is_uri
from lkd_tune.jobs.uploads import ship_files
from lkd_tune.storage.local_files import absolute_paths
from lkd_tune.storage.object_store import Store
from lkd_tune.tuning.progress.events import event_from_line
from lkd_tune.tuning.progress.view import BEGUN, EVENTS_VARIABLE
from lkd_tune.version import __version__

# A search starts within about ten seconds on an idle cluster; after this it waits for something.
START_S = 120.0
_CONNECT_TIMEOUT_S = 5.0
# Of requests that read, and of requests that upload or start something.
_READ_TIMEOUT_S, _WRITE_TIMEOUT_S = 20.0, 120.0
# How long a lost connection is retried: until a tunnel is up again, or a laptop is awake.
_RETRY_S = 45.0
# Limits how often a log that is followed is read, as each answer is the whole log.
_LOG_CHARACTERS_PER_S = 200_000
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# Key of the metadata of jobs that are searches.
_METADATA_KEY = "lkd_tune"


@dataclass(frozen=True)
class Job:
    """A submitted search.

    Attributes:
        name: The argument of `logs` and `stop`.
        state: Ray's state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        run: The run's folder on the cluster.
        started: UTC, ISO 8601; None while it waits.
        exit_code: Exit code of the driver, as of `lkd-tune search`; None while it runs, or if the
            driver was lost.
        message: Ray's explanation of the state.
    """

    name: str
    state: str
    run: str
    started: str | None
    exit_code: int | None
    message: str

    @property
    def ended(self) -> bool:
        """Whether the job has succeeded, failed or was stopped."""
        return self.state in _ENDED


class JobServer:
    """The job server of a cluster.

    Args:
        address: `http://HEAD:8265`.

    Raises:
        SpecError: If there is no server, it refuses the token, or its version of Ray differs.
    """

    def __init__(self, address: str):
        self.address = address
        _check_reachable(address)
        quieten_ray()
        # Ray prefers addresses in its variables, RAY_ADDRESS too, to the argument.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        import ray

        with self._errors_explained():
            self._client = _client(address)
            self._client.list_jobs()  # the first request that needs the token
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
        """Submits a search; returns the name of the job.

        Args:
            run: The run's folder, absolute and shared by all nodes, or its address. If the run
                exists, the job resumes it.
            spaces: The space with the key ''; or one for each of several tasks, by the task's
                name; or none, to resume the run with its own space.
            resume: Whether the run has to exist.
            overrides: Changed settings of a run that is resumed with its own space.
            allow_changed: Whether a run that exists applies those changes that a run may take.
            quiet: Shows no progress.
            ship: Uploads local data and models to the run's folder.
            cache: LKD_TUNE_CACHE on the cluster.

        Raises:
            SpecError: If the run is not an absolute path, or the upload is too large.
        """
        if is_uri(run):
            run = Store(run).address  # refuses an address with a secret in it
        if ship and is_uri(run):
            message = (
                f"files can't be uploaded to {run}; put them where all nodes see them, or set "
                "--run-dir to a folder that all nodes share"
            )
            raise SpecError(Problem("--ship", "", message))
        if not os.path.isabs(run) and not is_uri(run):
            message = (
                f"{run!r} is not absolute; give a folder that every node of the cluster sees, or "
                "an address in an object store, s3:// or gs://"
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
            with self._errors_explained():
                self._client.submit_job(
                    # No shell reads the user's text: it is all in job.json.
                    entrypoint="exec python -m lkd_tune.cli.job_driver",
                    submission_id=name,
                    runtime_env=_runtime_env(folder, cache),
                    metadata={_METADATA_KEY: __version__, "run": run},
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return name

    def wait_for_start(self, name: str) -> Job | None:
        """Returns None when a search has started, or the job if that takes longer than `START_S`.

        Raises:
            SpecError: If it can't start, with the driver's messages.
        """
        deadline = time.monotonic() + START_S
        while True:
            job = self.job(name)
            with self._errors_explained():
                lines = self._client.get_job_logs(name).split("\n")
            if job.state == "SUCCEEDED" or {"event": BEGUN} in map(event_from_line, lines):
                return None
            if job.ended:
                problems = [
                    Problem("", "", line.removeprefix("lkd-tune: "))
                    for line in lines
                    if line.startswith("lkd-tune: ")
                ]
                message = f"the search did not start: {job.message.strip()[-600:]}"
                raise SpecError(problems or Problem(name, "", message))
            if time.monotonic() > deadline:
                return job
            time.sleep(0.5)

    def jobs(self) -> list[Job]:
        """Returns all searches that were submitted to the cluster, newest first."""
        with self._errors_explained():
            found = self._client.list_jobs()
        ours = [_job(each) for each in found if _METADATA_KEY in (each.metadata or {})]
        return sorted(ours, key=lambda job: job.started or "9", reverse=True)

    def job(self, name: str) -> Job:
        """Returns a search by its name.

        Raises:
            SpecError: If there is no such job.
        """
        for job in self.jobs():
            if job.name == name:
                return job
        listing = f"`lkd-tune jobs --address {self.address}` lists those it has"
        raise SpecError(Problem(name, "", f"the cluster has no such search; {listing}"))

    def logs(self, name: str, *, follow: bool = False) -> Iterator[str]:
        """Yields the output of a search; with `follow` as it comes, until the search ends."""
        shown = 0
        while True:
            ended = self.job(
                name
            ).ended  # checked before the log is read, so that its end is not missed
            with self._errors_explained():
                text = self._client.get_job_logs(name)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if ended or not follow:
                return
            time.sleep(max(1.0, len(text) / _LOG_CHARACTERS_PER_S))

    def stop(self, name: str, wait: Callable[[], None] = lambda: None) -> Job:
        """Stops a search as Ctrl-C would; returns the job when it has ended.

        Args:
            name: The job.
            wait: Called every half second until then.
        """
        job = self.job(name)
        if not job.ended:
            with self._errors_explained():
                self._client.stop_job(name)
        while not (job := self.job(name)).ended:
            wait()
            time.sleep(0.5)
        return job

    def _errors_explained(self) -> _ErrorsExplained:
        return _ErrorsExplained(self.address)


class _ErrorsExplained:
    """Turns an error of Ray's client into a `SpecError` that says what to do; a context."""

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
                "the cluster refuses this token; run `ray get-auth-token` on its head node, put "
                "the output into RAY_AUTH_TOKEN or ~/.ray/auth_token here, and set "
                "RAY_AUTH_MODE=token"
            )
        elif isinstance(error, ConnectionError | OSError):
            message = "does not answer; check that the head node is up and its dashboard is running"
        elif "No available agent" in str(error):
            message = (
                "no agent of the cluster can start jobs; another Ray on the head's machine may "
                "have the agent's port: start the head with `ray start --head "
                "--dashboard-agent-listen-port=PORT`, where PORT is free"
            )
        elif isinstance(error, RuntimeError | ValueError):
            message = " ".join(str(error).split())[:400]
        else:
            return
        raise SpecError(Problem(self._address, "", message)) from None


def _client(address: str) -> Any:
    """Returns Ray's client with timeouts, which retries requests that only read."""
    import requests
    from ray.job_submission import JobSubmissionClient

    modules = "ray.dashboard.modules"
    for name in ("ray", f"{modules}.dashboard_sdk", f"{modules}.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # importing them has set it to INFO

    class Client(JobSubmissionClient):
        has_answered = False

        def _do_request(self, method: str, endpoint: str, **arguments: Any) -> Any:
            reads = method == "GET"
            timeout_s = _READ_TIMEOUT_S if reads else _WRITE_TIMEOUT_S
            arguments["timeout"] = (_CONNECT_TIMEOUT_S, timeout_s)
            # Other requests are not repeated: the first one may have arrived.
            deadline = time.monotonic() + (_RETRY_S if reads and self.has_answered else 0)
            while True:
                try:
                    answer = super()._do_request(method, endpoint, **arguments)
                except requests.RequestException:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(1)
                else:
                    self.has_answered = True
                    return answer

    return Client(address)


def _check_reachable(address: str) -> None:
    """Raises an error immediately if Ray's client would wait for minutes."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"{address!r} is not the address of a job server, such as http://HEAD:8265"
        raise SpecError(Problem("--address", "", message))
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        message = (
            f"{address} does not answer ({error}); give the address of the head's dashboard, "
            "which also serves jobs (port 8265), or a tunnel to it: ssh -L 8265:localhost:8265 HEAD"
        )
        raise SpecError(Problem("--address", "", message)) from None


def _runtime_env(folder: Path, cache: str | None) -> dict[str, Any]:
    package = Path(__file__).parents[1]
    variables = {
        # Time for a search that is stopped to end its trials and write its results.
        "RAY_JOB_STOP_SIGNAL": "SIGTERM",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        EVENTS_VARIABLE: "1",
    }
    if cache is not None:
        variables["LKD_TUNE_CACHE"] = cache
    return {
        "working_dir": str(folder),
        # The client's own package, so that the cluster runs the same version.
        "py_modules": [str(package)],
        "excludes": ["__pycache__/"],
        "env_vars": variables,
    }


def _job_name(run: str) -> str:
    word = re.sub(r"[^A-Za-z0-9-]+", "-", Path(run).name).strip("-")[:40] or "run"
    return f"{word}-{secrets.token_hex(3)}"


def _job(details: Any) -> Job:
    started_ms = details.start_time
    return Job(
        name=details.submission_id,
        state=str(getattr(details.status, "value", details.status)),
        run=details.metadata.get("run", ""),
        started=datetime.fromtimestamp(started_ms / 1000, UTC).isoformat(timespec="seconds")
        if started_ms
        else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )
