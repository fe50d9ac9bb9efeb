"""Settings of a task: its kind, its data and its metric."""

from __future__ import annotations

import codecs
from typing import Annotated, Any

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.known_tasks import (
    GENERATED,
    file_types,
    is_file_name,
    with_task_defaults,
)
from lkd_tune.config.settings.task_kinds import KINDS, MetricName, TaskKindName
from lkd_tune.config.settings.training import TrainSettings


class Columns(Settings):
    """Names of the columns of the data."""

    text: str = "text"
    """The text or the first text of a pair. tagging: a list of words; question_answering: the
    question; extractive_summary: the document, as a text or better as a list of its sentences."""
    pair: str | None = None
    """The second text of a pair; in question_answering the context."""
    label: str | None = "label"
    """The label: an integer or a name from `task.labels`. regression: a number; multi_label:
    several labels, as a list or separated by commas; tagging: a label for each word;
    question_answering: `answers` with text and answer_start; extractive_summary: the summary."""


class Augmentation(Settings):
    """Copies of the training text in which words are replaced by likely others, as in TinyBERT."""

    copies: int = Field(20, ge=1)
    """Number of copies of each example; an epoch goes over the text and all copies."""
    probability: float = Field(0.4, gt=0, le=1)
    """Probability that a word is replaced, if it is a single token."""
    candidates: int = Field(15, ge=1)
    """Number of most likely words from which the replacement is drawn."""
    model: str | None = None
    """Masked language model, with the teacher's vocabulary, that predicts likely words. Default:
    the nearest words in the teacher's embeddings."""
    seed: int = 0


class Unlabelled(Settings):
    """Text without labels. A file or a split alone, as in `unlabelled: more.txt`, is its `split`.

    Rows that are in dev or test are left out, as are those in train, repeated ones and empty ones.
    """

    split: str
    """A local file, or the name of a split on the hub. A txt file has a text on each line."""
    data: str | None = None
    """Name of the data set on the hub. Default: that of the task."""
    config: str | None = None
    """Configuration of the data set in `data`. Default: with `data` none, else that of the task."""
    text: str | None = None
    """Column of the text. Default: that of the task; in a txt file there is only one."""
    pair: str | None = None
    """Column of the second text of a pair. Default: that of the task."""
    examples: int | None = Field(None, ge=1)
    """Use only the first N rows; a data set on the hub is streamed then. Default: all."""


