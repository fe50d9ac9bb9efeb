"""Settings of the objective: the five terms and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings, block_from

Distance = Literal["cosine", "l2"]
Discrepancy = Literal["kl", "l2", "l1", "smooth_l1"]
Weight = Annotated[float, Field(ge=0)]


class PairLoss(Settings):
    """A pair-wise relation. A number alone is its weight."""

    weight: Weight = 1.0
    """0 leaves the term out."""
    distance: Distance = "cosine"
    discrepancy: Discrepancy = "kl"

    @model_validator(mode="after")
    def _check(self) -> PairLoss:
        if self.discrepancy == "kl" and self.distance != "cosine":
            raise ValueError(
                f"discrepancy kl goes with distance cosine only, found {self.distance}; "
                "use l2, l1 or smooth_l1"
            )
        return self


class TripleLoss(Settings):
    """A triple-wise relation: the angles that triples form. A number alone is its weight."""

    weight: Weight = 10.0
    discrepancy: Literal["l2", "l1", "smooth_l1"] = "l2"


class WindowedTripleLoss(TripleLoss):
    """The triple-wise word relation."""

    window: int | None = Field(21, ge=3)
    """Width of the local window in words, an odd number; none: all words."""
    variant: Literal["masked", "paper"] = "masked"
    """`paper`: the published form, in which padding near the end of a sentence counts."""

    @model_validator(mode="after")
    def _check(self) -> WindowedTripleLoss:
        if self.window is not None and self.window % 2 == 0:
            raise ValueError(f"window {self.window} is even; use an odd number of words")
        return self


class LogitLoss(Settings):
    """The task's own loss against the teacher's logits. A number alone is its weight."""

    weight: Weight = 1.0
    temperature: float = Field(3.0, gt=0)
    """Softens the probabilities of both; of no effect in regression, which has none."""
    alpha: float = Field(0.0, ge=0, le=1)
    """Share of the hard label's loss; 1: the labels alone."""


class LossSettings(Settings):
    """The five terms of the objective; the defaults are the published weights for CoLA."""

    wr_pair: Annotated[PairLoss, block_from("weight")] = PairLoss()
    wr_triple: Annotated[WindowedTripleLoss, block_from("weight")] = WindowedTripleLoss()
    ltr_pair: Annotated[PairLoss, block_from("weight")] = PairLoss()
    ltr_triple: Annotated[TripleLoss, block_from("weight")] = TripleLoss()
    logits: Annotated[LogitLoss, block_from("weight")] = LogitLoss()

    @model_validator(mode="after")
    def _check(self) -> LossSettings:
        if all(term.weight == 0 for _, term in self):
            raise ValueError("all five weights are 0: nothing to train on")
        return self

    def with_weights(self, weights: Mapping[str, float]) -> LossSettings:
        """Returns the same terms with other weights for those that are named."""
        return self.model_copy(
            update={
                name: getattr(self, name).model_copy(update={"weight": weight})
                for name, weight in weights.items()
            }
        )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return self.needs_relations or (self.logits.weight > 0 and self.logits.alpha < 1)

    @property
    def needs_relations(self) -> bool:
        """Whether any term compares hidden states."""
        return any(term.weight > 0 for name, term in self if name != "logits")


LABELS_ONLY = LossSettings(
    wr_pair={"weight": 0},
    wr_triple={"weight": 0},
    ltr_pair={"weight": 0},
    ltr_triple={"weight": 0},
    logits=LogitLoss(weight=1, alpha=1),
)
"""The objective of plain fine-tuning: the hard labels' loss alone."""
