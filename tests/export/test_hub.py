"""Students are uploaded by real requests of huggingface_hub, to a server of its endpoints."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.support.hub_server import OWNER, Hub
from tests.support.run_folder import full_run


def export(run, to, *options, hub, token="hf_right"):
    """Calls `lkd-tune export` in a process of its own that takes a server for the hub."""
    command = [sys.executable, "-m", "lkd_tune.cli", "export", str(run.path), "--to", str(to)]
    home = {"HF_HOME": str(run.path / "hf-home")}  # no token of the user's
    mine = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
    return subprocess.run(
        [*command, *options],
        env={**mine, **home, **hub.environment(token)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sent(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def run(tmp_path):
    run = full_run(tmp_path / "run")
    # Large enough for LFS.
    save_file({"weight": torch.zeros(1300)}, run.student("0003") / "model.safetensors")
    return run


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


def test_the_whole_folder_is_uploaded_privately_and_its_address_printed(run, hub, tmp_path):
    done = export(run, tmp_path / "to", "--push-to-hub", "mine", hub=hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(tmp_path / "to" / "1"),
        f"{hub.address}/{OWNER}/mine",
    ]
    assert hub.files == {f"{OWNER}/mine": sent(tmp_path / "to" / "1")}
    assert hub.private == {f"{OWNER}/mine": True}
    weights = (tmp_path / "to" / "1" / "model.safetensors").read_bytes()
    assert list(hub.blobs.values()) == [weights]  # by LFS
    # Another export takes its place, but for what it has not and others put there.
    files = hub.files[f"{OWNER}/mine"]
    files["onnx/model.onnx"], files["mine.txt"] = b"of an older student", b"mine"
    done = export(run, tmp_path / "again", "--push-to-hub", f"{OWNER}/mine", hub=hub)
    assert done.returncode == 0, done.stderr
    assert files == {**sent(tmp_path / "again" / "1"), "mine.txt": b"mine"}


def test_where_files_are_on_this_machine_is_not_uploaded(run, hub, tmp_path):
    path = run.student("0003") / "student.json"
    facts = json.loads(path.read_text())
    facts["spec"]["task"]["train"], facts["spec"]["teacher"] = "/home/me/train.csv", "/models/mine"
    path.write_text(json.dumps(facts))
    done = export(run, tmp_path / "to", "--push-to-hub", "mine", hub=hub)
    assert done.returncode == 0, done.stderr
    spec = json.loads(hub.files[f"{OWNER}/mine"]["student.json"])["spec"]
    assert (spec["task"]["train"], spec["teacher"]) == ("train.csv", "mine")
    assert not [
        name for name, content in hub.files[f"{OWNER}/mine"].items() if b"/home/me" in content
    ]


def test_several_are_numbered_and_public_if_asked_for(run, hub, tmp_path):
    done = export(run, tmp_path / "to", "--top", "2", "--push-to-hub", "a/s", "--public", hub=hub)
    assert done.returncode == 0, done.stderr
    assert hub.private == {"a/s-1": False, "a/s-2": False}
    assert hub.files["a/s-2"] == sent(tmp_path / "to" / "2")


def refusals():
    there = "someone/there exists and is public; add --public, change it there, or use another name"
    no_token = "no token was found; run `hf auth login`, or set HF_TOKEN"
    yield ["--push-to-hub", "x"], None, no_token, 2
    yield ["--push-to-hub", "a b"], "hf_right", "Repo id must use alphanumeric chars", 2
    yield ["--push-to-hub", "there"], "hf_right", there, 2
    yield ["--push-to-hub", "x"], "hf_wrong", "Invalid user token.", 2
    yield ["--public"], "hf_right", "--public: needs --push-to-hub NAME", 2


@pytest.mark.parametrize(("options", "token", "message", "code"), refusals())
def test_what_is_refused_is_reported_before_anything_is_done(
    options, token, message, code, run, hub, tmp_path
):
    hub.files["someone/there"], hub.private["someone/there"] = {}, False
    done = export(run, tmp_path / "to", *options, hub=hub, token=token)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert hub.files == {"someone/there": {}}
    assert not (tmp_path / "to").exists()
    if token is None:
        assert hub.requests == []


def test_a_hub_that_is_not_there_is_reported(run, tmp_path):
    with Hub() as hub:
        pass
    done = export(run, tmp_path / "to", "--push-to-hub", "x", hub=hub)
    assert done.returncode == 1
    assert "lkd-tune: --push-to-hub: " in done.stderr
    assert "Traceback" not in done.stderr
