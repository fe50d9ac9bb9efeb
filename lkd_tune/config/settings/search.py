"""Settings of the search: sampler, scheduler, limits, confirmation and kept students."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lkd_tune.config.objectives import COSTS
from lkd_tune.config.settings.base import Settings
from lkd_tune.config.settings.recipes import RecipeName

# Built in lkd_tune/tuning/samplers/build.py and lkd_tune/tuning/schedulers/build.py.
Sampler = Literal["tpe", "random", "grid", "nsga2", "nsga3", "gp", "cma", "evolution"]
Scheduler = Literal["asha", "hyperband", "median", "none"]
# Those that support one objective only, and what to use instead.
_ONE_OBJECTIVE = {
    ("sampler", "cma"): "tpe, gp, nsga2 or nsga3",
    ("scheduler", "median"): "asha or hyperband",
}
# Samplers that go through every point of a space, which must be finite.
_EXHAUSTIVE = {"grid"}


class SearchSettings(Settings):
    """How the space is searched."""

    trials: int = Field(16, ge=1)
    """Total number of trials, including those stopped early."""
    time_budget: float | None = Field(None, gt=0)
    """Minutes after which all trials of the search are stopped. Confirmation with other seeds, the
    comparison with the labels alone and the test scores follow after that. Default: no limit."""
    sampler: Sampler = "tpe"
    """One of Optuna's tpe (multivariate, with a constant liar), random, grid (each point of a
    finite space once), nsga2, nsga3, gp and cma; or evolution, which mutates and crosses layer
    maps."""
    recipes: tuple[RecipeName, ...] = ("labels", "soft_labels", "ckd")
    """The recipes that the search starts with, in this order; `lkd-tune recipes` lists all. If the
    map is searched, they take turns with the maps skip, lower_half and top_bottom. They are at most
    a quarter of the trials, or two of a few. `[]`: the sampler draws every trial. With recipes that
    compare hidden states or attention, up to `targets.max_gb` of them are stored."""
    warm_start: tuple[str, ...] = ()
    """Run folders of earlier searches, whose best settings are tried first."""
    scheduler: Scheduler = "asha"
    """asha stops trials that fall behind at an evaluation; hyperband spares some of them the first
    ones; median stops what is below the median of the others."""
    reduction_factor: float = Field(2, gt=1)
    """asha and hyperband continue the best 1 / reduction_factor of the trials at each rung."""
    concurrency: int | None = Field(None, ge=1)
    """Number of trials that run at the same time. An autoscaling cluster is asked for room for all
    of them at once. Default: as many as fit; an autoscaling cluster is asked for eight, then for
    one more at a time."""
    max_failures: int = Field(1, ge=0)
    """How often a trial is retried after it lost a worker. Lost nodes, such as spot instances, do
    not count; nor do trials that ran out of memory and are retried with smaller micro-batches."""
    min_free_gb: float = Field(0.5, ge=0)
    """The search stops, and can be resumed, when the run's disk has less than this many GB (10⁹
    bytes) free; with 0, when it is full. It also stops when the disk of the cache or of a node is
    full."""
    baseline: bool = True
    """At the end, train the winner's student on the labels alone, without distillation. It is one
    more trial: ranked, kept and confirmed like the others, and the best student if it wins."""
    seed: int = 0
    """Seed of the sampler and of every trial."""

    @property
    def is_exhaustive(self) -> bool:
        """Whether the sampler draws every point of a finite space."""
        return self.sampler in _EXHAUSTIVE

    @property
    def most_recipe_starts(self) -> int:
        """Number of trials that may be recipes at the start, so that the sampler has the others.

        A quarter of the trials; in a short search two, the labels alone and soft labels by default.
        """
        return max(math.ceil(self.trials / 4), min(2, self.trials // 2))

    def check_several_objectives(self) -> None:
        """Checks that sampler and scheduler support more than one objective.

        Raises:
            ValueError: If one of them does not; names what does.
        """
        for (key, name), others in _ONE_OBJECTIVE.items():
            if getattr(self, key) == name:
                raise ValueError(f"search.{key} {name} supports only one objective; use {others}")


# One field for each cost, with the description of the table.
_COST_FIELDS: dict[str, Any] = {
    name: (float | None, Field(None, gt=0, description=cost.meaning))
    for name, cost in COSTS.items()
}
_CostFields: Any = create_model("_CostFields", __base__=Settings, **_COST_FIELDS)


class LimitSettings(_CostFields):
    """Upper limits on what a student costs, also as `limits: [parameters <= 15e6]`. Default: no
    limit.

    A student that is too large is refused before it is trained, a student that is too slow as soon
    as its architecture is timed; the sampler learns from both.
    """

    @model_validator(mode="before")
    @classmethod
    def _read_inequalities(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        return dict(map(_read_inequality, value)) if isinstance(value, list) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        names = "|".join(cls.model_fields)
        inequality = {"type": "string", "pattern": rf"^\s*({names})\s*<=\s*[0-9.]\S*\s*$"}
        also = [inequality, {"type": "array", "items": inequality}]
        return {"anyOf": [handler(schema), *also]}

    @property
    def by_name(self) -> dict[str, float]:
        """The limits that are set, by the name of the cost."""
        return {name: limit for name, limit in self if limit is not None}


def _read_inequality(text: Any) -> tuple[str, str]:
    name, sign, limit = str(text).partition("<=")
    if not sign:
        raise ValueError(f"{text!r} is not a limit; write `parameters <= 15e6`")
    return name.strip(), limit.strip()


class ConfirmSettings(Settings):
    """Trains the best configurations with other seeds, because one seed's score is noisy."""

    top: int = Field(3, ge=1)
    """Number of best trials to confirm."""
    seeds: int = Field(3, ge=2)
    """Number of new seeds for each of them; each seed is trained to the end."""


class KeepSettings(Settings):
    """Which students are kept."""

    top: int = Field(3, ge=1)
    """Number of best students to keep as complete model folders. Those that were confirmed with
    other seeds are kept as well. With several objectives the best are the knee of the Pareto front,
    the student with the best score, and those that contribute most to the hypervolume."""
