"""The commands as a user calls them: exit codes, messages, and what lies on disk afterwards."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lkd_tune import __version__, cli
from lkd_tune.cli.main import app
from lkd_tune.config.shipped import shipped_spaces
from lkd_tune.records.run import RunFolder
from tests.support.finished_run import STEPS, TRIALS
from tests.support.run_folder import HandMade, full_run
from tests.support.tiny import LABELS, make_csv, make_space, make_space_tree, make_teacher

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def command_line(*args, cwd=None):
    """Calls lkd-tune in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lkd_tune.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A space on disk over a tiny teacher and data, and its folder."""
    folder = tmp_path_factory.mktemp("tiny")
    make_space(folder, losses=LABELS, student={"depth": {"int": [1, 2]}})
    return folder


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"lkd-tune {__version__}\n")


def test_every_command_is_listed():
    """A function whose docstring has an example of its use is a command."""
    defined = [
        node.name
        for path in Path(cli.__file__).parent.rglob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and f"lkd-tune {node.name}" in (ast.get_docstring(node) or "")
    ]
    assert sorted(defined) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"lkd-tune {command}" in result.output


def test_console_script():
    done = subprocess.run(
        [Path(sys.executable).parent / "lkd-tune", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert all(command in done.stdout for command in COMMANDS)


BAD = [
    (["search"], "one of --space FILE and --resume RUN is needed"),
    (["search", "--space", "x", "--allow-changed"], "needs --resume RUN and --space FILE"),
    (["search", "--resume", "none", "--name", "x"], "leave out --name and --run-dir"),
    (["search", "--resume", "none"], "none: is not a run folder: it has no manifest.json"),
    (["search", "--space", "layer_mp"], "layer_mp: is neither a file nor a shipped space (did"),
    (["submit"], "one of --space FILE and --resume RUN is needed"),
    (["submit", "--space", "layer_map"], "--run-dir: is needed"),
    (["submit", "--resume", "/a", "--ship"], "--ship: needs --space FILE"),
    (["submit", "--resume", "/a", "--allow-changed"], "--allow-changed: needs --space FILE"),
    (["submit", "--resume", "/a", "--task", "cola"], "--task: can't be changed in a resumed run"),
    (["submit", "--resume", "/a", "--name", "b"], "leave out --name and --run-dir"),
    (["check", "--space", "layer_map", "--set", "train.lrr=1"], "train.lrr: unknown setting (did"),
    (
        ["check", "--space", "layer_map", "--set", "metric=f1"],
        "--set metric: unknown setting (did you mean task.metric?)",
    ),
    (["check", "--space", "layer_map", "--set", "epochs=2"], "you mean train.epochs?)"),
    (
        ["check", "--space", "layer_map", "--set", "task.metric=rouge1"],
        "with --set task.metric ta",
    ),
    (["check", "--space", "layer_map", "--set", "train.lr"], "is not of the form key.path=value"),
    (["check", "--space", "layer_map", "--set", "student.depth=9"], "is above the teacher's 6 lay"),
    (["distill", "--spec", "none.json"], "none.json: can't be read: No such file"),
    (["best", "none"], "none: is not a run folder"),
    (["export", "none", "--to", "x"], "none: is not a run folder"),
    (["export", "r", "--to", "x", "--format", "onx"], "--format: found 'onx' (did you mean onnx?)"),
    (["export", "r", "--to", "x", "--public"], "--public: needs --push-to-hub NAME"),
    (["compare", "none"], "none: is not a run's folder; name a second model, or a run alone"),
    (["evaluate", "none"], "none: has no student.json, so --task or --data is needed"),
    (["evaluate", "m", "--task", "cola", "--split", "train"], "found 'train'; allowed: dev, test"),
    (["evaluate", "m", "--task", "cola", "--set", "train.lr=1"], "only settings of task do"),
    (["evaluate", "m", "--task", "colla"], "task 'colla' is unknown"),
    (["evaluate", "m", "--data", "none.csv"], "none.csv is not a file"),
    (["serch"], "No such command 'serch'"),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(args)[:40] for args, _ in BAD])
def test_bad_input_is_reported_and_exits_with_2(called, tmp_path, monkeypatch, args, message):
    if args[0] == "evaluate" and "--data" in args:
        args = ["evaluate", make_teacher(tmp_path / "m"), *args[2:]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = called(*args)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) < 24
    assert out == ""


def test_problems_of_teacher_and_data_are_reported_together(called, tiny):
    code, _, err = called(
        "check", "--space", tiny / "space.yaml", "--set", "student.depth=9",
        "--set", "task.dev=none.csv", "--set", "task.columns.text=sentence",
    )  # fmt: skip
    assert code == 2
    assert "none.csv is not a file" in err
    assert "has no column 'sentence'" in err
    assert "depth 9 is above the teacher's 4 layers" in err


def test_a_missing_teacher_is_reported_with_its_line(called, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("task: acceptability\nteacher: nowhere\n")
    (tmp_path / "nowhere").mkdir()
    code, _, err = called("check", "--space", path, "--set", f"teacher={tmp_path / 'nowhere'}")
    assert code == 2
    assert "--set teacher: " in err
    assert "it has no config.json" in err


def test_check_prints_the_space(called, tiny):
    code, out, _ = called("check", "--space", tiny / "space.yaml")
    assert code == 0
    assert "integers 1 to 2" in out
    assert "the space is valid" in out
    assert "4 layers" in out


@pytest.mark.parametrize("name", ["layer_map", "layer_map.yaml"])
def test_a_shipped_space_is_found_from_anywhere(called, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert called("check", "--space", name)[0] == 0


def test_a_file_on_disk_wins_over_a_shipped_space(called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("layer_map.yaml").write_text("nothing: here")
    code, _, err = called("check", "--space", "layer_map.yaml")
    assert code == 2
    assert "layer_map.yaml:1 nothing: unknown setting" in err


def test_spaces(called):
    code, out, _ = called("spaces")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(shipped_spaces())
    assert all(len(line.split()) > 3 for line in out.splitlines())


def test_search_prints_the_answer(finished_run):
    run, out = finished_run.path, finished_run.printed
    assert "Best student: accuracy" in out
    assert f"{TRIALS} complete" in out
    assert f"lkd-tune export {run} --to DIR" in out
    facts = json.loads((run / "leaderboard.json").read_text())
    # The last trial is the winner's student on the labels alone.
    names = {row["name"] for row in facts["rows"] if row["rank"]}
    assert names == {f"{trial:04d}" for trial in range(TRIALS + 1)}
    assert facts["manifest"]["baseline"] == f"{TRIALS:04d}"
    assert facts["verdict"] in out.splitlines()
    assert (run / "leaderboard.csv").exists()


def test_search_refuses_a_folder_that_holds_a_run(finished_run):
    run = finished_run.path
    done = command_line("search", "--space", finished_run.space, "--run-dir", run.parent,
                        "--name", run.name)  # fmt: skip
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr


def test_best_export_and_evaluate(finished_run, called, tmp_path):
    run = finished_run.path
    best = json.loads((run / "leaderboard.json").read_text())["rows"][0]
    code, out, _ = called("best", run)
    assert code == 0
    assert str(run / "students" / best["name"]) in out
    code, out, _ = called("export", run, "--top", "2", "--to", tmp_path / "out")
    assert (code, out.split()) == (0, [str(tmp_path / "out" / "1"), str(tmp_path / "out" / "2")])
    code, out, _ = called("evaluate", tmp_path / "out" / "1")
    assert code == 0
    metric, score = out.splitlines()[0].split()[1:]
    assert (metric, float(score)) == ("accuracy", pytest.approx(best["score"], abs=1e-6))
    code, out, _ = called("evaluate", tmp_path / "out" / "1", "--split", "test")
    assert float(out.split()[2]) == pytest.approx(best["test_score"], abs=1e-6)


def test_evaluate_on_other_data(finished_run, called, tmp_path):
    run = finished_run.path
    student = next((run / "students").iterdir())
    data = make_csv(tmp_path, 20, seed=5, name="mine")
    code, out, _ = called("evaluate", student, "--data", data)
    assert code == 0
    assert out.startswith("mine.csv accuracy")  # it is not the task's dev split
    code, again, _ = called("evaluate", student, "--data", data, "--task", "mine")
    assert (code, again) == (0, out)


def test_distill_runs_a_student_again(finished_run, called, tmp_path):
    run = finished_run.path
    student = json.loads((run / "leaderboard.json").read_text())["rows"][0]
    spec = run / "students" / student["name"] / "student.json"
    # In a process of its own, as for a user: bits repeat between processes that did nothing else.
    done = command_line("distill", "--spec", spec, "--to", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-2]
    assert last.startswith(f"step {STEPS}/{STEPS}")
    assert f"accuracy {student['score']:.4f}" in last
    kept = run / "students" / student["name"] / "model.safetensors"
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == kept.read_bytes()
    code, _, err = called("distill", "--spec", spec, "--to", tmp_path / "again")
    assert code == 2
    assert "is not empty; name a new folder" in err


def test_distill_that_diverges(finished_run, called, tmp_path):
    run = finished_run.path
    spec = json.loads((run / "trials" / "0000" / "spec.json").read_text())
    spec["train"]["lr"] = 1e30
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    code, _, err = called("distill", "--spec", tmp_path / "spec.json")
    assert code == 1
    assert "try a smaller train.lr" in err


def test_a_run_may_be_exported_where_its_data_are_not(finished_run, called, tmp_path, monkeypatch):
    run = tmp_path / "copy"
    shutil.copytree(finished_run.path, run)
    facts = json.loads((run / "leaderboard.json").read_text())["rows"][0]
    spec = run / "trials" / facts["name"] / "spec.json"
    data = Path(json.loads(spec.read_text())["task"]["dev"]).parent
    assert data.is_absolute()
    spec.write_text(spec.read_text().replace(str(data), "/moved"))
    monkeypatch.chdir(tmp_path)
    asked = ("export", run, "--format", "torch-export")
    code, _, err = called(*asked, "--to", "one")
    assert code == 2
    assert "/moved/dev.csv is not a file" in err
    assert "paths are relative" not in err
    assert called(*asked, "--to", "two", "--data", data)[0] == 0


def test_a_folder_without_a_run_names_the_runs_there_are(called, tmp_path):
    full_run(tmp_path / "runs" / "first")
    for where in (tmp_path / "runs", tmp_path / "runs" / "nosuch"):
        code, _, err = called("best", where)
        assert code == 2
        assert err.endswith(f"no manifest.json; {tmp_path / 'runs'} has the runs first\n")


def test_help_has_a_short_name(called):
    for command in ((), ("search",)):
        code, out, _ = called(*command, "-h")
        assert (code, "Usage:" in out) == (0, True)


def test_settings_are_readable_in_80_columns(called, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = called("spaces", "--settings")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "train.lr: number; default 5e-05\n    Peak learning rate.\n" in out


def test_best_of_a_killed_run(called, tmp_path):
    code, out, _ = called("best", full_run(tmp_path).path)
    assert code == 0
    assert str(tmp_path / "students" / "0003") in out


def test_best_of_a_run_without_a_finished_trial(called, tmp_path):
    made = HandMade(tmp_path)
    made.add("0000", 0.1, None, step=10)
    code, out, _ = called("best", tmp_path)
    assert code == 1
    assert "is complete yet (1 running)" in out


@pytest.mark.slow
def test_resume_adds_trials(finished_run, tmp_path):
    run = shutil.copytree(finished_run.path, tmp_path / "run")
    more = TRIALS + 1
    done = command_line("search", "--resume", run, "--set", f"search.trials={more}", "--quiet")
    assert done.returncode == 0, done.stderr
    assert f"{more} complete" in done.stdout
    assert yaml.safe_load((run / "space.yaml").read_text())["search"]["trials"] == more


@pytest.mark.slow
def test_all_trials_failed(tmp_path):
    tree = make_space_tree(tmp_path / "bad", losses=LABELS, student={"depth": 2})
    tree["train"]["lr"] = 1e30
    tree["search"]["trials"] = 2
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(tree))
    done = command_line("search", "--space", tmp_path / "bad.yaml", "--name", "x", cwd=tmp_path)
    assert done.returncode == 1
    assert "2 trials failed: " in done.stderr
    assert "train.lr" in done.stderr
    assert "tracebacks: runs/x/trials/*/error.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_exits_with_130_and_prints_how_to_continue(tiny, tmp_path):
    command = [
        sys.executable, "-m", "lkd_tune.cli", "search", "--space", str(tiny / "space.yaml"),
        "--set", "search.trials=1000", "--set", "train.steps=50",
        "--name", "long", "--quiet",
    ]  # fmt: skip
    # As a script starts a process in the background.
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run = RunFolder(tmp_path / "runs" / "long")
    deadline = time.monotonic() + 120
    while not any((run.path / "trials").glob("*/outcome.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "lkd-tune search --resume runs/long" in out
    assert "Traceback" not in err
