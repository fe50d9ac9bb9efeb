"""The Python API: what the commands do, for scripts and notebooks.

Import its names from `lkd_tune`: `from lkd_tune import search`. Heavy libraries are imported inside
the functions, so that `import lkd_tune` is fast.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lkd_tune.run import Run, write_result

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.config.trial import TrialSpec
    from lkd_tune.records.measurement import Measurement


def load_space(
    space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> SearchSpace:
    """Returns a search space, after checking its settings.

    Args:
        space: A space file, the name of a shipped one, the same settings as a mapping, or a space
            that was loaded before.
        overrides: Settings to change, in the form of `--set`.

    Raises:
        SpecError: With all problems of the space.
        TypeError: If a mapping has values that YAML can't represent.

    Example:

        space = load_space(
            {"task": "cola", "teacher": "my-teacher", "student": {"depth": {"int": [2, 4]}}},
            ["search.trials=4"],
        )
    """
    from lkd_tune.config import read_space
    from lkd_tune.config.shipped import find_space
    from lkd_tune.config.source import Source, apply_override
    from lkd_tune.config.space import SearchSpace

    if isinstance(space, SearchSpace):
        source = copy.deepcopy(space.source)
    elif isinstance(space, Mapping):
        # Through JSON, as the run's space.yaml has to hold it: tuples as lists, paths as text.
        source = Source("space", json.loads(json.dumps(space, default=os.fspath)))
    else:
        return read_space.load_space(find_space(os.fspath(space)), overrides)
    for override in overrides:
        apply_override(source, override)
    return read_space.build_space(source)


def search(
    space: SearchSpace | str | os.PathLike[str] | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    run_dir: str | os.PathLike[str] = "runs",
    name: str | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Run:
    """Searches a space and keeps the best students, as `lkd-tune search` does.

    Ctrl-C stops the search and keeps everything; so does a full disk, with a warning. Then
    `Run.finished` is False, and `Run.resume` continues the search.

    Args:
        space: A space of `load_space`, or an argument for it.
        overrides: Settings to change, in the form of `--set`.
        run_dir: The folder for runs.
        name: The name of the run, a folder in `run_dir`. Default: the space's name and the time.
        address: The address of a Ray cluster. Default: the cluster that this process is connected
            to, that of RAY_ADDRESS, or this machine.
        quiet: Whether to print nothing.

    Returns:
        The run, with its leaderboard written.

    Raises:
        SpecError: If the space, the data, the teacher and the cluster do not fit together, or if
            the folder has a run already. Then nothing was started.

    Example:

        run = search("layer_map.yaml", overrides=["search.trials=8"], name="first")
        print(run.leaderboard()[0])
        model, tokenizer = run.load_best()
    """
    from lkd_tune.config.shipped import run_name
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.records.run import RunFolder
    from lkd_tune.tuning.tuner import run_search

    if not isinstance(space, SearchSpace) or overrides:
        space = load_space(space, overrides)
    folder = RunFolder(Path(run_dir) / run_name(space.source.name, name))
    return write_result(run_search(space, folder, address=address, quiet=quiet))


def distill(
    spec: TrialSpec | str | os.PathLike[str],
    *,
    to: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Iterator[Measurement]:
    """Runs one distillation in this process, without Ray, as `lkd-tune distill` does.

    It trains while the caller iterates. To use the student between the evaluations, or to stop
    early and keep it, use `lkd_tune.distillation.engine.Distillation`.

    Args:
        spec: The trial, or a file with it: a trial's spec.json or a student.json.
        to: A new folder, to which the student is written after the last measurement. Default: the
            student is not written.
        threads: CPU threads. Default: the `resources.cpus` of the spec.

    Yields:
        A measurement at each evaluation, the last one at the end of the training; with
        `evaluate_on` a further one at the end of the fine-tuning.

    Raises:
        SpecError: If the file is not a spec or `to` is not empty. At the first measurement: if the
            teacher, the data or a starting point can't be loaded or do not fit.
        DivergedError: If a loss is not finite.

    Example:

        for measurement in distill("student.json", to="again"):
            print(measurement.step, measurement.score)
    """
    from lkd_tune.config.trial import TrialSpec, read_trial_spec
    from lkd_tune.records.student_file import check_empty

    trial = spec if isinstance(spec, TrialSpec) else read_trial_spec(Path(spec))
    folder = Path(to) if to is not None else None
    check_empty(folder)
    from lkd_tune.distillation.run import distill_locally  # loads torch, which takes seconds

    return (measured for _, measured in distill_locally(trial, to=folder, threads=threads))


def load_run(path: str | os.PathLike[str]) -> Run:
    """Returns a run: finished, interrupted, or still running.

    Args:
        path: The run's folder.

    Raises:
        SpecError: If the folder is not that of a run.

    Example:

        best = load_run("runs/first").students()[0]
    """
    run = Run(Path(path))
    run.folder.read_manifest()
    return run
