"""Problems that `check` finds before a search starts."""

import json

import pytest
import yaml
from transformers import T5Config

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.recipes import RECIPES
from lkd_tune.config.settings.student import InitModel
from lkd_tune.distillation.checks import check_all, check_space, read_data, recipe_problem
from lkd_tune.models.from_scratch import build_word_tokenizer
from tests.support.draws import Told
from tests.support.families import CONFIGS, WORDS, config_of, make_classifier, make_csv


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


def _started(folder, teacher, init, length=16, **more):
    """Returns a space with something in `student.init`, whose losses are on whole texts."""
    tree = _space(folder, length, teacher).source.tree
    tree |= {"student": {"init": init}, "losses": "soft_labels", **more}
    (folder / "t.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_space(folder / "t.yaml")


def test_a_model_in_init_has_a_depth_and_perhaps_a_tokenizer_of_its_own(tmp_path):
    teacher, same = make_classifier(tmp_path / "t"), make_classifier(tmp_path / "same", "electra")
    other = make_classifier(tmp_path / "other", "distilbert", n_layers=6)
    # As many tokens, of which two have changed places.
    build_word_tokenizer([*WORDS[1::-1], *WORDS[2:]], 40).save_pretrained(other)
    space = _started(tmp_path, teacher, {"choice": ["teacher", "random", same, other]})
    assert check_space(space) == 4
    assert space.init_models == {
        same: InitModel(4),
        other: InitModel(6, own_tokenizer=True),
    }
    for init, depth in ((same, 4), (other, 6)):
        told = Told({"student.init": init})
        spec = space.draw(told, teacher=teacher, teacher_layers=4, seed=0)
        assert spec.student.depth == depth
    space = _started(tmp_path, teacher, {"choice": ["random", other]}, losses="ckd")
    with pytest.raises(SpecError, match=rf"^t\.yaml:\d+ student\.init: {other} has another vocab"):
        check_space(space)
    # Nothing is known yet of the tokens of a teacher from scratch.
    scratch = {"train": {"architecture": {"layers": 4}}}
    with pytest.raises(SpecError, match="has another vocabulary than the teacher"):
        check_space(_started(tmp_path, scratch, same, losses="ckd"))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("t5", "student.init: {} can't be a student: it can't be run"),
        ("gemma3n_text", "student.init: {} can't be a student: it can't be run (Unrecognized"),
        ("none", "student.init: {} can't be loaded"),
        ("empty", "student.init: {} has no number of layers"),
        ("short", "task.max_length: 30 is above the 20 positions of {}; use at most 20"),
        ("small", "student.vocab: the tokenizer of {} can't be trimmed"),
    ],
)
def test_a_model_that_can_t_be_a_student_is_refused(tmp_path, family, expected):
    teacher, model = make_classifier(tmp_path / "t"), str(tmp_path / "m")
    if family == "t5":
        T5Config(num_layers=2, d_model=16, d_ff=16, num_heads=2).save_pretrained(model)
        build_word_tokenizer(WORDS, 40).save_pretrained(model)
    elif family == "gemma3n_text":  # which has no head for classification
        config_of(family).save_pretrained(model)
        build_word_tokenizer(WORDS, 40).save_pretrained(model)
    elif family == "empty":
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "config.json").write_text("{}")
    elif family == "short":
        make_classifier(tmp_path / "m", max_position_embeddings=20)
    elif family == "small":
        make_classifier(tmp_path / "m")
        path = tmp_path / "m" / "tokenizer.json"
        tree = json.loads(path.read_text())
        del tree["model"]["vocab"]["[CLS]"], tree["model"]["vocab"]["[SEP]"]
        path.write_text(json.dumps(tree))
    more = {"student": {"init": model, "vocab": "trim"}} if family == "small" else {}
    with pytest.raises(SpecError) as error:
        check_space(_started(tmp_path, teacher, model, length=30, **more))
    assert any(expected.format(model) in str(problem) for problem in error.value.problems), (
        error.value.problems
    )


def test_a_teacher_from_scratch_has_as_many_positions_as_are_asked_for(tmp_path):
    check_space(_space(tmp_path, 1000, {"train": {"architecture": {"layers": 3}}}))


