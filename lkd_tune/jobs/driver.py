"""The driver of a submitted search: `python -m lkd_tune.jobs.driver`, in the folder sent."""

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
    """Searches as `job.json` says; exits as `lkd-tune search` does."""
    try:
        import typer

        from lkd_tune.config.errors import SpecError
        from lkd_tune.tuning.execution import trainable  # noqa: F401
        from lkd_tune.tuning.study import searcher  # noqa: F401
    except ImportError as error:
        fix = "install lkd-tune's dependencies on every node, in the environment that Ray runs in"
        print(f"lkd-tune: {sys.executable} of the cluster's head: {error}; {fix}", flush=True)
        sys.exit(2)

    try:
        _search(json.loads(Path("job.json").read_text("utf-8")))
    except SpecError as error:
        for problem in error.problems:
            print(f"lkd-tune: {problem}", flush=True)
        sys.exit(2)
    except typer.Exit as end:
        sys.exit(end.exit_code)


def _search(request: dict[str, Any]) -> None:
    from lkd_tune.cli import main as cli
    from lkd_tune.cluster.ray import connected
    from lkd_tune.storage.fetch import named_run
    from lkd_tune.tuning.lock import locked
    from lkd_tune.tuning.mirror.run_mirror import holds_search
    from lkd_tune.tuning.tuner import resume_search, run_search

    run = named_run(request["run"]).absolute()
    quiet, allowed = request["quiet"], request["allow_changed"]
    # From here on no other driver can write there.
    with locked(run), connected(None):
        spaces = _unpacked(request["spaces"], run)
        if "" not in spaces and spaces:
            cli.search_several(spaces, run, None, quiet=quiet, allow_changed=allowed)
            return
        space = spaces.get("")
        if space is None or request["resume"] or holds_search(run):
            result = resume_search(
                run,
                quiet=quiet,
                overrides=request["overrides"],
                changed=space,
                allow_changed=allowed,
            )
        else:
            result = run_search(space, run, quiet=quiet)
        cli.finish(result)


def _unpacked(sent: dict[str, dict[str, Any]], run: RunFolder) -> dict[str, SearchSpace]:
    """Returns the spaces that were sent, their files put where all nodes see them."""
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.config.source import Source
    from lkd_tune.config.space import build_space
    from lkd_tune.jobs.uploads import differing, unpack_files

    spaces = {}
    for task, source in sent.items():
        places = {tuple(path): place for path, place in source["places"]}
        tree = unpack_files(source["tree"], run.path)
        spaces[task] = build_space(Source(source["name"], tree, places))
        _check_mlflow(spaces[task])
    files, there = Path("files"), run.path / "shipped"
    begun = [*run.path.glob("manifest.json"), *run.path.glob("*/manifest.json")]
    if files.is_dir() and not begun:
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(files, there)
    elif files.is_dir() and (others := differing(files, there)):
        message = f"{others[0]} is another file than the one the run began with; start another run"
        raise SpecError(Problem(run.where, "--ship", message))
    return spaces


def _check_mlflow(space: SearchSpace) -> None:
    """Refuses MLflow's default, a file in the folder that it runs in: a job's is removed."""
    from lkd_tune.config.errors import SpecError

    mlflow = space.settings.trackers.mlflow
    if mlflow is not None and mlflow.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
        message = "in a submitted search has to be given: the address of a server"
        raise SpecError(space.source.problem(("trackers", "mlflow", "uri"), message))


if __name__ == "__main__":
    main()
