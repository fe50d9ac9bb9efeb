"""Small copies of a model with random weights, on which its structure is found and tested."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from lkd_tune.models.forward import model_inputs
from lkd_tune.models.loading import auto_model
from lkd_tune.models.stack import config_of_layers

# Layers of a copy: enough for the patterns of local and global attention that are in use.
_MAX_LAYERS = 6
# The embeddings of other tokens are most of some models, and nothing is tested with them.
_TOKENS = 64
_SPECIAL = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")
# So short that local attention differs from global attention on the example inputs.
_WINDOW = 4
_WINDOW_KEYS = ("sliding_window", "local_attention")
EXAMPLES = 2
# Of the largest element; another summation order changes about 1e-6.
_TOLERANCE = 1e-3


def small_config(config: Any) -> Any:
    """Returns a copy of a configuration with fewer layers, fewer tokens and a short window."""
    number = config.num_hidden_layers
    small = config_of_layers(config, range(1, min(number, _MAX_LAYERS) + 1))
    if getattr(small, "pad_token_id", None) is None:
        small.pad_token_id = 0
    small.vocab_size = _TOKENS
    for place, name in enumerate(_SPECIAL):
        token = getattr(small, f"{name}_token_id", None)
        if token is not None and not (isinstance(token, int) and token < _TOKENS):
            setattr(small, f"{name}_token_id", place)
    for key in _WINDOW_KEYS:
        if isinstance(getattr(small, key, None), int):
            setattr(small, key, _WINDOW)
    return small


def build_random(config: Any, head: str) -> Any:
    """Returns a model with random weights, in evaluation mode.

    Args:
        config: Its configuration.
        head: As in transformers' AutoModelFor….
    """
    model = auto_model(head).from_config(copy.deepcopy(config), dtype=torch.float32)
    return model.eval()


def example_inputs(config: Any, words: int, padding: int = 0) -> dict[str, Tensor]:
    """Returns a batch of texts, each with padding after it, as a model takes them."""
    length = words + padding
    special = {getattr(config, f"{name}_token_id", None) for name in _SPECIAL}
    usual = [token for token in range(config.vocab_size) if token not in special]
    ids = torch.tensor(usual)[torch.arange(EXAMPLES * length) * 7 % len(usual)]
    mask = torch.ones(EXAMPLES, length, dtype=torch.long)
    mask[:, words:] = 0
    ids = ids.reshape(EXAMPLES, length)
    if padding:
        ids[:, words:] = config.pad_token_id or 0
    return model_inputs(config, ids, mask, torch.zeros_like(ids))


def cannot_run(error: Exception) -> str:
    """Returns what is wrong with a model whose small copy has raised an error."""
    return f"it can't be run ({(str(error).strip() or repr(error)).splitlines()[0]})"


def is_equal(found: Tensor, expected: Tensor) -> bool:
    """Whether two results are the same but for the order of summation."""
    size = expected.abs().max().clamp(min=1e-6)
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= _TOLERANCE * size
    )
