"""Settings of the objective: its terms and their weights.

The fields of `LossSettings` whose type is a `TermSettings` are the list of terms. A new term is a
settings class and a field here, and an entry in `lkd_tune.losses.terms.TERMS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.recipes import DEFAULT_RECIPE, RECIPES, RecipeName

Distance = Literal["cosine", "l2"]
Discrepancy = Literal["kl", "l2", "l1", "smooth_l1"]
Divergence = Literal["kl", "reverse_kl", "js", "mse"]
Weight = Annotated[float, Field(ge=0)]
# What a term reads of the models' outputs; the names are attributes of `losses.inputs.LossInputs`.
Part = Literal["word_relations", "layer_relations", "hidden_states", "attention", "logits"]


class TermSettings(Settings):
    """Settings of one term. A number alone is its weight."""

    needs: ClassVar[frozenset[Part]]
    """Parts of the models' outputs that the term reads."""

    weight: Weight = 1.0
    """0 leaves the term out."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the term reads anything of the teacher."""
        return self.weight > 0

    @property
    def needs_padding(self) -> bool:
        """Whether the term reads padded positions of the teacher, which stored targets lack."""
        return False


class PairLoss(TermSettings):
    """A pair-wise relation. A number alone is its weight."""

    distance: Distance = "cosine"
    discrepancy: Discrepancy = "kl"

    @model_validator(mode="after")
    def _check(self) -> PairLoss:
        if self.discrepancy == "kl" and self.distance != "cosine":
            raise ValueError(
                f"discrepancy kl requires distance cosine, found {self.distance}; "
                "use l2, l1 or smooth_l1"
            )
        return self


class WordPairLoss(PairLoss):
    """The pair-wise word relation. A number alone is its weight."""

    needs: ClassVar[frozenset[Part]] = frozenset({"word_relations"})


class LayerPairLoss(PairLoss):
    """The pair-wise layer transforming relation. A number alone is its weight."""

    needs: ClassVar[frozenset[Part]] = frozenset({"layer_relations"})


class TripleLoss(TermSettings):
    """A triple-wise relation: the angles that triples form. A number alone is its weight."""

    weight: Weight = 10.0
    discrepancy: Literal["l2", "l1", "smooth_l1"] = "l2"


class LayerTripleLoss(TripleLoss):
    """The triple-wise layer transforming relation. A number alone is its weight."""

    needs: ClassVar[frozenset[Part]] = frozenset({"layer_relations"})


class WordTripleLoss(TripleLoss):
    """The triple-wise word relation. A number alone is its weight."""

    needs: ClassVar[frozenset[Part]] = frozenset({"word_relations"})

    window: int | None = Field(21, ge=3)
    """Width of the local window in words, an odd number. null: all words."""
    variant: Literal["masked", "paper"] = "masked"
    """`paper`: the published form, in which padding near the end of a sentence counts."""

    @model_validator(mode="after")
    def _check(self) -> WordTripleLoss:
        if self.window is not None and self.window % 2 == 0:
            raise ValueError(f"window {self.window} is even; use an odd number of words")
        return self

    @property
    def needs_padding(self) -> bool:
        """Whether the term is the published windowed form, which counts padded neighbours."""
        return self.weight > 0 and self.variant == "paper" and self.window is not None


class LogitLoss(TermSettings):
    """The task's own loss against the teacher's logits. A number alone is its weight."""

    needs: ClassVar[frozenset[Part]] = frozenset({"logits"})

    temperature: float = Field(3.0, gt=0)
    """Divides the logits of student and teacher. Has no effect in regression or with
    `divergence: mse`."""
    divergence: Divergence = "kl"
    """How the student's probabilities p differ from the teacher's q. `kl`: cross-entropy of p with
    q, which is KL(q ‖ p) up to a constant; `reverse_kl`: KL(p ‖ q); `js`: Jensen-Shannon. `mse`:
    mean squared difference of the logits themselves, as always in regression."""
    scaled: bool = False
    """Multiply the soft part by temperature², so that its gradient keeps its size at any
    temperature. Has no effect where the temperature has none."""
    alpha: float = Field(0.0, ge=0, le=1)
    """Share of the loss against the labels, a mean over those examples that have one. 1: the labels
    alone."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's logits have a share in the loss."""
        return self.weight > 0 and self.alpha < 1


