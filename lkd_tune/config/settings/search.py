"""Settings of the search: how it draws and stops trials, what it allows, confirms and keeps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lkd_tune.config.objectives import COSTS
from lkd_tune.config.settings.base import Settings

# Built in lkd_tune/tuning/samplers/build.py and lkd_tune/tuning/schedulers/build.py.
Sampler = Literal["tpe", "random", "grid", "nsga2", "nsga3", "gp", "cma", "evolution"]
Scheduler = Literal["asha", "hyperband", "median", "pbt", "none"]
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
    """Distillations in all, those stopped early included."""
    time_budget: float | None = Field(None, gt=0)
    """Minutes after which no trial of the search goes on; none: no limit. Other seeds of the best,
    the baseline and the scores on test come after it."""
    sampler: Sampler = "tpe"
    """Optuna's tpe (multivariate, with a constant liar), random, grid (each point of a finite
    space once), nsga2, nsga3, gp or cma; or evolution, which mutates and crosses layer maps."""
    published_start: bool = True
    """Begin with the published recipe: its loss weights and the uniform layer map, as far as the
    space has them; then with these weights and the maps lower_half and top_bottom, if the map is
    searched. These have as many layers as the space allows if score is the only objective and
    nothing is limited."""
    warm_start: tuple[str, ...] = ()
    """Run folders of earlier searches; the best of each are tried again at the beginning."""
    scheduler: Scheduler = "asha"
    """asha stops trials that fall behind at an evaluation; hyperband spares some of them the first
    ones; median stops what is below the median of the others; pbt stops none: the trials train as
    a population, in which the worst go on as copies of the best with other loss weights."""
    reduction_factor: float = Field(2, gt=1)
    """asha and hyperband go on with the best 1 / reduction_factor of the trials at each rung."""
    concurrency: int | None = Field(None, ge=1)
    """Trials at a time; none: as many as the cluster has room for. Of one that grows, room for so
    many is asked for at once; none: for eight, and then for one after the other."""
    max_failures: int = Field(1, ge=0)
    """Times a trial is started again after its worker was lost; the loss of a node, as of a spot
    one, is not counted, nor one for want of memory that smaller micro-batches may mend."""
    min_free_gb: float = Field(0.5, ge=0)
    """The search stops, and can be resumed, when less than so many GB (10⁹ bytes) are left on the
    run's disk; at 0 when nothing more can be written. It does so, too, where the cache's disk or
    that of a node has no room."""
    baseline: bool = True
    """At the end, train the winner's depth without distillation, for comparison."""
    seed: int = 0
    """Seed of the sampler and of every trial."""

    @property
    def is_exhaustive(self) -> bool:
        """Whether the sampler goes through every point of a finite space."""
        return self.sampler in _EXHAUSTIVE

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
    """What a student may cost at most. `limits: [parameters <= 15e6]` may be written as well.

    A student that is too large is refused before it trains, one that is too slow as soon as its
    architecture was timed; the sampler learns both.
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
        raise ValueError(f"{text!r} is no limit; write `parameters <= 15e6`")
    return name.strip(), limit.strip()


class ConfirmSettings(Settings):
    """Training the best configurations again with other seeds: one score of one seed is noise."""

    top: int = Field(3, ge=1)
    """How many of the best trials are confirmed."""
    seeds: int = Field(3, ge=2)
    """How many new seeds each is trained with, at full length."""


class KeepSettings(Settings):
    """What is kept of the students."""

    top: int = Field(3, ge=1)
    """How many of the best are kept as complete model folders; with several objectives the knee
    of the Pareto front, the one of the best score, and those that add most to its hypervolume."""
