"""The factors by which `losses.balance: gradient` multiplies the weights of the loss terms.

Terms differ by orders of magnitude in how strongly they pull at the weights of a student, and by
how much depends on the teacher, the task and the settings of a term. The strength of a term is the
norm of its gradient at weight 1, as a multiple of that of `REFERENCE`; its scale is the inverse.
`lkd_tune.distillation.balance` measures them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lkd_tune.config.distributions import Distribution, Numbers
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.base import Settings
from lkd_tune.config.settings.losses import (
    TERM_NAMES,
    LogitLoss,
    LossSettings,
    TermName,
    TermSettings,
)

REFERENCE = LogitLoss(weight=1.0, temperature=1.0)
"""What a term of weight 1 is as strong as: the loss against the teacher's logits."""
# Combinations of settings of one term that are looked through; spaces have a few.
_MAX_COMBINATIONS = 2000


class TermScale(Settings):
    """The scale of a term with certain settings."""

    settings: dict[str, Any]
    """The settings of the term, without its weight."""
    strength: float
    """Norm of its gradient at weight 1 as a multiple of that of the reference. 0 if it has none at
    the start of a training, or none that is finite."""

    @property
    def scale(self) -> float:
        """The factor of its weight; 1 for a term without a gradient."""
        return 1 / self.strength if self.strength > 0 else 1.0


class LossScales(Settings):
    """The scales of the terms that the trials of a search can have."""

    terms: dict[TermName, tuple[TermScale, ...]]
    """By term, one for each of its settings that were measured."""

    def scales_of(self, losses: LossSettings) -> dict[str, float]:
        """Returns the scale of each active term; {} if one has settings that were not measured.

        Between two measured values of a number, such as a temperature, the logarithm of the scale
        is interpolated.
        """
        found = {
            name: _log_scale(self.terms.get(name, ()), list(settings_of(term).items()))
            for name, term in losses.active()
        }
        known = {name: math.exp(value) for name, value in found.items() if value is not None}
        return known if len(known) == len(found) else {}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Returns the smallest and the largest scale of each term that has a gradient."""
        scales = {
            name: [each.scale for each in measured if each.strength > 0]
            for name, measured in self.terms.items()
        }
        return {name: (min(own), max(own)) for name, own in scales.items() if own}

    def without_gradient(self) -> list[str]:
        """Returns the terms that have no gradient, with some of their settings or with all."""
        return [name for name, own in self.terms.items() if any(each.strength == 0 for each in own)]


def settings_of(term: TermSettings) -> dict[str, Any]:
    """Returns the settings of a term without its weight, as `TermScale` has them."""
    return term.model_dump(mode="json", exclude={"weight"})


def with_other_scales(
    losses: LossSettings, before: Mapping[str, float], after: Mapping[str, float]
) -> LossSettings:
    """Returns losses whose weights, times other scales, have the same proportions as before.

    Args:
        losses: The terms. The weight of the logits does not change, if they have one.
        before: The scales that the weights are multiplied by now; those left out are 1.
        after: The scales that they are to be multiplied by.
    """
    factors = {name: before.get(name, 1.0) / after.get(name, 1.0) for name, _ in losses.active()}
    unit = factors.get("logits", 1.0)
    return losses.with_weights(
        {name: term.weight * factors[name] / unit for name, term in losses.active()}
    )


def term_variants(
    distributions: Mapping[str, Distribution],
    resolve: Callable[[Mapping[str, Any]], LossSettings],
    *,
    terms: Sequence[str] = TERM_NAMES,
    balanced: bool = True,
) -> dict[str, list[TermSettings]]:
    """Returns the settings of each term that a trial of a space may have, at weight 1.

    Choices are tried in all combinations, of a range of numbers both ends and the middle.

    Args:
        distributions: Those of the space, by the name of their parameter.
        resolve: Returns the losses with some parameters picked, or raises `SpecError`.
        terms: Names of the terms.
        balanced: Whether only terms count whose strength is to be measured.
    """
    variants: dict[str, list[TermSettings]] = {}
    for name in terms:
        own = [each for each in distributions if _concerns(each, name)]
        values = [_probes(distributions[each]) for each in own]
        for picked in itertools.islice(itertools.product(*values), _MAX_COMBINATIONS):
            try:
                losses = resolve(dict(zip(own, picked, strict=True)))
            except SpecError:  # a combination that no trial can have
                continue
            term = dict(losses.active()).get(name)
            if term is None or (balanced and losses.balance == "none"):
                continue
            variant = term.model_copy(update={"weight": 1.0})
            if variant not in variants.setdefault(name, []):
                variants[name].append(variant)
    return variants


def _concerns(parameter: str, term: str) -> bool:
    """Whether a parameter may change a term, or whether terms are balanced."""
    block, *keys = parameter.split(".")
    return block == "losses" and (not keys or keys[0] == term or keys[0] not in TERM_NAMES)


def _probes(distribution: Distribution) -> Sequence[Any]:
    if isinstance(distribution, Numbers):
        return sorted({distribution.low, distribution.middle, distribution.high})
    return distribution.probes


def _log_scale(points: Sequence[TermScale], wanted: list[tuple[str, Any]]) -> float | None:
    """Returns the logarithm of the scale at some settings, None if they were not measured.

    Args:
        points: What was measured, equal to the settings in those that `wanted` leaves out.
        wanted: The other settings by name.
    """
    if not points:
        return None
    if not wanted:
        return math.log(points[0].scale)
    (name, value), *others = wanted

    def at(measured: Any) -> float | None:
        same = [point for point in points if point.settings.get(name) == measured]
        return _log_scale(same, others)

    if (exact := at(value)) is not None or not _is_number(value):
        return exact
    numbers: list[Any] = [point.settings.get(name) for point in points]
    numbers = [number for number in numbers if _is_number(number)]
    below = max((number for number in numbers if number < value), default=None)
    above = min((number for number in numbers if number > value), default=None)
    if below is None or above is None or (low := at(below)) is None or (high := at(above)) is None:
        return None
    # Gradients are close to powers of a temperature.
    place: Callable[[float], float] = math.log if below > 0 else float
    share = (place(value) - place(below)) / (place(above) - place(below))
    return (1 - share) * low + share * high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
