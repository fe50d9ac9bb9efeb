"""The text that students are trained on: the rows with labels, and after them those without."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import load_split, load_texts, source_fingerprint
from lkd_tune.data.types import Split


@dataclass(frozen=True)
class TrainingText:
    """The training text of a task.

    Attributes:
        split: Its rows. The labels of those without one are None.
        labelled: Number of rows with a label; they come first.
        rows: The row of the source that each unlabelled one is, counted from 0.
        left_out: Number of unlabelled rows that were left out, by the reason.
        source: The file or split of the unlabelled rows.
    """

    split: Split
    labelled: int
    rows: list[int]
    left_out: Counter[str]
    source: str

    @property
    def unlabelled(self) -> int:
        """Number of rows without a label."""
        return len(self.rows)

    @property
    def note(self) -> str:
        """How many unlabelled rows are used, and why others are not."""
        added = f" are added to {self.labelled:,} with labels" if self.labelled else ""
        out = f"; left out are {_listed(self.left_out)}" if self.left_out else ""
        return f"{self.source}: {self.unlabelled:,} texts without labels{added}{out}"


def load_training_text(task: TaskSettings, *, cache: Path | None = None) -> TrainingText:
    """Returns the training text of a task with unlabelled text.

    A row in dev or test is left out, as a student that has learnt the teacher's answer to it would
    score too high. So is one of train, which has a label, and one that was there before. Case and
    spaces are not compared.

    Raises:
        SpecError: If the data can't be loaded, or no unlabelled row is left.
    """
    assert task.unlabelled is not None
    source = task.unlabelled.split
    try:
        more = load_texts(task.of_unlabelled(), "train", cache=cache)
    except SpecError as error:
        said = (problem.message for problem in error.problems)
        raise SpecError(Problem("", "task.unlabelled", message) for message in said) from None
    labelled = Split([], [] if task.columns.pair else None, [])
    if task.train is not None:
        labelled = load_split(task, "train", cache=cache)
    seen = {"": "empty"}
    for split in ("train", "dev", "test"):
        if getattr(task, split) is not None:
            other = labelled if split == "train" else load_texts(task, split, cache=cache)
            seen.update((_comparable(row), f"in {split}") for row in other.rows())
    left_out, kept = Counter[str](), []
    for place, row in enumerate(more.rows()):
        key = _comparable(row)
        if key in seen:
            left_out[seen[key]] += 1
        else:
            seen[key] = "repeated"
            kept.append(place)
    if not kept:
        message = f"{source} has no usable row ({_listed(left_out)}); leave task.unlabelled out"
        raise SpecError(Problem("", "task.unlabelled", message))
    pair = None
    if more.pair is not None:
        pair = [*(labelled.pair or []), *(more.pair[place] for place in kept)]
    text = [*labelled.text, *(more.text[place] for place in kept)]
    both = Split(text, pair, [*labelled.label, *[None] * len(kept)])
    return TrainingText(both, len(labelled.text), kept, left_out, source)


def training_fingerprint(task: TaskSettings) -> str:
    """Returns a text that identifies the training text of a task with unlabelled text."""
    splits = [split for split in ("train", "dev", "test") if getattr(task, split) is not None]
    own = [source_fingerprint(task, split) for split in splits]
    return "\n".join([*own, source_fingerprint(task.of_unlabelled(), "train")])


def _comparable(row: str) -> str:
    return " ".join(row.split()).casefold()


def _listed(numbers: Counter[str]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in numbers.items())