def test_the_task_that_scores_the_trials_is_checked_as_well(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a dog\n")
    tree = {
        "task": {"name": "text", "kind": "masked_lm", "train": str(text), "dev": str(text),
                 "max_length": 40},
        "evaluate_on": {"task": {"name": "own", "train": "no.csv", "dev": make_csv(tmp_path),
                                 "max_length": 41}},
        "teacher": make_classifier(tmp_path / "t"),
    }  # fmt: skip
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(SpecError) as error:
        check_space(load_space(path))
    missing, long = map(str, error.value.problems)
    assert missing.startswith("s.yaml:10 evaluate_on.task.train: no.csv is not a file")
    assert long == (
        "s.yaml:12 evaluate_on.task.max_length: 41 is above the 40 positions of the teacher; "
        "use at most 40"
    )


@pytest.mark.parametrize("name", ["own", "mnli"])  # mnli has settings of its own
def test_a_default_length_is_at_most_the_teacher_s_positions(tmp_path, name):
    file = make_csv(tmp_path)
    columns = {"text": "text", "pair": None, "label": "label"}
    own = {"name": name, "train": file, "dev": file, "columns": columns, "labels": ["a", "b"]}
    other = {"kind": "masked_lm", "name": "text", "train": file, "dev": file}
    path = tmp_path / "s.yaml"
    tree = {"task": other, "evaluate_on": own, "teacher": make_classifier(tmp_path / "t")}
    tree["evaluate_on"] = {"task": own}
    path.write_text(yaml.safe_dump(tree))
    space = load_space(path)
    before = space.source.tree
    check_space(space)
    spec = space.draw(Told({}), teacher=tree["teacher"], teacher_layers=4, seed=0)
    assert spec.task == space.settings.task
    assert spec.task.max_length == spec.evaluate_on.task.max_length == 40
    assert space.source.tree is before
    # A length that the file or an override sets is not changed.
    space = load_space(path, ["task.max_length=41"])
    with pytest.raises(SpecError, match="41 is above the 40 positions of the teacher"):
        check_space(space)


def _files(folder, train, dev, teacher=None, **task):
    for name, rows in (("train", train), ("dev", dev)):
        lines = "".join(f"{text},{label}\n" for text, label in rows)
        (folder / f"{name}.csv").write_text(f"text,label\n{lines}")
    settings = {"name": "own", "train": str(folder / "train.csv"), "dev": str(folder / "dev.csv")}
    tree = {"task": {**settings, **task}, "teacher": teacher or {"train": {"architecture": {}}}}
    (folder / "s.yaml").write_text(yaml.safe_dump(tree))
    return load_space(folder / "s.yaml")


GOOD = [("the dog", "a"), ("a cat", "b"), ("good dogs", "a"), ("bad cats", "b")]
NEW = [("a dog", "a"), ("very bad", "b")]


@pytest.mark.parametrize(
    ("train", "dev", "task", "said"),
    [
        (GOOD, NEW, {}, []),
        (GOOD, GOOD[:2], {}, ["2 of 2 texts of DIR/dev.csv are also in DIR/train.csv: the score"]),
        (GOOD, [*GOOD[:1], *NEW * 5], {}, []),
        (GOOD, NEW[:1], {}, ["DIR/dev.csv: all rows have the same label, a; scores on it tell"]),
        (
            GOOD,
            NEW,
            {"labels": ["a", "b", "c"]},
            ["DIR/train.csv has no row with the label c, so models will not learn to predict it"],
        ),
        (
            [("x", 1), ("y", 2)],
            [("z", 3), ("w", 3)],
            {"kind": "regression"},
            ["DIR/dev.csv: all r"],
        ),
        ([("x", 1), ("y", 1)], [("z", 2), ("w", 3)], {"kind": "masked_lm"}, []),
    ],
)
def test_what_check_notes_of_data(tmp_path, train, dev, task, said):
    notes = read_data(_files(tmp_path, train, dev, **task)).notes
    # Of so few rows, which some cases repeat; tests/data/test_survey.py has these.
    counted = "are mostly chance", "repeat the text"
    notes = [note for note in notes if not any(words in note for words in counted)]
    assert len(notes) == len(said)
    for note, start in zip(notes, said, strict=True):
        assert note.replace(str(tmp_path), "DIR").startswith(start)


def test_check_says_which_columns_of_a_conll_file_are_read(tmp_path):
    for name, word in (("train", "EU"), ("dev", "UN")):
        (tmp_path / f"{name}.conll").write_text(f"{word} NNP B-NP B-ORG\n. . O O\n")
    task = {"name": "own", "kind": "tagging", "train": str(tmp_path / "train.conll"),
            "dev": str(tmp_path / "dev.conll")}  # fmt: skip
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"task": task, "teacher": {"train": {"architecture": {}}}}))
    first, second = read_data(load_space(path)).notes
    assert "train.conll has 4 columns; the first is read as tokens, the last as ner_tags" in first
    assert "dev.conll has 4 columns" in second


