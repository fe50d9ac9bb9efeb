"""Sums over a batch in chunks, so that no large tensor has the whole batch.

B examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def batch_chunks(tensor: Tensor, elements: int, per_example: int | None = None) -> list[slice]:
    """Returns slices of a batch (B, …) that are processed one after the other.

    Args:
        tensor: The batch.
        elements: Most elements of a chunk on a CPU; on a GPU it is 16 times as many. A chunk has
            at least one example.
        per_example: Elements of an example. Default: those in the batch.
    """
    limit = elements if tensor.device.type == "cpu" else 16 * elements
    size = max(1, limit // max(1, per_example or tensor[:1].numel()))
    # One empty chunk for an empty batch, so that results have its shape.
    return [slice(start, start + size) for start in range(0, max(1, len(tensor)), size)]


def sum_in_chunks(
    inputs: tuple[Tensor, ...],
    chunks: Sequence[slice],
    of_chunk: Callable[[slice, tuple[Tensor, ...]], Tensor],
    *,
    need_gradient: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Returns a sum over a batch, and its gradients; autograd is done with each chunk in turn.

    For the forward pass of a `torch.autograd.Function`, which keeps the gradients for its backward
    pass and nothing else.

    Args:
        inputs: What the sum is differentiated by, each (B, …).
        chunks: Slices of the batch, as `batch_chunks` returns them.
        of_chunk: Returns the sum over a chunk, 0-dim, from its slice and the inputs there.
        need_gradient: Whether to compute the gradients.

    Returns:
        The sum, 0-dim, without a gradient; and a tensor as large as each input, () if
        `need_gradient` is False.
    """
    gradients = tuple(map(torch.empty_like, inputs)) if need_gradient else ()
    total = inputs[0].new_zeros(())
    for part in chunks:
        ours = tuple(x[part].detach().requires_grad_(need_gradient) for x in inputs)
        with torch.set_grad_enabled(need_gradient):
            loss = of_chunk(part, ours)
        if need_gradient:
            # An input may be without effect, as norms are where distances are compared.
            found = torch.autograd.grad(loss, ours, allow_unused=True, materialize_grads=True)
            for gradient, value in zip(gradients, found, strict=True):
                gradient[part] = value
        total = total + loss.detach()
    return total, gradients
