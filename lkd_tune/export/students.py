"""Students out of a run, as folders that need nothing of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.export.card import student_card
from lkd_tune.export.formats import read_conversion
from lkd_tune.files.atomic import atomic_folder
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard


def export_students(
    run: RunFolder, top: int, to: Path, *, formats: Sequence[str] = ("hf",)
) -> list[Path]:
    """Copies the best students to `to`/1, `to`/2, …, 1 the best; each whole or not at all.

    Each gets a model card (README.md) and the sha256 of its files (`sha256sum -c SHA256SUMS`).
    Other formats lie beside its weights, with what was measured of them in formats.json.

    Args:
        run: The run; it may still be searching.
        top: How many.
        to: A folder that is empty or not there yet.
        formats: Of `FORMATS`; `hf` is always there.

    Returns:
        The folders, best first.

    Raises:
        SpecError: If fewer students are kept than asked for, `to` holds anything, or other formats
            are asked for and the task's dev split can't be had.
        FormatError: If a format does not answer as PyTorch does.
    """
    board = read_leaderboard(run)
    kept = board.kept
    if not kept:
        raise SpecError(Problem(run.where, "", "has no student yet: no trial is complete"))
    if top > len(kept):
        message = (
            f"{top} students are wanted, {len(kept)} are kept (see keep.top); use --top {len(kept)}"
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
                _add_formats(draft, formats, run.read_trial(row.name).spec.task)
                card = student_card(run, board, row, read_conversion(draft))
                (draft / "README.md").write_text(card, "utf-8")
                _write_checksums(draft)
                _open_to_all(draft)
        except BaseException:
            if not run.student(row.name).exists():
                message = f"student {row.name} has just made way for a better one; export again"
                raise SpecError(Problem(run.where, "", message)) from None
            raise
        exported.append(to / str(rank))
    return exported


def _add_formats(folder: Path, formats: Sequence[str], task: TaskSettings) -> None:
    if set(formats) <= {"hf"}:
        return  # a copy alone needs neither PyTorch nor the data
    from lkd_tune.export.convert import convert_student

    convert_student(folder, formats, task)


def _open_to_all(folder: Path) -> None:
    """Lets all users read a folder; safetensors gives its files to their owner alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_checksums(folder: Path) -> None:
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), "utf-8")
