"""Options that several commands have, and what those of a search ask for together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lkd_tune.cli.completion import complete_setting, complete_space, complete_task

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace

SpaceOption = Annotated[
    str,
    typer.Option(
        "--space",
        metavar="FILE",
        help="Space file: a path, or a shipped one.",
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
NameOption = Annotated[
    str | None, typer.Option(help="The run's folder in DIR; default: space and time.")
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A known task for the space, or several with commas between; glue/all.",
        autocompletion=complete_task,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="With --task: take GLUE's files from here, as DIR/CoLA/train.tsv."
    ),
]
AllowChangedOption = Annotated[
    bool,
    typer.Option(
        "--allow-changed", help="With --space, for a run that is there: take over what may change."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]


def asked_spaces(
    space: str,
    overrides: list[str] | None,
    name: str | None,
    run_dir: str | None,
    resume: str | None,
    task: str | None,
    data: str | None,
) -> dict[str, SearchSpace]:
    """Returns the space that is asked for by the name '', several by their tasks, none to go on.

    Raises:
        SpecError: If the options do not go together, or a space is none.
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.config.shipped import find_space
    from lkd_tune.config.space import load_space

    if not space and resume is None:
        raise SpecError(Problem("", "", "one of --space FILE and --resume RUN is needed"))
    if data is not None and task is None:
        raise SpecError(Problem("--data", "", "goes with --task NAME; else set task.train and dev"))
    if task is not None and resume is not None:
        message = "the run has its task; to go on with several, give the same --name again"
        raise SpecError(Problem("--task", "", message))
    if resume is not None and (name is not None or run_dir):
        message = "names the run already; leave out --name and --run-dir"
        raise SpecError(Problem("--resume", "", message))
    if not space:
        return {}
    overrides = overrides or []
    if task is not None:
        from lkd_tune.tuning.multi_task import split_tasks, task_settings, task_spaces

        tasks = split_tasks(task)
        if len(tasks) > 1:
            return task_spaces(space, tasks, overrides, data)
        overrides = [*(task_settings(tasks[0], data) if tasks else ()), *overrides]
    return {"": load_space(find_space(space), overrides)}
