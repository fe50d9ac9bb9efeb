"""How plots look."""

from __future__ import annotations

from lkd_tune.config.settings.losses import TERM_NAMES
from lkd_tune.results.plots.style import series_style


def test_series_stay_distinct_when_there_are_more_than_colours():
    styles = [tuple(series_style(place).values()) for place in range(30)]
    assert len({*styles}) == 30
    colours = [series_style(place)["color"] for place in range(len(TERM_NAMES))]
    assert len({*colours}) == len(TERM_NAMES)
