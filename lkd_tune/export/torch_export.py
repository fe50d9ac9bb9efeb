"""A model as a program of PyTorch operators (torch.export), for any batch and length."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lkd_tune.export.exported_model import Runnable


class _Logits(torch.nn.Module):
    """The model with its logits alone, in a plain dictionary: its file then needs no transformers.

    Args:
        model: A transformers model.
        outputs: Names of its logits.
    """

    def __init__(self, model: Any, outputs: tuple[str, ...]):
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        found = self.model(**inputs)
        return {name: found[name] for name in self.outputs}


def output_names(head: str) -> tuple[str, ...]:
    """Returns the names of the logits of a head, as in transformers' AutoModelFor…."""
    return ("start_logits", "end_logits") if head == "QuestionAnswering" else ("logits",)


def export_program(
    model: Any, inputs: dict[str, Tensor], axes: dict[str, dict[int, Any]], outputs: tuple[str, ...]
) -> torch.export.ExportedProgram:
    """Returns a model's program, which takes its inputs by name.

    Args:
        model: In evaluation mode, on the CPU.
        inputs: An example, each (B, N) with B and N above 1: an axis of 1 would be taken for fixed.
        axes: From `open_axes`.
        outputs: Names of its logits.
    """
    with torch.no_grad():
        program = torch.export.export(
            _Logits(model, outputs),
            (),
            kwargs=inputs,
            dynamic_shapes=axes,
        )
    for node in program.graph.nodes:
        # Where on this machine the code of each operator lies; of no use elsewhere.
        node.meta.pop("stack_trace", None)
    return program


def open_axes(inputs: Iterable[str], longest: int) -> dict[str, dict[int, Any]]:
    """Returns the axes of a model's inputs that may have any size: examples, and tokens.

    Args:
        inputs: Names of the inputs.
        longest: Tokens that the model has positions for.
    """
    batch, length = torch.export.Dim("batch"), torch.export.Dim("sequence", max=longest)
    return {name: {0: batch, 1: length} for name in inputs}


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes a program (.pt2)."""
    torch.export.save(program, path)


def open_program(path: Path, config: Any) -> Runnable:
    """Returns a program from its file."""
    run = torch.export.load(path).module()
    return Runnable(config, lambda inputs: run(**inputs))
