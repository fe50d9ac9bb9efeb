"""A cluster whose head runs no trials and whose other nodes come when trials wait for them."""

from __future__ import annotations

import pytest

from lkd_tune.records.run import RunFolder
from tests.support.clusters import LocalCluster
from tests.support.tiny import LABELS, make_space
from tests.system.test_nodes import nodes_of, nodes_used, search


@pytest.mark.slow
@pytest.mark.parametrize("autoscaler", [1, 2])
def test_a_cluster_grows_from_none_to_all_that_the_trials_can_use(tmp_path, autoscaler):
    make_space(
        tmp_path,
        losses=LABELS,
        train={"steps": 20, "evaluations": 2, "lr": {"loguniform": [1e-4, 1e-2]}},
        search={"trials": 6, "concurrency": None, "scheduler": "none", "baseline": False},
        student={"depth": 1},
        layer_map="skip",
    )
    run = RunFolder(tmp_path / "run")
    with LocalCluster(cpus=0, grows_to=3, autoscaler=autoscaler) as cluster:
        driver = search(cluster, tmp_path)
        assert driver.wait(240) == 0, (tmp_path / "search.log").read_text()
    told = (tmp_path / "search.log").read_text()
    assert "no node can run a trial yet; waiting for 1 worker(s) with 1 CPU(s)" in told
    assert {record.state for record in run.read_trials()} == {"complete"}
    # Trials this short would all run on one node if the next were asked for when it is busy.
    assert len(nodes_used(run)) == 3
    assert {len(nodes_of(run, record.name)) for record in run.read_trials()} == {1}