@pytest.mark.parametrize(
    ("train", "dev", "task", "message"),
    [
        ([("x", "a"), ("y", "a")], NEW, {"labels": ["a", "b"]}, "same label, a; nothing can be le"),
        ([("x", 1), ("y", 1)], [("z", 1)], {}, "all rows have the same label, LABEL_1; nothing"),
        ([("x", 2.5), ("y", 2.5)], [("z", 1)], {"kind": "regression"}, "the same label, 2.5; not"),
        (
            [("x", "NA"), ("y", "ok")],
            [("z", 0), ("w", 1)],
            {},
            r"dev\.csv, column label: has labels by number, those of .*train\.csv are names \(NA",
        ),
        ([("x", "NA"), ("y", "ok")], [("z", "NA"), ("w", 1)], {}, "has labels by number"),
        ([("x", 0), ("y", 1)], [("z", "ok")], {}, "'ok' is not a class"),
    ],
)
def test_data_that_teach_nothing_or_the_wrong_are_refused(tmp_path, train, dev, task, message):
    with pytest.raises(SpecError, match=message):
        read_data(_files(tmp_path, train, dev, **task))


def test_labels_by_number_have_the_order_of_the_task_s_names(tmp_path):
    numbers = [("z", 0), ("w", 1)]
    found = read_data(_files(tmp_path, GOOD, numbers, labels=["a", "b"]))
    assert [split.classes for split in found.splits] == [{"a": 2, "b": 2}, {"a": 1, "b": 1}]


def test_check_names_the_problems_of_space_and_data_at_once(tmp_path):
    teacher = make_classifier(tmp_path / "t")
    space = _files(tmp_path, [("x", 0), ("y", "1,2")], NEW, teacher, max_length=41)
    with pytest.raises(SpecError) as error:
        check_all(space)
    long, broken, *_ = map(str, error.value.problems)
    assert "41 is above the 40 positions of the teacher" in long
    assert "line 3 has 3 fields, where the header has 2" in broken
    (tmp_path / "dev.csv").unlink()
    space = load_space(tmp_path / "s.yaml", ["task.max_length=40"])
    with pytest.raises(SpecError) as error:
        check_all(space)
    assert [problem.key for problem in error.value.problems].count("task.dev") == 1


def test_check_reads_all_data_and_names_each_row(tmp_path):
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\nx,0\ny,1\nz,good\n")
    dev.write_text("text,label\nx,0\ny,1,2\n")
    task = {"name": "own", "train": str(train), "dev": str(dev), "labels": ["bad", "fine"],
            "max_length": 40}  # fmt: skip
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"task": task, "teacher": make_classifier(tmp_path / "t")}))
    space = load_space(path)
    check_space(space)  # which looks at columns only
    with pytest.raises(SpecError) as error:
        read_data(space)
    first, second = map(str, error.value.problems)
    assert "row 3, column label: 'good' is not a class" in first
    assert first.startswith("s.yaml:")
    assert "line 3 has 3 fields, where the header has 2" in second


def test_check_compares_the_classes_with_the_teacher_s(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("text,label\nx,0\ny,1\nz,2\n")
    task = {"name": "own", "train": str(file), "dev": str(file)}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"task": task, "teacher": make_classifier(tmp_path / "t")}))
    with pytest.raises(SpecError, match=r"s\.yaml:\d+ teacher: .* 2 classes, the task own has 3"):
        read_data(load_space(path))


@pytest.mark.parametrize(
    ("family", "student", "message"),
    [
        ("gpt2", {"hidden_size": 16}, "can't be made narrower: its layers have no feed-forward"),
        ("gpt2", {"depth": {"choice": [1, 2]}, "init": "random", "hidden_size": 16}, None),
        ("gpt2", {"depth": 1}, None),
        ("modernbert", {"hidden_size": {"choice": [16, 24]}}, None),
        ("modernbert", {"hidden_size": 20}, "student.hidden_size: 20: 4 heads of hidden size 20"),
        ("qwen3", {"hidden_size": 20, "heads": 2}, None),
        ("qwen3", {"heads": 3}, "student.heads: 3: the teacher's heads share keys"),
        (
            "electra",
            {"hidden_size": 16},
            "student.hidden_size: 16 is the size of the teacher",
        ),
    ],
)
def test_a_width_that_no_trial_could_have_is_refused_in_one_line(
    tmp_path, family, student, message
):
    path, data = tmp_path / "s.yaml", make_csv(tmp_path)
    task = {"name": "own", "train": data, "dev": data, "max_length": 40}
    teacher = make_classifier(tmp_path / "t", family)
    path.write_text(yaml.safe_dump({"task": task, "teacher": teacher, "student": student}))
    if message is None:
        check_space(load_space(path))
        return
    with pytest.raises(SpecError) as error:
        check_space(load_space(path))
    (problem,) = error.value.problems
    assert str(problem).startswith("s.yaml:")
    assert message in str(problem)
    assert "\n" not in str(problem)


