"""Weights & Biases: a run for each trial, and a group for each search."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lkd_tune.config.settings.trackers import WandbSettings
from lkd_tune.files.atomic import write_atomically
from lkd_tune.tuning.trackers.base import TrackedTrial

_DEFAULT_PROJECT = "lkd-tune"
_FINISH_TIMEOUT_S = 45.0


class Wandb:
    """Logs each trial as a run of a project, from this process; resumes a run by its id.

    Online, the server knows the last step of a resumed run. Offline, each session writes a new
    folder per run, with the same run id, and `wandb sync` sends these in their order. A file next
    to the folders holds the last step of each trial.

    Args:
        settings: Project, entity and group.
        run: The run folder; its folder `wandb` holds what is not sent yet.
        search_id: Id of the search; ids of W&B's runs start with it.
    """

    name = "wandb"

    def __init__(self, settings: WandbSettings, run: Path, search_id: str):
        self._entity = settings.entity
        self._project = settings.project or os.environ.get("WANDB_PROJECT") or _DEFAULT_PROJECT
        self._group = settings.group or run.name
        self._folder, self._search_id = run, search_id
        self._runs: dict[str, Any] = {}
        self._offline = False
        self._steps_file = run / "wandb" / "steps.json"
        self._steps: dict[str, int] = {}  # the last step of each trial, by key; read offline only

    @staticmethod
    def problem() -> str | None:
        """Returns why runs would ask for a key, and what to do; None if they do not."""
        import wandb

        if _is_offline():
            return None
        try:
            reason = "" if wandb.login(prompt=False, verify=False) else "nobody is logged in"
        except wandb.Error as error:
            reason = str(error)
        how = (
            "call `wandb login` or set WANDB_API_KEY; or set WANDB_MODE=offline, and call "
            "`wandb sync` later"
        )
        return f"{reason}; {how}" if reason else None

    def open(self) -> str:
        """Returns the location of the runs; each run connects on its first update."""
        where = f"group {self._group} of project {self._project}"
        self._offline = _is_offline()
        if self._offline:
            if self._steps_file.exists():
                self._steps = json.loads(self._steps_file.read_text("utf-8"))
            return f"{where}, offline; send it with: wandb sync {self._folder}/wandb/offline-run-*"
        return where

    def update(self, trial: TrackedTrial) -> None:
        """Logs new values; W&B sends them in the background."""
        if trial.key not in self._runs:
            self._begin(trial)
        run = self._runs[trial.key]
        logged = self._steps.get(trial.key, -1) if self._offline else run.step - 1
        for step, values in trial.points.items():
            if step > logged:
                run.log(values, step=step, commit=True)
        self._steps[trial.key] = trial.last_step
        if trial.state == "running":
            return
        run.summary.update({**trial.results, "state": trial.state})
        if trial.error:
            run.summary["error"] = trial.error
        run.finish(exit_code=1 if trial.state == "failed" else 0)
        self._write_steps()
        del self._runs[trial.key]

    def close(self) -> None:
        """Marks the runs that have not ended as failed; failed runs can be resumed."""
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._write_steps()
        self._runs.clear()

    def _write_steps(self) -> None:
        # Called after runs have finished: before that, logged steps may not be on the disk.
        if self._offline:
            write_atomically(self._steps_file, json.dumps(self._steps))

    def _begin(self, trial: TrackedTrial) -> None:
        import wandb

        self._runs[trial.key] = wandb.init(
            project=self._project,
            entity=self._entity,
            group=self._group,
            job_type=trial.role,
            id=f"{self._search_id}-{trial.key}",
            name=trial.name,
            resume="allow",
            reinit="create_new",  # allows several runs at a time
            dir=str(self._folder),
            config=trial.params,
            settings=_settings(),
        )


def _is_offline() -> bool:
    """Whether W&B's own variables and files say that nothing is sent."""
    import wandb

    mode = wandb.setup(settings=wandb.Settings(silent=True)).settings.mode
    return mode in ("offline", "dryrun", "disabled")


def _settings() -> Any:
    """Returns settings that send logged values only: no code, output or machine data."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        finish_timeout=_FINISH_TIMEOUT_S,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
