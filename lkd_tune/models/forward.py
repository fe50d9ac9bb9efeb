"""Running a model on a batch."""

from __future__ import annotations

from typing import Any

import torch

from lkd_tune.models.families import takes_token_types


def forward(model: Any, batch: Any, *, hidden_states: bool, **options: Any) -> Any:
    """Returns the output of a model, or of a DeepSpeed engine, for a `Batch`.

    Args:
        model: The model or engine.
        batch: The batch, on its device.
        hidden_states: Whether the output holds the hidden states of all layers.
        options: Further arguments of the model.
    """
    config = getattr(model, "module", model).config  # an engine's `config` is another one
    inputs = model_inputs(config, batch.ids, batch.mask.long(), batch.types)
    return model(**inputs, output_hidden_states=hidden_states, **options)


def model_inputs(
    config: Any, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns the inputs that a model with this configuration takes, by name.

    All have shape (B, N), int64.
    """
    inputs = {"input_ids": ids, "attention_mask": mask}
    if takes_token_types(config):
        inputs["token_type_ids"] = types
    return inputs
