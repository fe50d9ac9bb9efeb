"""Searches of several tasks, one after the other, with one space."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError, did_you_mean
from lkd_tune.config.settings.known_tasks import GLUE_FOLDERS, GLUE_TASKS, TASKS
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace, load_space
from lkd_tune.distillation.checks import check_space
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import write_leaderboard
from lkd_tune.storage.fetch import send_files
from lkd_tune.tuning.mirror.run_mirror import holds_search
from lkd_tune.tuning.tuner import SearchResult, resume_search, run_search


def split_tasks(tasks: str) -> list[str]:
    """Returns the names in `cola,rte` or `glue/all`.

    Raises:
        SpecError: If one of several is not known by name.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    names = [task for name in names for task in (GLUE_TASKS if name == "glue/all" else (name,))]
    unknown = [name for name in names if name not in TASKS]
    if unknown and len(names) > 1:
        near = did_you_mean(unknown[0], list(TASKS))
        message = f"{unknown[0]} is no known task{near}; known are {', '.join(TASKS)}, glue/all"
        raise SpecError(Problem("--task", "", message))
    return names


def task_settings(task: str, data: str | None) -> list[str]:
    """Returns the overrides by which a space is one for a known task.

    Args:
        task: Its name.
        data: Folder of files that are laid out as GLUE distributes them; none: the hub's.

    Raises:
        SpecError: If there are files, but it is no task of GLUE.
    """
    if data is None:
        return [f"task={task}"]
    if task not in GLUE_FOLDERS:
        message = f"is laid out as GLUE's files are, and {task} is none of {', '.join(GLUE_TASKS)}"
        raise SpecError(Problem("--data", "", message))
    files = {"train": "train", "dev": "dev"}
    if task == "mnli":
        files |= {"dev": "dev_matched", "test": "dev_mismatched"}
    folder = Path(data) / GLUE_FOLDERS[task]
    places = [
        f"task.{split}={json.dumps(str(folder / f'{name}.tsv'))}" for split, name in files.items()
    ]
    return [f"task={task}", *places]


def task_spaces(
    space: str, tasks: Sequence[str], overrides: Sequence[str], data: str | None
) -> dict[str, SearchSpace]:
    """Returns a space file as it is for each of several known tasks.

    Raises:
        SpecError: If it is none for one of them.
    """
    path = find_space(space)
    return {task: load_space(path, [*task_settings(task, data), *overrides]) for task in tasks}


@dataclass(frozen=True)
class TaskEnd:
    """How the search of one of several tasks ended.

    Attributes:
        run: Its folder.
        result: None if it did not begin, or was refused.
        refused: Whether its data, teacher or space could not be used, which was told.
    """

    run: RunFolder
    result: SearchResult | None = None
    refused: bool = False

    @property
    def left(self) -> str:
        """Why the task is not done, '' if it is."""
        if self.result is None:
            return "refused" if self.refused else "not begun"
        if self.result.interrupted:
            return "interrupted"
        if self.result.disk_full:
            return "disk full"
        return "" if self.result.best is not None else "no student"


def search_tasks(
    spaces: Mapping[str, SearchSpace],
    runs: RunFolder,
    *,
    data: str | None = None,
    address: str | None = None,
    quiet: bool = False,
    allow_changed: bool = False,
) -> dict[str, TaskEnd]:
    """Searches each task's space, into `runs`/NAME; goes on where an earlier call ended.

    All spaces are checked before the first search begins. A search that is interrupted or finds no
    room on a disk ends it all; one that is refused after that, for a row of its data say, or whose
    trials all fail, does not.

    Args:
        spaces: What to search, by the names of the tasks.
        runs: Folder of the runs.
        address: Ray cluster; none: that of RAY_ADDRESS, else this machine.
        quiet: Shows no progress.
        allow_changed: Has runs that are there take over what differs and may change.

    Raises:
        SpecError: With all that does not fit, for any of the tasks.
    """
    ends = {task: TaskEnd(runs.below(task)) for task in spaces}
    begun = {task for task, end in ends.items() if holds_search(end.run)}
    if problems := [
        problem for task in spaces if task not in begun for problem in _misfits(task, spaces[task])
    ]:
        raise SpecError(problems)
    for task, loaded in spaces.items():
        run = ends[task].run
        if not quiet:
            print(f"== {task}", flush=True)
        try:
            if task in begun:
                result = resume_search(
                    run, address=address, quiet=quiet, changed=loaded, allow_changed=allow_changed
                )
            else:
                result = run_search(loaded, run, address=address, quiet=quiet)
        except SpecError as error:
            # The others need not suffer from it, and take hours.
            for problem in error.problems:
                print(f"lkd-tune: {task}: {problem}", file=sys.stderr, flush=True)
            ends[task] = TaskEnd(run, refused=True)
            continue
        write_leaderboard(run)
        send_files(run, [run.leaderboard_csv, run.leaderboard_json])
        ends[task] = TaskEnd(run, result)
        if ends[task].left in ("interrupted", "disk full"):
            break
    return ends


def _misfits(task: str, space: SearchSpace) -> list[Problem]:
    """Returns what of a task's space does not fit together."""
    try:
        check_space(space)
    except SpecError as error:
        return [Problem(task, "", str(problem)) for problem in error.problems]
    return []
