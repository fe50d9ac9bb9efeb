"""Searches of several tasks with one space, one after the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError, did_you_mean
from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.known_tasks import GLUE_FOLDERS, GLUE_TASKS, TASKS
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.distillation.checks import check_space
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import write_leaderboard
from lkd_tune.storage.fetch import send_files
from lkd_tune.tuning.guard import guarded
from lkd_tune.tuning.mirror.run_mirror import run_exists
from lkd_tune.tuning.tuner import SearchResult, resume_search, run_search


def parse_task_names(tasks: str) -> list[str]:
    """Returns the names in `cola,rte` or `glue/all`.

    Raises:
        SpecError: If there are several and one of them is unknown.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    names = [task for name in names for task in (GLUE_TASKS if name == "glue/all" else (name,))]
    unknown = [name for name in names if name not in TASKS]
    if unknown and len(names) > 1:
        near = did_you_mean(unknown[0], list(TASKS))
        message = f"{unknown[0]} is not a known task{near}; known: {', '.join(TASKS)}, glue/all"
        raise SpecError(Problem("--task", "", message))
    return names


def task_overrides(task: str, data: str | None) -> list[str]:
    """Returns the overrides that set a space's task to a known one.

    Args:
        task: The task's name.
        data: Folder of files in GLUE's layout; default: the data set on the hub.

    Raises:
        SpecError: If `data` is given for a task that is not one of GLUE.
    """
    if data is None:
        return [f"task={task}"]
    if task not in GLUE_FOLDERS:
        message = f"needs a GLUE task, and {task} is not one of {', '.join(GLUE_TASKS)}"
        raise SpecError(Problem("--data", "", message))
    files = {"train": "train", "dev": "dev"}
    if task == "mnli":
        files |= {"dev": "dev_matched", "test": "dev_mismatched"}
    folder = Path(data) / GLUE_FOLDERS[task]
    paths = [
        f"task.{split}={json.dumps(str(folder / f'{name}.tsv'))}" for split, name in files.items()
    ]
    return [f"task={task}", *paths]


def load_task_spaces(
    space: str, tasks: Sequence[str], overrides: Sequence[str], data: str | None
) -> dict[str, SearchSpace]:
    """Returns a space for each task, from one space file.

    Raises:
        SpecError: If the file is not a valid space for one of the tasks.
    """
    path = find_space(space)
    return {task: load_space(path, [*task_overrides(task, data), *overrides]) for task in tasks}


@dataclass(frozen=True)
class TaskOutcome:
    """How the search of one of several tasks ended.

    Attributes:
        run: The task's run folder.
        result: The search's result; None if it did not start, or was refused.
        refused: Whether its data, teacher or space could not be used; the error was printed.
    """

    run: RunFolder
    result: SearchResult | None = None
    refused: bool = False

    @property
    def left(self) -> str:
        """Why the task is not finished, '' if it is."""
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
    address: str | None = None,
    quiet: bool = False,
    allow_changed: bool = False,
) -> dict[str, TaskOutcome]:
    """Searches each task's space into `runs`/TASK; continues where an earlier call ended.

    All spaces are checked before the first search starts. If a search is interrupted or a disk is
    full, no further task is searched. A search that is refused later (because of a row of its data,
    for example), or whose trials all fail, does not affect the others.

    Args:
        spaces: The spaces by task name.
        runs: Folder of the runs.
        address: Ray cluster; default: that of RAY_ADDRESS, else this machine.
        quiet: Whether to print no progress.
        allow_changed: Whether existing runs apply those changes of the space that are allowed.

    Returns:
        How each search ended, by task name.

    Raises:
        SpecError: With every problem of any of the tasks.
        SearchEndedError: As `run_search`; no further task is searched.
    """
    outcomes = {task: TaskOutcome(runs.below(task)) for task in spaces}
    started = {task for task, outcome in outcomes.items() if run_exists(outcome.run)}
    if problems := [
        problem
        for task, space in spaces.items()
        if task not in started
        for problem in _problems(task, space)
    ]:
        raise SpecError(problems)
    with guarded(runs, "Resume with the same command and --name."):
        for task, space in spaces.items():
            run = outcomes[task].run
            if not quiet:
                print(f"== {task}", flush=True)
            try:
                if task in started:
                    result = resume_search(
                        run,
                        address=address,
                        quiet=quiet,
                        changed=space,
                        allow_changed=allow_changed,
                    )
                else:
                    result = run_search(space, run, address=address, quiet=quiet)
            except SpecError as error:
                # The other searches take hours and do not depend on this one.
                for problem in error.problems:
                    print(f"lkd-tune: {task}: {problem}", file=sys.stderr, flush=True)
                outcomes[task] = TaskOutcome(run, refused=True)
                continue
            write_leaderboard(run)
            send_files(run, [run.leaderboard_csv, run.leaderboard_json])
            outcomes[task] = TaskOutcome(run, result)
            if outcomes[task].left in ("interrupted", "disk full"):
                break
    return outcomes


def _problems(task: str, space: SearchSpace) -> list[Problem]:
    """Returns what does not fit together in a task's space."""
    try:
        check_space(space)
    except SpecError as error:
        return [Problem(task, "", str(problem)) for problem in error.problems]
    return []
