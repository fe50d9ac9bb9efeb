"""Trials that share a GPU: how many there is room for, and how much memory each may take."""

from __future__ import annotations

import pytest

from lkd_tune.cluster.ray import workers_on
from lkd_tune.config.settings.training import ResourceSettings, trials_on_a_gpu
from lkd_tune.tuning.execution.rank import _CONTEXT_BYTES, allocator_share

GIB = 2**30


@pytest.mark.parametrize("total", [8 * GIB, 24 * GIB, 141 * 10**9])
@pytest.mark.parametrize("gpus", [0.5, 0.4, 1 / 3, 0.3, 0.25, 0.2])
def test_what_all_take_with_what_cuda_takes_is_no_more_than_there_is(gpus, total):
    each = allocator_share(gpus, total) * total + _CONTEXT_BYTES
    assert each > _CONTEXT_BYTES
    assert trials_on_a_gpu(gpus) * each <= total * (1 + 1e-9)


def test_a_share_is_one_of_what_is_left():
    assert allocator_share(0.25, 24 * GIB) == pytest.approx(5 / 24)


def test_a_share_that_leaves_no_memory_is_refused():
    with pytest.raises(ValueError, match=r"20 processes .* 16.0 GiB .* resources.gpus"):
        allocator_share(0.05, 16 * GIB)


@pytest.mark.parametrize(
    ("gpus", "on_two"), [(1, 2), (0.5, 4), (0.4, 4), (1 / 3, 6), (0.3, 6), (0.25, 8), (0.1, 20)]
)
def test_as_many_trials_have_room_as_fit_on_each_gpu(gpus, on_two):
    node = {"CPU": 64.0, "GPU": 2.0}
    assert workers_on(node, ResourceSettings(gpus=gpus)) == on_two
    assert workers_on({**node, "CPU": 1.0}, ResourceSettings(gpus=gpus)) == 1
    assert workers_on({"CPU": 64.0}, ResourceSettings(gpus=gpus)) == 0
