"""TensorBoard: event files, with values for its HPARAMS page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lkd_tune.config.objectives import COSTS
from lkd_tune.files.tombstones import add_tombstone
from lkd_tune.tuning.trackers.base import TrackedTrial


class TensorBoard:
    """Writes event files to a folder for each trial.

    The first update of a trial in a session removes the trial's event files and writes them anew.
    So what a killed session has written does not appear twice.

    Args:
        settings: Not used, as TensorBoard has no settings.
        run: The run folder; event files are written to its folder `tensorboard`.
        search_id: Not used, as the files belong to the run folder.
    """

    name = "tensorboard"

    def __init__(self, settings: bool, run: Path, search_id: str):
        self._folder = run / "tensorboard"
        self._writers: dict[str, Any] = {}  # tensorboardX's writers, by trial key
        self._steps: dict[str, int] = {}

    @staticmethod
    def problem() -> None:
        """Returns None: files can always be written."""

    def open(self) -> str:
        """Returns the command that shows the trials."""
        return f"tensorboard --logdir {self._folder}"

    def update(self, trial: TrackedTrial) -> None:
        """Writes new values."""
        if trial.key not in self._writers:
            self._begin(trial)
        writer = self._writers[trial.key]
        for step, values in trial.points.items():
            if step > self._steps[trial.key]:
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
                self._steps[trial.key] = step
        if trial.state != "running":
            for name, value in trial.results.items():
                if name not in trial.points.get(trial.last_step, {}):
                    writer.add_scalar(name, value, trial.last_step)
            writer.file_writer.add_summary(_hparams(trial)[-1])
            del self._writers[trial.key]
            writer.close()
            return
        writer.flush()

    def close(self) -> None:
        """Closes all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _begin(self, trial: TrackedTrial) -> None:
        from tensorboardX import SummaryWriter

        folder = self._folder / trial.name
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            add_tombstone(folder)
        writer = self._writers[trial.key] = SummaryWriter(str(folder), flush_secs=30)
        self._steps[trial.key] = -1
        for summary in _hparams(trial)[:-1]:
            writer.file_writer.add_summary(summary)


def _hparams(trial: TrackedTrial) -> tuple[Any, Any, Any]:
    """Returns three summaries: the columns, the trial's start with its values, and its end."""
    from tensorboardX.summary import hparams

    # Settings that were not searched would add columns with the same value in each row.
    shown = {name: trial.params[name] for name in sorted(trial.searched)}
    shown = {name: "" if value is None else value for name, value in shown.items()}
    return hparams({"trial": trial.name, "role": trial.role, **shown}, dict.fromkeys(
        ["score", *COSTS, "wall_s"], 0.0))  # fmt: skip
