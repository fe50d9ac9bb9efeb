"""The page of a run, read by an HTML parser; with everything, and with less and less."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.run import RunFolder
from lkd_tune.results.plots.layers import pair_means
from lkd_tune.results.plots.style import COLOURS
from lkd_tune.results.report.page import write_report
from tests.support.html_page import Page
from tests.support.run_folder import COSTS, HandMade, full_run

NASTY = "<script>alert('x')</script> & $\\frac{1}{2}$ \"quoted\" }} {{ 1+1 }}"


def give_sizes(run):
    """Notes sizes as a search does: a deeper student is larger and slower."""
    for record in run.read_trials():
        depth = record.spec.student.depth
        size = ModelSize(
            parameters=depth * 10**6,
            flops=depth * 10**9,
            disk_mb=4.0 * depth,
            latency_ms=1.5 * depth,
        )
        write_atomically(run.trial(record.name) / "size.json", size.model_dump_json())


def sized_run(folder):
    run = full_run(folder)
    give_sizes(run)
    return run


@pytest.fixture
def run(tmp_path):
    return sized_run(tmp_path / "run")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run and its page, to be read only."""
    run = sized_run(tmp_path_factory.mktemp("written") / "run")
    return run, Page(write_report(run))


def test_the_answer_comes_first(written):
    _, page = written
    answer = page.text("answer")
    assert "matthews on dev 0.760 0.660 on test" in answer
    assert "share of the teacher's score 95.0% teacher 0.800" in answer
    assert "share of the teacher's size 50% 1.0 M of 2.0 M parameters" in answer
    assert answer.startswith("Best student: matthews 0.760, 95% of the teacher's 0.800 with 50% of")
    assert "Distillation gains +0.060 over the same student trained on the labels alone" in answer
    assert "gain by distillation +0.060 0.700 on the labels alone" in answer
    assert "6 min" in answer
    assert "2.0 min" not in answer
    whole = page.text()
    assert whole.index("share of the teacher's score") < whole.index("Score against size")
    assert "not finished; trials: 3 complete, 1 stopped early, 1 failed, 1 unfinished" in whole


def test_dots_tell_what_they_are(written):
    run, page = written
    size = page.source.split('id="plot-size"', 1)[1].split("</figure>", 1)[0]
    tips = re.findall(r"<g><title>([^<]*)</title>", size)
    assert "teacher: matthews 0.800, 2 millions" in tips
    assert any(re.match(r"trial 0003: matthews 0\.760, 1 millions; ckd, depth", t) for t in tips), (
        tips
    )
    assert not [tip for tip in tips if "0001" in tip]  # stopped far below all others
    assert f"<title>{tips[0]}</title>" in (run.report / "size.svg").read_text("utf-8")


def test_sections_and_files(written):
    run, page = written
    expected = ["size", "speed", "layer_maps", "layer_pairs", "learning", "losses"]
    assert page.plots == expected
    for name in expected:
        assert (run.report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        ET.fromstring((run.report / f"{name}.svg").read_text("utf-8"))
    assert "the loss total is nan" in page.text("failures")
    assert "Some CPU, 8 cores" in page.text("cost")
    assert "reserved GPU time 12 min" in page.text("cost")
    assert "lkd_tune 0.1.0" in page.text("origin")
    assert page.text("students").count("0-") >= 3
    assert not page.has("ablation")
    assert not page.has("compared")


def test_the_cost_is_shown_part_by_part(tmp_path):
    made = HandMade(tmp_path / "run", costs=COSTS)
    made.add("0000", 0.5)
    page = Page(write_report(made.run))
    assert "machine time 3 min 1 trial and the teacher, 0.08 GPU-hours" in page.text("answer")
    cost = page.text("cost")
    assert "trials 60 s" in cost
    assert "teacher 1 min 40 s, 0.05 GPU-hours, 0.01 kWh" in cost
    assert "winner's score on test 20 s" in cost
    assert "whole run 3 min, 0.08 GPU-hours, 0.01 kWh" in cost
    assert "reserved GPU time 5 min" in cost


def test_the_page_needs_nothing_else(written):
    _, page = written
    assert page.loads == []
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)
    assert len(page.ids) == len({*page.ids})  # those of the pictures included


