"""The card of an exported student: metadata the hub takes, and what a reader wants to know."""

import json

import pytest
from huggingface_hub import ModelCard

from lkd_tune.cli.printing.summary import summary_lines
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.export.card import student_card
from lkd_tune.files.atomic import write_atomically
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.plots.learning import plot_learning
from tests.support.run_folder import HandMade, full_run, measurement


def _card(run):
    board = read_leaderboard(run)
    return ModelCard(student_card(run, board, board.best))


def test_the_metadata_are_the_hub_s(tmp_path):
    data = _card(full_run(tmp_path / "run")).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    results = {result.dataset_split: result for result in data.eval_results}
    assert results["dev"].metric_type == "matthews"
    assert results["dev"].metric_value == pytest.approx(0.76)
    assert results["test"].metric_value == pytest.approx(0.66)
    assert data.model_name == "acceptability-0003"
    # The task is generated here: there is no data set of the hub to link.
    assert data.datasets is None


def test_the_text_says_what_it_keeps_how_it_was_made_and_what_it_cost(tmp_path):
    text = _card(full_run(tmp_path / "run")).text
    assert "Matthews 0.760 on dev, 95% of the teacher's 0.800, with 50% of its parameters" in text
    assert "| this student (0003) | 0.7600 | 0.6600 |" in text
    assert "Distillation gains +0.060 over the same student trained on the labels alone" in text
    assert "| the same on the labels alone | 0.7000 | 0.6000 |" in text
    assert "| teacher | 0.8000 | 0.7000 |" in text
    assert "| machine | Some CPU |" in text
    assert "AutoModelForSequenceClassification" in text
    assert "| layer map | 0-" in text


def test_other_seeds_are_shown_with_their_interval(tmp_path):
    run = full_run(tmp_path / "run")
    found = {"trial": "0003", "seeds": [1, 2], "mean": 0.72, "low": 0.6, "high": 0.84}
    write_atomically(run.confirmation, json.dumps({"trials": [found]}))
    assert "0.7200 (95 %: 0.6000 to 0.8400)" in _card(run).text


def test_a_summary_s_card_has_the_first_sentences_beside_it_and_how_to_make_one(tmp_path):
    facts = {"dev": {"matthews": 0.8, "lead_matthews": 0.3}, "test": {"lead_matthews": 0.25}}
    made = HandMade(tmp_path / "run", teacher={"model": "t", **facts})
    spec = made.add("0000", 0.7)
    spec = spec.model_copy(update={"task": TaskSettings(name="xsum")})
    made.add("0001", 0.75, kept=True, like=spec)
    card = _card(made.run)
    assert card.data.pipeline_tag == "summarization"
    assert "| the first sentences alone | 0.3000 | 0.2500 |" in card.text
    assert "AutoModelForTokenClassification" in card.text
    assert "[:510]" in card.text
    assert "the first sentences of each document alone: 0.300" in summary_lines(
        read_leaderboard(made.run)
    )


def test_the_teacher_s_licence_is_carried_over_and_text_can_t_break_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# teacher\n")
    made = HandMade(tmp_path / "run", versions={"lkd_tune": "1 | <script>x</script>\n| y"})
    made.add("0000", 0.7, kept=True)
    card = _card(made.run)
    assert card.data.license == "apache-2.0"
    assert "<script>" not in card.text
    row = next(line for line in card.text.splitlines() if line.startswith("| versions"))
    assert row.replace("\\|", "").count("|") == 3


def test_the_teacher_is_named_as_its_user_named_it(tmp_path):
    made = HandMade(tmp_path / "run")
    spec = made.add("0000", 0.7, kept=True)
    cached = spec.model_copy(update={"teacher": str(tmp_path / "teachers/acceptability-1a2b")})
    made.add("0001", 0.75, kept=True, like=cached)
    space = "task: acceptability\nteacher: {train: %s}\n"
    write_atomically(made.run.space, space % "{model: org/encoder, epochs: 1}")
    card = _card(made.run)
    assert card.data.base_model == "org/encoder"
    assert "| teacher | org/encoder, fine-tuned on acceptability |" in card.text
    assert "1a2b" not in card.content
    write_atomically(made.run.space, space % "{architecture: {layers: 6}, steps: 9}")
    card = _card(made.run)
    assert card.data.base_model is None
    assert "| teacher | trained from scratch on acceptability |" in card.text


