"""Which settings of the terms are measured, and the scales of settings between them."""

from __future__ import annotations

import pytest

from lkd_tune.config.loss_scales import LossScales, TermScale, settings_of, with_other_scales
from lkd_tune.config.settings.losses import LABELS_ONLY, LogitLoss, LossSettings, WordPairLoss
from lkd_tune.config.starts import start_from
from lkd_tune.config.trial import TrialSpec
from tests.config.test_space import problems_of, space_of
from tests.support.draws import RandomSuggester

SPACE = """task: acceptability
teacher: t
student: {depth: {int: [2, 4]}}
losses:
  balance: gradient
  wr_pair:
    weight: {loguniform: [0.1, 10]}
    distance: cosine
    discrepancy: {choice: [kl, l2]}
  wr_triple: {choice: [0, {weight: {loguniform: [1, 10]}}]}
  ltr_pair: 0
  ltr_triple: {uniform: [0, 1]}
  logits: {temperature: {uniform: [1, 4]}}
"""
OFF = "{wr_pair: 0, wr_triple: 0, ltr_pair: 0, ltr_triple: 0, logits: 1, balance: gradient}"


def scale(term, strength):
    return TermScale(settings=settings_of(term), strength=strength)


def power_law():
    """Scales as if a gradient fell with the square of the temperature, and one of a pair."""
    logits = (LogitLoss(temperature=t) for t in (1, 2.5, 4))
    return LossScales(
        terms={
            "logits": tuple(scale(term, term.temperature**-2) for term in logits),
            "wr_pair": (
                scale(WordPairLoss(), 0.02),
                scale(WordPairLoss(discrepancy="l2"), 0.5),
            ),
        }
    )


def test_every_term_that_a_trial_can_have_is_measured_with_all_its_choices():
    terms = space_of(SPACE).balanced_terms()
    assert sorted(terms) == ["logits", "ltr_triple", "wr_pair", "wr_triple"]
    assert [term.discrepancy for term in terms["wr_pair"]] == ["kl", "l2"]
    assert [term.temperature for term in terms["logits"]] == [1, 2.5, 4]
    assert all(term.weight == 1 for own in terms.values() for term in own)


def test_no_term_is_measured_where_no_trial_is_balanced():
    assert space_of(SPACE, "losses.balance=none").balanced_terms() == {}


def test_balance_may_be_searched():
    terms = space_of(SPACE, "losses.balance={choice: [none, gradient]}").balanced_terms()
    assert "wr_pair" in terms


def test_balance_of_a_single_term_is_refused_in_one_line():
    (problem,) = problems_of(SPACE, f"losses={OFF}")
    assert "losses.balance" in problem
    assert "logits is the only term" in problem
    assert "use none" in problem


def test_a_space_that_also_has_labels_alone_is_balanced():
    space = space_of(SPACE, f"losses={OFF}", "losses.wr_pair={choice: [0, 1]}")
    assert sorted(space.balanced_terms()) == ["logits", "wr_pair"]


def test_a_scale_is_the_inverse_of_the_strength_and_1_without_a_gradient():
    assert scale(WordPairLoss(), 0.02).scale == pytest.approx(50)
    assert scale(WordPairLoss(), 0.0).scale == 1


@pytest.mark.parametrize("temperature", [1, 1.7, 2.5, 3.9, 4])
def test_between_two_temperatures_the_scale_is_interpolated(temperature):
    losses = LossSettings().with_weights({"wr_triple": 0, "ltr_pair": 0, "ltr_triple": 0})
    losses = losses.model_copy(update={"logits": LogitLoss(temperature=temperature)})
    found = power_law().scales_of(losses)
    assert found == pytest.approx({"logits": temperature**2, "wr_pair": 50})


@pytest.mark.parametrize(
    "changed", [{"logits": LogitLoss(temperature=9)}, {"logits": LogitLoss(alpha=0.5)}, {}]
)
def test_there_are_no_scales_for_settings_that_were_not_measured(changed):
    """The term that lacks one is in turn beyond the range, of another kind, and not there."""
    losses = LossSettings()
    if changed:
        losses = losses.with_weights({"wr_triple": 0, "ltr_pair": 0, "ltr_triple": 0})
    assert power_law().scales_of(losses.model_copy(update=changed)) == {}


def test_a_drawn_trial_has_the_scales_of_its_own_settings():
    space = space_of(SPACE, "losses.wr_triple=0", "losses.ltr_triple=0")
    space.loss_scales = power_law()
    for seed in range(8):
        spec = space.draw(RandomSuggester(seed), teacher="t", teacher_layers=6, seed=0)
        kl = spec.losses.wr_pair.discrepancy == "kl"
        expected = {"wr_pair": 50 if kl else 2, "logits": spec.losses.logits.temperature**2}
        assert spec.loss_scales == pytest.approx(expected)
        assert spec.effective_scales == spec.loss_scales
        again = TrialSpec.model_validate_json(spec.to_json())
        assert again == spec
        assert again.digest() == spec.digest()


def test_scales_have_no_effect_on_a_single_term():
    space = space_of(SPACE, "losses.wr_triple=0", "losses.ltr_triple=0")
    space.loss_scales = power_law()
    spec = space.draw(RandomSuggester(0), teacher="t", teacher_layers=6, seed=0)
    labels = LABELS_ONLY.model_copy(update={"balance": "gradient"})
    for losses in (LABELS_ONLY, labels, spec.losses.with_weights({"wr_pair": 0})):
        assert spec.model_copy(update={"losses": losses}).effective_scales == {}


def test_a_spec_has_scales_for_all_active_terms_or_for_none():
    spec = space_of(SPACE).draw(RandomSuggester(0), teacher="t", teacher_layers=6, seed=0)
    assert spec.lacks_scales
    tree = spec.model_dump(mode="json") | {"loss_scales": {"logits": 2.0}}
    with pytest.raises(ValueError, match="loss_scales has no entry for wr_pair"):
        TrialSpec.model_validate(tree)


def test_the_best_of_an_earlier_search_keeps_its_proportions_in_a_space_with_other_units():
    raw = space_of(SPACE, "losses.balance=none", "losses.wr_triple=0", "losses.ltr_triple=0")
    balanced = space_of(SPACE, "losses.wr_triple=0", "losses.ltr_triple=0")
    balanced.loss_scales = power_law()
    draw = {"teacher": "t", "teacher_layers": 6, "seed": 0}
    there = balanced.draw(RandomSuggester(1), **draw)
    scales, weight = there.loss_scales, there.losses.wr_pair.weight
    found = start_from("an earlier run", there, raw, 6)
    expected = weight * scales["wr_pair"] / scales["logits"]
    wanted = found.clamped.get("losses.wr_pair.weight", found.params["losses.wr_pair.weight"])
    assert wanted == pytest.approx(expected)

    here = there.model_copy(
        update={
            "losses": with_other_scales(there.losses, scales, {}).model_copy(
                update={"balance": "none"}
            ),
            "loss_scales": {},
        }
    )
    back = start_from("an earlier run", here, balanced, 6)
    assert back.params["losses.wr_pair.weight"] == pytest.approx(weight)
    same = start_from("an earlier run", there, balanced, 6)
    assert same.params["losses.wr_pair.weight"] == pytest.approx(weight)