def test_pictures_follow_light_and_dark(written):
    _, page = written
    assert "prefers-color-scheme: dark" in page.source
    assert "var(--ink)" in page.source
    pictures = page.source.split("<svg", 1)[1].split("</section>")[0]
    for light, dark in COLOURS.values():
        assert light not in pictures
        assert f"{light};" in page.source
        assert f"{dark};" in page.source


def test_what_users_name_is_text(tmp_path):
    made = HandMade(
        tmp_path / "run",
        teacher={"model": NASTY, "layers": 6, "parameters": 10, "dev": {"matthews": 0.9}},
        hardware={"cpu": NASTY, "gpus": [NASTY]},
        versions={NASTY: NASTY},
    )
    spec = made.add("0000", 0.5)
    task = spec.task.model_copy(update={"name": NASTY})
    for name in ("0000", "0001", "0002"):
        made.add(name, 0.5 + int(name) / 10, like=spec.model_copy(update={"task": task}))
    made.add("0003", None, "failed", error=NASTY, like=spec)
    seeds = {"trial": NASTY, "scores": [0.5], "seeds": [1], "mean": 0.5, "low": None, "high": None,
             "test_scores": [], "ties_with_best": True}  # fmt: skip
    write_atomically(made.run.confirmation, json.dumps({"trials": [seeds]}))
    page = Page(write_report(made.run))
    assert page.count("script") == 0
    assert NASTY in page.text()
    assert f"1 failed: {NASTY}" in page.text("failures")
    assert NASTY in page.text("plot-confirmation")  # in a picture too, and not as mathematics


def test_no_trial_yet(tmp_path):
    page = Page(write_report(HandMade(tmp_path / "run", teacher=None).run))
    assert page.plots == []
    assert "No trial is complete yet" in page.text("no-answer")
    assert not page.has("students")
    assert not page.has("best")


def test_one_trial(tmp_path):
    made = HandMade(tmp_path / "run")
    made.add("0000", 0.72, kept=True)
    page = Page(write_report(made.run))
    assert page.plots == ["size", "layer_maps", "learning", "losses"]
    assert "0.720" in page.text("answer")
    assert "students/0000" in page.text("answer")


def test_all_failed(tmp_path):
    made = HandMade(tmp_path / "run")
    for name in ("0000", "0001"):
        made.add(name, None, "failed", error="no room")
    page = Page(write_report(made.run))
    assert page.plots == []
    assert "No trial is complete." in page.text("no-answer")
    assert "2 failed: no room" in page.text("failures")


def test_only_a_running_trial(tmp_path):
    made = HandMade(tmp_path / "run")
    made.add("0000", 0.4, None, step=10)
    page = Page(write_report(made.run))
    assert page.plots == ["learning"]
    assert "1 unfinished" in page.text()


def test_several_objectives(tmp_path):
    made = HandMade(tmp_path / "run", objectives=["score", "parameters"])
    for name, score, depth in (("0000", 0.7, 2), ("0001", 0.75, 3), ("0002", 0.6, 4)):
        made.add(name, score, depth=depth, kept=True)
    give_sizes(made.run)
    page = Page(write_report(made.run))
    assert "a Pareto front of 2 students" in page.text("answer")
    assert {"size", "speed"} <= {*page.plots}


def test_random_maps_have_no_wires(tmp_path):
    made = HandMade(tmp_path / "run")
    spec = made.add("0000", 0.5)
    random = spec.layer_map.model_copy(update={"word": "random", "layer": "random"})
    made.add("0000", 0.5, like=spec.model_copy(update={"layer_map": random}))
    page = Page(write_report(made.run))
    assert page.plots == ["size", "learning", "losses"]
    assert "random" in page.text("students")


