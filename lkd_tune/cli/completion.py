"""What the shell offers on Tab: spaces, tasks and settings.

The shell itself offers files and folders where nothing here matches.
"""

from __future__ import annotations

from pathlib import Path


def complete_space(incomplete: str) -> list[str]:
    """Returns the shipped spaces and the YAML files of this folder that start with `incomplete`."""
    from lkd_tune.config.shipped import shipped_spaces

    here = [path.name for path in Path().glob("*.y*ml")]
    return sorted(name for name in {*shipped_spaces(), *here} if name.startswith(incomplete))


def complete_task(incomplete: str) -> list[str]:
    """Returns completions of the last name in a list of known tasks such as `cola,r`."""
    from lkd_tune.config.settings.known_tasks import TASKS

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in (*TASKS, "glue/all") if name.startswith(last)]


def complete_setting(incomplete: str) -> list[str]:
    """Returns the settings of a space file that start with `incomplete`, each with its `=`."""
    from lkd_tune.config.reference import settings_reference

    return [f"{row[0]}=" for row in settings_reference() if row[0].startswith(incomplete)]
