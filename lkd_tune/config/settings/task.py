"""Settings of a task: its data, its metric, and what a text becomes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.known_tasks import file_types, is_file_name, with_task_defaults
from lkd_tune.config.settings.task_kinds import KINDS, MetricName, TaskKindName


class Columns(Settings):
    """Which columns of the data hold what."""

    text: str = "text"
    """The sentence, or the first of a pair; a list of words in tagging; the question; the document
    to sum up, a text or better a list of its sentences."""
    pair: str | None = None
    """The second sentence of a pair; the context of a question."""
    label: str | None = "label"
    """The label: an integer, a name from `task.labels`, or a number in regression; several of them,
    as a list or with commas between, in multi_label; one for each word in tagging; `answers` with
    their text and answer_start in question_answering; the summary in extractive_summary."""


class Augmentation(Settings):
    """Copies of the training text with words replaced by likely others, as TinyBERT makes them."""

    copies: int = Field(20, ge=1)
    """Copies of each example; an epoch goes over the text and all copies."""
    probability: float = Field(0.4, gt=0, le=1)
    """Chance of each word of one token to be replaced."""
    candidates: int = Field(15, ge=1)
    """Likeliest words, of which one is drawn."""
    model: str | None = None
    """Masked language model with the teacher's vocabulary that says which words are likely; none:
    those nearest in the teacher's embeddings."""
    seed: int = 0


class TaskSettings(Settings):
    """What the student is to do. `task: NAME` is enough for a task that is known by name."""

    name: str
    """A known task (acceptability, one of GLUE's, squad, squad_v2, wnut17, goemotions,
    cnn_dailymail, xsum), or any name for data of your own."""
    kind: TaskKindName = "classification"
    """One class or a number for a text or a pair, several classes, a tag for each word, the
    answer's place in a text, the sentences that sum a text up, or masked words, for a student
    that is not of one task."""
    data: str | None = None
    """Hub name of the data set; `generated` for the built-in one; none for local files."""
    config: str | None = None
    """Configuration of the hub data set, `cola` of `nyu-mll/glue`."""
    train: str | None = None
    """Split to train on: a local csv, tsv, txt, json, jsonl, parquet or conll file, or the hub's
    split name. A json file may be nested as SQuAD's is."""
    dev: str | None = None
    """Split that scores the trials."""
    test: str | None = None
    """Split that scores the winner once, if there is one."""
    columns: Columns = Columns()
    column_names: list[str] | None = None
    """Names of the columns of a csv or tsv file that has no header, from the first, or of all of a
    conll file."""
    labels: list[str] | None = None
    """Names of the classes, in the order of their ids; none: those in the training split."""
    metric: MetricName = "accuracy"
    """What scores a student on `dev`; the search maximises it. f1 is that of class 1, of entities
    in tagging, of words in question_answering; rouge1, rouge2 and rougeL are F1 too."""
    max_length: int = Field(128, ge=4)
    """Longest input in tokens; longer ones are cut, in question_answering into windows, in
    extractive_summary between sentences."""
    stride: int = Field(128, ge=0)
    """Tokens of the context that two windows share, in question_answering. A question takes at
    most half of the others."""
    sentences: int = Field(3, ge=1)
    """Sentences of a summary, in extractive_summary."""
    mask_share: float = Field(0.15, gt=0, lt=1)
    """Share of the words to predict, in masked_lm."""
    train_examples: int | None = Field(None, ge=1)
    """Takes only the first so many training examples; a hub data set is streamed then."""
    seed: int = 0
    """Seed of the generated data."""
    augment: Annotated[Augmentation | None, block_from("copies", optional=True)] = None
    """More training examples for the students; a number alone is that of the copies."""

    @model_validator(mode="before")
    @classmethod
    def _fill_known(cls, settings: Any) -> Any:
        return with_task_defaults(settings) if isinstance(settings, dict) else settings

    @model_validator(mode="after")
    def _check(self) -> TaskSettings:
        if self.train is None or self.dev is None:
            missing = "train" if self.train is None else "dev"
            raise ValueError(
                f"task {self.name!r} is not known by name, so task.{missing} is needed: a local "
                "file, or a split of the hub data set in task.data"
            )
        if self.data is None:
            for split in (self.train, self.dev, self.test):
                if split is not None and not is_file_name(split):
                    raise ValueError(
                        f"{split!r} is not a {file_types()} file; "
                        "for a split of a hub data set name the data set in task.data"
                    )
        kind = KINDS[self.kind]
        if self.metric not in kind.metrics:
            raise ValueError(
                f"metric {self.metric} does not go with {self.kind}, but one of "
                f"{', '.join(kind.metrics)} does"
            )
        if self.columns.label is None and kind.has_labels:
            raise ValueError(f"columns.label is needed for {self.kind}")
        if self.columns.pair is None and kind.needs_pair is not None:
            raise ValueError(f"columns.pair is needed for {self.kind}: {kind.needs_pair}")
        if self.augment is not None and not kind.of_whole_texts:
            raise ValueError(f"augment would move what {self.kind} is to find; leave it out")
        if problem := kind.problem(self):
            raise ValueError(problem)
        return self