class HiddenLoss(TermSettings):
    """Hidden states, regressed at the layers of the word map. A number alone is its weight.

    Left out unless it is named. Where the student is narrower than the teacher, a learned linear
    map projects its states; it is trained with the student and is no part of it.
    """

    needs: ClassVar[frozenset[Part]] = frozenset({"hidden_states"})

    discrepancy: Literal["l2", "cosine"] = "l2"
    """Of two vectors. `l2`: mean squared difference, as TinyBERT has it; `cosine`: 1 minus the
    cosine similarity, as DistilBERT and, up to a factor of 2, PKD have it."""
    layers: Literal["all", "last"] = "all"
    """`all`: all layers of the word map, embeddings included; `last`: only its last."""
    words: Literal["all", "first"] = "all"
    """`first`: only the first token of each text, as PKD has it."""


class AttentionLoss(TermSettings):
    """Relations of queries, keys and values at the layers of the word map. A number alone is its
    weight.

    Left out unless it is named. Student and teacher may differ in width and in number of heads.
    """

    needs: ClassVar[frozenset[Part]] = frozenset({"attention"})

    variant: Literal["self_relations", "distributions"] = "self_relations"
    """`self_relations`: queries with queries, keys with keys and values with values, as MiniLMv2
    has it; `distributions`: queries with keys, and values with values, as MiniLM has it."""
    discrepancy: Literal["kl", "l2"] = "kl"
    """`kl`: KL divergence of the student's softmax of the scaled products from the teacher's; `l2`:
    mean squared difference of the scaled products, as TinyBERT has it for attention."""
    layers: Literal["all", "last"] = "last"
    """`last`: only the last layer of the word map; `all`: all but the embeddings."""
    heads: int | None = Field(None, ge=1)
    """Number of parts that vectors are divided into, at most their width. Default: the teacher's
    number of heads."""


