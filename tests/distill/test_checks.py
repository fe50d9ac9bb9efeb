"""What `check` refuses before anything starts."""

import pytest
import yaml

from lkd_tune.distill.checks import check_space
from lkd_tune.spec.errors import SpecError
from lkd_tune.spec.space import load_space
from tests.distill.families import CONFIGS, make_classifier, make_csv


def _space(folder, length, teacher):
    file = make_csv(folder)
    task = {"name": "own", "train": file, "dev": file, "max_length": length}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({"task": task, "teacher": teacher}, sort_keys=False))
    return load_space(path)


@pytest.mark.parametrize("family", CONFIGS)
def test_inputs_longer_than_the_teacher_s_positions_are_refused(tmp_path, family):
    # Of 40 positions RoBERTa and XLM-R use one for padding, whose id is 0 here.
    limit = 39 if "roberta" in family else 40
    teacher = make_classifier(tmp_path / "t", family)
    check_space(_space(tmp_path, limit, teacher))
    with pytest.raises(SpecError) as error:
        check_space(_space(tmp_path, limit + 1, teacher))
    (problem,) = error.value.problems
    assert str(problem) == (
        f"s.yaml:5 task.max_length: {limit + 1} is above the {limit} positions of the teacher; "
        f"use at most {limit}"
    )


def test_a_teacher_from_scratch_has_as_many_positions_as_are_asked_for(tmp_path):
    check_space(_space(tmp_path, 1000, {"train": {"architecture": {"layers": 3}}}))


def test_the_task_that_scores_the_trials_is_checked_as_well(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a dog\n")
    tree = {
        "task": {"name": "text", "kind": "masked_lm", "train": str(text), "dev": str(text),
                 "max_length": 40},
        "evaluate_on": {"task": {"name": "own", "train": "no.csv", "dev": make_csv(tmp_path)}},
        "teacher": make_classifier(tmp_path / "t"),
    }  # fmt: skip
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(SpecError) as error:
        check_space(load_space(path))
    missing, long = map(str, error.value.problems)
    assert missing.startswith("s.yaml:10 evaluate_on.task.train: no.csv is no file")
    assert long == (
        "s.yaml:8 evaluate_on.task.max_length: 128 is above the 40 positions of the teacher; "
        "use at most 40"
    )
