"""The space files that come with the package, and the teacher of the embedded task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError, did_you_mean

_PACKAGE = Path(__file__).parents[1]
# In a wheel the spaces are inside the package, in a checkout next to it.
_FOLDERS = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")


def shipped_spaces() -> dict[str, Path]:
    """Returns the shipped space files by name, `layer_map.yaml` and so on."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {path.name: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def shipped_teacher(name: str) -> Path | None:
    """Returns the folder of a shipped teacher by its name, the one of the task that it was trained
    on; None if there is none of that name. A folder of the user's with that name goes first.
    """
    if "/" in name or Path(name).exists():
        return None
    folders = (folder / "teachers" / name for folder in _FOLDERS)
    return next((folder for folder in folders if folder.is_dir()), None)


def find_space(name: str) -> Path:
    """Returns the path of a space file: one on disk, else a shipped one of that name.

    Raises:
        SpecError: If there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_spaces()
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return shipped[candidate]
    near = did_you_mean(name, list(shipped))
    message = f"is neither a file nor a shipped space{near}; shipped spaces: {', '.join(shipped)}"
    raise SpecError(Problem(name, "", message))


def describe_space(path: Path) -> str:
    """Returns the first comment line of a space file."""
    first = path.read_text("utf-8").split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def run_name(space: str, name: str | None = None) -> str:
    """Returns a run's name; by default its space and the time.

    Args:
        space: The space file's name.
        name: The name that the user gives.

    Raises:
        SpecError: If it is not the name of one folder.
    """
    if name:
        if "/" in name or "\\" in name or name in (".", ".."):
            message = f"{name!r} is a path, not a name; name the folder with --run-dir"
            raise SpecError(Problem("--name", "", message))
        return name
    return f"{Path(space).stem}-{datetime.now():%Y%m%d-%H%M%S}"
