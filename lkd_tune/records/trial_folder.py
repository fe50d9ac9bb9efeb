"""The folder of one trial: its files, its checkpoint, and its student until that is kept.

Checkpoints and students under their final name are complete: they are written under a name that
starts with a dot, flushed to the disk, and then renamed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import append_line, atomic_folder, remove_folder, write_atomically
from lkd_tune.records.measurement import BadExample, Measurement, ModelSize
from lkd_tune.records.progress_file import progress_path
from lkd_tune.records.trial_record import Outcome, TrialRecord

_CHECKPOINT_PREFIX = "checkpoint-"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: Its folder.
        step: The optimizer step at which it was written.
        wall_s: Seconds that the trial had taken by then.
        worker_s: The same summed over the workers, whose number may have changed.
    """

    path: Path
    step: int
    wall_s: float
    worker_s: float


@dataclass(frozen=True)
class TrialFolder:
    """Reads and writes the files of one trial, except its measurements.

    Methods that read return None if there is no such file.
    """

    path: Path

    @property
    def student(self) -> Path:
        """The folder of the finished student, until it is kept or dropped."""
        return self.path / "student"

    @property
    def progress(self) -> Path:
        """The file with the trial's progress between two measurements, while it runs."""
        return progress_path(self.path)

    def read_record(self, *, kept: bool) -> TrialRecord:
        """Returns the trial as plain data.

        Args:
            kept: Whether its student is kept, which is not recorded in the trial's folder.

        Raises:
            FileNotFoundError: If there is no spec.json.
        """
        return TrialRecord(
            name=self.path.name,
            spec=TrialSpec.from_record((self.path / "spec.json").read_text("utf-8")),
            measurements=tuple(read_measurements(self.path)),
            outcome=self.read_outcome(),
            kept=kept,
            size=self.read_size(),
            origin=self.read_origin(),
            accumulation=self.read_accumulation(),
            fine_tuned=self.read_fine_tuned(),
        )

    def read_spec(self) -> TrialSpec | None:
        """Returns the trial's settings."""
        text = self._read_text("spec.json")
        return TrialSpec.from_record(text) if text is not None else None

    def write_spec(self, spec: TrialSpec) -> None:
        """Writes the trial's settings; from then on the trial belongs to its run."""
        self._write("spec.json", spec.to_json())

    def read_origin(self) -> str | None:
        """Returns where the trial's settings come from; None if a sampler drew them."""
        return self._read_text("origin")

    def write_origin(self, origin: str) -> None:
        """Writes where the trial's settings come from, if no sampler drew them."""
        self._write("origin", origin)

    def read_accumulation(self) -> int:
        """Returns the number of parts that micro-batches are split into; 1 without splitting."""
        parts = self._read_text("accumulation")
        return int(parts) if parts is not None else 1

    def write_accumulation(self, parts: int) -> None:
        """Writes the number of parts that micro-batches are split into from now on."""
        self._write("accumulation", str(parts))

    def read_bad_examples(self) -> list[BadExample]:
        """Returns the bad training examples that were found so far."""
        text = self._read_text("bad_examples.json")
        return [BadExample(**bad) for bad in json.loads(text)] if text is not None else []

    def add_bad_examples(self, found: Iterable[BadExample]) -> None:
        """Adds bad training examples; each example is listed once."""
        known = {bad.example: bad for bad in (*self.read_bad_examples(), *found)}
        facts = [known[example].model_dump() for example in sorted(known)]
        self._write("bad_examples.json", json.dumps(facts, indent=2))

    def read_size(self) -> ModelSize | None:
        """Returns what the student's architecture costs."""
        return self._read_model("size.json", ModelSize)

    def write_size(self, size: ModelSize) -> None:
        """Writes what the student's architecture costs."""
        self._write("size.json", size.model_dump_json(indent=2))

    def read_fine_tuned(self) -> Measurement | None:
        """Returns the last measurement of the fine-tuning that scores the trial."""
        return self._read_model("fine_tuned.json", Measurement)

    def write_fine_tuned(self, measurement: Measurement) -> None:
        """Writes the last measurement of the fine-tuning that scores the trial."""
        self._write("fine_tuned.json", measurement.model_dump_json(indent=2))

    def append_start(self, facts: dict[str, Any]) -> None:
        """Appends facts about a start or a resumption of the trial, such as its `workers`."""
        append_line(self.path / "workers.jsonl", json.dumps(facts))

    def read_last_start(self) -> dict[str, Any] | None:
        """Returns the facts about the last start."""
        text = self._read_text("workers.jsonl") or ""
        lines = text.split("\n")[:-1]
        return json.loads(lines[-1]) if lines else None

    def read_nodes(self) -> set[str]:
        """Returns the nodes of the last start; the empty set if they are unknown here."""
        start = self.read_last_start()
        return {worker["node"] for worker in start["workers"]} if start else set()

    def write_full_disk(self, message: str) -> None:
        """Writes why a worker ends because of a full disk, if there is room for the message."""
        with contextlib.suppress(OSError):
            self._write("full_disk", message)

    def pop_full_disk(self) -> str | None:
        """Returns that message and removes it."""
        message = self._read_text("full_disk")
        if message is not None:
            (self.path / "full_disk").unlink()
        return message

    def read_checkpoint(self) -> Checkpoint | None:
        """Returns the newest complete checkpoint."""
        found = {}
        for path in self.path.glob(f"{_CHECKPOINT_PREFIX}*"):
            step = path.name.removeprefix(_CHECKPOINT_PREFIX)
            if step.isdigit():
                found[int(step)] = path
        if not found:
            return None
        newest = found[max(found)]
        facts = json.loads((newest / "trial.json").read_text("utf-8"))
        return Checkpoint(newest, max(found), facts["wall_s"], facts["worker_s"])

    @contextmanager
    def new_checkpoint(self, step: int, wall_s: float, worker_s: float) -> Iterator[Path]:
        """Gives a folder to write to, which becomes the trial's only checkpoint.

        Args:
            step: The optimizer step.
            wall_s: Seconds that the trial has taken so far.
            worker_s: The same summed over its workers.
        """
        final = self.path / f"{_CHECKPOINT_PREFIX}{step}"
        with atomic_folder(final) as folder:
            yield folder
            facts = {"wall_s": wall_s, "worker_s": worker_s}
            (folder / "trial.json").write_text(json.dumps(facts), "utf-8")
        for path in self.path.glob(f"{_CHECKPOINT_PREFIX}*"):
            if path != final:
                remove_folder(path)

    @contextmanager
    def new_student(self) -> Iterator[Path]:
        """Gives a folder to write to, which becomes the trial's student."""
        with atomic_folder(self.student) as folder:
            yield folder

    def remove_checkpoints(self) -> None:
        """Removes all checkpoints, the progress file, and drafts that a crash has left."""
        self.progress.unlink(missing_ok=True)
        for path in self.path.glob(f"{_CHECKPOINT_PREFIX}*"):
            remove_folder(path)
        for path in self.path.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def read_outcome(self) -> Outcome | None:
        """Returns how the trial ended."""
        return self._read_model("outcome.json", Outcome)

    def write_outcome(self, outcome: Outcome, trace: str | None = None) -> None:
        """Writes how the trial ended, and the traceback of a failure to error.txt."""
        if trace is not None:
            self._write("error.txt", trace)
        self._write("outcome.json", outcome.model_dump_json(indent=2))

    def write_test_metrics(self, metrics: dict[str, float]) -> None:
        """Writes the metrics on test, of the winner and of what it is compared with."""
        self._write("test.json", json.dumps(metrics, indent=2))

    def read_test_metrics(self) -> dict[str, float] | None:
        """Returns the metrics on test."""
        text = self._read_text("test.json")
        return json.loads(text) if text is not None else None

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text)

    def _read_text(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text("utf-8")
        except FileNotFoundError:
            return None

    def _read_model(self, name: str, model: type[_Model]) -> _Model | None:
        text = self._read_text(name)
        return model.model_validate_json(text) if text is not None else None


def read_measurements(folder: Path) -> list[Measurement]:
    """Returns the measurements in a folder of a trial or a teacher, by step.

    A line that a crash cut off is left out. If a step was measured twice, before a crash and after
    resuming from an earlier checkpoint, the later measurement counts.
    """
    path = folder / "measurements.jsonl"
    if not path.exists():
        return []
    by_step: dict[int, Measurement] = {}
    for line in path.read_text("utf-8").split("\n")[:-1]:
        measurement = Measurement.model_validate_json(line)
        by_step[measurement.step] = measurement
    return [by_step[step] for step in sorted(by_step)]


def append_measurement(folder: Path, measurement: Measurement) -> None:
    """Appends a measurement to those in a folder of a trial or a teacher."""
    append_line(folder / "measurements.jsonl", measurement.model_dump_json())
