"""Weights & Biases: a run for each trial, those of a search in a group."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lkd_tune.config.settings.trackers import WandbSettings
from lkd_tune.files.atomic import write_atomically
from lkd_tune.tuning.trackers.base import TrackedTrial

_PROJECT = "lkd-tune"
_FINISH_S = 45.0


class Wandb:
    """Runs of a project, all from this process; a trial's is gone on with by its id.

    Online a run that goes on has its steps from the server. Offline each session has a folder of
    its own, those of one run with the same id, and `wandb sync` sends them in their order; which
    steps they have is noted beside them.

    Args:
        settings: Project, entity and group.
        run: The run folder; its folder `wandb` holds what is not sent yet.
        search_id: Id of the search; ids of W&B's runs begin with it.
    """

    name = "wandb"

    def __init__(self, settings: WandbSettings, run: Path, search_id: str):
        self._entity = settings.entity
        self._project = settings.project or os.environ.get("WANDB_PROJECT") or _PROJECT
        self._group = settings.group or run.name
        self._folder, self._search_id = run, search_id
        self._runs: dict[str, Any] = {}
        self._offline = False
        self._steps_file = run / "wandb" / "steps.json"
        self._steps: dict[str, int] = {}  # offline: the last of each trial, by key

    @staticmethod
    def problem() -> str | None:
        """Returns why runs can't start without asking for a key, and what to do; else None."""
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
        """Returns where runs are; each connects by itself."""
        where = f"group {self._group} of project {self._project}"
        self._offline = _is_offline()
        if self._offline:
            if self._steps_file.exists():
                self._steps = json.loads(self._steps_file.read_text("utf-8"))
            return f"{where}, offline; send it with: wandb sync {self._folder}/wandb/offline-run-*"
        return where

    def update(self, trial: TrackedTrial) -> None:
        """Logs what is new; the sending goes on behind it."""
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
        self._note_steps()
        del self._runs[trial.key]

    def close(self) -> None:
        """Ends the runs that were cut off as failed ones, which may go on."""
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._note_steps()
        self._runs.clear()

    def _note_steps(self) -> None:
        # When they are on the disk: before that, steps that are logged may be lost.
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
            reinit="create_new",  # several at a time
            dir=str(self._folder),
            config=trial.params,
            settings=_settings(),
        )


def _is_offline() -> bool:
    """Whether nothing is sent, by wandb's own variables and files."""
    import wandb

    mode = wandb.setup(settings=wandb.Settings(silent=True)).settings.mode
    return mode in ("offline", "dryrun", "disabled")


def _settings() -> Any:
    """Returns settings by which only what is logged is sent: no code, no output, no machine."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        finish_timeout=_FINISH_S,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
