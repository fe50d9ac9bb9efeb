"""Settings of experiment trackers, to which trials are logged in addition to the run folder."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lkd_tune.config.settings.base import Settings


class MlflowSettings(Settings):
    """An MLflow experiment with a run for each trial."""

    package: ClassVar[str] = "mlflow"
    """The package that it needs; it is installed with the extra of the tracker's name."""

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

    package: ClassVar[str] = "wandb"
    """The package that it needs; it is installed with the extra of the tracker's name."""

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
        flags = {name for name, field in cls.model_fields.items() if field.annotation is bool}
        for name in value.keys() - flags:
            if isinstance(value[name], bool):
                value = {**value, name: {} if value[name] else None}
        return value

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
    def chosen(self) -> dict[str, Any]:
        """The settings of the trackers that are set, by name."""
        return {name: settings for name, settings in self if settings not in (None, False)}

    @property
    def missing(self) -> dict[str, str]:
        """Messages about trackers whose packages are not installed, by tracker."""
        packages = {name: getattr(set_, "package", None) for name, set_ in self.chosen.items()}
        return {
            name: f"needs a package that is not installed: pip install 'lkd-tune[{name}]'"
            for name, package in packages.items()
            if package is not None and find_spec(package) is None
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
