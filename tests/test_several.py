"""Several tasks in turn: each searched, all in one table, nothing done twice."""

import csv
import json
import subprocess
import sys

import pytest
import yaml

from lkd_tune.results.task_table import TaskRow, TaskTable, read_task_table
from lkd_tune.several import split_tasks
from lkd_tune.spec.errors import SpecError
from lkd_tune.spec.run import RunFolder
from lkd_tune.spec.tasks import GLUE_TASKS
from tests.tiny import LABELS, make_csv, make_teacher


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


def _search(folder, *more):
    command = [sys.executable, "-m", "lkd_tune.cli", "search", "--space", "space.yaml"]
    command += ["--task", "cola,mrpc", "--name", "both", "--quiet", *more]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_tasks_are_searched_in_turn_and_shown_in_one_table(tmp_path):
    space = {
        "task": "rte",
        "teacher": str(make_teacher(tmp_path / "teacher")),
        "student": {"depth": 1},
        "layer_map": "skip",
        "losses": LABELS,
        "train": {"batch_size": 16, "steps": 4, "lr": {"loguniform": [1e-4, 1e-2]}},
        "search": {"trials": 2, "published_start": False},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    data = hub_folder(tmp_path / "glue")
    done = _search(tmp_path, "--set", f"task.data={data}")
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
    again = _search(tmp_path, "--set", f"task.data={data}")
    assert again.returncode == 0, again.stderr
    assert times == [path.stat().st_mtime_ns for path in trials]


def test_names_of_tasks():
    assert split_tasks("glue/all") == list(GLUE_TASKS)
    assert split_tasks("cola, rte") == ["cola", "rte"]
    assert split_tasks("mine") == ["mine"]
    with pytest.raises(SpecError, match=r"cloa is no known task \(did you mean cola\?\)"):
        split_tasks("cloa,rte")


def _row(task, score):
    student = {"accuracy": score} if score is not None else {}
    return TaskRow(task, ("accuracy",), student, {"accuracy": 1.0}, {}, {}, None, 0.0, "")


def test_averages():
    table = TaskTable([_row("rte", 0.6), _row("wnli", 0.5)])
    assert table.average("student") == pytest.approx(0.55)
    assert table.average("student", without=("wnli",)) == 0.6
    assert table.average("baseline") is None
    assert TaskTable([_row("rte", 0.6), _row("cola", None)]).average("student") is None
