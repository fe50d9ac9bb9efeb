import pytest

from lkd_tune.config.settings.losses import LossSettings


def test_a_number_alone_is_a_weight():
    losses = LossSettings.model_validate({"wr_pair": 2.5, "logits": 0})
    assert (losses.wr_pair.weight, losses.wr_pair.distance) == (2.5, "cosine")
    assert losses.logits.weight == 0


@pytest.mark.parametrize(
    ("losses", "needs_teacher", "needs_layers"),
    [
        ({}, True, True),
        ({"wr_pair": 0, "wr_triple": 0, "ltr_pair": 0, "ltr_triple": 0}, True, False),
        (
            {"wr_pair": 0, "wr_triple": 0, "ltr_pair": 0, "ltr_triple": 0, "logits": {"alpha": 1}},
            False,
            False,
        ),
        ({"logits": 0}, True, True),
    ],
)
def test_what_the_losses_need(losses, needs_teacher, needs_layers):
    settings = LossSettings.model_validate(losses)
    assert settings.needs_teacher == needs_teacher
    assert settings.needs_layers == needs_layers


@pytest.mark.parametrize(
    ("share", "total", "end"),
    [(1.0, 8, 8), (0.5, 8, 4), (0.5, 7, 4), (0.07, 100, 7), (0.99, 8, 8), (0.01, 8, 1)],
)
def test_all_terms_but_the_logits_end_at_a_share_of_the_steps(share, total, end):
    losses = LossSettings(relations_until=share)
    for step in range(total):
        names = [name for name, _ in losses.at_step(step, total).active()]
        assert (names == ["logits"]) == (step >= end), step
    assert losses.at_step(0, total) is losses