def test_confirmation_and_ablation(run):
    def entry(trial, scores, **more):
        mean = sum(scores) / len(scores)
        return {"trial": trial, "seeds": [1, 2], "scores": scores, "mean": mean, "low": mean - 0.1,
                "high": mean + 0.1, "test_scores": [], "ties_with_best": True, **more}  # fmt: skip

    trials = [entry("0003", [0.7, 0.74]), entry("baseline", [0.6, 0.62])]
    write_atomically(run.confirmation, json.dumps({"metric": "matthews", "trials": trials}))
    entries = [
        entry("", [0.7, 0.74], removed=None, difference=0.0, ties_with_winner=True),
        entry("", [0.5, 0.52], removed="wr_pair", difference=-0.21, ties_with_winner=False),
    ]
    facts = {"metric": "matthews", "winner": "0003", "entries": entries}
    write_atomically(run.ablation, json.dumps(facts))
    page = Page(write_report(run))
    assert page.plots[-2:] == ["confirmation", "ablation"]
    assert "mean of 2 other seeds ± 0.100" in page.text("answer")
    assert "+0.110 0.610 on the labels alone" in page.text(
        "answer"
    )  # of the means, not of one seed each
    assert "without wr_pair 0.510 -0.210 2" in page.text("ablation")
    assert "another trial is the best" not in page.text("ablation")


def test_what_is_gone_leaves_no_picture(run):
    write_report(run)
    assert (run.report / "layer_maps.svg").exists()
    for record in run.read_trials():
        (run.trial(record.name) / "spec.json").unlink()
    assert Page(write_report(run)).plots == []
    assert not [*run.report.glob("*.svg")]
    assert not [*run.report.glob("*.png")]


def test_beside_other_runs(run, tmp_path):
    other = full_run(tmp_path / "<b>other")
    empty = HandMade(tmp_path / "empty", teacher=None).run
    text = Page(write_report(run, [other, empty])).text("compared")
    assert "<b>other acceptability 0003 matthews 0.760" in text
    assert "empty" in text


@pytest.mark.parametrize(
    ("address", "shown"),
    [("http://127.0.0.1:8265", True), (None, False), ("javascript:alert(1)", False)],
)
def test_rays_dashboard_is_linked_while_there_is_one(tmp_path, address, shown):
    made = HandMade(tmp_path / "run", dashboard=address)
    page = Page(write_report(made.run))
    assert ("Ray's dashboard" in page.text()) == shown
    assert (f'href="{address}"' in page.source) == shown


def test_it_reloads_only_when_watched(run):
    assert 'http-equiv="refresh"' not in write_report(run).read_text("utf-8")
    assert 'http-equiv="refresh" content="7"' in write_report(run, refresh_s=7).read_text("utf-8")


def test_no_run(tmp_path):
    with pytest.raises(SpecError, match="is not a run folder"):
        write_report(RunFolder(tmp_path))
    assert not [*tmp_path.iterdir()]


def test_a_study_that_cannot_be_read_costs_only_its_plots(run):
    run.study.write_text("no journal\n")
    assert "size" in Page(write_report(run)).plots


def test_means_of_pairs():
    maps = [("0000", (0, 2, 4), 0.5), ("0001", (0, 3, 4), 0.7)]
    assert pair_means(maps) == {(0, 0): 0.6, (1, 2): 0.5, (1, 3): 0.7, (2, 4): 0.6}


def test_the_strength_of_the_terms_is_shown_where_they_were_balanced(tmp_path, written):
    def term(strength, **settings):
        return {"settings": {"alpha": 0.0, **settings}, "strength": strength}

    terms = {
        "wr_pair": [term(0.02)],
        "logits": [term(1.0, temperature=1.0), term(0.0625, temperature=4.0)],
    }
    made = HandMade(tmp_path / "run", loss_scales={"terms": terms})
    made.add("0000", 0.7)
    text = Page(write_report(made.run)).text("strengths")
    assert "wr_pair 0.02; weight × 50" in text
    assert "logits (temperature 4.0) 0.0625; weight × 16" in text
    _, page = written
    assert "strengths" not in page.ids
