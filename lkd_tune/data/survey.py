"""Counts over a task's data that show what scores on them are worth."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.types import Split
from lkd_tune.records.seed_stats import COARSE, difference_by_chance

# Rows from which the share of cut texts is estimated.
_TEXTS_READ = 5000
# Above these shares of its texts, a split has a note.
_MUCH_CUT, _MUCH_REPEATED, _LARGEST_CLASS = 0.05, 0.05, 0.8
# A label of at most this share of the rows is a misspelling if it is so similar to a frequent one.
_RARE, _ALIKE = 0.01, 0.8


@dataclass(frozen=True)
class SplitFacts:
    """Counts over a split.

    Attributes:
        split: 'train', 'dev' or 'test'.
        source: Its file, or its name on the hub.
        rows: Number of examples.
        classes: Number of rows of each class; empty if the labels are no classes.
        empty: Number of rows without text.
        repeated: Number of rows whose text an earlier row has.
        contradicting: Number of different texts that occur with several labels.
        in_train: Number of rows whose text is in train as well; 0 for train itself.
        cut: Share of the texts that are longer than `task.max_length`; None if it is not known, or
            if the kind of task does not cut texts.
        whole_at: The length at which 1 % of them would be cut; None as for `cut`.
    """

    split: str
    source: str
    rows: int
    classes: dict[str, int]
    empty: int
    repeated: int
    contradicting: int
    in_train: int
    cut: float | None = None
    whole_at: int | None = None


def survey(
    task: TaskSettings,
    splits: Mapping[str, Split],
    names: Sequence[str] | None,
    tokenizer: Any = None,
) -> list[SplitFacts]:
    """Returns the counts over each split.

    Args:
        task: The task.
        splits: Its splits.
        names: Names of the classes, None if the kind has none.
        tokenizer: The teacher's, None if there is none yet.
    """
    train = {*splits["train"].rows()} - {""} if "train" in splits else set[str]()
    found = []
    for split, content in splits.items():
        texts = content.rows()
        cut, whole_at = _cut(task, content, tokenizer)
        labels = defaultdict(set)
        if KINDS[task.kind].has_labels:
            for text, label in zip(texts, content.label, strict=True):
                labels[text].add(str(label))
        found.append(
            SplitFacts(
                split=split,
                source=str(getattr(task, split)),
                rows=len(texts),
                classes=_classes(content, names),
                empty=sum(not text.strip() for text in texts),
                repeated=len(texts) - len({*texts}),
                contradicting=sum(len(different) > 1 for different in labels.values()),
                in_train=sum(text in train for text in texts) if split != "train" else 0,
                cut=cut,
                whole_at=whole_at,
            )
        )
    return found


def survey_notes(task: TaskSettings, facts: Sequence[SplitFacts]) -> list[str]:
    """Returns what to know of the counts, and what to do, a line each."""
    notes = []
    for each in facts:
        file = each.source
        if each.empty:
            notes.append(f"{file}: {each.empty:,} of {each.rows:,} texts are empty; leave them out")
        if each.contradicting:
            notes.append(
                f"{file}: {each.contradicting:,} texts occur with different labels; no model gets "
                "all of them right"
            )
        if each.repeated > _MUCH_REPEATED * each.rows:
            notes.append(
                f"{file}: {each.repeated:,} of {each.rows:,} rows repeat the text of an earlier "
                "one and count more than once"
            )
        if each.cut is not None and each.cut > _MUCH_CUT:
            notes.append(
                f"{file}: {each.cut:.0%} of the texts are longer than task.max_length "
                f"{task.max_length} and are cut; with {each.whole_at} it would be 1%"
            )
        if each.split == "train":
            notes += _misspelt(each)
        if each.split == "train" or not each.classes:
            continue
        largest = max(each.classes, key=lambda name: each.classes[name])
        share = each.classes[largest] / each.rows
        # One class alone is a note of `data_notes`.
        if _LARGEST_CLASS < share < 1 and task.metric == "accuracy":
            notes.append(
                f"{file}: always answering {largest} has accuracy {share:.3f}; task.metric: "
                "macro_f1 or matthews tells models apart"
            )
        if each.split == "dev" and (chance := difference_by_chance(each.rows)) > COARSE:
            notes.append(
                f"{file}: with {each.rows:,} rows, differences below {chance:.2f} between two "
                "students are mostly chance; use more dev rows, or confirm the best with other "
                "seeds (confirm)"
            )
    return notes


def _misspelt(facts: SplitFacts) -> list[str]:
    """Returns a line for each rare class whose name is nearly that of a frequent one."""
    rare = [name for name, rows in facts.classes.items() if 0 < rows <= _RARE * facts.rows]
    frequent = [name for name in facts.classes if name not in rare]
    lines = []
    for name in rare:
        # Not `class-7` beside `class-1`.
        others = [each for each in frequent if _letters(each) != _letters(name)]
        for near in difflib.get_close_matches(name, others, n=1, cutoff=_ALIKE):
            rows = facts.classes[name]
            lines.append(
                f"{facts.source}: the label {name} of {rows:,} row{'s' if rows > 1 else ''} may be "
                f"a misspelling of {near}; as it is, it is a class of its own"
            )
    return lines


def _letters(name: str) -> str:
    return re.sub(r"\d", "", name)


def _classes(split: Split, names: Sequence[str] | None) -> dict[str, int]:
    if not names or not all(isinstance(label, int) for label in split.label):
        return {}
    counts = Counter(split.label)
    return {name: counts[number] for number, name in enumerate(names)}


def _cut(task: TaskSettings, split: Split, tokenizer: Any) -> tuple[float | None, int | None]:
    """Returns the share of cut texts, and the length at which 1 % would be cut."""
    is_tagging = task.kind == "tagging"
    if tokenizer is None or not (KINDS[task.kind].of_whole_texts or is_tagging):
        return None, None
    pair = split.pair[:_TEXTS_READ] if split.pair is not None else None
    encoded = tokenizer(
        split.text[:_TEXTS_READ], pair, truncation=False, is_split_into_words=is_tagging,
        verbose=False,
    )  # fmt: skip
    lengths = [len(ids) for ids in encoded["input_ids"]]
    cut = sum(length > task.max_length for length in lengths) / len(lengths)
    return cut, int(np.quantile(lengths, 0.99, method="higher"))
