"""The tasks known by name: the location of their data, columns and metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lkd_tune.config.settings.task_kinds import KINDS

GENERATED = "generated"
"""The value of `task.data` for the built-in data set."""

_GLUE = {"data": "nyu-mll/glue", "train": "train", "dev": "validation"}

# The default settings of `task: NAME`. `column_names` is for local files without a header, in the
# layout of the task's authors; see also FILE_COLUMNS.
TASKS: Mapping[str, Mapping[str, Any]] = {
    "acceptability": {
        "data": GENERATED,
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
        "column_names": [
            "genre", "filename", "year", "id", "label", "sentence1", "sentence2"
        ],
        "kind": "regression",
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
        # Other genres than in training; only the winner is scored on it.
        "test": "validation_mismatched",
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
        # Small, and dev differs much from train: few models beat the majority class.
        "columns": {"text": "sentence1", "pair": "sentence2"},
        "labels": ["not_entailment", "entailment"],
        "metric": "accuracy",
    },
    "squad": {
        "kind": "question_answering",
        "data": "rajpurkar/squad",
        "train": "train",
        "dev": "validation",
        "metric": "f1",
    },
    "squad_v2": {  # with questions that have no answer
        "kind": "question_answering",
        "data": "rajpurkar/squad_v2",
        "train": "train",
        "dev": "validation",
        "metric": "f1",
    },
    "cnn_dailymail": {
        "kind": "extractive_summary",
        "data": "abisee/cnn_dailymail",
        "config": "3.0.0",
        "train": "train",
        "dev": "validation",
        "test": "test",
        "columns": {"text": "article", "label": "highlights"},
        "metric": "rouge1",
    },
    "xsum": {
        "kind": "extractive_summary",
        "data": "EdinburghNLP/xsum",
        "train": "train",
        "dev": "validation",
        "test": "test",
        # Summaries are one sentence and paraphrase; two sentences of the text score best.
        "sentences": 2,
        "metric": "rouge1",
    },
    "wnut17": {
        "kind": "tagging",
        "data": "leondz/wnut_17",
        "train": "train",
        "dev": "validation",
        "test": "test",
        "column_names": ["tokens", "ner_tags"],
        "labels": [
            "O",
            *(
                f"{part}-{entity}"
                for entity in (
                    "corporation", "creative-work", "group", "location", "person", "product"
                )
                for part in "BI"
            ),
        ],
        "metric": "f1",
    },
    "goemotions": {
        "kind": "multi_label",
        "data": "google-research-datasets/go_emotions",
        "config": "simplified",
        "train": "train",
        "dev": "validation",
        "test": "test",
        "columns": {"text": "text", "label": "labels"},
        "column_names": ["text", "labels", "id"],
        "labels": [
            "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
            "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
            "excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism",
            "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral",
        ],
        "metric": "macro_f1",
        "max_length": 64,
    },
}  # fmt: skip

# GLUE's tasks, and the names of their folders in its own distribution.
GLUE_FOLDERS: Mapping[str, str] = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
GLUE_TASKS = tuple(GLUE_FOLDERS)

# Column names in the files of a task's authors, if these differ from the hub's names in TASKS.
# Local files may have either.
FILE_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "mrpc": {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
    "stsb": {"label": "score"},
    "qqp": {"label": "is_duplicate"},
    "mnli": {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
}

# The metrics that GLUE reports, if these are several or not the one in TASKS.
OFFICIAL_METRICS: Mapping[str, tuple[str, ...]] = {
    "mrpc": ("f1", "accuracy"),
    "qqp": ("f1", "accuracy"),
    "stsb": ("pearson", "spearman"),
}

# Suffixes of local data files; `data/readers.py` has a reader for each.
FILE_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".conll")


def file_types() -> str:
    """Returns the types of local data files, for messages: `csv, tsv, … or conll`."""
    *others, last = (suffix.removeprefix(".") for suffix in FILE_SUFFIXES)
    return f"{', '.join(others)} or {last}"


def is_file_name(name: str) -> bool:
    """Returns whether a split is named as a local file, not as a split of a hub data set."""
    return name.removesuffix(".gz").endswith(FILE_SUFFIXES)


def with_task_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns task settings, completed with the defaults of the named task and of its kind.

    A local file for `train` replaces the location of a known task's data, as does one for `dev` if
    `train` is null. Columns that the settings do not name get the kind's usual names.
    """
    known = dict(TASKS.get(str(settings.get("name")), {}))
    kind = str(settings.get("kind", known.get("kind", "classification")))
    info = KINDS.get(kind)  # pydantic refuses an unknown kind later
    columns = info.columns if info else {}
    if info is not None:
        usual = {"columns": columns} if columns else {}
        known = {"metric": info.metrics[0], **usual, **info.usual, **known}
    labelled = settings.get("train", "")
    if labelled is None:
        labelled = settings.get("dev")
    if isinstance(labelled, str) and is_file_name(labelled):
        for key in ("data", "config", "train", "dev", "test"):
            known.pop(key, None)
    filled = {**known, **settings}
    if isinstance(filled.get("columns"), Mapping):
        filled["columns"] = {**columns, **filled["columns"]}
    return filled
