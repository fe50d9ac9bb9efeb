"""Every setting of a trial, with its default and meaning, and of the search around it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from lkd_tune.config.settings.architecture import Architecture
from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.batch import check_batch
from lkd_tune.config.settings.inference import Inference
from lkd_tune.config.settings.known_tasks import is_file_name, with_task_defaults
from lkd_tune.config.settings.layer_map import NAMED
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.resources import ResourceSettings
from lkd_tune.config.settings.search import (
    ConfirmSettings,
    KeepSettings,
    LimitSettings,
    SearchSettings,
)
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.settings.trackers import TrackerSettings
from lkd_tune.records.pareto import Objective

TaskKind = Literal[
    "classification", "regression", "multi_label", "tagging", "question_answering",
    "extractive_summary", "masked_lm",
]  # fmt: skip
Metric = Literal[
    "accuracy", "exact_match", "f1", "macro_f1", "matthews", "micro_f1", "pearson", "precision",
    "recall", "rouge1", "rouge2", "rougeL", "spearman",
]  # fmt: skip
assert set(TaskKind.__args__) == set(KINDS)  # type: ignore[attr-defined]


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
    kind: TaskKind = "classification"
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
    metric: Metric = "accuracy"
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
                        f"{split!r} is no csv, tsv, txt, json, jsonl, parquet or conll file; "
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
        if self.kind == "extractive_summary" and len(self.labels or "ab") != 2:
            raise ValueError("labels of extractive_summary name two classes: out, in")
        if self.kind == "question_answering" and self.stride >= self.max_length - 8:
            raise ValueError(f"stride {self.stride} leaves no room in max_length {self.max_length}")
        return self


class TrainSettings(Settings):
    """How a model is trained, a student under its objective or a teacher on the labels."""

    epochs: float = Field(3, gt=0)
    """Passes over the training data."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; overrides `epochs`."""
    batch_size: int = Field(32, ge=1)
    """Examples in one optimizer step, over all workers and micro-batches."""
    tokens_per_batch: int | None = Field(None, ge=8)
    """Tokens in one optimizer step, padding counted; overrides `batch_size`: many short examples
    make up a batch, or few long ones."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples that one worker takes at a time; none: all of its share."""
    lr: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls linearly to 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's, on matrices only."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """AdamW's decay of squared gradients; 0.98 steadies training from scratch."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    evaluations: int = Field(3, ge=1)
    """Scores on dev in a trial: at the end, at half of the steps, at a quarter, and so on."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, else fp32. A CPU that has units for bf16 (AMX) rounds the
    factors of products to it then, for students of width 128 and more; evaluations are exact."""
    activation_checkpointing: bool = False
    """Makes each layer's activations anew in the backward pass instead of keeping them: the same
    losses in less memory, for about a third more computing."""
    bad_examples: Literal["stop", "skip"] = "stop"
    """One whose loss is not finite, or that raises, is named; skip leaves it out, up to 1%."""


class FineTuning(TrainSettings):
    """How a student is fine-tuned before it is scored."""

    evaluations: Literal[1] = 1
    """It is scored at the end alone."""


class EvaluateOn(Settings):
    """A task that scores students of masked_lm, which are fine-tuned on its labels for that.

    It costs a fine-tuning at the end of each trial. `evaluate_on: NAME` is a known task.
    """

    # Test is left to the search on that task: here it would be scored once for each trial.
    task: Annotated[
        TaskSettings,
        block_from("name"),
        AfterValidator(lambda task: task.model_copy(update={"test": None})),
    ]
    train: FineTuning = FineTuning()

    @field_validator("task")
    @classmethod
    def _check(cls, task: TaskSettings) -> TaskSettings:
        if not KINDS[task.kind].has_labels:
            raise ValueError(f"a task with labels is needed to fine-tune on, not {task.kind}")
        return task


class TeacherTraining(TrainSettings):
    """Fine-tunes a teacher before the search; cached by what it is made from."""

    model: str | None = None
    """Pre-trained model to start from: a local folder or a hub id."""
    architecture: Architecture | None = None
    """Or a BERT to train from scratch."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> TeacherTraining:
        if (self.model is None) == (self.architecture is None):
            raise ValueError("one of teacher.train.model and teacher.train.architecture is needed")
        return self


class TeacherSettings(Inference):
    """The model to learn from. `teacher: PATH` is short for `teacher: {model: PATH}`."""

    model: str | None = None
    """A model fine-tuned on the task: a local folder or a hub id."""
    train: TeacherTraining | None = None
    """Or how to fine-tune one first."""

    @model_validator(mode="after")
    def _check(self) -> TeacherSettings:
        if (self.model is None) == (self.train is None):
            found = "neither" if self.model is None else "both"
            raise ValueError(
                f"one of teacher.model and teacher.train is needed, found {found}; "
                "`teacher: PATH` (or --set teacher=PATH) replaces the whole block"
            )
        return self

    @property
    def inference(self) -> Inference:
        """How it is run."""
        return Inference(precision=self.precision, placement=self.placement)


class StudentSettings(Settings):
    """The model to find."""

    depth: int = Field(3, ge=1)
    """Number of encoder layers, at most the teacher's."""
    init: str = "teacher"
    """`teacher`: embeddings, mapped layers and head carved from the teacher; `nearest`: the
    search's finished student of the same shape with the nearest layer map, or the teacher where
    there is none yet; `random`; or a folder or hub id to start from (its depth must agree)."""
    hidden_size: int | None = Field(None, ge=8)
    """Width of the hidden states; none: the teacher's. A narrower student keeps the teacher's most
    important dimensions, heads and neurons, measured once on training text."""
    heads: int | None = Field(None, ge=1)
    """Attention heads of a layer; none: as many of the teacher's size as hidden_size holds."""
    intermediate_size: int | None = Field(None, ge=8)
    """Neurons of a feed-forward layer; none: in the teacher's proportion to hidden_size."""
    vocab: Literal["teacher", "trim"] = "teacher"
    """`trim`: only the tokens that occur in the training text, special ones and single characters;
    the student's tokenizer is trimmed to match."""

    @property
    def made_from(self) -> str:
        """`init`, but what a student is made from that inherits nothing: the teacher."""
        return "teacher" if self.init == "nearest" else self.init


