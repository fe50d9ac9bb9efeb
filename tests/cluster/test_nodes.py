"""What nodes lack, and clusters that grow, as far as that needs no second node."""

from __future__ import annotations

import time
from importlib import metadata

import pytest
import ray
from ray.tune.search import Searcher

from lkd_tune import __version__
from lkd_tune.cluster.autoscaling import AutoscalingLimiter, has_autoscaler
from lkd_tune.cluster.nodes import (
    NodeRequirements,
    SearchNodes,
    UnfitNodeError,
    _check_folder_and_versions,
    check_this_node,
    installed_versions,
)
from lkd_tune.cluster.ray import check_capacity
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.records.run import RunFolder
from tests.support.tiny import make_space


def test_a_node_reports_its_versions_and_whether_it_sees_the_folder(tmp_path):
    assert installed_versions()["lkd-tune"] == __version__
    assert installed_versions()["torch"] == metadata.version("torch").partition("+")[0]
    assert _check_folder_and_versions(str(tmp_path / "elsewhere" / ".seen")) == (
        installed_versions(),
        "does not see it",
    )
    (tmp_path / ".seen").write_text("driver")
    assert _check_folder_and_versions(str(tmp_path / ".seen")) == (installed_versions(), None)
    (tmp_path / ".seen").write_text("another")
    assert _check_folder_and_versions(str(tmp_path / ".seen")) == (
        installed_versions(),
        "has another folder there",
    )
    assert [path.name for path in tmp_path.iterdir()] == [".seen"]


@pytest.mark.usefixtures("two_cores")
def test_a_late_node_says_what_it_lacks(tmp_path):
    run = RunFolder(tmp_path)
    run.manifest.write_text("{}")
    check_this_node(NodeRequirements(str(tmp_path), installed_versions()))
    check_this_node(NodeRequirements(None, installed_versions()))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    with pytest.raises(UnfitNodeError, match=r"has torch \S+ \(the driver 0\), no other; install"):
        check_this_node(
            NodeRequirements(None, {**installed_versions(), "torch": "0", "other": "1"}), 0
        )
    with pytest.raises(UnfitNodeError, match=r"node \S+ \(\w{56}\) does not see it: /nowhere; "):
        check_this_node(NodeRequirements("/nowhere", installed_versions()), 0)


@pytest.mark.usefixtures("two_cores")
def test_an_unfit_node_is_reported_once_and_ends_a_search_that_has_no_other():
    (node,) = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    told: list[str] = []
    nodes = SearchNodes(NodeRequirements(None, {}), ResourceSettings(cpus=1), told.append)
    assert nodes.max_cpus() == 2
    assert not nodes.exclude_unfit("LostWorkerError: a worker died")
    assert (nodes.problem, told) == (None, [])
    for _ in range(2):
        assert nodes.exclude_unfit(f"…\nUnfitNodeError: node 10.0.0.8 ({node}) has no torch; …\n")
    assert nodes.problem == f"node 10.0.0.8 ({node}) has no torch; …"
    assert told == [f"not used: {nodes.problem}"]
    assert nodes.max_cpus() == 0
    deadline = time.monotonic() + 60  # its places are taken
    while ray.available_resources().get("CPU", 0) > 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    del nodes
    while ray.available_resources().get("CPU", 0) < 2:  # and given back
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("two_cores")
def test_a_cluster_that_was_put_together_by_hand_does_not_grow(tmp_path):
    assert not has_autoscaler(wait_s=30)
    space = make_space(tmp_path, resources={"cpus": 3})
    with pytest.raises(SpecError, match=r"with 3 CPU\(s\) and 0 GPU\(s\) each, the cluster's"):
        check_capacity(space.settings.resources, space.source, is_local_cluster=False)
    capacity = check_capacity(ResourceSettings(cpus=1), space.source, is_local_cluster=False)
    assert (capacity.trials, capacity.autoscales, capacity.awaited) == (None, False, None)
    assert check_capacity(ResourceSettings(cpus=1), space.source, is_local_cluster=True).trials == 2


class Endless(Searcher):
    """Has a trial whenever it is asked."""

    def suggest(self, trial_id: str) -> dict:
        return {}

    def on_trial_complete(self, trial_id: str, result=None, error: bool = False) -> None:
        pass


def test_several_nodes_are_waited_for_at_once_and_later_one():
    running: dict[str, None] = {}
    limiter = AutoscalingLimiter(Endless(), running)
    names = iter(map(str, range(100)))

    def drawn() -> list[str]:
        found = []
        while limiter.suggest(name := next(names)) is not None:
            found.append(name)
        return found

    first = drawn()
    assert len(first) == limiter.max_concurrent == 8
    running.update(dict.fromkeys(first[:5]))
    assert drawn() == []
    running.update(dict.fromkeys(first))
    more = drawn()
    assert len(more) == 1  # beyond those that run
    limiter.on_trial_complete(first[0])
    del running[first[0]]
    running[more[0]] = None
    assert len(drawn()) == 1
