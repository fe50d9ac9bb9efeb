"""The tasks that are known by name: where their data lie, their columns and their metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What `task: NAME` stands for; each setting can be overridden. `column_names` serves local files
# without a header, in the layout in which the task's authors distribute it.
_GLUE = {"data": "nyu-mll/glue", "train": "train", "dev": "validation"}

TASKS: Mapping[str, Mapping[str, Any]] = {
    "acceptability": {
        "data": "generated",
        "train": "train",
        "dev": "dev",
        "test": "test",
        "columns": {"text": "sentence"},
        "labels": ["unacceptable", "acceptable"],
        "metric": "matthews",
        "max_length": 48,
    },
    "cola": {
        **_GLUE,
        "config": "cola",
        "columns": {"text": "sentence"},
        "column_names": ["source", "label", "mark", "sentence"],
        "labels": ["unacceptable", "acceptable"],
        "metric": "matthews",
    },
    "sst2": {
        **_GLUE,
        "config": "sst2",
        "columns": {"text": "sentence"},
        "column_names": ["sentence", "label"],
        "labels": ["negative", "positive"],
        "metric": "accuracy",
    },
    "mrpc": {
        **_GLUE,
        "config": "mrpc",
        "columns": {"text": "sentence1", "pair": "sentence2"},
        "labels": ["not_equivalent", "equivalent"],
        "metric": "f1",
    },
    "stsb": {
        **_GLUE,
        "config": "stsb",
        "columns": {"text": "sentence1", "pair": "sentence2"},
        "regression": True,
        "metric": "spearman",
    },
    "qqp": {
        **_GLUE,
        "config": "qqp",
        "columns": {"text": "question1", "pair": "question2"},
        "labels": ["not_duplicate", "duplicate"],
        "metric": "f1",
    },
    "mnli": {
        **_GLUE,
        "config": "mnli",
        "dev": "validation_matched",
        "columns": {"text": "premise", "pair": "hypothesis"},
        "labels": ["entailment", "neutral", "contradiction"],
        "metric": "accuracy",
    },
    "qnli": {
        **_GLUE,
        "config": "qnli",
        "columns": {"text": "question", "pair": "sentence"},
        "labels": ["entailment", "not_entailment"],
        "metric": "accuracy",
    },
    "rte": {
        **_GLUE,
        "config": "rte",
        "columns": {"text": "sentence1", "pair": "sentence2"},
        "labels": ["entailment", "not_entailment"],
        "metric": "accuracy",
    },
    "wnli": {
        **_GLUE,
        "config": "wnli",
        "columns": {"text": "sentence1", "pair": "sentence2"},
        "labels": ["not_entailment", "entailment"],
        "metric": "accuracy",
    },
}

FILE_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")


def is_file_name(name: str) -> bool:
    """Tells whether a split is named as a local file and not as a split of a hub data set."""
    return name.removesuffix(".gz").endswith(FILE_SUFFIXES)


def with_task_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns task settings with those of the named task filled in.

    A local file for `train` replaces all that says where a known task's data lie.
    """
    known = dict(TASKS.get(str(settings.get("name")), {}))
    train = settings.get("train")
    if isinstance(train, str) and is_file_name(train):
        for key in ("data", "config", "train", "dev", "test"):
            known.pop(key, None)
    return {**known, **settings}
