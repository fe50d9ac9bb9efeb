"""Settings of the teacher: how it is trained, how it is run, where its targets are stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings
from lkd_tune.config.settings.training import TrainSettings


class Inference(Settings):
    """How a model is run that is not trained."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the weights while it runs; bf16 takes half the memory. auto: fp32, but where it runs in
    each trial it computes in bf16 if the student does."""
    placement: Literal["device", "cpu", "sharded"] = "device"
    """Where the weights lie while it runs. `cpu`: in the host's memory, once for each worker; they
    are brought to the GPU when their turn comes. `sharded`: on the GPUs of a trial's workers, a
    share on each (ZeRO-3); where one process runs it, as for stored targets, as with `cpu`."""

    @property
    def is_plain(self) -> bool:
        """Whether a model is run as it was loaded, in fp32 and all on the device."""
        return self.precision != "bf16" and self.placement == "device"


PLAIN = Inference()


class Architecture(Settings):
    """A BERT from scratch, with a vocabulary of the task's training text."""

    layers: int = Field(6, ge=1)
    hidden_size: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    intermediate_size: int | None = Field(None, ge=8)
    """Width of the feed-forward layers; none: 4 × hidden_size."""
    dropout: float = Field(0.1, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the first weights; a narrow, deep model needs more than BERT's."""
    vocabulary: Literal["words", "wordpiece", "unigram"] = "words"
    """`words`: whole words, lower-cased, for small generated text; `wordpiece` or `unigram`: pieces
    of words, case and accents kept, for real text in any language."""
    vocabulary_size: int = Field(8000, ge=100)
    """Largest number of tokens; `words` keeps all words."""


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


class TargetSettings(Settings):
    """Where the teacher's part of the losses comes from."""

    source: Literal["auto", "live"] = "auto"
    """auto: computed once for all trials and stored, if that is small enough; live: the teacher
    runs in every trial."""
    max_gb: float = Field(20.0, ge=0)
    """Largest size of stored targets in GB (10⁹ bytes); beyond it the teacher runs live."""
