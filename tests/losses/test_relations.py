"""Relations against loops from the definition, their precision, and what they keep in memory."""

from __future__ import annotations

import sys
import types
import weakref
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lkd_tune.losses import relations as module
from lkd_tune.losses.ckd import ltr_pair, ltr_triple, wr_pair, wr_triple
from lkd_tune.losses.relations import layer_relations, word_relations

BUILD = {"word": word_relations, "layer": layer_relations}


def _hidden(b, layers, n, h=6, seed=0, dtype=torch.float64):
    """Hidden states and a mask with holes in it."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(b, layers, n, h, generator=generator, dtype=torch.float64).to(dtype)
    return hidden, torch.rand(b, n, generator=generator) < 0.7


def _plain(kind, hidden):
    """Differences of all vectors, left to autograd."""
    vectors = hidden if kind == "word" else hidden.transpose(1, 2)
    apart = vectors[..., :, None, :] - vectors[..., None, :, :]
    return vectors.square().sum(-1), apart.square().sum(-1)


@pytest.mark.parametrize("kind", BUILD)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(b=st.integers(1, 3), layers=st.integers(1, 4), n=st.integers(1, 6), seed=st.integers(0, 99))
def test_values_and_gradients_are_those_of_the_definition(kind, b, layers, n, seed):
    hidden, mask = _hidden(b, layers, n, seed=seed)
    ours, plain = (hidden.clone().requires_grad_() for _ in range(2))
    found, (sq_norm, sq_dist) = BUILD[kind](ours, mask), _plain(kind, plain)
    # Also at padded positions, which the paper variant of the triple counts.
    torch.testing.assert_close(found.sq_norm, sq_norm)
    torch.testing.assert_close(found.sq_dist, sq_dist)
    weight = torch.randn(found.sq_dist.shape, dtype=torch.float64)
    (found.sq_norm.square().sum() + (weight * found.sq_dist).sum()).backward()
    (sq_norm.square().sum() + (weight * sq_dist).sum()).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize("kind", BUILD)
def test_gradients_by_finite_differences(kind):
    hidden, mask = _hidden(2, 3, 4, 3)

    def values(x):
        found = BUILD[kind](x, mask)
        return found.sq_norm, found.sq_dist

    assert torch.autograd.gradcheck(values, hidden.requires_grad_())


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_relations_are_float32_or_float64(kind, dtype):
    hidden, mask = _hidden(2, 3, 5, 64, dtype=dtype)
    found = BUILD[kind](hidden, mask)
    sq_norm, sq_dist = _plain(kind, hidden.double())
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.sq_norm.dtype == found.sq_dist.dtype == expected
    # Halves are exact in fp32, so that their rounding plays no part.
    torch.testing.assert_close(found.sq_norm.double(), sq_norm, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.sq_dist.double(), sq_dist, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", BUILD)
def test_distances_are_exactly_0_between_equal_vectors_and_never_negative(kind):
    hidden, mask = _hidden(2, 4, 6, 32, dtype=torch.float32)
    hidden += 50
    hidden[:, :, 3] = hidden[:, :, 1]
    hidden[:, 2] = hidden[:, 0]
    found = BUILD[kind](hidden, mask).sq_dist
    assert (found >= 0).all()
    assert (found.diagonal(dim1=-2, dim2=-1) == 0).all()
    pair = (1, 3) if kind == "word" else (0, 2)
    assert (found[..., pair[0], pair[1]] == 0).all()


def test_a_large_common_mean_costs_no_digits():
    hidden, _ = _hidden(2, 2, 8, 64, dtype=torch.float32)
    mask = torch.ones(2, 8, dtype=torch.bool)
    shifted = hidden + 100
    expected = _plain("word", shifted.double())[1]
    torch.testing.assert_close(
        word_relations(shifted, mask).sq_dist.double(), expected, rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("kind", BUILD)
def test_autocast_changes_nothing_forward_or_backward(kind):
    hidden, mask = _hidden(2, 3, 8, 64, dtype=torch.float32)
    weight, results = torch.randn(BUILD[kind](hidden, mask).sq_dist.shape), []
    for enabled in (False, True):
        x = hidden.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = BUILD[kind](x, mask).sq_dist
            (found * weight).sum().backward()
        results.append((found.detach(), x.grad))
    for plain, cast in zip(*results, strict=True):
        assert torch.equal(plain, cast)


@pytest.fixture
def backends():
    matmuls = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    found = [backend for backend in matmuls if hasattr(backend, "fp32_precision")]
    if not found:
        pytest.skip("this torch has no fp32_precision")
    before = [backend.fp32_precision for backend in found]
    yield found
    for backend, precision in zip(found, before, strict=True):
        backend.fp32_precision = precision


def test_products_are_in_full_precision_and_the_setting_is_left_as_it_was(backends, monkeypatch):
    # TF32 itself exists on a GPU alone; what holds anywhere is the setting under which we multiply.
    seen = []
    relate = module._norms_and_distances

    def look(*args):
        seen.append([backend.fp32_precision for backend in backends])
        return relate(*args)

    monkeypatch.setattr(module, "_norms_and_distances", look)
    for backend in backends:
        backend.fp32_precision = "tf32"
    hidden, mask = _hidden(2, 2, 4, dtype=torch.float32)
    word_relations(hidden.requires_grad_(), mask).sq_dist.sum().backward()
    assert seen == [["ieee"] * len(backends)]
    assert [backend.fp32_precision for backend in backends] == ["tf32"] * len(backends)

    monkeypatch.setattr(module, "_norms_and_distances", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        word_relations(hidden, mask)
    assert [backend.fp32_precision for backend in backends] == ["tf32"] * len(backends)


@pytest.mark.parametrize("kind", BUILD)
def test_the_parts_of_a_batch_make_no_difference(kind, monkeypatch):
    hidden, mask = _hidden(5, 3, 6)
    results = []
    for part in (1, 2 * 3 * 6 * 6, 2**20):
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", part)
        x = hidden.clone().requires_grad_()
        found = BUILD[kind](x, mask)
        (found.sq_dist.square().sum() + found.sq_norm.sum()).backward()
        results.append((found.sq_norm, found.sq_dist, x.grad))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@pytest.mark.parametrize("kind", BUILD)
def test_an_empty_batch_has_empty_relations(kind):
    hidden = torch.zeros(0, 3, 4, 6, requires_grad=True)
    found = BUILD[kind](hidden, torch.zeros(0, 4))
    size = 4 if kind == "word" else 3
    assert found.sq_norm.shape[0] == 0
    assert found.sq_dist.shape[-2:] == (size, size)
    found.sq_dist.sum().backward()
    assert hidden.grad.shape == hidden.shape


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("layers", [[0, 2, 4], [4, 0], [1, 1, 3], [2]])
def test_selected_layers_are_those_of_the_selected_states(kind, layers):
    hidden, mask = _hidden(2, 5, 6)
    found, expected = BUILD[kind](hidden, mask).select(layers), BUILD[kind](hidden[:, layers], mask)
    torch.testing.assert_close(found.sq_norm, expected.sq_norm)
    torch.testing.assert_close(found.sq_dist, expected.sq_dist)


def test_nothing_wider_than_the_distances_waits_for_the_backward_pass():
    b, layers, n, width = 2, 3, 24, 512
    student, mask = _hidden(b, layers, n, width, dtype=torch.float32)
    teacher = _hidden(b, layers, n, width, seed=1, dtype=torch.float32)[0]
    student.requires_grad_()
    words = (word_relations(teacher, mask), layer_relations(teacher, mask))

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    kept = weakref.WeakSet()

    def keep(tensor):
        held = Kept(tensor)
        kept.add(held)
        return held

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held.tensor):
        word, layer = word_relations(student, mask), layer_relations(student, mask)
        terms = [
            wr_pair(word, words[0], mask).mean(),
            wr_triple(word, words[0], mask, window=7).mean(),
            ltr_pair(layer, words[1], mask).mean(),
            ltr_triple(layer, words[1], mask).mean(),
        ]
    storages = [held.tensor.untyped_storage() for held in kept]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    assert len(terms) == 4  # they hold the graph
    # The hidden states are there anyway; their gradient is what is to come.
    del sizes[student.untyped_storage().data_ptr()]
    others = sum(sizes.values())
    # The gradients of pair and triple, for words and for layers, and what is as small as norms.
    distances = 4 * (b * layers * n * n + b * n * layers * layers)
    norms = 4 * b * layers * n
    assert others <= 2 * distances + 8 * norms


def test_without_a_compiler_for_triton_a_warning_appears_once_and_pytorch_computes(
    monkeypatch, caplog
):
    def without_a_compiler(on):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    kernels = types.ModuleType("lkd_tune.losses.triton_kernels")
    kernels.try_out = without_a_compiler
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    package = sys.modules["lkd_tune.losses"]
    monkeypatch.setattr(package, "triton_kernels", kernels, raising=False)
    cpu = torch.device("cpu")
    find = cache(module._kernels.__wrapped__)
    assert [find(cpu), find(cpu)] == [None, None]
    (told,) = caplog.messages
    assert told.endswith("Failed to find C compiler. Please specify via CC")

    def without_room(on):
        raise torch.OutOfMemoryError

    kernels.try_out = without_room
    with pytest.raises(torch.OutOfMemoryError):  # it may be there the next time
        cache(module._kernels.__wrapped__)(cpu)
    kernels.try_out = print
    assert cache(module._kernels.__wrapped__)(cpu) is kernels
