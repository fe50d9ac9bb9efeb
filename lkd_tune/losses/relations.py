"""Relations of hidden states: squared norms and distances, all that the CKD losses need.

B examples, L layers (embeddings may be one of them), N positions, H hidden size.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lkd_tune.losses.chunks import batch_chunks

logger = logging.getLogger(__name__)

# A squared distance below this share of the two vectors' squared lengths is rounding: the vectors
# count as equal. In multiples of the dtype's machine epsilon.
_EQUAL_EPSILONS = 16.0
# Elements of hidden states in a chunk. The backward pass holds about four such tensors at once,
# 8 MB in fp32, which fit a CPU's cache; with twice the chunk it takes twice the time.
_CHUNK_ELEMENTS = 2**19


@dataclass(frozen=True)
class WordRelations:
    """Relations between the words of a sequence, within each layer.

    Attributes:
        sq_norm: |h_i|², shape (B, L, N).
        sq_dist: |h_i − h_j|², shape (B, L, N, N); exactly 0 for a word with itself.
    """

    sq_norm: Tensor
    sq_dist: Tensor

    def select(self, layers: Sequence[int]) -> WordRelations:
        """Returns the relations at some of the layers, in the order given."""
        index = list(layers)
        return WordRelations(self.sq_norm[:, index], self.sq_dist[:, index])


@dataclass(frozen=True)
class LayerRelations:
    """Relations between the layers of a word.

    Attributes:
        sq_norm: |h_l|², shape (B, N, L).
        sq_dist: |h_k − h_l|², shape (B, N, L, L); exactly 0 for a layer with itself.
    """

    sq_norm: Tensor
    sq_dist: Tensor

    def select(self, layers: Sequence[int]) -> LayerRelations:
        """Returns the relations between some of the layers, in the order given."""
        index = list(layers)
        return LayerRelations(self.sq_norm[..., index], self.sq_dist[..., index, :][..., index])


def word_relations(hidden: Tensor, mask: Tensor) -> WordRelations:
    """Returns the relations between words of hidden states.

    Args:
        hidden: Shape (B, L, N, H), any floating type.
        mask: True (or 1) where a word is real, shape (B, N).

    Returns:
        In float32, or float64 for float64 input, regardless of autocast and TF32. Padded positions
        have values too. Only the paper variant of the triple counts them, but hidden states must
        be finite there.
    """
    return WordRelations(
        *_Relations.apply(hidden, mask.bool()[:, None, :].expand(hidden.shape[:3]))
    )


def layer_relations(hidden: Tensor, mask: Tensor) -> LayerRelations:
    """Returns the relations between layers of hidden states, for each word.

    Args and returns as `word_relations`.
    """
    by_word = hidden.transpose(1, 2)  # (B, N, L, H), a view
    real = mask.bool()[:, :, None].expand(by_word.shape[:3])
    return LayerRelations(*_Relations.apply(by_word, real))


class _Relations(torch.autograd.Function):
    """Squared norms (…, n) and distances (…, n, n) of vectors (B, …, n, H).

    Autograd would keep several copies of the hidden states. Here the only tensor of their size is
    their gradient: the batch is processed in chunks, and the backward pass computes the centred
    vectors again.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(vectors, real)
        with full_precision(vectors.device.type):
            parts = [
                _norms_and_distances(vectors[part], real[part])
                for part in batch_chunks(vectors, _CHUNK_ELEMENTS)
            ]
        if len(parts) == 1:
            return parts[0]
        norms, distances = zip(*parts, strict=True)
        return torch.cat(norms), torch.cat(distances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_norm: Tensor, grad_dist: Tensor) -> tuple[Tensor, None]:
        vectors, real = ctx.saved_tensors
        gradient = torch.empty_like(vectors)
        # Needed here too: a backward pass under autocast would have the products in bf16.
        with full_precision(vectors.device.type):
            for part in batch_chunks(vectors, _CHUNK_ELEMENTS):
                x = _centred(vectors[part], real[part])
                # d D_ij / d x_i = 2 (x_i − x_j), and D_ij and D_ji both depend on x_i. The
                # mean has no gradient: moving all vectors alike changes no distance.
                both = grad_dist[part] + grad_dist[part].transpose(-1, -2)
                pull = torch.baddbmm(
                    (x * both.sum(-1, keepdim=True)).flatten(0, -3),
                    both.flatten(0, -3),
                    x.flatten(0, -3),
                    alpha=-1,
                ).view_as(x)
                pull.add_(as_exact(vectors[part]) * grad_norm[part][..., None]).mul_(2)
                gradient[part] = pull
        return gradient, None


def _norms_and_distances(vectors: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    exact = as_exact(vectors)
    x = _centred(vectors, real)
    gram = x @ x.transpose(-1, -2)
    sq = gram.diagonal(dim1=-2, dim2=-1)
    sums = sq[..., :, None] + sq[..., None, :]
    distances = gram.mul_(-2).add_(sums)
    # Also the diagonal: a vector has distance 0 from itself.
    rounding = sums.mul_(_EQUAL_EPSILONS * torch.finfo(sums.dtype).eps)
    distances.masked_fill_(distances <= rounding, 0.0)
    return torch.linalg.vecdot(exact, exact), distances


def _centred(vectors: Tensor, real: Tensor) -> Tensor:
    """Returns all vectors minus the mean of the real ones.

    This changes no distance but avoids cancellation in |x|² + |y|² − 2xy: BERT's states share a
    large mean, and the angles would be lost in rounding.
    """
    weight = real[..., None].to(as_exact(vectors).dtype)
    count = weight.sum(-2, keepdim=True).clamp_(min=1)
    exact = as_exact(vectors)
    return exact - (weight.transpose(-1, -2) @ exact).div_(count)


def gpu_kernels(distances: Tensor) -> Any:
    """Returns the module of Triton kernels for some distances, or None.

    None on a CPU, in float64, and if Triton is missing or can't compile.
    """
    if distances.device.type != "cuda" or distances.dtype != torch.float32:
        return None
    return _kernels(distances.device) if distances.numel() > 0 else None


@cache
def _kernels(on: torch.device) -> Any:
    # Triton comes with PyTorch's builds for GPUs, but needs a C compiler and Python's headers.
    try:
        from lkd_tune.losses import triton_kernels

        triton_kernels.try_out(on)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        logger.warning(
            "training steps are slower because Triton can't compile the kernels of the losses; "
            "install a C compiler and Python's headers: %s",
            reason,
        )
        return None
    return triton_kernels


@contextlib.contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Computes matrix products in the dtype of the inputs: no autocast, TF32 or bf16."""
    # By backend if there is such a setting (torch 2.9): reading the older, common setting raises an
    # error if a program has used the newer one.
    matmuls: list[Any] = [
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, "matmul", None),
    ]
    backends = [backend for backend in matmuls if hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in backends]
    common = None if backends else torch.get_float32_matmul_precision()
    try:
        for backend, precision in zip(backends, before, strict=True):
            if precision != "ieee":
                backend.fp32_precision = "ieee"
        if common not in (None, "highest"):
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            if precision != "ieee":
                backend.fp32_precision = precision
        if common not in (None, "highest"):
            torch.set_float32_matmul_precision(common)


def as_exact(vectors: Tensor) -> Tensor:
    """Returns the vectors in a dtype in which sums over H are exact enough."""
    return vectors if vectors.dtype == torch.float64 else vectors.float()
