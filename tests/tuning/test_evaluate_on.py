"""Students of masked words that are scored by a fine-tuning: on a real Ray, with tiny models."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
import torch
import yaml
from optuna.trial import TrialState
from transformers import AutoModelForMaskedLM, BertConfig

from lkd_tune.cli.printing.tables import show_leaderboard
from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import read_trial_spec
from lkd_tune.distillation.run import distill_locally
from lkd_tune.models.loading import load_tokenizer
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import write_leaderboard
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.preparation.jobs import prepare_fine_tuning
from lkd_tune.tuning.tuner import run_search
from tests.support.draws import RandomSuggester
from tests.support.studies import open_study
from tests.support.tiny import at_chance, make_csv, make_teacher

pytestmark = pytest.mark.usefixtures("two_cores")

STEPS = 16


def make_space(folder, **blocks) -> SearchSpace:
    """Returns a space of masked words over the text of the tiny task, which scores the trials."""
    data, teacher = folder / "data", make_teacher(folder / "teacher")
    text = data / "text.txt"
    files = {split: str(make_csv(data, 64, name=split)) for split in ("train", "dev")}
    lines = (data / "train.csv").read_text().splitlines()[1:]
    text.write_text("\n".join(line.partition(",")[0] for line in lines))
    torch.manual_seed(0)
    tokenizer = load_tokenizer(str(teacher))
    config = BertConfig.from_pretrained(teacher, vocab_size=len(tokenizer))
    AutoModelForMaskedLM.from_config(config).save_pretrained(teacher)
    tree = {
        "task": {"name": "text", "kind": "masked_lm", "train": str(text), "dev": str(text),
                 "max_length": 16},
        "teacher": at_chance(teacher),
        "evaluate_on": {
            "task": {"name": "films", "metric": "f1", "max_length": 16, **files},
            "train": {"steps": 4, "batch_size": 16, "lr": 1e-2},
        },
        "student": {"depth": {"int": [1, 3]}},
        "losses": {"logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 0.5}},
        "train": {"batch_size": 8, "steps": STEPS, "lr": 1e-3, "evaluations": 3},
        "search": {"trials": 4, "seed": 1, "baseline": False, "recipes": []},
        **blocks,
    }  # fmt: skip
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_space(path)


@pytest.mark.slow
def test_the_score_is_that_of_the_fine_tuned_student(tmp_path, capsys):
    search = {"trials": 3, "seed": 1, "reduction_factor": 2, "concurrency": 1, "baseline": False}
    space = make_space(tmp_path, search=search, keep={"top": 1}, confirm={"top": 1, "seeds": 2})
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run)
    records = {record.name: record for record in run.read_trials()}
    told = {
        trial.user_attrs["name"]: trial
        for trial in open_study(run.study).trials
        if "name" in trial.user_attrs
    }
    assert {record.state for record in records.values()} == {"complete", "stopped"}
    for name, record in records.items():
        if record.state == "stopped":
            # By masked words; it never was fine-tuned.
            assert record.score is None
            assert told[name].state == TrialState.PRUNED
            assert told[name].value == record.measurements[-1].metrics["accuracy"]
            continue
        assert record.score == record.fine_tuned.metrics["f1"]
        assert record.fine_tuned.total_steps == 4
        assert [m.step for m in record.measurements] == [4, 8, 16]
        assert all("perplexity" in m.metrics for m in record.measurements)
        assert not (run.trial(name) / "student").exists()
        if record.is_drawn:
            assert told[name].values == [record.score]
            assert told[name].intermediate_values[16] == record.measurements[-1].score

    # The kept student is the one before the fine-tuning.
    student = run.student(result.best)
    facts = json.loads((student / "student.json").read_text())
    best = records[result.best]
    assert facts["score"] == best.score
    assert facts["evaluated_on"] == {
        "task": "films", "metric": "f1", "metrics": best.fine_tuned.metrics,
    }  # fmt: skip
    assert facts["metrics"] == best.measurements[-1].metrics
    assert facts["test_metrics"] is None
    assert read_trial_spec(student / "student.json") == best.spec
    _, info = AutoModelForMaskedLM.from_pretrained(student, output_loading_info=True)
    assert not info["missing_keys"]

    confirmed = json.loads(run.confirmation.read_text())
    assert confirmed["metric"] == "films f1"
    (entry,) = confirmed["trials"]
    assert entry["scores"] == [records[f"{result.best}-seed{i}"].score for i in (1, 2)]

    manifest = run.read_manifest()
    assert manifest["score"] == "films f1"
    assert manifest["evaluate_on"] == {
        "task": "films", "metric": "f1", "examples": {"train": 64, "dev": 64},
    }  # fmt: skip
    board = write_leaderboard(run)
    assert (board.metric, board.task_metric) == ("films f1", "accuracy")
    assert board.teacher_score is None
    assert {row.share for row in board.rows} == {None}
    assert board.best.score == best.score
    assert board.best.task_score == best.measurements[-1].score
    capsys.readouterr()
    show_leaderboard(board)
    shown = capsys.readouterr().out
    assert "text: films f1 on dev" in shown
    assert f"before fine-tuning: accuracy {board.best.task_score:.3f}" in shown


@pytest.mark.slow
def test_a_trial_that_dies_in_its_fine_tuning_is_not_trained_again(
    tmp_path, processes, monkeypatch
):
    make_space(tmp_path)
    space = load_space(tmp_path / "space.yaml", ["search.trials=1", "evaluate_on.train.steps=300"])
    run = RunFolder(tmp_path / "run")
    student, seen_by, killed = run.trial("0000") / "student", SearchCallback.on_trial_result, []

    def kill_when_it_is_trained(pid):
        while not student.exists():
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    def watch(self, iteration, trials, trial, result, **info):
        seen_by(self, iteration, trials, trial, result, **info)
        if result["step"] == 4:
            thread = threading.Thread(target=kill_when_it_is_trained, args=[result["pid"]])
            thread.start()

    monkeypatch.setattr(SearchCallback, "on_trial_result", watch)
    run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert len(killed) == 1
    assert len(processes["0000"]) == 2
    lines = (run.trial("0000") / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 16]
    assert record.fine_tuned.step == 300
    facts = json.loads((run.student("0000") / "student.json").read_text())
    assert facts["score"] == record.score


def test_a_student_is_distilled_and_scored_again_without_a_search(tmp_path):
    drawn = make_space(tmp_path).draw(
        RandomSuggester(0), teacher=str(tmp_path / "teacher"), teacher_layers=4, seed=0
    )
    *measured, (name, fine_tuned) = distill_locally(drawn, to=tmp_path / "again")
    assert [(metric, m.step) for metric, m in measured] == [("accuracy", n) for n in (4, 8, 16)]
    assert (name, fine_tuned.step) == ("films f1", 4)
    facts = json.loads((tmp_path / "again" / "student.json").read_text())
    assert facts["score"] == fine_tuned.score
    assert facts["metrics"] == measured[-1][1].metrics


def test_data_that_can_t_be_used_are_reported_before_the_first_trial(tmp_path):
    settings = make_space(tmp_path).settings
    (tmp_path / "data" / "dev.csv").write_text("text,label\na film,maybe\n")
    with pytest.raises(SpecError, match="row 1, column label: 'maybe' is not a class"):
        prepare_fine_tuning(
            torch.get_num_threads(),
            settings.teacher.model,
            settings.evaluate_on.task.model_dump_json(),
            str(tmp_path / "cache"),
            os.getcwd(),
        )
