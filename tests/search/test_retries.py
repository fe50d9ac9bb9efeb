"""Which losses of a trial's workers count against it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from lkd_tune.search.retries import Retries
from lkd_tune.search.trial_folder import TrialFolder
from lkd_tune.spec.run import RunFolder


class Played:
    """A trial on some nodes of a cluster, and how Tune would count."""

    def __init__(self, folder, allowed: int):
        self.alive = {"a", "b", "c"}
        self.run = RunFolder(folder)
        self.retries = Retries(self.run, allowed, living=lambda: {*self.alive})
        tunes = self.retries.for_tune
        self.error = folder / "error.txt"
        self.trial = SimpleNamespace(
            config={"name": "0"}, num_failures=0, max_failures=tunes, error_file=str(self.error)
        )

    def start(self, *nodes: str) -> None:
        folder = TrialFolder(self.run.trial("0"))
        folder.path.mkdir(parents=True, exist_ok=True)
        self.retries.started(self.trial)
        if nodes:
            folder.note_workers([{"node": node} for node in nodes])

    def fail(self, *, counted: bool = True) -> str:
        """Returns what becomes of the trial."""
        self.trial.num_failures += counted
        if self.trial.num_failures > self.trial.max_failures:
            return "ended by Tune"
        return "ended" if self.retries.are_used_up(self.trial) else "goes on"


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_its_own_failures_are_counted(tmp_path, allowed):
    played = Played(tmp_path, allowed)
    for _ in range(allowed):
        played.start("a")
        assert played.fail() == "goes on"
    played.start("a")
    assert played.fail() == "ended"
    # It is started to report that; should that fail too, Tune ends it.
    assert played.fail() == "ended by Tune"


@pytest.mark.parametrize("known", [True, False])
def test_the_loss_of_its_node_is_not(tmp_path, known):
    played = Played(tmp_path, 0)
    for node in "abc":
        played.start(*node * known)
        played.alive.remove(node)
        assert played.fail() == "goes on"
    played.alive.add("d")
    played.start(*"d" * known)
    assert played.fail() == "ended"


def test_the_loss_of_another_node_is_no_excuse(tmp_path):
    played = Played(tmp_path, 0)
    played.start("a", "b")
    played.alive.remove("c")
    assert played.fail() == "ended"


def test_a_node_that_was_gone_before_is_no_excuse(tmp_path):
    played = Played(tmp_path, 0)
    played.start("a")
    played.alive.remove("a")
    assert played.fail() == "goes on"
    played.start()  # nothing is noted: it fails before it has begun
    assert played.fail() == "ended"


def test_the_news_of_a_lost_node_is_waited_for(tmp_path):
    played = Played(tmp_path, 0)
    played.start("a")
    played.error.write_text("Failure # 1 (occurred)\nThe actor 01 is unavailable: socket closed.\n")
    threading.Timer(1.0, lambda: played.alive.remove("a")).start()
    assert played.fail() == "goes on"
    with played.error.open("a") as file:
        file.write("Failure # 2 (occurred)\nIts worker process has died.\n")
    played.start("b")
    assert played.fail() == "ended"


def test_what_ray_does_not_count_stays_so(tmp_path):
    played = Played(tmp_path, 0)
    for _ in range(3):
        played.start("a")
        assert played.fail(counted=False) == "goes on"
    assert played.fail() == "ended"