LayerMapName = Literal[
    "skip", "last", "first", "top_bottom", "lower_half", "random", "monotone", "free"
]
assert set(LayerMapName.__args__) == set(NAMED)  # type: ignore[attr-defined]


class LayerMapSettings(Settings):
    """Which teacher layers the student's are matched with. `layer_map: X` sets both relations."""

    word: LayerMapName | list[int] = "skip"
    """Map of the word relations: a preset (skip, last, first, top_bottom, lower_half), a list
    such as [0, 2, 4, 6], `random` (drawn anew in each step), or a searched one (monotone, free)."""
    layer: LayerMapName | list[int] | Literal["same"] = "same"
    """Map of the layer transforming relations; `same` as that of the word relations."""
    pin_embeddings: bool = True
    """Match embeddings with embeddings, in random and searched maps."""
    pin_last: bool = True
    """Match the last layer with the teacher's last, in random and searched maps."""


class TargetSettings(Settings):
    """Where the teacher's part of the losses comes from."""

    source: Literal["auto", "live"] = "auto"
    """auto: computed once for all trials and stored, if that is small enough; live: the teacher
    runs in every trial."""
    max_gb: float = Field(20.0, ge=0)
    """Largest size of stored targets in GB (10⁹ bytes); beyond it the teacher runs live."""


class SpaceSettings(Settings):
    """A whole space file, with a value drawn for each distribution."""

    task: Annotated[TaskSettings, block_from("name")]
    teacher: Annotated[TeacherSettings, block_from("model")]
    evaluate_on: Annotated[EvaluateOn | None, block_from("task", optional=True)] = None
    """In masked_lm: the score is that of a fine-tuning on another task, at the end of each trial;
    none: the share of masked words that are found. Trials are stopped early by the latter."""
    student: StudentSettings = StudentSettings()
    layer_map: Annotated[LayerMapSettings, block_from("word")] = LayerMapSettings()
    losses: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    targets: TargetSettings = TargetSettings()
    search: SearchSettings = SearchSettings()
    resources: ResourceSettings = ResourceSettings()
    keep: KeepSettings = KeepSettings()
    objectives: tuple[Objective, ...] = ("score",)
    """What is best: score (to be large), and parameters, flops, latency_ms, latency_ms_batch_32 or
    disk_mb (to be small). Several give a Pareto front and a recommended knee."""
    limits: LimitSettings = LimitSettings()
    confirm: ConfirmSettings | None = None
    """At the end, train the best again with new seeds; none: take one score of one seed for it."""
    trackers: TrackerSettings = TrackerSettings()

    @property
    def score_name(self) -> str:
        """What the score is called: `accuracy`, or `sst2 accuracy` of another task."""
        return score_name(self.task, self.evaluate_on)

    @field_validator("evaluate_on")
    @classmethod
    def _check_evaluate_on(cls, value: EvaluateOn | None, info: ValidationInfo) -> Any:
        if value is not None and "task" in info.data:  # else that is wrong, and told
            check_evaluate_on(info.data["task"])
        return value

    @model_validator(mode="after")
    def _check(self) -> SpaceSettings:
        check_batch(self.train, self.resources)
        if self.evaluate_on is not None:
            check_batch(self.evaluate_on.train, self.resources, key="evaluate_on.train")
        if self.task.kind == "masked_lm" and self.student.vocab == "trim":
            raise ValueError("student.vocab: trim would leave masked_lm without words to predict")
        if "score" not in self.objectives or len({*self.objectives}) < len(self.objectives):
            raise ValueError(
                f"objectives needs score, and nothing twice; found {', '.join(self.objectives)}"
            )
        if len(self.objectives) > 1:
            self.search.check_several_objectives()
        return self


def score_name(task: TaskSettings, evaluate_on: EvaluateOn | None) -> str:
    """Returns what the score of a trial is called.

    One that another task gives has a name that no metric of the trial's own task has, so that
    nothing can take one for the other: the teacher, for one, has no such score.
    """
    scored = evaluate_on.task if evaluate_on else None
    return task.metric if scored is None else f"{scored.name} {scored.metric}"


def check_evaluate_on(task: TaskSettings) -> None:
    """Refuses a task whose students need no other one to be scored on.

    Raises:
        ValueError: If it has labels itself, or a test split, which would score the winner by
            something else than dev did.
    """
    if KINDS[task.kind].has_labels:
        raise ValueError(f"is for task.kind masked_lm; a student of {task.kind} has a score itself")
    if task.test is not None:
        raise ValueError("does not go with task.test, which has no such score; leave that out")
