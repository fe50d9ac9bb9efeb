"""The command line `lkd-tune`: its commands, and how errors end them.

Each command is a function in a module of this folder; `_COMMANDS` lists them. They import heavy
libraries when they are called, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lkd_tune.cli.ablate import ablate
from lkd_tune.cli.cluster import jobs, logs, stop, submit
from lkd_tune.cli.compare import compare
from lkd_tune.cli.distill import distill
from lkd_tune.cli.doctor import doctor
from lkd_tune.cli.evaluate import evaluate
from lkd_tune.cli.export import export
from lkd_tune.cli.report import best, dashboard, report, watch
from lkd_tune.cli.search import search
from lkd_tune.cli.spaces.check import check
from lkd_tune.cli.spaces.init import init
from lkd_tune.cli.spaces.recipes import recipes
from lkd_tune.cli.spaces.settings import spaces
from lkd_tune.version import __version__

_COMMANDS = (
    search, init, check, distill, best, evaluate, spaces, recipes, export, report, watch, dashboard,
    ablate, compare, doctor, submit, jobs, logs, stop,
)  # fmt: skip

app = typer.Typer(
    name="lkd-tune",
    help="Finds the best small language models by distillation, on a cluster.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in _COMMANDS:
    app.command()(command)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"lkd-tune {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command line.

    Exits with 2 after wrong input, whose problems it prints, with 1 if the disk is full or Ray
    has died, and with 130 if a search was interrupted before it began.
    """
    from lkd_tune.config.errors import SearchEndedError, SpecError

    try:
        app()
    except SpecError as error:
        for problem in error.problems:
            print(f"lkd-tune: {problem}", file=sys.stderr)
        sys.exit(2)
    except SearchEndedError as error:
        print(f"lkd-tune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(141)  # as a shell reports it: `lkd-tune spaces | head`
    except Exception as error:
        from lkd_tune.files.disk import is_full_disk

        if not is_full_disk(error):
            raise
        reason = str(error).strip().splitlines()[-1]
        print(f"lkd-tune: {reason}; free some disk space and try again", file=sys.stderr)
        sys.exit(1)
