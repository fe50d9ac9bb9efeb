"""Searches whose trials share a GPU: cost, memory by share, and a GPU that is lost."""

from __future__ import annotations

import pytest
import ray
import torch

from lkd_tune.records.run import RunFolder
from lkd_tune.runtime.usage import GpuEnergy
from lkd_tune.tuning.tuner import run_search
from tests.support.rays import own_ray
from tests.support.tiny import make_space

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def _one_gpu():
    with own_ray(4, num_gpus=1):
        yield


@pytest.mark.usefixtures("_one_gpu")
def test_trials_share_a_gpu_and_report_what_they_took(tmp_path):
    space = make_space(
        tmp_path,
        rows=256,
        train={"steps": 40},
        resources={"gpus": 0.5},
        search={"trials": 4, "concurrency": None, "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    records = run.read_trials()
    assert [record.state for record in records] == ["complete"] * 4, result.failures
    for record in records:
        assert record.outcome is not None
        assert record.outcome.gpu_s == pytest.approx(record.outcome.wall_s / 2)
        assert record.size is not None
        assert str(record.size.device).startswith(torch.cuda.get_device_name())
        last = record.measurements[-1]
        # On a CPU both are the process.
        assert 0 < last.peak_memory_gib < last.peak_host_gib
        if GpuEnergy().joules() is not None:
            assert last.energy_j is not None
    costs = run.read_manifest()["costs"]
    assert costs["teacher"]["gpu_s"] == pytest.approx(costs["teacher"]["wall_s"] / 2)


@pytest.mark.usefixtures("_one_gpu")
def test_a_trial_out_of_its_share_continues_with_smaller_micro_batches(tmp_path):
    # A share that leaves PyTorch's allocator some 300 MiB, and a batch that needs more.
    total = torch.cuda.get_device_properties(0).total_memory
    trials = int(total / (2**30 + 300 * 2**20))
    space = make_space(
        tmp_path,
        rows=256,
        train={"batch_size": 32768, "steps": 2, "evaluations": 2},
        resources={"gpus": 1 / trials},
        search={"trials": 1},
        student={"depth": 2},
        losses={"wr_triple": {"window": None}},
    )
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.outcome is not None
    assert record.outcome.state == "complete", record.outcome.error
    assert record.accumulation >= 2
    assert record.measurements[-1].peak_memory_gib < 0.4


def _lose_the_gpu_once() -> None:
    """Has the first training whose learning rate is 1e-3 lose its GPU in its second step."""
    from lkd_tune.distillation.engine import Distillation

    train_step = Distillation._train_step

    def with_a_loss(self, batch):
        if self.spec.train.lr == 1e-3 and self._step == 1:
            table = torch.zeros(2, device="cuda")
            beyond = torch.tensor([5], device="cuda")
            table[beyond].sum().item()
        return train_step(self, batch)

    Distillation._train_step = with_a_loss


def test_a_lost_gpu_fails_its_trial_and_no_other(tmp_path):
    with own_ray(2, num_gpus=1, runtime_env={"worker_process_setup_hook": _lose_the_gpu_once}):
        space = make_space(
            tmp_path,
            train={"lr": {"choice": [1e-3, 2e-3]}},
            resources={"gpus": 1},
            search={"trials": 2, "sampler": "grid", "scheduler": "none"},
            student={"depth": 2},
            layer_map="skip",
            losses={},
        )
        run = RunFolder(tmp_path / "run")
        run_search(space, run, quiet=True)
    states = {record.spec.train.lr: record.outcome for record in run.read_trials()}
    assert {lr: outcome and outcome.state for lr, outcome in states.items()} == {
        1e-3: "failed",
        2e-3: "complete",
    }
    assert states[1e-3] is not None
    assert "device-side assert" in str(states[1e-3].error)


@pytest.mark.usefixtures("_one_gpu")
def test_without_gpus_trials_leave_the_gpu_alone(tmp_path):
    space = make_space(tmp_path, search={"trials": 1})
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert record.size is not None
    assert "thread" in str(record.size.device)
    assert ray.available_resources().get("GPU") == 1
