"""What a search prints, on a terminal and in a log."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from lkd_tune.records.trial_record import LABELS_ALONE, Outcome, TrialRecord
from lkd_tune.tuning.progress.view import EVENTS_VARIABLE, LogView, View
from tests.support.tiny import make_space
from tests.tuning.study.test_searcher import drawn, measurement, searcher


@pytest.fixture
def spec(tmp_path):
    return drawn(searcher(tmp_path).suggest("a"))[1]


def play(view: View, spec) -> None:
    view.phase("searching")
    view.teacher_scored(0.8)
    view.clock(None)
    view.trial_started("0000", spec)
    view.measured("0000", measurement(2, 0.3))
    view.measured("0000", measurement(4, 0.5))
    view.trial_ended("0000", "complete", 0.6, None)
    view.trial_started("0001", spec)
    view.trial_ended("0001", "failed", None, "DivergedError: the loss is nan")
    view.trial_started("0002", spec)
    view.measured("0002", measurement(2, 0.4))


def test_without_a_terminal_each_event_is_one_plain_line(spec):
    console = Console(file=io.StringIO(), width=60)
    with View(4, "accuracy", console=console) as view:
        play(view, spec)
    assert spec.student.depth > 1
    student = f"{spec.student.depth} layers, map {'-'.join(map(str, spec.layer_map.word))}"
    assert console.file.getvalue().splitlines() == [
        "searching",
        "teacher: accuracy 0.8000 on dev",
        # A quarter of its steps took half a second.
        "about 4 trials × 2 s, 1 at a time: 8 s, or less if trials stop early",
        f"[1/4] trial 0000 complete accuracy 0.6000, {student}",
        f"[2/4] trial 0001 failed, {student}: DivergedError: the loss is nan",
    ]


def test_after_every_quarter_there_is_a_new_estimate(spec):
    console = Console(file=io.StringIO(), width=60)
    with View(8, "accuracy", console=console) as view:
        view.clock(None)
        for i in range(8):
            view.trial_started(f"{i:04d}", spec)
            view.trial_ended(f"{i:04d}", "stopped", 0.5, None)
    told = [line for line in console.file.getvalue().splitlines() if line.startswith("trials")]
    assert [line.partition(":")[0] for line in told] == ["trials 2/8", "trials 4/8", "trials 6/8"]
    assert re.fullmatch(
        r"trials 2/8: 0 complete, 2 stopped early, 0 failed, 0 running, about .* left", told[0]
    )


def test_on_a_terminal_the_best_and_the_running_trials_are_shown(spec):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with View(4, "accuracy", console=console) as view:
        play(view, spec)
        view._live.refresh()
        shown = console.file.getvalue()
    assert "trials 2/4: 1 complete, 0 stopped early, 1 failed, 1 running, about" in shown
    assert "best accuracy 0.6000 (75.0% of the teacher's): trial 0000" in shown
    assert "0002   2/8   0.4000" in shown


def test_on_a_terminal_a_phase_is_shown_once_with_its_time_and_how_far_it_is(monkeypatch, tmp_path):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with View(4, "accuracy", console=console) as view:
        view.phase("scoring the teacher")
        now += 70
        view.phase("storing the teacher's targets")
        now += 7
        (tmp_path / "share").write_text("40%")
        view.targets_stored(tmp_path / "share")
        said, console.file = console.file.getvalue(), io.StringIO()
        view._live.refresh()
        shown = console.file.getvalue()
    assert said.count("scoring the teacher") == said.count("storing the teacher's targets") == 1
    assert "7 s, 40%" in shown
    assert "storing" not in shown
    assert "trials" not in shown  # none can run yet


def test_the_estimate_covers_the_trainings_after_the_trials(tmp_path, spec, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=200)
    space = make_space(
        tmp_path, confirm={"top": 2, "seeds": 3}, search={"trials": 8, "baseline": True}
    )
    with View.of_search(space.settings, quiet=False) as view:
        view._console = console
        view.clock(None)
        for i in range(8):
            name = f"{i:04d}"
            view.trial_started(name, spec)
            if i == 0:
                view.measured(name, measurement(2, 0.3))
                view.measured(name, measurement(4, 0.5))  # half a second for 2 of 8 steps
            now += 1
            view.trial_ended(name, "complete", 0.5, None)
        assert view._state.counts.endswith("about 20 s left")
        view.phase("training the best 2 with 3 other seeds", trainings=6)
        for i in range(1, 4):
            view.trial_started(f"0003-seed{i}", spec)
            view.trial_ended(f"0003-seed{i}", "complete", 0.5, None)
        assert view._state.counts.endswith("about 14 s left")
    said = console.file.getvalue()
    # Six of other seeds, and four on the labels alone.
    assert "16 s, or less if trials stop early; then 10 trainings of the best: 20 s" in said
    assert "[3/6] trial 0003-seed3 complete accuracy 0.5000" in said


def test_quiet_shows_nothing(spec):
    console = Console(file=io.StringIO(), force_terminal=True)
    with View(4, "accuracy", console=console, quiet=True) as view:
        play(view, spec)
    assert console.file.getvalue() == ""


def test_earlier_sessions_count_and_the_comparison_does_not(spec):
    origins = {"0000": None, "0001": None, "0002": LABELS_ALONE, "0001-seed1": None}
    complete = Outcome(state="complete")
    records = [
        TrialRecord(name, spec, (measurement(8, 0.7),), complete, kept=False, origin=origin)
        for name, origin in origins.items()
    ]
    console = Console(file=io.StringIO())
    with View(3, "accuracy", console=console) as view:
        view.earlier(records)
        view.trial_started("0003", spec)
        view.trial_ended("0003", "stopped", 0.5, None)
        view.trial_started("0004", spec, origin=LABELS_ALONE)
        view.measured("0004", measurement(2, 0.3))
        view.trial_ended("0004", "complete", 0.5, None)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("[3/3] trial 0003 stopped")
    assert lines[1].startswith("trial 0004 (labels alone) complete")


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_followed_log_looks_like_the_search_itself(spec, monkeypatch, size):
    here = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with View(4, "accuracy", console=here) as view:
        play(view, spec)
        here.file = io.StringIO()
        view._live.refresh()
        expected = here.file.getvalue()
    monkeypatch.setenv(EVENTS_VARIABLE, "1")
    log = Console(file=io.StringIO(), width=60)
    with View(4, "accuracy", console=log) as view:
        play(view, spec)
    text = log.file.getvalue()
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with LogView(live=True, console=console) as follower:
        for start in range(0, len(text), size):
            follower.feed(text[start : start + size])
        said, console.file = console.file.getvalue(), io.StringIO()
        follower._table.refresh()
        shown = console.file.getvalue()
    assert "[1/4] trial 0000 complete accuracy 0.6000" in said
    assert "\x1e" not in said
    assert "0002   2/8   0.4000" in shown
    assert _without_times(shown) == _without_times(expected)


def _without_times(text: str) -> str:
    return re.sub(r"about [0-9:]+ min left", "", text)


def test_without_a_terminal_a_log_has_only_lines(spec, monkeypatch):
    plain = Console(file=io.StringIO(), width=60)
    with View(4, "accuracy", console=plain) as view:
        play(view, spec)
    monkeypatch.setenv(EVENTS_VARIABLE, "1")
    log, shown = Console(file=io.StringIO()), Console(file=io.StringIO(), width=60)
    with View(4, "accuracy", console=log) as view:
        play(view, spec)
    with LogView(live=True, console=shown) as follower:
        follower.feed('\x1e{"event": "of another version"}\n\x1e{cut\n')
        follower.feed(log.file.getvalue() + "the end")
    first, *others = shown.file.getvalue().removesuffix("\n").split("\n")
    assert first == "\x1e{cut"
    assert others == [*plain.file.getvalue().splitlines(), "the end"]
