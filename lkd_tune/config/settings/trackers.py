"""Settings of experiment trackers, to which trials are logged in addition to the run folder."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from pydantic import GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lkd_tune.config.settings.base import Settings


class MlflowSettings(Settings):
    """An MLflow experiment with a run for each trial."""

    uri: str | None = None
    """Server, database or folder. Default: MLFLOW_TRACKING_URI, or else MLflow's own default,
    mlflow.db in the folder where the search was started."""
    experiment: str | None = None
    """Name of the experiment. Default: the name of the run folder."""

    @field_validator("uri")
    @classmethod
    def _has_no_password(cls, value: str | None) -> str | None:
        # The space file is kept in the run folder.
        if value is not None and urlsplit(value).password:
            raise ValueError("contains a password; set it by MLFLOW_TRACKING_URI instead")
        return value


class WandbSettings(Settings):
    """A Weights & Biases project with a run for each trial."""

    project: str | None = None
    """Name of the project. Default: WANDB_PROJECT, or else lkd-tune."""
    entity: str | None = None
    """User or team. Default: WANDB_ENTITY, or else your own default."""
    group: str | None = None
    """Name of the group of runs. Default: the name of the run folder."""


class TrackerSettings(Settings):
    """Trackers to which each trial logs scores, losses, learning rate and costs while it runs.

    A name or a list of names: `trackers: [tensorboard, mlflow, wandb]`. A block has further
    settings: `trackers: [tensorboard, {mlflow: {experiment: cola}}]`. Keys and passwords are not
    allowed here: they come from WANDB_API_KEY, MLFLOW_TRACKING_TOKEN and so on, or `wandb login`.
    """

    tensorboard: bool = False
    """Write event files to RUN/tensorboard."""
    mlflow: MlflowSettings | None = None
    wandb: WandbSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        if value is None:
            return {}
        if isinstance(value, str | list):
            value = block_of_names(value)
        if not isinstance(value, dict):
            return value
        plain: dict[bool, Any] = {True: {}, False: None}
        blocks = {name: plain.get(given, given) if isinstance(given, bool) else given
                  for name, given in value.items() if name != "tensorboard"}  # fmt: skip
        return {**value, **blocks}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        block = handler(schema)
        properties = handler.resolve_ref_schema(block)["properties"]
        name = {"type": "string", "enum": [*cls.model_fields]}
        one = {"type": "object", "properties": properties, "additionalProperties": False,
               "minProperties": 1, "maxProperties": 1}  # fmt: skip
        return {"anyOf": [block, name, {"type": "array", "items": {"anyOf": [name, one]}}]}

    @property
    def any(self) -> bool:
        """Whether any tracker is set."""
        return self.tensorboard or self.mlflow is not None or self.wandb is not None

    @property
    def missing(self) -> dict[str, str]:
        """Messages about trackers whose packages are not installed, by tracker."""
        wanted = {"mlflow": self.mlflow, "wandb": self.wandb}
        return {
            name: f"needs a package that is not installed: pip install 'lkd-tune[{name}]'"
            for name, settings in wanted.items()
            if settings is not None and find_spec(name) is None
        }


def block_of_names(names: str | list[Any]) -> dict[str, Any]:
    """Returns `{a: true, b: {…}}` for `[a, {b: {…}}]`, also for a single name.

    Raises:
        ValueError: If a name is given twice.
    """
    block: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        given = name if isinstance(name, dict) else {str(name): True}
        if twice := block.keys() & given.keys():
            raise ValueError(f"lists {', '.join(sorted(twice))} twice")
        block.update(given)
    return block
