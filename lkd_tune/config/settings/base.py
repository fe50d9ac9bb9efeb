"""The base class of all blocks of settings, and short forms of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class _BlockFrom:
    """Annotation of a field whose value is a block or the value of its main setting."""

    key: str
    optional: bool

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._block, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        forms = handler(schema)
        forms = forms.get("anyOf", [forms])  # more than one if the block is optional
        main = handler.resolve_ref_schema(forms[0])["properties"][self.key]
        # Not nested: editors show only the allowed forms of the outer anyOf.
        return {"anyOf": [*forms, *main.get("anyOf", [main])]}

    def _block(self, value: Any) -> Any:
        if isinstance(value, dict | BaseModel) or (self.optional and value is None):
            return value
        return {self.key: value}


def block_from(key: str, *, optional: bool = False) -> _BlockFrom:
    """Allows a scalar or list in place of a block: `wr_pair: 10` is `wr_pair: {weight: 10}`.

    Args:
        key: The main setting of the block, which the value sets.
        optional: Whether the field may be None.
    """
    return _BlockFrom(key, optional)


class Settings(BaseModel):
    """A block of settings: frozen, complete, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
