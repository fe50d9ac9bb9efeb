"""Nodes that can't take part: at the start, later, and when there is no other."""

from __future__ import annotations

import subprocess

import pytest

from lkd_tune.cluster.nodes import installed_versions
from lkd_tune.records.run import RunFolder
from tests.support.clusters import LocalCluster
from tests.support.tiny import LABELS, make_space
from tests.system.driver import wait_until
from tests.system.test_nodes import nodes_used, search

_ISOLATED = subprocess.run(
    ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
    capture_output=True,
    check=False,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_ISOLATED.returncode != 0, reason="no mount namespaces here"),
]


def test_the_nodes_of_the_start_are_reported_with_what_they_lack(tmp_path):
    make_space(tmp_path)
    other = tmp_path / "other" / "torch-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    with LocalCluster() as cluster:
        path = f"{other.parent}:{cluster.env['PYTHONPATH']}"
        cluster.add_node(PYTHONPATH=path)
        cluster.add_node(hidden=shared)
        driver = search(cluster, tmp_path, "--run-dir", str(shared))
        assert driver.wait(120) == 2
    told = (tmp_path / "search.log").read_text()
    assert "Traceback" not in told
    assert f"has torch 1.0 (the driver {installed_versions()['torch']}); install the same" in told
    assert (
        f"does not see it: {shared / 'run'}; set --run-dir to a folder that all nodes share" in told
    )


def test_a_late_node_that_is_unfit_gets_no_trial_and_takes_none_down(tmp_path):
    shared = tmp_path / "shared"
    make_space(
        tmp_path,
        losses=LABELS,
        train={"steps": 600, "evaluations": 4, "lr": {"loguniform": [1e-4, 1e-2]}},
        # Nothing that a node is to blame for counts as a trial's failure.
        search={"trials": 500, "concurrency": None, "scheduler": "none", "max_failures": 0},
        student={"depth": 1},
        layer_map="skip",
    )
    run = RunFolder(shared / "run")

    def told() -> str:
        return (tmp_path / "search.log").read_text()

    def ended() -> int:
        return sum(record.outcome is not None for record in run.read_trials())

    with LocalCluster(cpus=0) as cluster:
        fit = cluster.add_node()
        driver = search(cluster, tmp_path, "--run-dir", str(shared))
        wait_until(lambda: run.path.exists() and len(nodes_used(run)) == 1, driver)
        cluster.add_node(hidden=shared)
        wait_until(lambda: "not used: node" in told(), driver)
        before = ended()
        wait_until(lambda: ended() >= before + 2, driver)
        assert len(nodes_used(run)) == 1
        wait_until(lambda: bool([*run.path.glob("trials/*/checkpoint-*")]), driver)
        cluster.kill(fit)
        # Another may come, as after the loss of any node; but this one does not help either.
        cluster.add_node(hidden=shared)
        assert driver.wait(200) == 2, told()

    assert "Traceback" not in told()
    assert told().count("not used: node") == 2
    assert told().splitlines()[-1].startswith("lkd-tune: node ")
    assert {record.state for record in run.read_trials()} == {"complete", "running"}
