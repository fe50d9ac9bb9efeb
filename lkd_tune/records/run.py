"""One run, one folder: where everything of a search lies, and how it is read and written.

RUN/
  space.yaml        the space with overrides applied
  manifest.json     versions, seed, hardware, teacher and its scores, seconds used so far
  study.journal     Optuna's storage
  ray/              Ray Tune's own
  trials/0007/      spec.json, size.json, measurements.jsonl, workers.jsonl, outcome.json;
                    checkpoint-<step>/ and .pace while it runs, then student/ until that is kept or
                    dropped; origin, accumulation, bad_examples.json, fine_tuned.json, test.json,
                    error.txt where there is anything to tell
  teacher/          measurements.jsonl of a teacher that is trained first; its model, for a cluster
  latencies/        of each architecture on each device, timed once
  confirmation.json the best trials again with other seeds
  population.json   who took over whom, with `search.scheduler: pbt`
  ablation.json     the best trial again without each of its loss terms
  students/0007/    a kept student: a Hugging Face folder and student.json
  leaderboard.csv, leaderboard.json
  report/           report.html, and each of its plots as SVG and PNG
  tensorboard/, wandb/, trackers.json   what trackers were told, and what they have all of
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import append_line
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.size import ModelSize

Ending = Literal["complete", "stopped", "refused", "failed"]
State = Literal["running", "complete", "stopped", "refused", "failed"]
BASELINE = "baseline"


class Outcome(BaseModel):
    """How a trial ended, and what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    state: Ending
    """complete: reached its last step; stopped: by the scheduler; refused: above a limit, so it
    did not train; failed: see `error`."""
    error: str | None = None
    """The reason of a refusal or a failure, in one line; the traceback of a failure is in
    error.txt beside it."""
    diverged: bool = False
    """Whether it failed by its settings: a loss was not finite. The sampler learns it."""
    wall_s: float = 0.0
    """Seconds from the trial's start to its end, evaluations included."""
    gpu_s: float = 0.0
    """Seconds times GPUs held."""
    cpu_s: float = 0.0
    """Seconds times CPU cores held."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as its folder tells it.

    Attributes:
        name: `0007` for the seventh trial after the first, or `baseline`.
        spec: What was run.
        measurements: All so far, by step.
        outcome: None while it runs, or after a crash until it is resumed.
        kept: Whether its student is kept.
        size: What its architecture costs, None before that was measured.
        origin: Where its settings are from if no sampler drew them: `published`, or the trial of
            another run that the search was started from.
        accumulation: Into how many parts its micro-batches were cut, as memory was short.
        fine_tuned: The end of its student's fine-tuning on `evaluate_on`.
    """

    name: str
    spec: TrialSpec
    measurements: tuple[Measurement, ...]
    outcome: Outcome | None
    kept: bool
    size: ModelSize | None = None
    origin: str | None = None
    accumulation: int = 1
    fine_tuned: Measurement | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether it is one of the search, and not made for comparison like the baseline."""
        return self.name.isdigit()

    @property
    def state(self) -> State:
        """`running` until there is an outcome."""
        return self.outcome.state if self.outcome else "running"

    @property
    def score(self) -> float | None:
        """Score of the last measurement; with `evaluate_on` that of the fine-tuned student.

        Then it is None until there is that: what a trial measures on the way is something else.
        """
        if self.spec.evaluate_on is not None:
            return self.fine_tuned.score if self.fine_tuned else None
        return self.measurements[-1].score if self.measurements else None


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and reading and writing what lies there.

    Attributes:
        path: Its folder.
        home: Where that is mirrored to, as `s3://bucket/runs/first`; None: the folder is all.
    """

    path: Path
    home: str | None = None

    @property
    def where(self) -> str:
        """The run's place as a user names it."""
        return self.home or str(self.path)

    def absolute(self) -> RunFolder:
        """Returns the same run by its absolute path."""
        return RunFolder(self.path.absolute(), self.home)

    def below(self, name: str) -> RunFolder:
        """Returns the run of that name inside of this folder."""
        return RunFolder(self.path / name, self.home and f"{self.home}/{name}")

    @property
    def space(self) -> Path:
        """The space file as it was run."""
        return self.path / "space.yaml"

    @property
    def manifest(self) -> Path:
        """Facts about the run as JSON."""
        return self.path / "manifest.json"

    @property
    def study(self) -> Path:
        """Optuna's journal."""
        return self.path / "study.journal"

    @property
    def students(self) -> Path:
        """The folder of kept students."""
        return self.path / "students"

    @property
    def latencies(self) -> Path:
        """The folder of latencies, one file for each architecture on each device."""
        return self.path / "latencies"

    @property
    def confirmation(self) -> Path:
        """What the best trials gave with other seeds, as JSON."""
        return self.path / "confirmation.json"

    @property
    def ablation(self) -> Path:
        """What the best trial gave without each of its loss terms, as JSON."""
        return self.path / "ablation.json"

    @property
    def population(self) -> Path:
        """Which trials of a population went on as copies of others, as JSON."""
        return self.path / "population.json"

    @property
    def report(self) -> Path:
        """The folder of the page and its plots."""
        return self.path / "report"

    @property
    def leaderboard_csv(self) -> Path:
        """One row a trial."""
        return self.path / "leaderboard.csv"

    @property
    def leaderboard_json(self) -> Path:
        """The same as JSON, with the run's facts."""
        return self.path / "leaderboard.json"

    def trial(self, name: str) -> Path:
        """Returns the folder of a trial."""
        return self.path / "trials" / name

    def student(self, name: str) -> Path:
        """Returns the folder of a kept student."""
        return self.students / name

    def read_manifest(self) -> dict[str, Any]:
        """Returns the manifest.

        Raises:
            SpecError: If the folder is not that of a run.
        """
        try:
            return json.loads(self.manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            message = "is no run folder: it has no manifest.json"
            raise SpecError(Problem(self.where, "", message)) from None
        except (OSError, json.JSONDecodeError) as error:
            raise SpecError(Problem(str(self.manifest), "", f"can't be read: {error}")) from None

    def read_confirmation(self) -> list[dict[str, Any]]:
        """Returns what the best trials gave with other seeds, best first; [] before that."""
        if not self.confirmation.exists():
            return []
        return json.loads(self.confirmation.read_text("utf-8"))["trials"]

    def read_trials(self) -> list[TrialRecord]:
        """Returns all trials that were started, by name; the baseline comes last."""
        folders = sorted((self.path / "trials").glob("*/spec.json"))
        return [self.read_trial(spec.parent.name) for spec in folders]

    def read_trial(self, name: str) -> TrialRecord:
        """Returns one trial."""
        folder = self.trial(name)
        outcome, size, origin = folder / "outcome.json", folder / "size.json", folder / "origin"
        accumulation = folder / "accumulation"
        fine_tuned = folder / "fine_tuned.json"
        return TrialRecord(
            name=name,
            spec=TrialSpec.from_record((folder / "spec.json").read_text("utf-8")),
            measurements=tuple(read_measurements(folder)),
            outcome=Outcome.model_validate_json(outcome.read_text("utf-8"))
            if outcome.exists()
            else None,
            kept=(self.student(name) / "student.json").exists(),
            size=ModelSize.model_validate_json(size.read_text("utf-8")) if size.exists() else None,
            origin=origin.read_text("utf-8") if origin.exists() else None,
            accumulation=int(accumulation.read_text("utf-8")) if accumulation.exists() else 1,
            fine_tuned=Measurement.model_validate_json(fine_tuned.read_text("utf-8"))
            if fine_tuned.exists()
            else None,
        )


def read_measurements(trial: Path) -> list[Measurement]:
    """Returns a trial's measurements by step.

    A line cut off by a crash is left out; of a step that was measured twice (once before the
    crash, once after resuming from an earlier checkpoint) the later one counts.
    """
    path = trial / "measurements.jsonl"
    if not path.exists():
        return []
    by_step: dict[int, Measurement] = {}
    for line in path.read_text("utf-8").split("\n")[:-1]:
        measurement = Measurement.model_validate_json(line)
        by_step[measurement.step] = measurement
    return [by_step[step] for step in sorted(by_step)]


def append_measurement(trial: Path, measurement: Measurement) -> None:
    """Adds a line to a trial's measurements."""
    append_line(trial / "measurements.jsonl", measurement.model_dump_json())
