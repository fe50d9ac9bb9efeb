"""Arguments and options that several commands share, and reading the ones that ask for a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lkd_tune.cli.completion import complete_setting, complete_space, complete_task

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run: its folder, or its s3:// or gs:// address."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="A running Ray cluster. Default: RAY_ADDRESS, else this machine."
    ),
]
SpaceOption = Annotated[
    str,
    typer.Option(
        "--space",
        metavar="FILE",
        help="Space file: a path, or the name of a shipped one.",
        autocompletion=complete_space,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any setting; repeatable.",
        autocompletion=complete_setting,
    ),
]
TaskSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any setting of the task, such as task.columns.text; repeatable.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(help="Name of the run, a folder in DIR. Default: the space's name and the time."),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Known task to search the space on; several with commas, or glue/all.",
        autocompletion=complete_task,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="With --task: folder of GLUE's files, such as DIR/CoLA/train.tsv."
    ),
]
AllowChangedOption = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="With --space and a run that exists: apply those changes that a run may take.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="Print the result only, without progress.")
]
SplitOption = Annotated[str, typer.Option(metavar="SPLIT", help="dev or test.")]


def load_requested_spaces(
    space: str,
    overrides: list[str] | None,
    name: str | None,
    run_dir: str | None,
    resume: str | None,
    task: str | None,
    data: str | None,
) -> dict[str, SearchSpace]:
    """Returns the spaces that the options of a search ask for.

    Returns:
        One space with the key ''; or one for each of several tasks, by the task's name; or none,
        if a run is resumed with its own space.

    Raises:
        SpecError: If the options do not fit together, or a space is not valid.
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.config.read_space import load_space
    from lkd_tune.config.shipped import find_space

    if not space and resume is None:
        raise SpecError(Problem("", "", "one of --space FILE and --resume RUN is needed"))
    if data is not None and task is None:
        message = "needs --task NAME; for other data, set task.train and task.dev"
        raise SpecError(Problem("--data", "", message))
    if task is not None and resume is not None:
        message = "can't be changed in a resumed run; to resume several tasks, give --name again"
        raise SpecError(Problem("--task", "", message))
    if resume is not None and (name is not None or run_dir):
        message = "names the run already; leave out --name and --run-dir"
        raise SpecError(Problem("--resume", "", message))
    if not space:
        return {}
    overrides = overrides or []
    if task is not None:
        from lkd_tune.tuning.multi_task import load_task_spaces, parse_task_names, task_overrides

        tasks = parse_task_names(task)
        if len(tasks) > 1:
            return load_task_spaces(space, tasks, overrides, data)
        overrides = [*(task_overrides(tasks[0], data) if tasks else ()), *overrides]
    return {"": load_space(find_space(space), overrides)}
