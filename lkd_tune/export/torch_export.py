"""A model traced by torch.export, for batches of any size and texts of any length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lkd_tune.export.exported_model import Runnable


@dataclass(frozen=True)
class TracedModel:
    """A model as a program of PyTorch operators, from which the files of formats are written.

    Attributes:
        program: The program. It takes its inputs by name.
        axes: The axes of each input that may have any size, from `open_axes`. The program has lost
            their names.
        outputs: Names of its logits.
    """

    program: torch.export.ExportedProgram
    axes: dict[str, dict[int, Any]]
    outputs: tuple[str, ...]


class _Logits(torch.nn.Module):
    """The model with only its logits as output, in a dictionary: its file needs no transformers.

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
    """Returns the names of a head's logits; the head is named as in AutoModelFor…."""
    return ("start_logits", "end_logits") if head == "QuestionAnswering" else ("logits",)


def trace_model(
    model: Any, inputs: dict[str, Tensor], axes: dict[str, dict[int, Any]], outputs: tuple[str, ...]
) -> TracedModel:
    """Returns a model as a program.

    Args:
        model: A transformers model in evaluation mode, on the CPU.
        inputs: Example inputs by name, each of shape (B, N) with B and N above 1: torch.export
            takes an axis of size 1 as fixed.
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
        # It holds paths of this machine, which are of no use elsewhere.
        node.meta.pop("stack_trace", None)
    return TracedModel(program, axes, outputs)


def open_axes(inputs: Iterable[str], longest: int) -> dict[str, dict[int, Any]]:
    """Returns the axes of a model's inputs that may have any size: examples and tokens.

    Args:
        inputs: Names of the inputs.
        longest: Number of positions of the model, in tokens.
    """
    batch, length = torch.export.Dim("batch"), torch.export.Dim("sequence", max=longest)
    return {name: {0: batch, 1: length} for name in inputs}


def save_program(traced: TracedModel, path: Path) -> None:
    """Writes a program (.pt2)."""
    torch.export.save(traced.program, path)


def open_program(path: Path, config: Any) -> Runnable:
    """Returns the model in a program's file; it runs on the CPU.

    Args:
        path: The file.
        config: Configuration of the transformers model that the program was traced from.
    """
    run = torch.export.load(path).module()
    return Runnable(config, lambda inputs: run(**inputs))
