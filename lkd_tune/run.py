"""A run, as scripts and notebooks use it: what it found, and what to do with its students.

Heavy libraries are imported inside the methods, so that `import lkd_tune` is fast.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lkd_tune.config.trial import TrialSpec
    from lkd_tune.evaluation.compare import Comparison
    from lkd_tune.records.measurement import Measurement
    from lkd_tune.records.run import RunFolder
    from lkd_tune.tuning.ablation import AblationResult
    from lkd_tune.tuning.tuner import SearchResult


@dataclass(frozen=True)
class Run:
    """A run. Each method reads the current state of its folder, also while the search runs.

    Attributes:
        path: The run's folder.
    """

    path: Path

    @property
    def folder(self) -> RunFolder:
        """The paths in the run's folder, and the records of its trials."""
        from lkd_tune.records.run import RunFolder

        return RunFolder(self.path)

    @property
    def finished(self) -> bool:
        """Whether the search is finished; if not, `resume` continues it."""
        return self.folder.read_manifest().get("finished") is not None

    def leaderboard(self) -> list[dict[str, Any]]:
        """Returns a row for each trial, best first, with the columns of leaderboard.csv.

        `lkd_tune.results.leaderboard.Row` explains the columns. The weights of the loss terms are
        `weight_wr_pair`, ….

        Example:

            table = pandas.DataFrame(run.leaderboard())
        """
        from lkd_tune.results.leaderboard import flat_row
        from lkd_tune.results.leaderboard_files import read_leaderboard

        return [flat_row(row) for row in read_leaderboard(self.folder).rows]

    def measurements(self, trial: str | None = None) -> list[dict[str, Any]]:
        """Returns a row for each evaluation of a trial or of all trials, by trial and step.

        The columns are `trial` and the fields of `Measurement`, with `metric_accuracy`, … for the
        metrics on dev and `loss_wr_pair`, …, `loss_total` for the losses.

        Args:
            trial: A trial's name in the leaderboard, such as `0007`. Default: all trials, also
                those with other seeds and the ablations.

        Raises:
            SpecError: If the run has no such trial.
        """
        records = self.folder.read_trials()
        if trial is not None:
            self._check_name(trial)
            records = [record for record in records if record.name == trial]
        return [
            {"trial": record.name, **_flat_measurement(measurement)}
            for record in records
            for measurement in record.measurements
        ]

    def spec(self, trial: str) -> TrialSpec:
        """Returns the spec of a trial, with which `distill` runs it again.

        Args:
            trial: The trial's name in the leaderboard.

        Raises:
            SpecError: If the run has no such trial.
        """
        self._check_name(trial)
        return self.folder.read_trial(trial).spec

    def students(self) -> list[Path]:
        """Returns the folders of the kept students, best first."""
        from lkd_tune.results.leaderboard_files import read_leaderboard

        return [self.folder.student(row.name) for row in read_leaderboard(self.folder).kept]

    def load_best(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Returns the best student, in fp32 and in evaluation mode, and its tokenizer.

        Raises:
            SpecError: If the run has no student yet.
        """
        from lkd_tune.results.leaderboard_files import read_leaderboard
        from lkd_tune.results.models import best_student

        student = str(best_student(self.folder))
        from lkd_tune.models.loading import load_model, load_tokenizer  # loads torch

        return load_model(student, read_leaderboard(self.folder).head), load_tokenizer(student)

    def evaluate(
        self,
        split: str = "dev",
        *,
        data: str | os.PathLike[str] | None = None,
        overrides: Sequence[str] = (),
    ) -> dict[str, float]:
        """Returns the metrics of the best student, as `lkd-tune evaluate` does.

        Args:
            split: `dev` or `test`.
            data: A file to score in place of the split.
            overrides: Settings of the task to change, such as `task.columns.text=review`.

        Raises:
            SpecError: If the run has no student yet, or the data can't be loaded or do not fit it.

        Example:

            accuracy = load_run("runs/first").evaluate("test")["accuracy"]
        """
        from lkd_tune.results.models import best_student

        student = str(best_student(self.folder))
        from lkd_tune.evaluation.scoring import evaluate_model  # loads torch
        from lkd_tune.evaluation.task import evaluation_task

        task = evaluation_task(student, None, _path(data), split, overrides)
        return evaluate_model(student, task, splits=(split,))[split]

    def compare(
        self,
        other: str | os.PathLike[str] | None = None,
        split: str = "dev",
        *,
        data: str | os.PathLike[str] | None = None,
        overrides: Sequence[str] = (),
    ) -> Comparison:
        """Compares the best student with another model, as `lkd-tune compare` does.

        The other model is the first of the two: `gain` is the student's score minus its score.

        Args:
            other: The other model's folder or hub id. Default: the teacher.
            split: `dev` or `test`.
            data: A file to score in place of the split.
            overrides: Settings of the task to change.

        Raises:
            SpecError: If the run has no student yet, or models and data do not fit together.

        Example:

            found = load_run("runs/first").compare()
            print(found.gain, found.low, found.high)
        """
        from lkd_tune.results.models import best_student, teacher_and_best

        student = str(best_student(self.folder))
        first = os.fspath(other) if other is not None else teacher_and_best(self.folder)[0]
        from lkd_tune.evaluation.compare import compare_models  # loads torch
        from lkd_tune.evaluation.task import evaluation_task

        task = evaluation_task(student, None, _path(data), split, overrides)
        return compare_models((first, student), task, split=split)

    def export(
        self,
        to: str | os.PathLike[str],
        *,
        top: int = 1,
        formats: Sequence[str] = ("hf",),
        data: str | os.PathLike[str] | None = None,
    ) -> list[Path]:
        """Copies the best students to `to`/1, `to`/2, …, as `lkd-tune export` does.

        Args:
            to: A new folder.
            top: Number of students.
            formats: `hf`, which is always written, `onnx`, `onnx-int8`, `torch-export`.
            data: A folder with the run's data files, if they are no longer where they were.

        Returns:
            The folders, best first.

        Raises:
            SpecError: If the run has fewer students, `to` is not empty, or a format is unknown.
            FormatError: If a format's outputs differ from PyTorch's.

        Example:

            (folder,) = load_run("runs/first").export("student", formats=["onnx"])
        """
        from lkd_tune.export.formats import parse_formats
        from lkd_tune.export.students import export_students

        chosen = parse_formats(",".join(formats))
        return export_students(self.folder, top, Path(to), formats=chosen, data=_path(data))

    def report(self, compare: Sequence[Run | str | os.PathLike[str]] = ()) -> Path:
        """Writes the report and its plots, as `lkd-tune report` does; returns the page.

        Args:
            compare: Other runs, compared with it in a table.

        Raises:
            SpecError: If a folder is not a run's.

        Example:

            webbrowser.open(load_run("runs/first").report().absolute().as_uri())
        """
        from lkd_tune.records.run import RunFolder
        from lkd_tune.results.report.page import write_report

        others = [other.path if isinstance(other, Run) else Path(other) for other in compare]
        return write_report(self.folder, [RunFolder(other) for other in others])

    def ablate(
        self, seeds: int = 1, *, address: str | None = None, quiet: bool = False
    ) -> AblationResult:
        """Trains the winner without each of its loss terms, as `lkd-tune ablate` does.

        Nothing is trained twice, so a further call continues one that was interrupted.

        Args:
            seeds: Seeds for each term. 1: the winner's own seed, which is biased, as the search
                selected the winner by it; more: the seeds after it.
            address: As for `search`.
            quiet: Whether to print nothing.

        Raises:
            SpecError: If the run has no complete trial, or its winner has only one term.

        Example:

            for entry in load_run("runs/first").ablate(seeds=3).summary["entries"]:
                print(entry["removed"], entry["difference"])
        """
        from lkd_tune.tuning.ablation import ablate

        return ablate(self.folder, seeds=seeds, address=address, quiet=quiet)

    def resume(
        self, overrides: Sequence[str] = (), *, address: str | None = None, quiet: bool = False
    ) -> Run:
        """Continues the search where it ended or was interrupted; returns the same run.

        Args:
            overrides: Settings to change, out of those that may change in a run.
            address: As for `search`.
            quiet: Whether to print nothing.

        Raises:
            SpecError: If a changed setting must not change, or for the reasons of `search`.

        Example:

            run = load_run("runs/first").resume(["search.trials=64"])
        """
        from lkd_tune.tuning.tuner import resume_search

        result = resume_search(self.folder, address=address, quiet=quiet, overrides=overrides)
        return write_result(result)

    def _repr_html_(self) -> str:
        """Returns the leaderboard, which a notebook shows for a run."""
        from lkd_tune.results.html_table import leaderboard_html
        from lkd_tune.results.leaderboard_files import read_leaderboard

        return leaderboard_html(read_leaderboard(self.folder))

    def _check_name(self, trial: str) -> None:
        from lkd_tune.config.errors import Problem, SpecError, did_you_mean

        names = [path.parent.name for path in self.path.glob("trials/*/spec.json")]
        if trial not in names:
            message = f"has no trial {trial!r}{did_you_mean(trial, sorted(names))}"
            raise SpecError(Problem(str(self.path), "", message))


def write_result(result: SearchResult) -> Run:
    """Writes the leaderboard of a search; returns its run."""
    from lkd_tune.results.leaderboard_files import write_leaderboard

    if result.disk_full:
        warnings.warn(f"the search stopped: {result.disk_full}", stacklevel=3)
    write_leaderboard(result.run)
    return Run(result.run.path)


def _path(data: str | os.PathLike[str] | None) -> Path | None:
    return None if data is None else Path(data)


def _flat_measurement(measurement: Measurement) -> dict[str, Any]:
    flat = measurement.model_dump()
    metrics, losses = flat.pop("metrics"), flat.pop("losses")
    return {
        **flat,
        **{f"metric_{name}": value for name, value in metrics.items()},
        **{f"loss_{name}": value for name, value in losses.items()},
    }