ATTENTION = "losses.attention"


@pytest.mark.parametrize(
    ("losses", "student", "message"),
    [
        ({"attention": {"weight": 1, "heads": 3}}, {}, f"{ATTENTION}.heads: 3 relation heads do"),
        (
            {"attention": {"choice": [0, {"weight": {"loguniform": [0.1, 1]}, "heads": 16}]}},
            {"hidden_size": {"choice": [32, 24]}},
            f"{ATTENTION}.heads: 16 relation heads do not divide the student's queries of 24",
        ),
        ({"attention": {"choice": [0, {"weight": {"loguniform": [0.1, 1]}}]}}, {}, None),
        ({"hidden": {"choice": [0, {"weight": {"loguniform": [0.1, 1]}}]}}, {}, None),
    ],
)
def test_a_space_whose_relation_heads_fit_no_student_is_refused(tmp_path, losses, student, message):
    path = tmp_path / "s.yaml"
    space = {
        "task": {"name": "own", "train": make_csv(tmp_path), "dev": make_csv(tmp_path),
                 "max_length": 40},
        "teacher": make_classifier(tmp_path / "t"),
        "student": student,
        "losses": losses,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(space))
    if message is None:
        check_space(load_space(path))
        return
    with pytest.raises(SpecError, match=message):
        check_space(load_space(path))


@pytest.mark.parametrize("where", ["teacher", "student"])
def test_a_model_without_known_attention_is_refused_before_the_search(tmp_path, where):
    usual = make_classifier(tmp_path / "usual")
    # One module for all three.
    other = make_classifier(tmp_path / "other", "modernbert", num_hidden_layers=3)
    space = {
        "task": {"name": "own", "train": make_csv(tmp_path), "dev": make_csv(tmp_path),
                 "max_length": 40},
        "teacher": usual,
        "losses": {"attention": 1},
    }  # fmt: skip
    space |= {"teacher": other} if where == "teacher" else {"student": {"init": other}}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(space))
    with pytest.raises(SpecError) as error:
        check_space(load_space(path))
    (problem,) = error.value.problems
    assert str(problem).endswith(
        f"losses.attention: {other} has no query, key and value modules of one size; leave it out"
    )
    # Recipes that do not need it can still be tried.
    space["losses"] = "labels"
    path.write_text(yaml.safe_dump(space))
    loaded = load_space(path)
    problems = {name: recipe_problem(loaded, name) for name in RECIPES}
    assert {name for name, found in problems.items() if found} == {"tinybert", "minilm"}
    assert problems["minilm"] == f"{other} has no query, key and value modules of one size"


def test_check_tells_how_much_unlabelled_text_is_used(tmp_path):
    teacher = make_classifier(tmp_path / "t")
    (tmp_path / "more.txt").write_text("bad bad\ngood good\nbad bad\n")
    data = {"train": make_csv(tmp_path, 8, "train.csv"), "dev": make_csv(tmp_path, 8, "dev.csv")}
    tree = {
        "task": {"name": "own", **data, "unlabelled": str(tmp_path / "more.txt")},
        "teacher": teacher,
        "student": {"depth": 2},
    }

    def notes(**task):
        own = {**tree, "task": {**tree["task"], **task}}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(own))
        return check_all(load_space(tmp_path / "s.yaml"))[1].notes

    more = f"{tmp_path}/more.txt: 2 texts without labels"
    assert notes()[-1] == f"{more} are added to 8 with labels; left out are 1 repeated"
    assert notes(train=None)[-1] == f"{more}; left out are 1 repeated"
    (tmp_path / "more.txt").write_text("\n")
    with pytest.raises(
        SpecError, match=r"^s\.yaml:\d+ task\.unlabelled: .*no usable row \(1 empty\)"
    ):
        notes()


def test_a_missing_model_of_augmented_text_is_reported_at_its_key(tmp_path):
    teacher = make_classifier(tmp_path / "t")
    space = _files(tmp_path, GOOD, NEW, teacher, augment={"model": "no/such"})
    with pytest.raises(SpecError, match=r"s\.yaml:\d+ task\.augment\.model: no/such can't be loa"):
        check_space(space)
