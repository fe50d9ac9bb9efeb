"""What an export with other formats says and writes, and that its folders need nothing of us."""

import json
import os
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from lkd_tune.cli.main import app
from lkd_tune.export.formats import FORMATS, read_conversion
from lkd_tune.export.students import export_students
from tests.support.kinds_data import make_model, make_task
from tests.support.run_folder import run_with_student

# Runs in a process that can't import this package, on folders named by the kind of their task.
CLEAN = """
import contextlib, json, sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("lkd_tune", "tests"):
            raise ImportError(f"{name} is not to be had")

sys.meta_path.insert(0, Refuse())
try:
    import lkd_tune
except ImportError:
    pass
else:
    raise SystemExit("lkd_tune could be imported")
from transformers import pipeline

for tag, folder, text in json.loads(sys.argv[1]):
    print(json.dumps([bool(entry["score"] > 0) for entry in pipeline(tag, model=folder)(text)]))
FOLDER = json.loads(sys.argv[1])[0][1]
with contextlib.redirect_stdout(sys.stderr):
    for block in json.loads(sys.argv[2]):
        exec(block)
import torch
text = tokenizer(["A sentence."], return_tensors="pt")
expected = model(**text).logits.detach()
program = torch.export.load(f"{FOLDER}/model.pt2").module()
print(float((expected - torch.from_numpy(logits[0])).abs().max()))
print(float((expected - program(**text)["logits"]).abs().max()))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns the output of an export in all formats, and its folder."""
    folder = tmp_path_factory.mktemp("formats")
    task = make_task(folder / "data", "classification", rows=40)
    run = run_with_student(folder / "run", task, make_model(folder / "model", task))
    names = ",".join(FORMATS)
    command = ["export", str(run.path), "--to", str(folder / "to"), "--format", names]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout, folder / "to" / "1"


def test_each_format_is_shown_with_size_score_time_and_difference(exported):
    out, folder = exported
    lines = out.splitlines()
    assert lines[0] == str(folder)
    assert " ".join(lines[1].split()) == "format MB accuracy, dev ms for 24 tokens logits differ"
    rows, after = lines[2 : 2 + len(FORMATS)], lines[2 + len(FORMATS) :]
    titles = [FORMATS[name].title for name in FORMATS]
    assert [re.split(r"\s{2,}", line.strip())[0] for line in rows] == titles
    assert after[0].startswith("timed in turns on ")
    assert "thread" in after[0]


def test_checksums_cover_all_files(exported):
    _, folder = exported
    sums = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(sums, cwd=folder, check=True, capture_output=True, text=True)
    checked = {line.split(":")[0] for line in done.stdout.splitlines()}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert checked == files - {"SHA256SUMS"}
    assert {facts.file for facts in FORMATS.values()} < checked


def test_the_card_states_what_was_measured(exported):
    _, folder = exported
    card, found = ModelCard.load(folder / "README.md"), read_conversion(folder)
    assert "onnx" in card.data.tags
    for facts in found.formats:
        title = FORMATS[facts.format].title
        row = next(line for line in card.text.splitlines() if line.startswith(f"| {title} |"))
        assert f"| {facts.metrics['accuracy']:.4f} | {facts.latency_ms:.1f} |" in row
        if facts.difference is not None:
            assert row.endswith(f"| {facts.difference:.1e} |")
    assert "on batches of 1, 3, 8 and 16 texts of dev" in card.text


def test_folders_work_where_this_package_is_not(exported, tmp_path):
    _, folder = exported
    folders = [("text-classification", str(folder), "the film was good")]
    for kind, tag, text in (
        ("tagging", "token-classification", "the film was good"),
        ("masked_lm", "fill-mask", "the [MASK] was good"),
    ):
        task = make_task(tmp_path / "data", kind, rows=8)
        run = run_with_student(tmp_path / kind, task, make_model(tmp_path / f"{kind}-model", task))
        (student,) = export_students(run, 1, tmp_path / f"{kind}-to")
        folders.append((tag, str(student), text))
    card = (folder / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN, json.dumps(folders), json.dumps(blocks)],
        env=alone, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *answers, onnx, program = map(json.loads, done.stdout.splitlines())
    assert len(answers) == 3
    assert all(all(answer) and answer for answer in answers)
    assert onnx < 1e-4
    assert program < 1e-4


def test_a_format_that_differs_ends_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr("lkd_tune.export.convert.MAX_DIFFERENCE", -1)  # no two are so near
    task = make_task(tmp_path / "data", "classification", rows=16)
    run = run_with_student(tmp_path / "run", task, make_model(tmp_path / "model", task))
    command = ["export", str(run.path), "--to", str(tmp_path / "to"), "--format", "torch-export"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 1
    assert "--format: torch.export differs from PyTorch by" in done.stderr
    assert list((tmp_path / "to").iterdir()) == []
