"""The Python API and the examples: one search serves them all."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

import lkd_tune
from examples import any_trainable, distil_once, losses_alone, search_and_look
from lkd_tune import Measurement, SearchSpace, SpecError, TrialSpec, distill, load_run, load_space
from tests.support.run_folder import HandMade, full_run
from tests.support.tiny import LABELS, make_csv, make_space_tree, make_teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder, two_cores):
    """The first example over a space that is a mapping, with a path and a tuple in it."""
    tree = make_space_tree(folder, losses=LABELS, search={"trials": 2, "scheduler": "none"})
    tree["teacher"]["model"] = Path(tree["teacher"]["model"])
    tree |= {"objectives": ("score", "parameters")}
    return search_and_look.main(tree, str(folder / "runs"))


def test_a_search(run, folder):
    assert run.path.parent == folder / "runs"
    assert run.path.name.startswith("space-")
    assert run.finished
    assert load_run(run.path) == run
    assert (run.path / "leaderboard.csv").exists()

    first, *others = run.leaderboard()
    assert [first["name"], *(row["name"] for row in others)] in (["0000", "0001"], ["0001", "0000"])
    assert (first["rank"], first["state"], first["kept"]) == (1, "complete", True)
    assert first["weight_logits"] == 1

    last = run.measurements(first["name"])[-1]
    assert (last["trial"], last["step"]) == (first["name"], 8)
    assert last["metric_accuracy"] == last["score"] == first["score"]
    assert last["loss_total"] == last["loss_logits"]
    assert len(run.measurements()) == 6

    students = run.students()
    assert students[0].name == first["name"]
    facts = json.loads((students[0] / "student.json").read_text())
    assert TrialSpec.model_validate(facts["spec"]) == run.spec(first["name"])
    model, _ = run.load_best()
    assert model.config.num_hidden_layers == first["depth"]
    assert not model.training


def test_resuming(run):
    assert run.resume(["search.max_failures=2"], quiet=True) == run  # there is nothing left to do
    assert load_space(run.path / "space.yaml").settings.search.max_failures == 2
    assert len(run.leaderboard()) == 2
    with pytest.raises(SpecError, match="holds a search already"):
        lkd_tune.search(load_space(run.path / "space.yaml"), run_dir=run.path.parent,
                        name=run.path.name)  # fmt: skip


def test_what_the_commands_do_with_a_run(run, tmp_path):
    scores = run.evaluate()
    assert scores["accuracy"] == pytest.approx(run.leaderboard()[0]["score"])
    mine = make_csv(tmp_path, 16, seed=7, name="mine")
    assert run.evaluate(data=mine) == run.evaluate(data=mine, split="test")
    with pytest.raises(SpecError, match="found 'train'; allowed: dev, test"):
        run.evaluate("train")

    beside_teacher = run.compare()
    student = str(run.students()[0])
    assert [side.model for side in beside_teacher.sides] == [
        run.folder.read_manifest()["teacher"]["model"], student
    ]  # fmt: skip
    itself = run.compare(run.students()[0])
    assert (itself.gain, itself.agreement) == (0, 1)

    (folder,) = run.export(tmp_path / "out")
    assert (folder / "README.md").exists()
    with pytest.raises(SpecError, match="is not empty"):
        run.export(tmp_path / "out")
    assert run.report(compare=[run]).name == "report.html"
    with pytest.raises(SpecError, match="has only one loss term"):
        run.ablate()


def test_one_distillation(run, tmp_path):
    spec = run.spec("0000")
    measurements = list(distill(spec, to=tmp_path / "again"))
    assert isinstance(measurements[-1], Measurement)
    assert measurements[-1].score == run.measurements("0000")[-1]["score"]
    assert (tmp_path / "again" / "model.safetensors").exists()
    # Told at once, and not when the first measurement is asked for.
    with pytest.raises(SpecError, match="is not empty"):
        distill(spec, to=tmp_path / "again")
    with pytest.raises(SpecError, match="can't be read"):
        distill(tmp_path / "none.json")


def test_own_loop(run, tmp_path, capsys):
    score = distil_once.main(str(run.students()[0] / "student.json"), str(tmp_path / "again"))
    assert 0 <= score <= 1
    assert (tmp_path / "again" / "config.json").exists()
    assert "step     2 of 8  accuracy" in capsys.readouterr().out


def test_losses_alone():
    objectives = losses_alone.main()
    assert sum(objectives[-5:]) < 0.7 * sum(objectives[:5])


def test_the_searcher_for_any_trainable(tmp_path, two_cores):
    study = any_trainable.main(tmp_path, trials=3)
    again = any_trainable.main(tmp_path, trials=3)  # nothing is left to do
    assert len(study.trials) == len(again.trials) == 3
    # Chance may have drawn none that keeps the limit, of which `best_value` would tell.
    complete = [trial.value for trial in again.trials if trial.state == TrialState.COMPLETE]
    assert max(complete) > 0.5
    assert all("weights" in trial.constraints for trial in again.trials)


def test_a_run_that_is_not_finished(tmp_path):
    run = load_run(full_run(tmp_path / "run").path)
    assert not run.finished
    assert {row["state"] for row in run.leaderboard()} == {
        "complete", "stopped", "failed", "running",
    }  # fmt: skip
    assert [path.name for path in run.students()] == ["0003", "0000"]
    with pytest.raises(SpecError, match=r"has no trial '003' \(did you mean 0003\?\)"):
        run.measurements("003")
    empty = load_run(HandMade(tmp_path / "empty").run.path)
    for ask in (empty.load_best, empty.evaluate, empty.compare, lambda: empty.export(tmp_path)):
        with pytest.raises(SpecError, match="has no student yet"):
            ask()
    with pytest.raises(SpecError, match="is not a run folder"):
        load_run(tmp_path)


def test_spaces(tmp_path):
    space = load_space("layer_map", ["student.depth=3"])
    assert isinstance(space, SearchSpace)
    assert space.depths() == [3]
    assert load_space(space, ["student.depth=2", "search.trials=5"]).depths() == [2]
    assert space.depths() == [3]
    teacher = make_teacher(tmp_path / "t")
    wrong = {"task": "acceptability", "teacher": teacher, "train": {"lrr": 1}}
    with pytest.raises(SpecError, match=r"space train.lrr: unknown setting \(did you mean lr\?\)"):
        load_space(wrong)
    with pytest.raises(TypeError):
        load_space({**wrong, "train": {"lr": object()}})


@pytest.mark.parametrize("first", ["lkd_tune.tuning.tuner", "lkd_tune.losses.ckd", "lkd_tune"])
def test_names_are_functions_and_packages(first):
    """In a fresh process: which of them was imported first must not matter."""
    code = f"""if True:
        import {first}
        from lkd_tune import distill, search
        import inspect, pickle
        import lkd_tune.tuning.tuner as tuner, lkd_tune.losses.ckd as losses
        assert lkd_tune.tuning.tuner is tuner and lkd_tune.losses.ckd is losses
        assert list(inspect.signature(search).parameters)[:2] == ["space", "overrides"]
        assert pickle.loads(pickle.dumps(search)) is search
        try: search("none.yaml")
        except lkd_tune.SpecError as error: print(error)
        try: next(distill("none.json"))
        except lkd_tune.SpecError as error: print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == 2, done.stderr
    assert done.stdout.startswith("none.yaml: is neither a file nor a shipped space")


def test_all_names_are_there():
    assert set(lkd_tune.__all__) <= set(dir(lkd_tune))
    assert all(getattr(lkd_tune, name).__doc__ for name in lkd_tune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lkd_tune.nothing
    assert pickle.loads(pickle.dumps(lkd_tune.search)) is lkd_tune.search