def test_licence_base_and_language_are_those_of_the_models_cards(tmp_path):
    made = HandMade(tmp_path / "run", cwd=str(tmp_path))  # a local teacher, searched from there
    spec = made.add("0000", 0.7)
    own = spec.model_copy(update={"task": TaskSettings(name="mine", train="a.csv", dev="b.csv")})
    made.add("0001", 0.75, kept=True, like=own)
    _write_card(tmp_path / "t", "{license: mit, base_model: org/base, language: [ko, en]}")
    data = _card(made.run).data
    assert (data.license, data.base_model, data.language) == ("mit", "org/base", ["ko", "en"])
    # A student that starts from another model has that model's weights, and heeds both licences.
    start = own.student.model_copy(update={"init": "small"})
    made.add("0002", 0.8, kept=True, like=own.model_copy(update={"student": start}))
    _write_card(tmp_path / "small", "{license: gpl-3.0, base_model: org/small}")
    data = _card(made.run).data
    assert (data.license, data.base_model) == (None, "org/small")
    _write_card(tmp_path / "small", "{license: mit")  # not YAML
    assert _card(made.run).data.license == "mit"


def _write_card(folder, facts):
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\n{facts}\n---\n# Model\n")


def test_a_latency_is_stated_with_the_machine_or_not_at_all(tmp_path):
    made = HandMade(tmp_path / "run")
    made.add("0000", 0.7, kept=True)
    size = {"parameters": 9, "flops": 9, "disk_mb": 1.0, "latency_ms": 1.25}
    file = made.run.trial("0000") / "size.json"
    write_atomically(file, json.dumps(size))
    assert "latency" not in _card(made.run).text
    write_atomically(file, json.dumps({**size, "device": "Some CPU, 2 threads"}))
    assert (
        "| latency of one full-length example | 1.2 ms on Some CPU, 2 threads |"
        in _card(made.run).text
    )


def test_the_objective_is_that_of_the_recipe(tmp_path):
    made = HandMade(tmp_path / "run")
    spec = made.add("0000", 0.7)
    losses = LossSettings.model_validate({"recipe": "tinybert"})
    made.add("0001", 0.75, kept=True, like=spec.model_copy(update={"losses": losses}))
    text = _card(made.run).text
    assert "(recipe tinybert; Jiao et al." in text
    assert "Park" not in text


def test_a_student_that_another_task_scored_is_shown_with_both_scores(tmp_path):
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "text", "kind": "masked_lm", "train": "a.txt", "dev": "b.txt"},
            "evaluate_on": {"task": "sst2"},
            "teacher": "t",
            "student": {"depth": 1},
            "layer_map": {"word": (0, 6), "layer": (0, 6)},
        }
    )
    made = HandMade(tmp_path / "run")
    made.add("0000", 0.4, kept=True, like=spec)
    made.add("0001", 0.3, "stopped", step=10, like=spec)
    file = made.run.trial("0000") / "fine_tuned.json"
    write_atomically(file, measurement(30, 0.8).model_dump_json())
    card = _card(made.run)
    assert (
        "Sst2 accuracy 0.800 on dev after fine-tuning, accuracy 0.400 before, "
        "with 50% of the teacher's parameters"
    ) in card.text
    # The teacher's own accuracy is that of masked words, 0.9: nothing to compare 0.8 with.
    assert "| teacher |  |  |" in card.text
    (result,) = card.data.eval_results
    assert (result.task_type, result.metric_type) == ("fill-mask", "accuracy")
    assert result.metric_value == pytest.approx(0.4)
    board = read_leaderboard(made.run)
    stopped = next(row for row in board.rows if row.state == "stopped")
    assert (stopped.score, stopped.task_score) == (None, 0.3)
    assert "before fine-tuning: accuracy 0.400, the teacher's 0.900" in summary_lines(board)
    axes = plot_learning(board, made.run.read_trials()).axes[0]
    assert axes.get_ylabel() == "accuracy on dev"


def test_the_scales_of_balanced_terms_are_beside_their_weights(tmp_path):
    made = HandMade(tmp_path / "run")
    spec = made.add("0000", 0.7)
    scales = {name: 2.0 for name, _ in spec.losses.active()}
    losses = spec.losses.model_copy(update={"balance": "gradient"})
    balanced = spec.model_copy(update={"losses": losses, "loss_scales": scales})
    made.add("0001", 0.75, kept=True, like=balanced)
    text = _card(made.run).text
    assert "| weights multiplied by | wr_pair 2, " in text
