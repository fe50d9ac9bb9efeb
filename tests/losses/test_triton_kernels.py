"""What the kernels of a GPU compute is that of float64 without them.

Where there is no GPU they run in Triton's interpreter, see `conftest.py`.
"""

from __future__ import annotations

import pytest
import torch

from lkd_tune.losses import pairs
from lkd_tune.losses import triples as angles
from lkd_tune.losses.ckd import ltr_pair, ltr_triple, wr_pair, wr_triple
from lkd_tune.losses.relations import layer_relations, word_relations

pytest.importorskip("triton")  # it has no builds but for Linux

from lkd_tune.losses import triton_kernels as kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BUILDS = [word_relations, layer_relations]
SIZES = [(1, 1, 1), (2, 2, 3), (2, 1, 9)]  # examples, layers, words


def _states(size):
    """A student's states, a teacher's, float32, and which words are real."""
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *size, 5, generator=random)
    # An angle with a side of length 0, and a cosine with a vector of length 0. Not in both: where
    # they agree but for rounding, the derivative of 'l1' may be of either sign.
    student[-1, :, -1], teacher[0, :, 0] = student[-1, :, 0], 0.0
    mask = torch.rand(size[0], size[2], generator=random) < 0.8
    return student.to(DEVICE), teacher.to(DEVICE), mask.to(DEVICE)


def _relations(build, size):
    student, teacher, mask = _states(size)
    real = mask[:, None, :] if build is word_relations else mask[:, :, None]
    return build(student, mask), build(teacher, mask), real


def _double(relations):
    return type(relations)(relations.sq_norm.double(), relations.sq_dist.double())


def _agree(found, expected):
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("discrepancy", ["l2", "l1", "smooth_l1"])
def test_angles(build, size, window, discrepancy):
    student, teacher, real = _relations(build, size)
    found, slope = kernels.angle_sum(student.sq_dist, teacher.sq_dist, real, discrepancy, window)
    exact, theirs = student.sq_dist.double().requires_grad_(), teacher.sq_dist.double()
    expected = angles.angle_differences(exact, theirs, real, discrepancy, window)
    expected.backward()
    _agree(found, expected)
    # The distances of i from j and of j from i are one: either may have what both depend on.
    _agree(slope + slope.transpose(-1, -2), exact.grad + exact.grad.transpose(-1, -2))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("size", SIZES)
def test_pairs(build, size):
    student, teacher, real = _relations(build, size)
    values = [(x.sq_norm, x.sq_dist) for x in (student, teacher)]
    found, *slopes = kernels.pair_sum(*values, real)
    exact = _double(student)
    leaves = exact.sq_norm.requires_grad_(), exact.sq_dist.requires_grad_()
    expected = pairs.pair_differences(exact, _double(teacher), real, "cosine", "kl")
    expected.backward()
    _agree(found, expected)
    for slope, leaf in zip(slopes, leaves, strict=True):
        _agree(slope, leaf.grad)


@pytest.mark.parametrize("loss", [wr_pair, wr_triple, ltr_pair, ltr_triple])
def test_losses_have_them(loss, monkeypatch):
    for module in (angles, pairs):
        monkeypatch.setattr(
            module, "gpu_kernels", lambda x: kernels if x.dtype == torch.float32 else None
        )
    build = word_relations if loss in (wr_pair, wr_triple) else layer_relations
    found = []
    for dtype in (torch.float32, torch.float64):
        student, teacher, mask = (
            x.to(dtype) if x.is_floating_point() else x for x in _states(SIZES[2])
        )
        student.requires_grad_()
        value = loss(build(student, mask), build(teacher, mask), mask).mean()
        value.backward()
        found.append((value, student.grad))
    (ours, slope), (expected, exact) = found
    _agree(ours, expected)
    _agree(slope, exact)
