"""Settings of the teacher: how it is trained, how it is run, where its targets are stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings
from lkd_tune.config.settings.training import TrainSettings


class Inference(Settings):
    """How a model that is not trained is run."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the weights; bf16 takes half the memory. auto: fp32, but a teacher that runs in
    each trial computes in bf16 if the student does."""
    placement: Literal["device", "cpu", "sharded"] = "device"
    """Where the weights are. `device`: on the device. `cpu`: in host memory, once for each worker;
    each layer is copied to the GPU when it runs. `sharded`: distributed over the GPUs of a trial's
    workers (ZeRO-3); if a single process runs the model, as for stored targets, like `cpu`."""

    @property
    def is_plain(self) -> bool:
        """Whether a model is run as it was loaded: in fp32 and completely on the device."""
        return self.precision != "bf16" and self.placement == "device"


PLAIN = Inference()


class Architecture(Settings):
    """A BERT to train from scratch, with a vocabulary built from the task's training text."""

    layers: int = Field(6, ge=1)
    hidden_size: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    intermediate_size: int | None = Field(None, ge=8)
    """Width of the feed-forward layers. Default: 4 × hidden_size."""
    dropout: float = Field(0.1, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights; narrow, deep models need more than BERT's 0.02."""
    vocabulary: Literal["words", "wordpiece", "unigram"] = "words"
    """`words`: whole lower-cased words, for small generated text. `wordpiece` or `unigram`:
    subwords with case and accents, for real text in any language."""
    vocabulary_size: int = Field(8000, ge=100)
    """Maximum number of tokens; `words` keeps all words."""


class TeacherTraining(TrainSettings):
    """How a teacher is trained before the search; trained teachers are cached."""

    model: str | None = None
    """Pre-trained model to start from: a local folder or a hub id."""
    architecture: Architecture | None = None
    """Instead of `model`: a BERT to train from scratch."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> TeacherTraining:
        if (self.model is None) == (self.architecture is None):
            raise ValueError(
                "exactly one of teacher.train.model and teacher.train.architecture is required"
            )
        return self


class TeacherSettings(Inference):
    """The teacher model. `teacher: PATH` is short for `teacher: {model: PATH}`."""

    model: str | None = None
    """A model fine-tuned on the task: a local folder or a hub id."""
    train: TeacherTraining | None = None
    """Instead of `model`: how to train a teacher first."""
    allow_chance_level: bool = False
    """Whether to search although the teacher is on dev no better than one that always answers the
    same, such as the largest class. By default, such a search stops before its first trial."""

    @model_validator(mode="after")
    def _check(self) -> TeacherSettings:
        if (self.model is None) == (self.train is None):
            found = "neither" if self.model is None else "both"
            raise ValueError(
                f"exactly one of teacher.model and teacher.train is required, found {found}; "
                "`teacher: PATH` (or --set teacher=PATH) replaces the whole block"
            )
        return self

    @property
    def inference(self) -> Inference:
        """How the teacher is run."""
        return Inference(precision=self.precision, placement=self.placement)


class TargetSettings(Settings):
    """How the teacher's outputs, the targets of the losses, are computed."""

    source: Literal["auto", "live"] = "auto"
    """auto: computed once for all trials and stored, if they are at most max_gb. Hidden states,
    queries, keys and values are stored if a trial may compare them and they fit as well; else the
    teacher runs in the trials that compare them. live: the teacher runs in every trial."""
    max_gb: float = Field(20.0, ge=0)
    """Maximum size of stored targets in GB (10⁹ bytes); above it the teacher runs live."""
