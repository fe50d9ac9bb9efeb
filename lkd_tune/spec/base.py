"""What all blocks of settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, BeforeValidator, ConfigDict


def block_from(key: str, *, optional: bool = False) -> BeforeValidator:
    """Lets a scalar or list stand for a block: `wr_pair: 10` is `wr_pair: {weight: 10}`."""
    return BeforeValidator(
        lambda value: (
            value
            if isinstance(value, dict | BaseModel) or (optional and value is None)
            else {key: value}
        )
    )


class Settings(BaseModel):
    """A block of settings: frozen, complete, and refusing keys it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