class TaskSettings(Settings):
    """The task of the student. `task: NAME` is short for `task: {name: NAME}`."""

    name: str
    """A known task, whose other settings have defaults (acceptability, a GLUE task, squad,
    squad_v2, wnut17, goemotions, cnn_dailymail, xsum), or any name for your own data."""
    kind: TaskKindName = "classification"
    """What a model predicts: one class, a number, or several classes of a text or a pair of texts;
    a tag of each word; the span of an answer; the sentences of a summary; or masked words, for a
    task-agnostic student."""
    data: str | None = None
    """Name of the data set on the hub, or `generated` for the built-in one. Default: local
    files."""
    config: str | None = None
    """Configuration of the data set on the hub, such as `cola` of `nyu-mll/glue`."""
    train: str | None = None
    """Training split: a local csv, tsv, txt, json, jsonl, parquet or conll file, or the name of a
    split on the hub. A json file may be nested like SQuAD's. May be left out, or null for a known
    task, if there is `unlabelled` text."""
    dev: str | None = None
    """Split on which trials are scored."""
    test: str | None = None
    """Split on which the winner is scored once. Default: no test score."""
    columns: Columns = Columns()
    column_names: list[str] | None = None
    """Names of the first columns of a csv or tsv file without a header, or of all columns of a
    conll file. Default: the header."""
    encoding: str | None = None
    """Encoding of local text files, such as `cp1252`. Default: UTF-8, or UTF-16 in files that begin
    with its byte order mark."""
    labels: list[str] | None = None
    """Names of the classes in the order of their ids. Default: those in the training split."""
    metric: MetricName = "accuracy"
    """Metric on `dev` that the search maximises. f1 is computed for class 1, in tagging for
    entities, in question_answering for words; rouge1, rouge2 and rougeL are F1 scores. Default:
    that of the task or its kind."""
    max_length: int = Field(128, ge=4)
    """Maximum length of an input in tokens. Longer inputs are truncated; in question_answering they
    are split into windows, in extractive_summary they are cut between sentences. The default is at
    most what the teacher takes."""
    stride: int = Field(128, ge=0)
    """question_answering: number of context tokens that two windows share. A question takes at most
    half of the other tokens."""
    sentences: int = Field(3, ge=1)
    """extractive_summary: number of sentences in a summary."""
    mask_share: float = Field(0.15, gt=0, lt=1)
    """masked_lm: share of the words to predict."""
    train_examples: int | None = Field(None, ge=1)
    """Use only the first N training examples; a data set on the hub is streamed then. Default:
    all."""
    unlabelled: Annotated[Unlabelled | None, block_from("split", optional=True)] = None
    """Further training text for the students, without labels: they learn the teacher's answers to
    it. Without `train` all of their text is. Default: none."""
    seed: int = 0
    """Seed of the generated data."""
    augment: Annotated[Augmentation | None, block_from("copies", optional=True)] = None
    """Additional training examples for the students; a number is short for `{copies: NUMBER}`.
    Default: none."""

    @model_validator(mode="before")
    @classmethod
    def _fill_known(cls, settings: Any) -> Any:
        return with_task_defaults(settings) if isinstance(settings, dict) else settings

    @model_validator(mode="after")
    def _check(self) -> TaskSettings:
        if self.dev is None or (self.train is None and self.unlabelled is None):
            missing = "train" if self.train is None and self.unlabelled is None else "dev"
            raise ValueError(
                f"task {self.name!r} is unknown, so task.{missing} is required: a local "
                "file, or a split of the data set on the hub in task.data"
            )
        if self.data in (None, GENERATED):
            more = self.unlabelled
            splits = [more.split if more and more.data is None else None]
            if self.data is None:
                splits += [self.train, self.dev, self.test]
            for split in splits:
                if split is not None and not is_file_name(split):
                    raise ValueError(
                        f"{split!r} is not a {file_types()} file; "
                        "for a split of a data set on the hub, set task.data"
                    )
        if self.encoding is not None and not _is_encoding(self.encoding):
            raise ValueError(f"encoding {self.encoding!r} is unknown; use utf-8, utf-16, cp1252, …")
        kind = KINDS[self.kind]
        if self.metric not in kind.metrics:
            raise ValueError(
                f"metric {self.metric} can't be used for {self.kind}; use one of "
                f"{', '.join(kind.metrics)}"
            )
        if self.columns.label is None and kind.has_labels:
            raise ValueError(f"columns.label is required for {self.kind}")
        if self.columns.pair is None and kind.needs_pair is not None:
            raise ValueError(f"columns.pair is required for {self.kind}: {kind.needs_pair}")
        if self.unlabelled is not None and kind.needs_label is not None:
            raise ValueError(f"unlabelled can't be used for {self.kind}: {kind.needs_label}")
        if self.augment is not None and not kind.of_whole_texts:
            raise ValueError(
                f"augment can't be used for {self.kind}: replaced words would change what it "
                "predicts; remove it"
            )
        if problem := kind.problem(self):
            raise ValueError(problem)
        return self

    @property
    def copies(self) -> int:
        """Number of augmented copies of each training example, for students."""
        return self.augment.copies if self.augment else 0

    @property
    def named_in(self) -> str:
        """The split that has the classes if `labels` does not name them."""
        return "dev" if self.train is None else "train"

    def of_unlabelled(self) -> TaskSettings:
        """Returns the task whose training split is the unlabelled text."""
        more = self.unlabelled
        assert more is not None
        is_file, is_lines = is_file_name(more.split), more.split.removesuffix(".gz").endswith("txt")
        columns = Columns(
            text=more.text or ("text" if is_lines else self.columns.text),
            pair=more.pair or self.columns.pair,
            label=None,
        )
        return self.model_copy(
            update={
                "data": None if is_file else more.data or self.data,
                "config": None if is_file else more.config or (None if more.data else self.config),
                "columns": columns,
                "train": more.split,
                "train_examples": more.examples,
                **dict.fromkeys(("dev", "test", "augment", "unlabelled")),
            }
        )


def check_share(task: TaskSettings, train: TrainSettings) -> None:
    """Checks that a student has text to train on.

    Raises:
        ValueError: If none of the unlabelled text is used, and there is no other.
    """
    if task.train is None and train.unlabelled_share == 0:
        raise ValueError(
            "unlabelled_share 0 leaves no text to train on, as there is no task.train; raise it"
        )


def _is_encoding(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding
    except LookupError:
        return False
