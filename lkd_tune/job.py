"""The driver of a submitted search: `python -m lkd_tune.job`, in the folder that was sent."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

BEGUN = "lkd-tune: the cluster fits; run "


def main() -> None:
    """Searches as `job.json` says; exits as `lkd-tune search` does."""
    try:
        import typer

        from lkd_tune.search import study, trainable  # noqa: F401
        from lkd_tune.spec.errors import SpecError
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


def _search(request: dict[str, object]) -> None:
    from lkd_tune import __version__, cli
    from lkd_tune.distill.checks import check_space
    from lkd_tune.fetching import named_run
    from lkd_tune.search.cluster import connected
    from lkd_tune.search.mirror import fetch_state, holds_search
    from lkd_tune.search.nodes import check_nodes
    from lkd_tune.search.tuner import locked, write_space
    from lkd_tune.spec.errors import Problem, SpecError

    if request["version"] != __version__:
        message = f"submitted by lkd-tune {request['version']}, the cluster has {__version__}"
        raise SpecError(Problem("", "", f"{message}; install the same version"))
    run = named_run(str(request["run"]))
    overrides = [str(each) for each in request["overrides"]]  # type: ignore[attr-defined]
    with connected(None):
        check_nodes(run)
        if request["resume"] or holds_search(run):
            if run.home is not None:
                with locked(run):
                    fetch_state(run)
            run.read_manifest()
            _begun(run)
            cli.search(resume=run.where, overrides=overrides)
            return
        space = _unpacked(run)
        check_space(space)
        _check_mlflow(space)
        write_space(run, space)
        _begun(run)
        cli.search(space=str(run.space), run_dir=os.path.dirname(run.where), name=run.path.name)


def _check_mlflow(space) -> None:  # type: ignore[no-untyped-def]
    """Refuses MLflow's default, a file in the folder that it runs in: a job's is removed."""
    from lkd_tune.spec.errors import SpecError

    mlflow = space.settings.trackers.mlflow
    if mlflow is not None and mlflow.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
        message = "in a submitted search has to be given: the address of a server"
        raise SpecError(space.source.problem(("trackers", "mlflow", "uri"), message))


def _begun(run) -> None:  # type: ignore[no-untyped-def]  # its type is behind an import
    print(f"{BEGUN}{run.where}", flush=True)


def _unpacked(run):  # type: ignore[no-untyped-def]
    """Returns the space that was sent, its files put where all nodes see them."""
    from lkd_tune.shipping import unpack_files
    from lkd_tune.spec.source import read_source
    from lkd_tune.spec.space import build_space

    source = read_source(Path("space.yaml"))
    if Path("files").is_dir():
        shutil.copytree("files", run.path / "shipped", dirs_exist_ok=True)
    source.tree = unpack_files(source.tree, run.path)
    return build_space(source)


if __name__ == "__main__":
    main()
