"""The Python API: what the commands do, for scripts and notebooks.

Import its names from `lkd_tune`: `from lkd_tune import search`. Heavy libraries are imported inside
the functions, so that `import lkd_tune` is fast.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lkd_tune.config.space import SearchSpace
    from lkd_tune.config.trial import TrialSpec
    from lkd_tune.records.measurement import Measurement
    from lkd_tune.records.run import RunFolder
    from lkd_tune.tuning.tuner import SearchResult


def load_space(
    space: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> SearchSpace:
    """Returns a search space, after checking its settings.

    Args:
        space: A space file, the name of a shipped one, or the same settings as a mapping.
        overrides: Settings to change, in the form of `--set`.

    Raises:
        SpecError: With all problems of the space.
        TypeError: If a mapping has values that YAML can't represent.

    Example:

        space = load_space(
            {"task": "cola", "teacher": "my-teacher", "student": {"depth": {"int": [2, 4]}}},
            ["search.trials=4"],
        )
    """
    from lkd_tune.config import read_space
    from lkd_tune.config.shipped import find_space
    from lkd_tune.config.source import Source, apply_override

    if not isinstance(space, Mapping):
        return read_space.load_space(find_space(os.fspath(space)), overrides)
    # Through JSON, as the run's space.yaml has to hold it: tuples as lists, paths as text.
    source = Source("space", json.loads(json.dumps(space, default=os.fspath)))
    for override in overrides:
        apply_override(source, override)
    return read_space.build_space(source)


def search(
    space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any],
    *,
    run_dir: str | os.PathLike[str] = "runs",
    name: str | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Run:
    """Searches a space and keeps the best students, as `lkd-tune search` does.

    Ctrl-C stops the search and keeps everything; so does a full disk, with a warning. Then
    `Run.finished` is False, and `Run.resume` continues the search.

    Args:
        space: A space of `load_space`, or an argument for it.
        run_dir: The folder for runs.
        name: The name of the run, a folder in `run_dir`. Default: the space's name and the time.
        address: The address of a Ray cluster. Default: the cluster that this process is connected
            to, that of RAY_ADDRESS, or this machine.
        quiet: Whether to print nothing.

    Returns:
        The run, with its leaderboard written.

    Raises:
        SpecError: If the space, the data, the teacher and the cluster do not fit together, or if
            the folder has a run already. Then nothing was started.

    Example:

        run = search("layer_map.yaml", name="first")
        print(run.leaderboard()[0])
        model, tokenizer = run.load_best()
    """
    from lkd_tune.config.shipped import run_name
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.records.run import RunFolder
    from lkd_tune.tuning.tuner import run_search

    loaded = space if isinstance(space, SearchSpace) else load_space(space)
    folder = RunFolder(Path(run_dir) / run_name(loaded.source.name, name))
    return _write_result(run_search(loaded, folder, address=address, quiet=quiet))


def distill(
    spec: TrialSpec | str | os.PathLike[str],
    *,
    to: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Iterator[Measurement]:
    """Runs one distillation in this process, without Ray, as `lkd-tune distill` does.

    It trains while the caller iterates. To use the student between the evaluations, or to stop
    early and keep it, use `lkd_tune.distillation.engine.Distillation`.

    Args:
        spec: The trial, or a file with it: a trial's spec.json or a student.json.
        to: A new folder, to which the student is written after the last measurement. Default: the
            student is not written.
        threads: CPU threads. Default: the `resources.cpus` of the spec.

    Yields:
        A measurement at each evaluation, the last one at the end of the training; with
        `evaluate_on` a further one at the end of the fine-tuning.

    Raises:
        SpecError: If the file is not a spec or `to` is not empty. At the first measurement: if the
            teacher, the data or a starting point can't be loaded or do not fit.
        DivergedError: If a loss is not finite.

    Example:

        for measurement in distill("student.json", to="again"):
            print(measurement.step, measurement.score)
    """
    from lkd_tune.config.trial import TrialSpec, read_trial_spec
    from lkd_tune.records.student_file import check_empty

    trial = spec if isinstance(spec, TrialSpec) else read_trial_spec(Path(spec))
    folder = Path(to) if to is not None else None
    check_empty(folder)
    from lkd_tune.distillation.run import distill_locally  # loads torch, which takes seconds

    return (measured for _, measured in distill_locally(trial, to=folder, threads=threads))


def load_run(path: str | os.PathLike[str]) -> Run:
    """Returns a run: finished, interrupted, or still running.

    Args:
        path: The run's folder.

    Raises:
        SpecError: If the folder is not that of a run.

    Example:

        best = load_run("runs/first").students()[0]
    """
    run = Run(Path(path))
    run.folder.read_manifest()
    return run


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
        from lkd_tune.config.errors import Problem, SpecError
        from lkd_tune.models.loading import load_model, load_tokenizer
        from lkd_tune.results.leaderboard_files import read_leaderboard

        board = read_leaderboard(self.folder)
        if not board.kept:
            message = "has no student yet: no trial is complete"
            raise SpecError(Problem(str(self.path), "", message))
        student = str(self.folder.student(board.kept[0].name))
        return load_model(student, board.head), load_tokenizer(student)

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
        return _write_result(result)

    def _check_name(self, trial: str) -> None:
        from lkd_tune.config.errors import Problem, SpecError, did_you_mean

        names = [path.parent.name for path in self.path.glob("trials/*/spec.json")]
        if trial not in names:
            message = f"has no trial {trial!r}{did_you_mean(trial, sorted(names))}"
            raise SpecError(Problem(str(self.path), "", message))


def _write_result(result: SearchResult) -> Run:
    """Writes the leaderboard of a search; returns its run."""
    from lkd_tune.results.leaderboard_files import write_leaderboard

    if result.disk_full:
        warnings.warn(f"the search stopped: {result.disk_full}", stacklevel=3)
    write_leaderboard(result.run)
    return Run(result.run.path)


def _flat_measurement(measurement: Measurement) -> dict[str, Any]:
    flat = measurement.model_dump()
    metrics, losses = flat.pop("metrics"), flat.pop("losses")
    return {
        **flat,
        **{f"metric_{name}": value for name, value in metrics.items()},
        **{f"loss_{name}": value for name, value in losses.items()},
    }
