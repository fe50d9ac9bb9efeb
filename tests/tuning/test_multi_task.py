"""Several tasks in turn: each is searched once, and one table shows all."""

import csv
import json
import subprocess
import sys

import pytest
import yaml

from lkd_tune.cli.printing.task_table import show_task_table
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.known_tasks import GLUE_TASKS
from lkd_tune.records.run import RunFolder
from lkd_tune.results.task_table import TaskRow, TaskTable, read_task_table
from lkd_tune.tuning.multi_task import load_task_spaces, parse_task_names, search_tasks
from tests.support.run_folder import full_run
from tests.support.tiny import LABELS, at_chance, make_csv, make_teacher


def hub_folder(folder):
    """Writes a data set as the hub lays it out, with a configuration for each of two tasks."""
    configs = []
    for task, columns in (("cola", ["sentence"]), ("mrpc", ["sentence1", "sentence2"])):
        files = []
        for split in ("train", "validation"):
            rows = list(csv.DictReader(make_csv(folder / task, 48, name=split).open()))
            path = folder / task / f"{split}.csv"
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*columns, "label"])
                writer.writerows([row["text"]] * len(columns) + [row["label"]] for row in rows)
            files.append({"split": split, "path": f"{task}/{split}.csv"})
        configs.append({"config_name": task, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return folder


SHORT = "task.max_length=32"  # what the teacher takes


def _search(folder, tasks, *more):
    command = [sys.executable, "-m", "lkd_tune.cli", "search", "--space", "space.yaml"]
    command += ["--task", tasks, "--name", "both", "--quiet", "--set", SHORT, *more]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def _write_space(folder):
    space = {
        "task": "rte",
        "teacher": at_chance(make_teacher(folder / "teacher")),
        "student": {"depth": 1},
        "layer_map": "skip",
        "losses": LABELS,
        "train": {"batch_size": 16, "steps": 4, "lr": {"loguniform": [1e-4, 1e-2]}},
        "search": {"trials": 2, "recipes": []},
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    return folder / "space.yaml"


@pytest.mark.slow
def test_tasks_are_searched_in_turn_and_shown_in_one_table(tmp_path):
    _write_space(tmp_path)
    data = hub_folder(tmp_path / "glue")
    done = _search(tmp_path, "cola,mrpc", "--set", f"task.data={data}")
    assert done.returncode == 0, done.stderr
    table = read_task_table(
        {task: RunFolder(tmp_path / "runs" / "both" / task) for task in ("cola", "mrpc")}
    )
    cola, mrpc = table.rows
    assert list(cola.student) == ["matthews"]
    assert list(mrpc.student) == list(mrpc.teacher) == list(mrpc.baseline) == ["f1", "accuracy"]
    assert mrpc.score("student") == sum(mrpc.student.values()) / 2
    mean = (cola.score("student") + mrpc.score("student")) / 2
    assert table.average("student") == mean
    facts = json.loads((tmp_path / "runs" / "both" / "tasks.json").read_text())
    assert facts["averages"]["student"]["all"] == mean
    last = next(line for line in done.stdout.splitlines() if line.startswith("average"))
    assert f"{mean:.3f}" in last
    trials = sorted((tmp_path / "runs" / "both").rglob("outcome.json"))
    times = [path.stat().st_mtime_ns for path in trials]
    again = _search(tmp_path, "cola,mrpc", "--set", f"task.data={data}")
    assert again.returncode == 0, again.stderr
    assert times == [path.stat().st_mtime_ns for path in trials]


def test_names_of_tasks():
    assert parse_task_names("glue/all") == list(GLUE_TASKS)
    assert parse_task_names("cola, rte") == ["cola", "rte"]
    assert parse_task_names("mine") == ["mine"]
    with pytest.raises(SpecError, match=r"cloa is not a known task \(did you mean cola\?\)"):
        parse_task_names("cloa,rte")


def _glue_folder(folder, mrpc_label=None):
    """Writes CoLA's and MRPC's files as GLUE distributes them, the last label of MRPC as given."""
    for task, name in (("cola", "CoLA"), ("mrpc", "MRPC")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split in ("train", "dev"):
            rows = list(csv.DictReader(make_csv(folder / "made", 48, name=split).open()))
            texts = [(row["text"], row["label"]) for row in rows]
            if task == "cola":
                lines = [f"x\t{label}\t\t{text}" for text, label in texts]
            else:
                lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
                lines += [f"{label}\t1\t2\t{text}\t{text}" for text, label in texts]
                lines += [f"{mrpc_label}\t1\t2\ta\tb"] if mrpc_label is not None else []
            (folder / name / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_a_task_that_is_refused_does_not_end_the_others(tmp_path):
    _write_space(tmp_path)
    data = _glue_folder(tmp_path / "glue", mrpc_label="maybe")
    first = _search(tmp_path, "mrpc,cola", "--data", str(data))
    assert first.returncode == 2
    assert "Traceback" not in first.stderr
    assert "lkd-tune: mrpc: " in first.stderr
    assert "row 49, column label: 'maybe' is not a class" in first.stderr
    assert "mrpc (refused)" in first.stdout
    assert "average of 1 of 2" in first.stdout
    facts = json.loads((tmp_path / "runs" / "both" / "tasks.json").read_text())
    assert [row["left"] for row in facts["tasks"]] == ["refused", ""]
    assert facts["averages"]["student"]["all"] is None
    _glue_folder(data)
    again = _search(tmp_path, "mrpc,cola", "--data", str(data))
    assert again.returncode == 0, again.stderr
    facts = json.loads((tmp_path / "runs" / "both" / "tasks.json").read_text())
    assert facts["averages"]["student"]["all"] is not None


def test_problems_of_all_tasks_are_reported_before_the_first_search(tmp_path):
    space = _write_space(tmp_path)
    data = _glue_folder(tmp_path / "glue")
    (data / "MRPC" / "dev.tsv").unlink()
    tasks, runs = ["cola", "mrpc", "mnli"], RunFolder(tmp_path / "r")
    with pytest.raises(SpecError) as error:
        search_tasks(load_task_spaces(str(space), tasks, [SHORT], str(data)), runs)
    told = [str(problem) for problem in error.value.problems]
    assert [line.split(":")[0] for line in told] == ["mrpc", "mnli", "mnli", "mnli"]
    assert "MRPC/dev.tsv is not a file" in told[0]
    assert "MNLI/dev_mismatched.tsv is not a file" in told[3]
    assert not (tmp_path / "r").exists()
    with pytest.raises(SpecError, match="--data: needs a GLUE task, and squad is not one of cola"):
        load_task_spaces(str(space), ["cola", "squad"], [], "glue")


def _row(task, score, left="", **more):
    student = {"accuracy": score} if score is not None else {}
    return TaskRow(
        task, ("accuracy",), student, {"accuracy": 1.0}, {}, {}, None, 0.0, "", left, **more
    )


def test_averages():
    table = TaskTable([_row("rte", 0.6), _row("wnli", 0.5)])
    assert table.average("student") == pytest.approx(0.55)
    assert table.average("student", without=("wnli",)) == 0.6
    assert table.average("baseline") is None
    assert TaskTable([_row("rte", 0.6), _row("cola", None)]).average("student") is None
    cut_off = TaskTable(
        [_row("rte", 0.6), _row("cola", 0.1, "interrupted"), _row("sst2", None, "not begun")]
    )
    assert cut_off.average("student") is None
    assert cut_off.done.average("student") == 0.6


def test_the_table_has_test_scores_and_what_is_left(capsys, tmp_path):
    full_run(tmp_path / "cola")
    table = read_task_table(
        {name: RunFolder(tmp_path / name) for name in ("cola", "rte")}, {"rte": "not begun"}
    )
    show_task_table(table)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][:5] == ["cola", "matthews", "0.800", "0.760", "0.700"]
    assert lines[3] == ["on", "test", "0.700", "0.660", "0.600"]
    assert lines[4][:3] == ["rte", "(not", "begun)"]
    assert lines[5] == ["average", "of", "1", "of", "2", "0.800", "0.760", "0.700"]
