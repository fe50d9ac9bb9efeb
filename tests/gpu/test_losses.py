"""Relations and losses on a GPU: those of float64 on the CPU, and no more memory than promised."""

from __future__ import annotations

import pytest
import torch

from lkd_tune.losses.ckd import ltr_pair, ltr_triple, wr_pair, wr_triple
from lkd_tune.losses.relations import layer_relations, word_relations

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

B, L, N, H = 6, 4, 40, 96
LOSSES = {
    "wr_pair": (word_relations, wr_pair, {}),
    "wr_triple": (word_relations, wr_triple, {"window": 9}),
    "wr_triple, all words": (word_relations, wr_triple, {"window": None}),
    "wr_triple, as published": (word_relations, wr_triple, {"window": 9, "variant": "paper"}),
    "ltr_pair": (layer_relations, ltr_pair, {}),
    "ltr_triple": (layer_relations, ltr_triple, {}),
}


@pytest.fixture(params=["ieee", "tf32"])
def _matmuls(request):
    """Products of matrices as a user's program may have set them."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = request.param
    yield
    torch.backends.cuda.matmul.fp32_precision = before


def _states(width: int, seed: int) -> torch.Tensor:
    """Hidden states with a large mean in common, as those of BERT have, float64."""
    random = torch.Generator().manual_seed(seed)
    mean = 2 * torch.randn(width, generator=random, dtype=torch.float64)
    return mean + torch.randn(B, L, N, width, generator=random, dtype=torch.float64)


def _mask() -> torch.Tensor:
    return torch.arange(N)[None] < torch.tensor([N, N - 1, 20, 9, 3, 1])[:, None]


def _loss_and_gradient(
    name: str, student: torch.Tensor, teacher: torch.Tensor
) -> tuple[float, torch.Tensor]:
    relations, loss, options = LOSSES[name]
    mask, leaf = _mask().to(student.device), student.clone().requires_grad_()
    with torch.no_grad():
        theirs = relations(teacher, mask)
    # As trials in bf16 run: the relations are to stay out of it.
    with torch.autocast("cuda", torch.bfloat16, enabled=student.is_cuda):
        value = loss(relations(leaf, mask), theirs, mask, **options).mean()
        (gradient,) = torch.autograd.grad(value, leaf)
    return value.item(), gradient.double().cpu()


@pytest.mark.usefixtures("_matmuls")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_in_fp32_are_those_of_float64_on_the_cpu(name):
    student, teacher = _states(H, 0), _states(2 * H, 1)
    # The same numbers for both.
    student, teacher = student.float(), teacher.float()
    expected, slope = _loss_and_gradient(name, student.double(), teacher.double())
    found, found_slope = _loss_and_gradient(name, student.cuda(), teacher.cuda())
    assert found == pytest.approx(expected, rel=1e-4)
    assert (found_slope - slope).norm() < 1e-3 * slope.norm()
    real = _mask()[:, None, :, None].expand_as(slope)
    if "published" not in name:  # which counts padding
        assert not found_slope[~real].any()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_bf16_states_are_exact_for_these_states(name):
    student, teacher = _states(H, 0).bfloat16(), _states(2 * H, 1).bfloat16()
    expected, slope = _loss_and_gradient(name, student.double(), teacher.double())
    found, found_slope = _loss_and_gradient(name, student.cuda(), teacher.cuda())
    assert found == pytest.approx(expected, rel=1e-4)
    # The gradient itself is rounded to bf16, to 8 bits.
    assert (found_slope - slope).norm() < 1e-2 * slope.norm()


def test_relations_of_large_states_take_little_beside_them():
    states = torch.randn(64, 7, 128, 768, device="cuda", requires_grad=True)
    mask = torch.ones(64, 128, dtype=torch.bool, device="cuda")
    size = states.numel() * states.element_size()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    word, layer = word_relations(states, mask), layer_relations(states, mask)
    (word.sq_dist.sum() + layer.sq_dist.sum()).backward()
    # The gradients of both are added; the rest is done in parts.
    assert torch.cuda.max_memory_allocated() - before < 4 * size
