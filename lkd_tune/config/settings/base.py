"""What all blocks of settings have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class _BlockFrom:
    """An annotation of a field that holds a block."""

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
        # Not one choice within another: editors tell only of the outer one what is allowed.
        return {"anyOf": [*forms, *main.get("anyOf", [main])]}

    def _block(self, value: Any) -> Any:
        if isinstance(value, dict | BaseModel) or (self.optional and value is None):
            return value
        return {self.key: value}


def block_from(key: str, *, optional: bool = False) -> _BlockFrom:
    """Lets a scalar or list stand for a block: `wr_pair: 10` is `wr_pair: {weight: 10}`."""
    return _BlockFrom(key, optional)


class Settings(BaseModel):
    """A block of settings: frozen, complete, and refusing keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
