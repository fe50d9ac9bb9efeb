"""Relations of hidden states: squared norms and distances, all that the CKD losses ask for.

B examples, L layers (embeddings may be one of them), N positions, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A squared distance below this share of the two vectors' own squared lengths is rounding: the
# vectors count as equal. In multiples of the type's machine epsilon.
_EQUAL = 16.0


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
        In float32, or float64 for float64 input. Values at padded positions are finite and mean
        nothing.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = _exact(hidden)
        real = mask.to(hidden.dtype)[:, None, :, None]  # (B, 1, N, 1)
        mean = (hidden * real).sum(-2, keepdim=True) / real.sum(-2, keepdim=True).clamp(min=1)
        return WordRelations(hidden.square().sum(-1), _sq_distances((hidden - mean) * real))


def layer_relations(hidden: Tensor, mask: Tensor) -> LayerRelations:
    """Returns the relations between layers of hidden states, for each word.

    Args and returns as `word_relations`.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = _exact(hidden).transpose(1, 2)  # (B, N, L, H)
        real = mask.to(hidden.dtype)[:, :, None, None]
        centred = (hidden - hidden.mean(-2, keepdim=True)) * real
        return LayerRelations(hidden.square().sum(-1), _sq_distances(centred))


def _sq_distances(centred: Tensor) -> Tensor:
    """Returns |x_i − x_j|² of (…, n, H) as (…, n, n), from one Gram product.

    Distances do not change when the mean is taken off all vectors, but their numbers get better:
    BERT's states share a large mean, and |x|² + |y|² − 2xy would lose the angles to cancellation.
    """
    gram = centred @ centred.transpose(-1, -2)
    sq = gram.diagonal(dim1=-2, dim2=-1)
    sums = sq[..., :, None] + sq[..., None, :]
    distances = sums - 2 * gram
    rounding = _EQUAL * torch.finfo(gram.dtype).eps * sums.detach()
    # Also the diagonal: a vector has distance 0 from itself, and no gradient.
    return torch.where(distances > rounding, distances, 0.0)


def _exact(hidden: Tensor) -> Tensor:
    """Returns the states in a type in which sums over H are exact enough."""
    return hidden if hidden.dtype == torch.float64 else hidden.float()
