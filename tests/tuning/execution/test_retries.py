"""Which losses of a trial's workers count against it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.execution.retries import Retries

SPEC = TrialSpec.model_validate(
    {
        "task": {"name": "own", "train": "a.csv", "dev": "a.csv"},
        "teacher": "somewhere",
        "student": {"depth": 1},
        "layer_map": {"word": (0, 2), "layer": (0, 2)},
        "train": {"batch_size": 8},
    }
)


class Played:
    """A trial on some nodes of a cluster, and how Tune would count."""

    def __init__(self, folder, allowed: int, **more: float):
        self.alive = {"a", "b", "c"}
        self.run = RunFolder(folder)
        self.folder = TrialFolder(self.run.trial("0"))
        self.retries = Retries(self.run, allowed, living=lambda: {*self.alive}, **more)
        tunes = self.retries.for_tune
        self.error = folder / "error.txt"
        self.trial = SimpleNamespace(
            config={"name": "0", "spec": SPEC.to_json()},
            num_failures=0,
            max_failures=tunes,
            error_file=str(self.error),
        )

    def start(self, *nodes: str) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.retries.started(self.trial)
        if nodes:
            self.folder.append_start({"workers": [{"node": node} for node in nodes]})

    def fail(self, why: str = "", *, counted: bool = True) -> str:
        """Returns what becomes of the trial."""
        self.trial.num_failures += counted
        with self.error.open("a") as file:
            file.write(f"Failure # {self.trial.num_failures} (occurred)\n{why}\n")
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


UNAVAILABLE = "The actor 01 is unavailable: socket closed."
DEAD = "Its worker process has died."


def test_the_news_of_a_lost_node_may_come_later(tmp_path):
    played = Played(tmp_path, 0)
    played.start("a")
    began = time.monotonic()
    assert played.fail(UNAVAILABLE) == "goes on"
    assert time.monotonic() - began < 1  # all other trials go on as well
    played.alive.remove("a")
    played.start("b")
    assert played.fail(DEAD) == "ended"


def test_a_node_that_was_not_lost_after_all_is_no_excuse(tmp_path):
    played = Played(tmp_path, 1, node_loss_known_s=0.2)
    played.start("a")
    assert played.fail(UNAVAILABLE) == "goes on"
    played.start("b")
    assert played.fail(UNAVAILABLE) == "goes on"  # there may still be news of both
    time.sleep(0.3)
    played.start("c")
    assert played.fail(DEAD) == "ended"


def test_a_trial_that_ray_kills_for_want_of_memory_continues_with_smaller_micro_batches(tmp_path):
    played = Played(tmp_path, 0)
    killed = "1 worker(s) were killed due to the node running low on memory."
    for parts in (2, 4, 8):  # down to single examples of 8
        played.start("a")
        assert played.fail(killed) == "goes on"
        assert played.folder.read_accumulation() == parts
    played.start("a")
    assert played.fail(killed) == "ended"
    assert played.folder.read_accumulation() == 8


def test_a_trial_that_the_kernel_kills_is_started_again_while_its_micro_batches_get_smaller(
    tmp_path,
):
    played = Played(tmp_path, 1)
    played.start("a")
    assert played.fail(DEAD) == "goes on"
    for parts in (2, 4, 8):
        played.start("a")
        played.folder.write_accumulation(parts)  # as the trial does that sees why
        assert played.fail(DEAD) == "goes on"
    played.start("a")
    assert played.fail(DEAD) == "ended"


def test_what_ray_does_not_count_stays_so(tmp_path):
    played = Played(tmp_path, 0)
    for _ in range(3):
        played.start("a")
        assert played.fail(counted=False) == "goes on"
    assert played.fail() == "ended"
