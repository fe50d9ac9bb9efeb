"""Entries of configurations, by the names that families give them.

Weights are found by structure instead: layers in `lkd_tune.models.stack`, the rest in
`lkd_tune.models.width.axes`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.width import Width

# The configuration entries for `layers` and for the fields of `Width`; the general name is first.
_SIZE_KEYS = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "hidden_size": ("hidden_size", "dim", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "intermediate_size": ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim"),
}
_WIDTH = ("hidden_size", "heads", "intermediate_size")
# Groups of heads that share keys and values.
_GROUPS = "num_key_value_heads"
_ROTARY = re.compile("rope|rotary")
# Types of models that number positions from behind the padding id, by default 1.
_POSITIONS_AFTER_PADDING = re.compile("roberta|camembert|mpnet|longformer|data2vec-text|ibert|luke")


def size_in(config: Mapping[str, Any], size: str) -> int | None:
    """Returns the `layers` or a field of `Width` from a configuration, None if it is not there."""
    found = [config[key] for key in _SIZE_KEYS[size] if isinstance(config.get(key), int)]
    return found[0] if found else None


def width_of(model: Any) -> Width:
    """Returns a model's width.

    Raises:
        SpecError: If its configuration lacks a size.
    """
    return width_of_config(model.config)


def width_of_config(configuration: Any, model: str | None = None) -> Width:
    """Returns the width in a configuration.

    Args:
        configuration: A model's.
        model: What error messages call the model. Default: the kind of configuration.

    Raises:
        SpecError: If a size is not there.
    """
    config = configuration.to_dict()
    sizes = {size: size_in(config, size) or 0 for size in _WIDTH}
    # GPT-2 and Bloom mean this if they name no other width.
    sizes["intermediate_size"] = sizes["intermediate_size"] or 4 * sizes["hidden_size"]
    for size, value in sizes.items():
        if not value:
            name = model or type(configuration).__name__
            message = f"{name} has no {_SIZE_KEYS[size][0]} in its configuration"
            raise SpecError(Problem("", "teacher", message))
    embeddings, own = config.get("embedding_size"), config.get("head_dim")
    return Width(
        **sizes,
        own_head_size=own,
        group=sizes["heads"] // (config.get(_GROUPS) or sizes["heads"]) or 1,
        keeps_heads=own is not None or any(_ROTARY.search(key) for key in config),
        embedding_size=None if embeddings == sizes["hidden_size"] else embeddings,
    )


def resize_config(config: Any, width: Width) -> Any:
    """Returns a copy of a configuration with another width."""
    config = copy.deepcopy(config)
    written, before = config.to_dict(), width_of_config(config)
    for key in ("embedding_size", "pooler_hidden_size"):
        if written.get(key) == before.hidden_size:
            setattr(config, key, width.hidden_size)
    for size in _WIDTH:
        # Only the family's name is set; the general name would be written in addition.
        own = next(key for key in reversed(_SIZE_KEYS[size]) if key in written)
        setattr(config, own, getattr(width, size))
    if written.get(_GROUPS):
        setattr(config, _GROUPS, width.heads // before.group)
    return config


def count_positions(config: Mapping[str, Any]) -> int | None:
    """Returns the tokens of a model's longest input, None if its configuration does not have it."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    if _POSITIONS_AFTER_PADDING.search(str(config.get("model_type"))):
        positions -= config.get("pad_token_id", 1) + 1
    return positions


def takes_token_types(config: Any) -> bool:
    """Whether token types change a model's output: RoBERTa has one type, DistilBERT none."""
    return getattr(config, "type_vocab_size", 0) > 1
