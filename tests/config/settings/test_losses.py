import pytest

from lkd_tune.config.settings.losses import LossSettings


def test_a_number_alone_is_a_weight():
    losses = LossSettings.model_validate({"wr_pair": 2.5, "logits": 0})
    assert (losses.wr_pair.weight, losses.wr_pair.distance) == (2.5, "cosine")
    assert losses.logits.weight == 0


@pytest.mark.parametrize(
    ("losses", "needs_teacher", "needs_relations"),
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
def test_what_the_losses_need(losses, needs_teacher, needs_relations):
    settings = LossSettings.model_validate(losses)
    assert settings.needs_teacher == needs_teacher
    assert settings.needs_relations == needs_relations
