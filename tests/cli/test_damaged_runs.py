"""Run folders with files that can't be read; names and paths that a shell would split."""

from __future__ import annotations

import json
import shlex

import pytest

from lkd_tune.records.run import RunFolder
from tests.support.run_folder import full_run


@pytest.fixture
def copy(tmp_path):
    """A run to be damaged, in a folder with a space in its name."""
    return full_run(tmp_path / "my runs" / "first").path


def test_a_trial_that_can_t_be_read_is_named_and_left_out(copy, called, tmp_path):
    empty, newer = "0005", "0001"
    (copy / "trials" / empty / "outcome.json").write_text("")
    spec = copy / "trials" / newer / "spec.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "novelty": 1}))
    for command in (["best"], ["report"], ["export", "--to", tmp_path / "out"]):
        code, _, err = called(command[0], copy, *command[1:])
        assert code == 0
        assert f"warning: trial {empty} can't be read and is left out: Outcome: Invalid JSON" in err
        assert f"warning: trial {newer} can't be read and is left out: TrialSpec.novelty: " in err
        assert "written by" not in err
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["versions"]["lkd_tune"] = "99.1"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    _, _, err = called("best", copy)
    assert f"{copy} was written by lkd-tune 99.1, this is " in err
    assert len(RunFolder(copy).unreadable_trials()) == 3


def test_weights_that_were_cut_short_are_not_exported(copy, called, tmp_path):
    for weights in copy.glob("students/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:20])
    code, _, err = called("export", copy, "--to", tmp_path / "out")
    assert code == 2
    assert "model.safetensors is cut short or damaged" in err
    assert not [*(tmp_path / "out").iterdir()]


def test_commands_to_resume_are_quoted(copy):
    run = RunFolder(copy)
    assert shlex.split(run.resume_command) == ["lkd-tune", "search", "--resume", str(copy)]


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "/tmp/x"])
def test_a_name_is_no_path(called, tmp_path, name):
    options = ["--space", "layer_map", "--run-dir", tmp_path / "runs", "--name", name]
    code, _, err = called("search", *options)
    assert code == 2
    assert f"--name: {name!r} is a path, not a name; name the folder with --run-dir" in err
