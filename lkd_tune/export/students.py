"""Copies the best students of a run to folders that do not need the run."""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.export.card import student_card
from lkd_tune.export.formats import read_conversion
from lkd_tune.files.atomic import atomic_folder
from lkd_tune.records.manifest import folder_of_paths
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Row
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.models import kept_students
from lkd_tune.storage.local_files import with_data_in


def export_students(
    run: RunFolder,
    top: int,
    to: Path,
    *,
    formats: Sequence[str] = ("hf",),
    data: Path | None = None,
    to_publish: bool = False,
) -> list[Path]:
    """Copies the best students to `to`/1, `to`/2, …; 1 is the best.

    A folder is complete or absent. It has a model card (README.md) and the SHA-256 sums of its
    files (check them with `sha256sum -c SHA256SUMS`). Other formats are beside the weights, and
    their measurements are in formats.json.

    Args:
        run: The run; its search need not be finished.
        top: Number of students.
        to: A folder that is empty or does not exist.
        formats: Names of `FORMATS`; `hf` is always written.
        data: A folder with the run's data files, if they are no longer where they were.
        to_publish: Whether student.json names local files and folders without where they are.

    Returns:
        The folders, best first.

    Raises:
        SpecError: If the run has fewer students than `top`, `to` is not empty, or other formats
            are asked for and the task's dev split can't be loaded.
        FormatError: If a format's logits differ from PyTorch's.
    """
    board = read_leaderboard(run)
    kept = kept_students(board)
    if top > len(kept):
        message = (
            f"{top} students requested, but the run keeps {len(kept)} (keep.top); "
            f"use --top {len(kept)}"
        )
        raise SpecError(Problem("--top", "", message))
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SpecError(Problem("--to", "", f"{to} is not empty; name a new folder"))
    to.mkdir(parents=True, exist_ok=True)
    exported = []
    for rank, row in enumerate(kept[:top], 1):
        try:
            with atomic_folder(to / str(rank), f"student {rank}") as draft:
                shutil.copytree(run.student(row.name), draft, dirs_exist_ok=True)
                _check_weights(run.student(row.name), draft)
                if to_publish:
                    _remove_folders(draft / "student.json")
                _add_formats(draft, formats, _task(run, row, data))
                card = student_card(run, board, row, read_conversion(draft))
                (draft / "README.md").write_text(card, "utf-8")
                _write_checksums(draft)
                _make_readable(draft)
        except BaseException:
            if not run.student(row.name).exists():
                message = f"student {row.name} was just replaced by a better one; export again"
                raise SpecError(Problem(run.where, "", message)) from None
            raise
        exported.append(to / str(rank))
    return exported


def _task(run: RunFolder, row: Row, data: Path | None) -> TaskSettings:
    task = run.read_trial(row.name).spec.task
    if data is not None:
        return with_data_in(task, data)
    return with_data_in(task, Path(folder_of_paths(run)), only_missing=True)


def _add_formats(folder: Path, formats: Sequence[str], task: TaskSettings) -> None:
    if set(formats) <= {"hf"}:
        return  # copying needs neither PyTorch nor the data
    from lkd_tune.export.convert import convert_student

    convert_student(folder, formats, task)


def _remove_folders(path: Path) -> None:
    """Replaces each absolute path in a file of JSON by the name of its file or folder."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(each) for key, each in value.items()}
        if isinstance(value, list):
            return [named(each) for each in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    path.write_text(json.dumps(named(json.loads(path.read_text("utf-8"))), indent=2), "utf-8")


def _check_weights(source: Path, copied: Path) -> None:
    """Checks that a student's weights are whole, and copied as they were.

    Raises:
        SpecError: If the run's own are not whole, or the copy differs.
    """
    from lkd_tune.storage.weights import check_files  # loads torch

    check_files(str(source), source)
    for path in (path for path in source.rglob("*") if path.is_file()):
        if not filecmp.cmp(path, copied / path.relative_to(source), shallow=False):
            raise SpecError(Problem(str(path), "", "could not be copied; export again"))


def _make_readable(folder: Path) -> None:
    """Makes a folder readable for all users; safetensors lets only the owner read its files."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_checksums(folder: Path) -> None:
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), "utf-8")
