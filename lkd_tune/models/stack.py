"""A model's stack of layers, found by its structure: what of modules and settings is a layer's."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from lkd_tune.config.errors import Problem, SpecError


class Stack:
    """The names of weights in a model's stack of layers, counted from 0."""

    def __init__(self, model: Any):
        """Finds the stack.

        Raises:
            SpecError: If the model has none.
        """
        self._name = find_stack(model)
        self._layer = re.compile(rf"{re.escape(self._name)}\.(\d+)\.(.*)")

    def layer_of(self, name: str) -> int | None:
        """Returns the layer of a weight or a module, None for one outside the stack."""
        found = self._layer.fullmatch(name)
        return int(found[1]) if found else None

    def in_layer(self, name: str, layer: int) -> str:
        """Returns the name that a weight or a module of a layer has in another layer."""
        found = self._layer.fullmatch(name)
        assert found is not None
        return f"{self._name}.{layer}.{found[2]}"


def find_stack(model: Any, name: str | None = None) -> str:
    """Returns the name of the module list that holds a model's layers, one module for each.

    Args:
        model: The model, with any head; its weights may be on the meta device.
        name: What an error message calls it. Default: the name of its class.

    Raises:
        SpecError: If layers can't be told apart or are not a single stack.
    """
    name, config = name or type(model).__name__, model.config
    if getattr(config, "is_encoder_decoder", False):
        raise _not_carvable(name, "it has a decoder beside its encoder")
    found = [
        key
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers
    ]
    # Lists within a layer, such as experts, may be as long by chance.
    outer = [key for key in found if not any(key.startswith(f"{other}.") for other in found)]
    if not outer:
        raise _not_carvable(name, "its layers are not modules of their own, as if they were shared")
    if len(outer) > 1 and config.num_hidden_layers > 1:
        raise _not_carvable(name, f"its layers are spread over {', '.join(outer)}")
    # With one layer other lists may have one entry, too.
    return max(outer, key=lambda key: len(list(model.get_submodule(key).modules())))


def _not_carvable(model: str, why: str) -> SpecError:
    message = f"layers can't be taken from {model}: {why}; use another teacher"
    return SpecError(Problem("", "teacher", message))


def config_of_layers(config: Any, layers: Sequence[int]) -> Any:
    """Returns a copy of a configuration for a model of other layers.

    What the configuration lists layer by layer, such as `layer_types`, is that of these layers.

    Args:
        config: A model's.
        layers: For each new layer the old one, 1 is the first. Beyond the last they begin again.
    """
    number, config = config.num_hidden_layers, copy.deepcopy(config)
    config.num_hidden_layers = len(layers)
    for key, value in vars(config).items():
        if isinstance(value, list | tuple) and len(value) == number and key not in _common_keys():
            setattr(config, key, type(value)(value[(layer - 1) % number] for layer in layers))
    return config


@cache
def _common_keys() -> frozenset[str]:
    """Returns the entries that any configuration has, none of which belongs to a layer."""
    from transformers import PreTrainedConfig

    return frozenset(vars(PreTrainedConfig()))
