"""What a search shows in a notebook; `tests/test_notebooks.py` runs a real one."""

import io
import time

import IPython.display
import pytest
from rich.console import Console

from lkd_tune.tuning.progress import notebook
from lkd_tune.tuning.progress.view import View
from tests.tuning.progress.test_view import play, spec  # noqa: F401


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a cell: each is the list of what it has shown, one after the other."""
    found = []

    class Handle:
        def __init__(self, first):
            self.shown = [first.data]
            found.append(self.shown)

        def update(self, other):
            self.shown.append(other.data)

    monkeypatch.setattr(IPython.display, "display", lambda first, display_id: Handle(first))
    monkeypatch.setattr(notebook, "_INTERVAL_S", 0.01)
    return found


def test_one_output_is_replaced_and_lines_are_plain(spec, outputs, capsys):  # noqa: F811
    console = Console(file=io.StringIO(), force_jupyter=True)
    with View(4, "accuracy", console=console) as view:
        play(view, spec)
        (shown,) = outputs
        number = len(shown)
        while len(shown) <= number + 1:  # it is replaced though nothing happens: clocks go on
            time.sleep(0.01)
    assert "trials 2/4: 1 complete, 0 stopped early, 1 failed, 1 running" in shown[-1]
    assert "best accuracy 0.6000" in shown[-1]
    assert shown[-1].startswith("<pre")
    assert "[1/4] trial 0000 complete accuracy 0.6000" in capsys.readouterr().out


def test_quiet_shows_nothing(spec, outputs, capsys):  # noqa: F811
    with View(4, "accuracy", console=Console(force_jupyter=True), quiet=True) as view:
        play(view, spec)
    assert outputs == []
    assert capsys.readouterr().out == ""
