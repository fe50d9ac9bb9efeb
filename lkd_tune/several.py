"""Searches of several tasks, one after the other, with one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lkd_tune.fetching import send_files
from lkd_tune.results.leaderboard import write_leaderboard
from lkd_tune.search.mirror import holds_search
from lkd_tune.search.tuner import SearchResult, resume_search, run_search
from lkd_tune.spaces import find_space
from lkd_tune.spec.errors import Problem, SpecError, did_you_mean
from lkd_tune.spec.run import RunFolder
from lkd_tune.spec.space import SearchSpace, load_space
from lkd_tune.spec.tasks import GLUE_TASKS, TASKS


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


def task_spaces(
    space: str, tasks: Sequence[str], overrides: Sequence[str]
) -> dict[str, SearchSpace]:
    """Returns a space file as it is for each of several known tasks.

    Raises:
        SpecError: If it is none for one of them.
    """
    return {task: load_space(find_space(space), [f"task={task}", *overrides]) for task in tasks}


def search_tasks(
    spaces: Mapping[str, SearchSpace],
    runs: RunFolder,
    *,
    address: str | None = None,
    quiet: bool = False,
    allow_changed: bool = False,
) -> list[SearchResult]:
    """Searches each task's space, into `runs`/NAME; goes on where an earlier call ended.

    An interrupted search ends it all; a search whose trials all fail does not.

    Args:
        spaces: What to search, by the names of the tasks.
        runs: Folder of the runs.
        address: Ray cluster; none: that of RAY_ADDRESS, else this machine.
        quiet: Shows no progress.
        allow_changed: Has runs that are there take over what differs and may change.

    Raises:
        SpecError: As `run_search` and `resume_search` do, for any of the tasks.
    """
    results = []
    for task, loaded in spaces.items():
        run = runs.below(task)
        if not quiet:
            print(f"== {task}", flush=True)
        if holds_search(run):
            result = resume_search(
                run, address=address, quiet=quiet, changed=loaded, allow_changed=allow_changed
            )
        else:
            result = run_search(loaded, run, address=address, quiet=quiet)
        write_leaderboard(run)
        send_files(run, [run.leaderboard_csv, run.leaderboard_json])
        results.append(result)
        if result.interrupted:
            break
    return results
