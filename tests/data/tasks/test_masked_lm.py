"""Masking: its shares, that it repeats, and a student that goes on to a task."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForMaskedLM

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.loading import count_labels, load_split
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import IGNORED
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.models.loading import load_model, load_tokenizer
from tests.support import tiny
from tests.support.families import CONFIGS, WORDS, make_classifier, make_csv
from tests.support.kinds_data import make_task

CPU = torch.device("cpu")


def _task(folder, lines=200, **more):
    path = folder / "text.txt"
    rng = np.random.default_rng(0)
    path.write_text("\n".join(" ".join(rng.choice(WORDS, 9)) for _ in range(lines)) + "\n\n")
    settings = {"max_length": 20, **more}
    return TaskSettings(name="own", kind="masked_lm", train=str(path), dev=str(path), **settings)


def _tokens(folder, task):
    tokenizer = load_tokenizer(make_classifier(folder / "t"))
    return tokenizer, load_tokens(task, "train", tokenizer, cache=folder / "cache")


def test_lines_are_packed_into_full_blocks(tmp_path):
    tokenizer, tokens = _tokens(tmp_path, _task(tmp_path))
    assert set(tokens.lengths[:-1]) == {20}
    kept = [
        i for i in tokens.ids.tolist() if i not in (tokenizer.cls_token_id, tokenizer.sep_token_id)
    ]
    assert len(kept) == 200 * 9


def test_shares_of_masked_replaced_and_kept_words(tmp_path):
    tokenizer, tokens = _tokens(tmp_path, _task(tmp_path, lines=3000, mask_share=0.3))
    kind = kind_of(_task(tmp_path, lines=3000, mask_share=0.3))
    plain = tokens.batch(np.arange(len(tokens)), CPU)
    drawn = kind.prepare_batch(plain, tokens, seed=1, step=2)
    chosen = drawn.labels != IGNORED
    special = torch.isin(plain.ids, torch.tensor(tokenizer.all_special_ids))
    assert not (chosen & special).any()
    assert (drawn.labels[chosen] == plain.ids[chosen]).all()
    assert (drawn.ids[~chosen] == plain.ids[~chosen]).all()
    assert float(chosen.sum() / (~special & plain.mask).sum()) == pytest.approx(0.3, abs=0.02)
    masked = drawn.ids[chosen] == tokenizer.mask_token_id
    same = drawn.ids[chosen] == plain.ids[chosen]
    # A word that is replaced may be replaced by itself or by [MASK], one time in 17.
    assert float(masked.float().mean()) == pytest.approx(0.8 + 0.1 / 17, abs=0.02)
    assert float(same.float().mean()) == pytest.approx(0.1 + 0.1 / 17, abs=0.02)


def test_masks_change_with_step_and_seed_and_not_with_the_batch(tmp_path):
    task = _task(tmp_path)
    _, tokens = _tokens(tmp_path, task)
    kind = kind_of(task)

    def masks(examples, seed, step):
        batch = tokens.batch(np.asarray(examples), CPU)
        return kind.prepare_batch(batch, tokens, seed=seed, step=step).labels

    first = masks([0, 1, 2, 3], 0, 5)
    assert torch.equal(first, masks([0, 1, 2, 3], 0, 5))
    assert torch.equal(first[2:], masks([2, 3], 0, 5))
    assert not torch.equal(first, masks([0, 1, 2, 3], 0, 6))
    assert not torch.equal(first, masks([0, 1, 2, 3], 1, 5))


def test_a_short_block_is_masked_alone_as_beside_longer_ones(tmp_path):
    task = _task(tmp_path, lines=201, mask_share=0.9)
    _, tokens = _tokens(tmp_path, task)
    last, length = len(tokens) - 1, int(tokens.lengths[-1])
    assert length < tokens.lengths[0]
    alone, beside = (
        kind_of(task).prepare_batch(tokens.batch(np.array(examples), CPU), tokens, seed=0, step=3)
        for examples in ([last], [0, last])
    )
    assert alone.ids.shape[1] < beside.ids.shape[1]
    assert torch.equal(alone.ids[-1, :length], beside.ids[-1, :length])
    assert torch.equal(alone.labels[-1, :length], beside.labels[-1, :length])


def _masked_lm(folder):
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(CONFIGS["bert"]()).save_pretrained(folder)
    make_classifier(folder.parent / "words")
    load_tokenizer(str(folder.parent / "words")).save_pretrained(folder)
    return str(folder)


def _spec(task, teacher, **more):
    return TrialSpec(
        **{
            "task": task,
            "teacher": teacher,
            "student": StudentSettings(depth=2),
            "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
            "losses": {"logits": {"weight": 1, "alpha": 0.5}},
            "train": TrainSettings(steps=6, batch_size=8, lr=1e-3, evaluations=2),
            "seed": 0,
            **more,
        }
    )


def test_a_pretrained_student_starts_the_students_of_a_task(tmp_path):
    teacher = _masked_lm(tmp_path / "teacher")
    with Distillation(_spec(_task(tmp_path), teacher), cache=tmp_path / "cache") as distillation:
        measured = list(distillation)
        distillation.save_student(tmp_path / "student")
    assert {"accuracy", "loss", "perplexity"} <= set(measured[-1].metrics)
    assert set(measured[-1].losses) >= {"wr_pair", "ltr_triple", "logits"}
    student = AutoModelForMaskedLM.from_pretrained(tmp_path / "student")
    assert student.config.num_hidden_layers == 2
    file = make_csv(tmp_path)
    sentences = TaskSettings(name="own", train=file, dev=file, max_length=16)
    task_teacher = make_classifier(tmp_path / "classifier")
    init = StudentSettings(depth=2, init=str(tmp_path / "student"))
    still = TrainSettings(steps=1, batch_size=8, lr=1e-12, evaluations=1)
    spec = _spec(sentences, task_teacher, student=init, train=still)
    with Distillation(spec, cache=tmp_path / "cache") as distillation:
        assert next(distillation).finished
        distillation.save_student(tmp_path / "classifier-student")
    started, theirs = (load_model(str(f)) for f in (tmp_path / "classifier-student", task_teacher))
    own = student.state_dict()
    # All but the pooler and the head, which a masked language model has not.
    layers = [name for name in started.state_dict() if name in own]
    assert len(layers) > 20
    for name in layers:
        torch.testing.assert_close(started.state_dict()[name], own[name])
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.allclose(own[name], theirs.state_dict()[name])


def test_a_run_that_continues_sees_the_same_masks(tmp_path):
    spec = _spec(_task(tmp_path), _masked_lm(tmp_path / "teacher"))
    whole = [m.losses for m in distill(spec, cache=tmp_path / "cache")]
    with Distillation(spec, cache=tmp_path / "cache") as distillation:
        next(distillation)
        distillation.save_checkpoint(tmp_path / "checkpoint")
    with Distillation(spec, cache=tmp_path / "cache") as distillation:
        distillation.load_checkpoint(tmp_path / "checkpoint")
        assert next(distillation).losses == pytest.approx(whole[-1], rel=1e-5)


def test_a_limit_takes_the_first_examples_and_no_more_of_a_hub_data_set_is_read(tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    lines = [f"line {i}" for i in range(50)]
    for name in ("train-00000-of-00002", "validation-00000-of-00001"):
        Dataset.from_dict({"text": lines}).to_parquet(hub / f"{name}.parquet")
    (hub / "train-00001-of-00002.parquet").write_bytes(b"what can't be read")
    task = TaskSettings(
        name="own", kind="masked_lm", data=str(hub), train="train", dev="validation",
        train_examples=7,
    )  # fmt: skip
    assert load_split(task, "train", cache=tmp_path / "c").text == lines[:7]
    assert load_split(task, "dev", cache=tmp_path / "c").text == lines
    without = task.model_copy(update={"train_examples": None})
    with pytest.raises(SpecError, match=r"^task\.data: .* train can't be loaded from the hub"):
        load_split(without, "train", cache=tmp_path / "c")


def test_a_limit_goes_with_a_slice_of_a_split(tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    Dataset.from_dict({"text": ["a", "b", "c", "d"]}).to_parquet(hub / "train.parquet")
    task = TaskSettings(
        name="own", kind="masked_lm", data=str(hub), train="train[:3]", dev="train[3:]",
        train_examples=2,
    )  # fmt: skip
    assert load_split(task, "train", cache=tmp_path / "c").text == ["a", "b"]
    assert load_split(task, "dev", cache=tmp_path / "c").text == ["d"]


def test_a_vocabulary_to_predict_from_is_not_trimmed(tmp_path):
    task = _task(tmp_path).model_dump(exclude_unset=True)
    with pytest.raises(SpecError, match="trim would remove words that masked_lm predicts"):
        tiny.make_space(tmp_path, task=task, student={"vocab": "trim"})


def test_labels_are_needed_elsewhere():
    with pytest.raises(ValueError, match=r"columns\.label is required for tagging"):
        TaskSettings(
            name="own", kind="tagging", train="a.conll", dev="a.conll", columns={"label": None}
        )


def test_a_tokenizer_without_mask_is_refused(tmp_path):
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    tokenizer.mask_token = None
    with pytest.raises(SpecError, match="no mask token"):
        load_tokens(_task(tmp_path), "train", tokenizer, cache=tmp_path / "cache")


def test_a_column_of_labels_is_of_no_weight(tmp_path):
    task = make_task(tmp_path, "masked_lm", rows=8)
    named = task.model_copy(update={"columns": task.columns.model_copy(update={"label": "text"})})
    assert count_labels(named, cache=tmp_path) is None
