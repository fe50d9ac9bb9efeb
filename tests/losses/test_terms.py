"""The table of terms: complete, in the order of the settings, and true to what terms declare."""

from __future__ import annotations

from functools import cached_property
from typing import get_args

import pytest
import torch

from lkd_tune.config.settings.losses import TERM_NAMES, LossSettings, Part
from lkd_tune.data.tasks.classification import Classification
from lkd_tune.data.types import Batch
from lkd_tune.distillation.objective import TrainingObjective
from lkd_tune.losses.attention import AttentionVectors
from lkd_tune.losses.inputs import BatchSizes, LossInputs, Targets
from lkd_tune.losses.relations import layer_relations, word_relations
from lkd_tune.losses.terms import TERMS

KIND = Classification()


def _batch() -> Batch:
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    ids = torch.ones(3, 6, dtype=torch.long)
    return Batch(ids, torch.zeros_like(ids), mask, torch.tensor([0, 1, 1]), torch.arange(3).numpy())


def _inputs(build=LossInputs) -> LossInputs:
    batch, generator = _batch(), torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 3, 6, 8, generator=generator)
    logits = torch.randn(2, 3, 2, generator=generator)
    attention = [
        AttentionVectors(*torch.randn(3, 1, 3, 6, 8, generator=generator).unbind(), heads=2)
        for _ in range(2)
    ]
    targets = Targets(
        logits[1],
        word_relations(teacher, batch.mask),
        layer_relations(teacher, batch.mask),
        teacher.unbind(1),
        attention[1],
    )
    return build(logits[0], student.unbind(1), targets, batch, KIND, attention=attention[0])


def test_settings_and_functions_name_the_same_terms_in_the_same_order():
    assert tuple(dict.fromkeys(term.name for term in TERMS)) == TERM_NAMES
    fields = LossSettings.model_fields
    assert all(term.settings is fields[term.name].annotation for term in TERMS)


def test_the_parts_of_a_term_are_shares_of_it():
    for alpha in (0.0, 0.3, 1.0):
        losses = LossSettings.model_validate({"logits": {"alpha": alpha}})
        shares = [term.share(losses.logits) for term in TERMS if term.name == "logits"]
        assert shares == pytest.approx([1 - alpha, alpha])


def test_terms_beyond_ckd_are_left_out_unless_they_are_named():
    assert [name for name, _ in LossSettings().active()] == list(TERM_NAMES[:5])
    named = LossSettings.model_validate({"hidden": {"words": "first"}, "attention": {}})
    assert (named.hidden.weight, named.attention.weight) == (1, 1)


def test_every_part_is_a_pair_of_the_students_and_the_teachers():
    inputs = _inputs()
    for part in get_args(Part):
        student, teacher = getattr(inputs, part)
        assert type(student) is type(teacher)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_term_reads_the_parts_that_its_settings_declare(term):
    read = set()

    class Watched(LossInputs):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    inputs = _inputs(Watched)
    read.clear()
    term.total(term.settings(), inputs)
    assert read & {*get_args(Part)} == term.settings.needs


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_the_count_is_that_of_the_sum(term):
    settings, inputs = term.settings(), _inputs()
    sizes = BatchSizes(
        inputs.mask,
        rows=3,
        labelled_rows=3,
        word_layers=3,
        layer_layers=3,
        hidden_layers=3,
        attention_layers=1,
    )
    count = term.count(settings, sizes)
    assert count.dtype == torch.float64
    assert count == term.total(settings, inputs).count > 0


def test_terms_share_what_is_built_of_the_student(monkeypatch):
    built = []
    for name in ("word_relations", "layer_relations"):
        original = vars(LossInputs)[name].func
        counted = cached_property(lambda self, f=original: built.append(f.__name__) or f(self))
        counted.__set_name__(LossInputs, name)
        monkeypatch.setattr(LossInputs, name, counted)

    class Output:
        logits = torch.randn(3, 2)
        hidden_states = tuple(torch.randn(3, 3, 6, 8))

    batch, hidden = _batch(), torch.randn(3, 3, 6, 8)
    words, layers = word_relations(hidden, batch.mask), layer_relations(hidden, batch.mask)
    targets = Targets(torch.randn(3, 2), words, layers)
    TrainingObjective(LossSettings(), KIND).sums(Output, targets, batch)
    assert sorted(built) == ["layer_relations", "word_relations"]
    built.clear()
    TrainingObjective(LossSettings(wr_pair={"weight": 0}, wr_triple={"weight": 0}), KIND).sums(
        Output, targets, batch
    )
    assert built == ["layer_relations"]
