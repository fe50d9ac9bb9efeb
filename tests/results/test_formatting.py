"""How numbers, durations and layer maps are written for people."""

import pytest

from lkd_tune.results import formatting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (65.4, "65 s"),
        (89.4, "89 s"),
        (90, "1 min 30 s"),
        (116, "1 min 56 s"),
        (120, "2 min"),
        (599.4, "9 min 59 s"),
        (599.6, "10 min"),
        (660, "11 min"),
        (3570, "1 h"),
        (7200, "2 h"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (formatting.number(0.76), "0.760"),
        (formatting.number(None), ""),
        (formatting.number(0.76, 4), "0.7600"),
        (formatting.difference(0.06), "+0.060"),
        (formatting.difference(-0.06), "-0.060"),
        (formatting.percent(0.954), "95%"),
        (formatting.percent(0.954, 1), "95.4%"),
        (formatting.percent(None), ""),
        (formatting.short(0.00129), "0.00129"),
        (formatting.interval(0.72, 0.84), "0.720 ± 0.120"),
        (formatting.interval(0.72, None), "0.720"),
        (formatting.interval(None, None), ""),
        (formatting.millions(22_700_000), "22.7 M"),
        (formatting.millions(850_000), "850 k"),
        (formatting.millions(None), ""),
        (formatting.megabytes(12_500_000), "12.5 MB"),
        (formatting.gibibytes(1.25), "1.25 GiB"),
        (formatting.layer_map([0, 2, 4, 6]), "0-2-4-6"),
        (formatting.layer_map("random"), "random"),
        (formatting.layer_maps("0-2", "0-2"), "0-2"),
        (formatting.layer_maps("0-2", "0-3"), "0-2 / 0-3"),
        (formatting.named_layer_maps("0-2", "0-3"), "words 0-2, layers 0-3"),
        (formatting.weights({"wr_pair": 0.5, "ltr_pair": 0, "logits": 1}), "wr_pair 0.5, logits 1"),
    ],
)
def test_texts(value, text):
    assert value == text
