"""The driver of a submitted search: `python -m lkd_tune.cli.job_driver`, in the uploaded folder.

It works like `lkd-tune search`, with the request that `JobServer.submit` wrote to job.json.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.records.run import RunFolder


def main() -> None:
    """Runs the search of job.json; exits as `lkd-tune search` does."""
    try:
        from lkd_tune.cli import search  # noqa: F401
        from lkd_tune.config.errors import SearchEndedError, SpecError
        from lkd_tune.tuning.execution import trainable  # noqa: F401
        from lkd_tune.tuning.study import searcher  # noqa: F401
    except ImportError as error:
        fix = "install lkd-tune's dependencies on every node, in the environment that Ray runs in"
        print(f"lkd-tune: {sys.executable} of the cluster's head: {error}; {fix}", flush=True)
        sys.exit(2)

    try:
        sys.exit(_search(json.loads(Path("job.json").read_text("utf-8"))))
    except SpecError as error:
        for problem in error.problems:
            print(f"lkd-tune: {problem}", flush=True)
        sys.exit(2)
    except SearchEndedError as error:
        print(f"lkd-tune: {error}", flush=True)
        sys.exit(error.exit_code)


def _search(request: dict[str, Any]) -> int:
    """Returns the exit code of the search."""
    from lkd_tune.cli.search import search_several, show_result
    from lkd_tune.storage.fetch import open_run
    from lkd_tune.tuning.guard import guarded
    from lkd_tune.tuning.lock import locked
    from lkd_tune.tuning.mirror.run_mirror import run_exists
    from lkd_tune.tuning.tuner import resume_search, run_search

    run = open_run(request["run"]).absolute()
    quiet, allow_changed = request["quiet"], request["allow_changed"]
    # From here on no other driver can write there.
    with guarded(run) as guard, locked(run), guard.connected(None):
        spaces = _unpack_spaces(request["spaces"], run)
        if "" not in spaces and spaces:
            return search_several(spaces, run, None, quiet=quiet, allow_changed=allow_changed)
        space = spaces.get("")
        if space is None or request["resume"] or run_exists(run):
            result = resume_search(
                run,
                quiet=quiet,
                overrides=request["overrides"],
                changed=space,
                allow_changed=allow_changed,
            )
        else:
            result = run_search(space, run, quiet=quiet)
        return show_result(result)


def _unpack_spaces(sent: dict[str, dict[str, Any]], run: RunFolder) -> dict[str, SearchSpace]:
    """Returns the spaces of a request; copies uploaded files to the run, where all nodes see them.

    Raises:
        SpecError: If a space is not valid, or an uploaded file differs from the one that the run
            was started with.
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.config.read_space import build_space
    from lkd_tune.config.source import Source
    from lkd_tune.jobs.uploads import differing_files, unpack_files

    spaces = {}
    for task, source in sent.items():
        places = {tuple(path): place for path, place in source["places"]}
        tree = unpack_files(source["tree"], run.path)
        spaces[task] = build_space(Source(source["name"], tree, places))
        _check_mlflow(spaces[task])
    uploaded, final = Path("files"), run.path / "shipped"
    started = [*run.path.glob("manifest.json"), *run.path.glob("*/manifest.json")]
    if uploaded.is_dir() and not started:
        shutil.rmtree(final, ignore_errors=True)
        shutil.copytree(uploaded, final)
    elif uploaded.is_dir() and (different := differing_files(uploaded, final)):
        message = (
            f"{different[0]} differs from the file that the run was started with; start another run"
        )
        raise SpecError(Problem(run.where, "--ship", message))
    return spaces


def _check_mlflow(space: SearchSpace) -> None:
    """Refuses MLflow's default, a file in the working directory: that of a job is removed."""
    from lkd_tune.config.errors import SpecError

    mlflow = space.settings.trackers.mlflow
    if mlflow is not None and mlflow.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
        message = "is required in a submitted search: the address of a tracking server"
        raise SpecError(space.source.problem(("trackers", "mlflow", "uri"), message))


if __name__ == "__main__":
    main()
