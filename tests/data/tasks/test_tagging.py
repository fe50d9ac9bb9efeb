"""Tags of words through tokens and back, and scores of whole entities."""

import numpy as np
import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import label_names, load_split
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.tokenizer_training import train_subword_tokenizer
from lkd_tune.data.types import IGNORED
from lkd_tune.models.loading import load_tokenizer
from tests.support.families import make_classifier
from tests.support.tokenizers_of import KINDS

CONLL = """\
-DOCSTART-\tO

the\tO
good\tB-per
dogs\tI-per
see\tO
 \t
cats\tB-loc
not\tO

"""


def _task(folder, text=CONLL, **more):
    path = folder / "data.conll"
    path.write_text(text, "utf-8")
    return TaskSettings(name="own", kind="tagging", train=str(path), dev=str(path), **more)


def _tokens(folder, task, tokenizer=None):
    tokenizer = tokenizer or load_tokenizer(make_classifier(folder / "t"))
    return load_tokens(task, "train", tokenizer, cache=folder / "cache")


def test_sentences_of_a_conll_file(tmp_path):
    task = _task(tmp_path)
    split = load_split(task, "train", cache=tmp_path / "cache")
    assert split.text == [["the", "good", "dogs", "see"], ["cats", "not"]]
    assert label_names(task, cache=tmp_path / "cache") == ["O", "B-loc", "B-per", "I-per"]
    assert split.label == [[0, 2, 3, 0], [1, 0]]


def test_columns_of_a_conll_file_are_named(tmp_path):
    text = "the DT O\ndog NN B-x\n"
    task = _task(
        tmp_path, text,
        column_names=["word", "pos", "ner"], columns={"text": "word", "label": "ner"},
    )  # fmt: skip
    assert load_split(task, "train", cache=tmp_path / "c").text == [["the", "dog"]]


def test_the_first_piece_of_a_word_has_its_tag(tmp_path):
    tokenizer = train_subword_tokenizer(
        "wordpiece", ["xgood xdogs xcats xthe xsee xnot t g d s c n"] * 9, 100, 32
    )
    tokens = _tokens(tmp_path, _task(tmp_path), tokenizer)
    batch_labels = tokens.labels[tokens.starts[0] : tokens.starts[1]]
    assert len(batch_labels) > 4 + 2
    assert batch_labels[batch_labels != IGNORED].tolist() == [0, 2, 3, 0]


def _outputs(tokens, tags):
    """Returns logits for tags of the words that are in the input."""
    outputs = np.zeros((len(tokens.ids), 4), np.float32)
    outputs[np.flatnonzero(tokens.labels != IGNORED), tags] = 1
    return outputs


@pytest.mark.parametrize(
    ("tags", "f1", "precision", "recall"),
    [
        ([0, 2, 3, 0, 1, 0], 1.0, 1.0, 1.0),
        ([0, 2, 0, 0, 1, 0], 0.5, 0.5, 0.5),  # half an entity is none
        ([0, 0, 0, 0, 1, 0], 2 / 3, 1.0, 0.5),
        ([0, 0, 0, 0, 0, 0], 0.0, 0.0, 0.0),
        ([0, 3, 3, 0, 1, 0], 1.0, 1.0, 1.0),  # as conlleval reads it: an I- begins one, too
        ([0, 2, 3, 0, 2, 0], 0.5, 0.5, 0.5),  # of another type
    ],
)
def test_entities_are_scored_whole(tmp_path, tags, f1, precision, recall):
    task = _task(tmp_path)
    tokens = _tokens(tmp_path, task)
    scores = kind_of(task).score(_outputs(tokens, tags), tokens)
    assert scores["f1"] == pytest.approx(f1)
    assert scores["precision"] == pytest.approx(precision)
    assert scores["recall"] == pytest.approx(recall)


@pytest.mark.parametrize(("labels", "metric"), [(None, "f1"), (["O", "NN", "PER"], "recall")])
def test_tags_of_no_entities_are_scored_by_accuracy_alone(tmp_path, labels, metric):
    text = "the\tO\ndog\tPER\ncat\tPER\nsee\tNN\n"
    with pytest.raises(
        SpecError, match=r"task\.metric: .* entities, .* not NN, PER; set task.metric to accuracy"
    ):
        load_split(_task(tmp_path, text, labels=labels, metric=metric), "train", cache=tmp_path)
    task = _task(tmp_path, text, labels=labels, metric="accuracy")
    tokens = _tokens(tmp_path, task)
    outputs = np.eye(3)[np.where(tokens.labels == IGNORED, 0, 2)]
    assert kind_of(task).score(outputs, tokens) == {"accuracy": 0.5}


@pytest.mark.parametrize("tags", ["0 1", "O B", "O S-per", "O E-per", "O B-a-b"])
def test_tags_that_seqeval_knows_are_of_entities(tmp_path, tags):
    outside, tag = tags.split()
    task = _task(tmp_path, f"the\t{outside}\ndog\t{tag}\n")
    tokens = _tokens(tmp_path, task)
    outputs = np.eye(2)[np.where(tokens.labels == IGNORED, 0, tokens.labels)]
    assert kind_of(task).score(outputs, tokens)["f1"] == 1


def test_what_is_cut_off_is_missed(tmp_path):
    task = _task(tmp_path, "the\tO\nthe\tO\ndog\tB-x\ncat\tB-x\n", max_length=5)
    tokens = _tokens(tmp_path, task)
    right = tokens.labels[tokens.labels != IGNORED]
    assert right.tolist() == [0, 0, 1]
    outputs = np.zeros((len(tokens.ids), 2), np.float32)
    outputs[np.flatnonzero(tokens.labels != IGNORED), right] = 1
    scores = kind_of(task).score(outputs, tokens)
    assert scores["recall"] == 0.5
    assert scores["precision"] == 1.0


@pytest.mark.parametrize("make", KINDS.values())
def test_words_have_the_tokens_that_they_have_in_a_sentence(tmp_path, make):
    sentence = "the good dogs see cats not"
    tokenizer = make([sentence, "good dogs", "cats see the dogs", "not good"] * 4, 300)
    lines = "".join(f"{word}\tO\n" for word in sentence.split())
    tokens = _tokens(tmp_path, _task(tmp_path, lines), tokenizer)
    kept = tokens.ids[: tokens.starts[1]].tolist()
    bare = tokenizer(f" {sentence}", add_special_tokens=False)["input_ids"]
    assert [i for i in kept if i not in tokenizer.all_special_ids] == bare
    assert (tokens.labels != IGNORED).sum() == 6