class LossSettings(Settings):
    """The terms of the objective. A name alone is that of a recipe.

    The recipe gives the terms; other keys change or add to them. A term that neither names has
    weight 0. `lkd-tune recipes` lists the recipes.
    """

    recipe: RecipeName = DEFAULT_RECIPE
    """The published recipe that gives the terms which the block does not set."""
    wr_pair: Annotated[WordPairLoss, block_from("weight")] = WordPairLoss()
    wr_triple: Annotated[WordTripleLoss, block_from("weight")] = WordTripleLoss()
    ltr_pair: Annotated[LayerPairLoss, block_from("weight")] = LayerPairLoss()
    ltr_triple: Annotated[LayerTripleLoss, block_from("weight")] = LayerTripleLoss()
    logits: Annotated[LogitLoss, block_from("weight")] = LogitLoss()
    hidden: Annotated[HiddenLoss, block_from("weight")] = HiddenLoss(weight=0)
    attention: Annotated[AttentionLoss, block_from("weight")] = AttentionLoss(weight=0)
    relations_until: float = Field(1.0, gt=0, le=1)
    """Share of the optimizer steps after which only the logits count, and all other terms end. 1:
    they last as long as the training. No effect if the logits or all other terms have weight 0."""
    balance: Literal["none", "gradient"] = "none"
    """What a weight of 1 means. `none`: the term as its formula has it. `gradient`: a gradient as
    large as that of the loss against the teacher's logits at the start of a training. Norms are
    measured once, before the first trial. A single term is not balanced."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        """Returns a block with the terms of its recipe; a complete block is not changed."""
        name = value.get("recipe", DEFAULT_RECIPE) if isinstance(value, Mapping) else None
        recipe = RECIPES.get(name) if isinstance(name, str) else None
        if recipe is None:
            return value  # reported by the checks of the fields
        terms = (key for key, f in cls.model_fields.items() if isinstance(f.default, TermSettings))
        return {**dict.fromkeys(terms, 0), **_merged(recipe.losses, value)}

    @model_validator(mode="after")
    def _check(self) -> LossSettings:
        if not any(True for _ in self.active()):
            raise ValueError(
                f"all {len(TERM_NAMES)} weights are 0, so there is nothing to train on; "
                "set at least one above 0"
            )
        return self

    def terms(self) -> Iterator[tuple[str, TermSettings]]:
        """Yields all terms, by name, in the order of `TERM_NAMES`."""
        yield from ((name, term) for name, term in self if isinstance(term, TermSettings))

    def active(self) -> Iterator[tuple[str, TermSettings]]:
        """Yields the terms with a weight above 0, by name."""
        yield from ((name, term) for name, term in self.terms() if term.weight > 0)

    @property
    def is_balanced(self) -> bool:
        """Whether the active terms are balanced; a single one has nothing to be balanced with."""
        return self.balance == "gradient" and len(dict(self.active())) > 1

    def with_weights(self, weights: Mapping[str, float]) -> LossSettings:
        """Returns the same terms with other weights for those that are named."""
        return self.model_copy(
            update={
                name: getattr(self, name).model_copy(update={"weight": weight})
                for name, weight in weights.items()
            }
        )

    @property
    def relations_end(self) -> bool:
        """Whether terms end before the training does, so that the logits alone are left."""
        others = any(name != "logits" for name, _ in self.active())
        return self.relations_until < 1 and others and self.logits.weight > 0

    def at_step(self, step: int, total: int) -> LossSettings:
        """Returns the terms of one optimizer step; those that have ended have weight 0.

        It depends on nothing but the step, so a resumed training has the same objective.

        Args:
            step: The step, the first is 0.
            total: Steps of the whole training.
        """
        end = math.ceil(self.relations_until * total - 1e-9)  # in floats, 0.07 * 100 is above 7
        if not self.relations_end or step < end:
            return self
        return self.with_weights({name: 0.0 for name, _ in self.terms() if name != "logits"})

    @property
    def needs(self) -> frozenset[Part]:
        """Parts of the models' outputs that the active terms read."""
        return frozenset(part for _, term in self.active() for part in term.needs)

    @property
    def needs_labels(self) -> bool:
        """Whether any term reads the labels."""
        return self.logits.weight > 0 and self.logits.alpha > 0

    def check_labels(self, train: str | None) -> None:
        """Checks that a task has labels if they are read.

        Args:
            train: The task's split with labels, None if it has none.

        Raises:
            ValueError: If they are read and it has none.
        """
        if train is None and self.needs_labels:
            raise ValueError(
                f"logits.alpha {self.logits.alpha:g} needs labels, and without task.train there "
                "are none; set losses.logits.alpha to 0"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher's outputs."""
        return any(term.needs_teacher for _, term in self.active())

    @property
    def needs_layers(self) -> bool:
        """Whether any term compares layers, so that the layer map matters."""
        return not self.needs <= {"logits"}

    @property
    def needs_hidden_states(self) -> bool:
        """Whether any term reads the student's hidden states."""
        return not self.needs.isdisjoint({"word_relations", "layer_relations", "hidden_states"})

    @property
    def needs_padding(self) -> bool:
        """Whether any term reads padded positions of the teacher, which stored targets lack."""
        return any(term.needs_padding for _, term in self.active())


def _merged(recipe: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the losses of a recipe with the keys of a block in their place."""
    merged = {**recipe, **block}
    for name in recipe.keys() & block.keys():
        terms, value = recipe[name], block[name]
        if isinstance(terms, Mapping) and not isinstance(value, BaseModel):
            merged[name] = {**terms, **(value if isinstance(value, Mapping) else {"weight": value})}
    return merged


TERM_NAMES = tuple(name for name, _ in LossSettings().terms())
"""The names of the terms: keys in a space file, and in the names of metrics and columns."""


def _check_term_name(name: str) -> str:
    if name not in TERM_NAMES:
        raise ValueError(f"{name!r} is not a loss term; use {', '.join(TERM_NAMES)}")
    return name


TermName = Annotated[str, AfterValidator(_check_term_name)]

LABELS_ONLY = LossSettings(recipe="labels")
"""The objective of plain fine-tuning: the loss against the labels alone."""
