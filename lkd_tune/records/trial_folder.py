"""A trial's folder: its checkpoint, its student until that is kept or dropped, and its end.

What has its final name there is whole: folders are written under a name with a dot, have all of
their files on the disk, and are then renamed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import append_line, atomic_folder, remove_folder, write_atomically
from lkd_tune.records.bad_example import BadExample
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.progress_file import pace_in
from lkd_tune.records.run import Ending, Outcome, read_measurements
from lkd_tune.records.size import ModelSize

_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: Its folder.
        step: The optimizer step it was written at.
        wall_s: Seconds that the trial had taken by then.
        worker_s: These seconds times the workers that it had, which may have changed.
    """

    path: Path
    step: int
    wall_s: float
    worker_s: float


@dataclass(frozen=True)
class TrialFolder:
    """What a search writes for one trial, beside its measurements."""

    path: Path

    @property
    def student(self) -> Path:
        """The finished student, until it is kept or dropped."""
        return self.path / "student"

    @property
    def pace(self) -> Path:
        """The file that tells how far the trial is between its measurements, while it runs."""
        return pace_in(self.path)

    def write_spec(self, spec: TrialSpec) -> None:
        """Writes spec.json, which makes the trial known to readers of the run."""
        write_atomically(self.path / "spec.json", spec.to_json())

    def read_spec(self) -> TrialSpec | None:
        """Returns what spec.json holds, None before there is one."""
        try:
            return TrialSpec.from_record((self.path / "spec.json").read_text("utf-8"))
        except FileNotFoundError:
            return None

    def write_origin(self, origin: str) -> None:
        """Notes where the trial's settings are from, if no sampler drew them."""
        write_atomically(self.path / "origin", origin)

    def read_accumulation(self) -> int:
        """Returns into how many parts micro-batches are cut, as memory was short; else 1."""
        path = self.path / "accumulation"
        return int(path.read_text("utf-8")) if path.exists() else 1

    def write_accumulation(self, parts: int) -> None:
        """Notes into how many parts micro-batches are to be cut from now on."""
        write_atomically(self.path / "accumulation", str(parts))

    def read_bad_examples(self) -> list[BadExample]:
        """Returns the training examples that were found to be bad so far."""
        path = self.path / "bad_examples.json"
        if not path.exists():
            return []
        return [BadExample(**bad) for bad in json.loads(path.read_text("utf-8"))]

    def add_bad_examples(self, found: Iterable[BadExample]) -> None:
        """Adds training examples to bad_examples.json, each of them once."""
        known = {bad.example: bad for bad in (*self.read_bad_examples(), *found)}
        facts = [known[example].model_dump() for example in sorted(known)]
        write_atomically(self.path / "bad_examples.json", json.dumps(facts, indent=2))

    def read_size(self) -> ModelSize | None:
        """Returns what the student's architecture costs, None if that was not measured yet."""
        try:
            return ModelSize.model_validate_json((self.path / "size.json").read_text("utf-8"))
        except FileNotFoundError:
            return None

    def write_size(self, size: ModelSize) -> None:
        """Writes what the student's architecture costs."""
        write_atomically(self.path / "size.json", size.model_dump_json(indent=2))

    def read_fine_tuned(self) -> Measurement | None:
        """Returns the end of the fine-tuning that scores the trial, None if that is not done."""
        try:
            text = (self.path / "fine_tuned.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        return Measurement.model_validate_json(text)

    def write_fine_tuned(self, measurement: Measurement) -> None:
        """Writes the end of the fine-tuning that scores the trial."""
        write_atomically(self.path / "fine_tuned.json", measurement.model_dump_json(indent=2))

    def note_start(self, facts: dict[str, Any]) -> None:
        """Adds a line that says where the trial begins or goes on: its `workers`, and more."""
        append_line(self.path / "workers.jsonl", json.dumps(facts))

    def read_start(self) -> dict[str, Any] | None:
        """Returns what was noted when the trial was started last, None if nothing is known here."""
        path = self.path / "workers.jsonl"
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        return json.loads(lines[-1]) if lines else None

    def read_nodes(self) -> set[str]:
        """Returns the nodes on which the trial was started last, none if that is not known here."""
        start = self.read_start()
        return {worker["node"] for worker in start["workers"]} if start else set()

    def note_full_disk(self, told: str) -> None:
        """Notes, if there is room for it, that a worker ends as it has none on a disk."""
        with contextlib.suppress(OSError):
            write_atomically(self.path / "full_disk", told)

    def take_full_disk(self) -> str | None:
        """Returns and forgets what was noted so."""
        path = self.path / "full_disk"
        if not path.exists():
            return None
        told = path.read_text("utf-8")
        path.unlink()
        return told

    def read_checkpoint(self) -> Checkpoint | None:
        """Returns the newest whole checkpoint."""
        found = {}
        for path in self.path.glob(f"{_PREFIX}*"):
            if path.name.removeprefix(_PREFIX).isdigit():
                found[int(path.name.removeprefix(_PREFIX))] = path
        if not found:
            return None
        newest = found[max(found)]
        facts = json.loads((newest / "trial.json").read_text("utf-8"))
        return Checkpoint(newest, max(found), facts["wall_s"], facts["worker_s"])

    def waits_at(self, halvings: int) -> bool:
        """Whether the trial has nothing to do before so many halvings of its steps are passed."""
        checkpoint = self.read_checkpoint()
        if checkpoint is None or halvings == 0:
            return False
        measured = {m.step: m for m in read_measurements(self.path)}
        return measured[checkpoint.step].halvings <= halvings

    @contextmanager
    def new_checkpoint(self, step: int, wall_s: float, worker_s: float) -> Iterator[Path]:
        """Gives a folder to write into; afterwards it is the trial's only checkpoint."""
        final = self.path / f"{_PREFIX}{step}"
        with atomic_folder(final) as folder:
            yield folder
            facts = {"wall_s": wall_s, "worker_s": worker_s}
            (folder / "trial.json").write_text(json.dumps(facts), "utf-8")
        for path in self.path.glob(f"{_PREFIX}*"):
            if path != final:
                remove_folder(path)

    @contextmanager
    def new_student(self) -> Iterator[Path]:
        """Gives a folder to write into; afterwards it is the trial's student."""
        with atomic_folder(self.student) as folder:
            yield folder

    def remove_checkpoints(self) -> None:
        """Removes all checkpoints, and what else only a trial that runs has or a crash left."""
        self.pace.unlink(missing_ok=True)
        for path in self.path.glob(f"{_PREFIX}*"):
            remove_folder(path)
        for path in self.path.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def read_outcome(self) -> Outcome | None:
        """Returns how the trial ended, None if it has not."""
        try:
            return Outcome.model_validate_json((self.path / "outcome.json").read_text("utf-8"))
        except FileNotFoundError:
            return None

    def write_outcome(self, outcome: Outcome, trace: str | None = None) -> None:
        """Writes how the trial ended, and the traceback of a failure into error.txt."""
        if trace is not None:
            write_atomically(self.path / "error.txt", trace)
        write_atomically(self.path / "outcome.json", outcome.model_dump_json(indent=2))

    def write_test_metrics(self, metrics: dict[str, float]) -> None:
        """Writes the metrics on test, which the winner and the baseline have."""
        write_atomically(self.path / "test.json", json.dumps(metrics, indent=2))


def outcome_of(
    state: Ending,
    resources: ResourceSettings,
    wall_s: float,
    error: str | None = None,
    *,
    worker_s: float | None = None,
) -> Outcome:
    """Returns an outcome with the cost of holding a trial's resources for `wall_s` seconds.

    Args:
        state: How the trial ended.
        resources: What each of its workers had.
        wall_s: Seconds from its start to its end.
        error: Why it was refused or failed.
        worker_s: These seconds times workers; none: it had as many from start to end.
    """
    if worker_s is None:
        worker_s = wall_s * resources.workers
    return Outcome(
        state=state,
        error=error,
        wall_s=wall_s,
        gpu_s=worker_s * resources.gpus,
        cpu_s=worker_s * resources.cpus,
    )
