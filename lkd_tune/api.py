"""The Python API: what the commands do, for scripts and notebooks.

Its names are those of `lkd_tune`: `from lkd_tune import search`. Heavy imports stand inside, so
that `import lkd_tune` costs nothing.
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
    """Returns a checked search space.

    Args:
        space: A space file, the name of a shipped one, or the same settings as a mapping:
            `{"task": "cola", "teacher": "my-teacher", "student": {"depth": {"int": [2, 4]}}}`.
        overrides: Settings to change, as `--set` takes them: `["search.trials=4"]`.

    Raises:
        SpecError: With every problem of the space.
        TypeError: If a mapping holds values that no YAML file could.
    """
    from lkd_tune.config import space as spaces
    from lkd_tune.config.shipped import find_space
    from lkd_tune.config.source import Source, apply_override

    if not isinstance(space, Mapping):
        return spaces.load_space(find_space(os.fspath(space)), overrides)
    # Through JSON, so that the run's own space.yaml can hold it: tuples as lists, paths as text.
    source = Source("space", json.loads(json.dumps(space, default=os.fspath)))
    for override in overrides:
        apply_override(source, override)
    return spaces.build_space(source)


def search(
    space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any],
    *,
    run_dir: str | os.PathLike[str] = "runs",
    name: str | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Run:
    """Searches a space and keeps the best students, as `lkd-tune search` does.

    Ctrl-C ends it and keeps everything, as does a full disk, with a warning; `Run.finished` is
    False then, and `Run.resume` goes on.

    Args:
        space: What `load_space` gives or takes.
        run_dir: Where runs are put.
        name: The run's folder there; none: the space and the time.
        address: Ray cluster; none: the one this process has joined, that of RAY_ADDRESS, or
            else this machine.
        quiet: Shows no progress.

    Raises:
        SpecError: If the space, the data, the teacher and the cluster do not fit together, or the
            folder holds a run already. Nothing has been started then.
    """
    from lkd_tune.config.shipped import run_name
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.records.run import RunFolder
    from lkd_tune.tuning.tuner import run_search

    loaded = space if isinstance(space, SearchSpace) else load_space(space)
    folder = RunFolder(Path(run_dir) / (name or run_name(loaded.source.name)))
    return _ended(run_search(loaded, folder, address=address, quiet=quiet))


def distill(
    spec: TrialSpec | str | os.PathLike[str],
    *,
    to: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Iterator[Measurement]:
    """Runs one distillation in this process, without Ray, as `lkd-tune distill` does.

    It trains as the measurements are asked for: one at each evaluation, the last one at the end,
    or, with `evaluate_on`, that of the fine-tuning.
    To look at the student in between, or to end early and keep it, use
    `lkd_tune.distillation.engine.Distillation`.

    Args:
        spec: What to do, or a file with it: a trial's spec.json or a student.json.
        to: A new folder for the student, written after the last measurement; none: it is not.
        threads: CPU threads; none: those of the spec's resources.

    Raises:
        SpecError: If the file is no spec or `to` is not empty; at the first measurement, if the
            teacher, the data or a starting point can't be had or do not fit.
        DivergedError: If a loss is not finite.
    """
    from lkd_tune.config.trial import TrialSpec, read_trial_spec
    from lkd_tune.distillation.run import check_empty, distill_locally

    trial = spec if isinstance(spec, TrialSpec) else read_trial_spec(Path(spec))
    folder = Path(to) if to is not None else None
    check_empty(folder)
    return (measured for _, measured in distill_locally(trial, to=folder, threads=threads))


def load_run(path: str | os.PathLike[str]) -> Run:
    """Returns a run that was searched, is being searched, or was cut off.

    Raises:
        SpecError: If the folder is not that of a run.
    """
    run = Run(Path(path))
    run.folder.read_manifest()
    return run


@dataclass(frozen=True)
class Run:
    """A run folder read back. Each call reads what is there now, so a search can be followed.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def folder(self) -> RunFolder:
        """The paths in the folder, and the records of its trials."""
        from lkd_tune.records.run import RunFolder

        return RunFolder(self.path)

    @property
    def finished(self) -> bool:
        """Whether the search came to its end; else `resume` goes on with it."""
        return self.folder.read_manifest().get("finished") is not None

    def leaderboard(self) -> list[dict[str, Any]]:
        """Returns a row for each trial, the best first: the columns of leaderboard.csv.

        `pandas.DataFrame(run.leaderboard())` makes a table of them. What the columns mean is told
        at `lkd_tune.results.leaderboard.Row`; the weights of the terms are `weight_wr_pair`, ….
        """
        from lkd_tune.results.leaderboard import flat_row
        from lkd_tune.results.leaderboard_files import read_leaderboard

        return [flat_row(row) for row in read_leaderboard(self.folder).rows]

    def measurements(self, trial: str | None = None) -> list[dict[str, Any]]:
        """Returns a row for each evaluation of a trial, by step, or of all trials.

        The columns are `trial` and those of `Measurement`, with `metric_accuracy`, … for the
        metrics on dev and `loss_wr_pair`, …, `loss_total` for the losses.

        Args:
            trial: Its name in the leaderboard, such as `0007`; none: all of them, those with
                other seeds and the ablations included.

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
        """Returns what a trial was: `distill` runs it again.

        Raises:
            SpecError: If the run has no such trial.
        """
        self._check_name(trial)
        return self.folder.read_trial(trial).spec

    def students(self) -> list[Path]:
        """Returns the folders of the students that are kept, the best first."""
        from lkd_tune.results.leaderboard_files import read_leaderboard

        return [self.folder.student(row.name) for row in read_leaderboard(self.folder).kept]

    def load_best(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Returns the best student in fp32 and in evaluation mode, and its tokenizer.

        Raises:
            SpecError: If no student is kept yet.
        """
        from lkd_tune.config.errors import Problem, SpecError
        from lkd_tune.models.loading import load_model, load_tokenizer
        from lkd_tune.results.leaderboard_files import read_leaderboard

        board = read_leaderboard(self.folder)
        if not board.kept:
            message = "keeps no student yet; no trial is complete"
            raise SpecError(Problem(str(self.path), "", message))
        student = str(self.folder.student(board.kept[0].name))
        return load_model(student, board.head), load_tokenizer(student)

    def resume(
        self, overrides: Sequence[str] = (), *, address: str | None = None, quiet: bool = False
    ) -> Run:
        """Goes on with the search where it ended or was cut off; returns the same run.

        Args:
            overrides: Such as `["search.trials=64"]`; only what may change.
            address: As for `search`.
            quiet: Shows no progress.

        Raises:
            SpecError: If something differs that may not, or as `search`.
        """
        from lkd_tune.tuning.tuner import resume_search

        result = resume_search(self.folder, address=address, quiet=quiet, overrides=overrides)
        return _ended(result)

    def _check_name(self, trial: str) -> None:
        from lkd_tune.config.errors import Problem, SpecError, did_you_mean

        names = [path.parent.name for path in self.path.glob("trials/*/spec.json")]
        if trial not in names:
            message = f"has no trial {trial!r}{did_you_mean(trial, sorted(names))}"
            raise SpecError(Problem(str(self.path), "", message))


def _ended(result: SearchResult) -> Run:
    """Returns a run after a search, with its leaderboard written."""
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
