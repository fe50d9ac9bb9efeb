"""A real search and its going on, as trackers have it."""

from __future__ import annotations

import pytest
import wandb

from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.tiny import LABELS, make_space
from tests.tuning.trackers.readers import read_mlflow, read_tensorboard, read_wandb

pytestmark = [pytest.mark.usefixtures("two_cores"), pytest.mark.slow]


@pytest.mark.slow
def test_a_search_that_continues_is_logged_as_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    space = make_space(
        tmp_path,
        losses={**LABELS, "logits": {"weight": 1, "alpha": 0.9}},
        student={"depth": {"int": [1, 2]}},
        train={"lr": {"loguniform": [1e-4, 1e-2]}, "steps": 16},
        search={"trials": 2, "scheduler": "none", "baseline": True},
        trackers=["tensorboard", {"mlflow": {"uri": uri}}, "wandb"],
    )
    run = RunFolder(tmp_path / "mine")
    try:
        run_search(space, run)
        resume_search(run, overrides=["search.trials=3"])
    finally:
        wandb.teardown()
    records = {record.name: record for record in run.read_trials()}
    assert [record.is_drawn for record in records.values()][:4] == [True, True, False, True]
    found = {
        "tensorboard": read_tensorboard(run.path),
        "mlflow": read_mlflow(uri, "mine"),
        "wandb": read_wandb(run.path),
    }
    for trials in found.values():
        assert {*trials} >= {*records}
        for name, record in records.items():
            expected = [(m.step, pytest.approx(m.score)) for m in record.measurements]
            assert trials[name].series["score"] == expected
            rates = [rate for _, rate in trials[name].series["lr"]]
            assert rates == sorted(rates, reverse=True)
            assert rates[0] > rates[-1] == 0
            total = [value for _, value in trials[name].series["loss/total"]]
            assert total == [pytest.approx(m.losses["total"]) for m in record.measurements]
    for name, record in records.items():
        assert float(found["mlflow"][name].params["train.lr"]) == record.spec.train.lr
        assert found["mlflow"][name].state == "FINISHED complete"
        assert found["wandb"][name].params["group"] == "mine"
    said = capsys.readouterr().out
    assert f"tensorboard --logdir {run.path}/tensorboard" in said
    assert f"mlflow: experiment mine at {uri}" in said
    assert f"wandb sync {run.path}/wandb/offline-run-*" in said
    assert "dashboard" not in said
