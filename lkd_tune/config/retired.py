"""Removed settings, and how run folders of earlier versions that used them are read.

A run folder outlives the version that wrote it. With this table `best`, `report`, `export` and
`load_run` still read such a run. A new space file with a removed value is refused. So is resuming
such a run or running such a trial again, because this version can't train it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lkd_tune.config.source import KeyPath


@dataclass(frozen=True)
class Retired:
    """A removed value of a setting, or a removed setting.

    Attributes:
        value: The value; for a setting its name.
        stand_in: The value that replaces it when an old run folder is read; None: the setting was
            removed, with all of its values.
        advice: Why it was removed, and what to use instead.
    """

    value: str
    stand_in: str | None
    advice: str

    def applies_to(self, value: Any) -> bool:
        """Returns whether a value of the setting was removed."""
        return self.stand_in is None or value == self.value


RETIRED: dict[KeyPath, Retired] = {
    ("student", "init"): Retired(
        "nearest",
        "teacher",
        "students that started from earlier ones were no better than others; use teacher, random, "
        "or a folder or hub id",
    ),
    ("search", "scheduler"): Retired(
        "pbt",
        "none",
        "loss weights no longer change while a trial trains; use asha, hyperband, median or none",
    ),
    ("search", "published_start"): Retired(
        "published_start",
        None,
        "a search starts with several recipes; use search.recipes, [] for none",
    ),
}


# The terms beside the logits before there were recipes.
_FIRST_TERMS = ("wr_pair", "wr_triple", "ltr_pair", "ltr_triple")


def find_retired(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, KeyPath, Retired]]:
    """Yields the path, the setting and the table entry of each retired value in a tree.

    The path may lead through options of a choice; the setting is the path without them.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from find_retired(value, (*path, str(key)))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from find_retired(value, (*path, index))
    else:
        key = tuple(part for part in path if isinstance(part, str) and part != "choice")
        retired = RETIRED.get(key)
        if retired is not None and retired.applies_to(tree):
            yield path, key, retired


def without_retired(tree: Any, key: KeyPath = ()) -> Any:
    """Returns a tree of settings with each retired value replaced by its stand-in.

    A removed setting is left out.
    """
    if isinstance(tree, Mapping):
        inner = {name: key if name == "choice" else (*key, str(name)) for name in tree}
        return {
            name: without_retired(value, inner[name])
            for name, value in tree.items()
            if inner[name] not in RETIRED or RETIRED[inner[name]].stand_in is not None
        }
    if isinstance(tree, list):
        options = [without_retired(option, key) for option in tree]
        return [*dict.fromkeys(options)] if key in RETIRED else options  # without repeated options
    retired = RETIRED.get(key)
    return retired.stand_in if retired is not None and retired.applies_to(tree) else tree


def without_retired_fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON of a trial's spec as this version reads it.

    If the loss weights of a trial changed, the last ones are used. Specs without a recipe are of
    earlier versions, which wrote all terms.
    """
    tree = without_retired(spec)
    losses = tree.get("losses")
    if isinstance(losses, dict) and "recipe" not in losses and _is_labels_only(losses):
        losses["recipe"] = "labels"
    tree.pop("ancestor", None)
    for change in tree.pop("weight_changes", ()):
        for term, weight in change["weights"].items():
            tree["losses"][term]["weight"] = weight
    return tree


def _is_labels_only(losses: Mapping[str, Any]) -> bool:
    logits, others = losses.get("logits"), [losses.get(name) for name in _FIRST_TERMS]
    return (
        isinstance(logits, Mapping)
        and logits.get("weight", 1) > 0
        and logits.get("alpha") == 1
        and all(isinstance(term, Mapping) and term.get("weight") == 0 for term in others)
    )


def rerun_problem(spec: Mapping[str, Any]) -> str | None:
    """Returns why this version can't run the trial of a spec again, None if it can."""
    if spec.get("ancestor"):
        return "the student started from that of another trial, which is no longer supported"
    if spec.get("weight_changes"):
        return "the loss weights changed while it trained, which is no longer supported"
    return None
