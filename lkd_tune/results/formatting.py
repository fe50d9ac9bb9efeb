"""How numbers, durations, sizes and layer maps are written for people.

The terminal, the report, the plots and the model card use these functions. Files for programs
(JSON, CSV) hold plain numbers and lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lkd_tune.config.loss_scales import LossScales
from lkd_tune.config.settings.student import INIT_KEYWORDS, model_name

# Below this, a duration is written in seconds alone.
_SECONDS_ALONE = 90
# From here on, a duration is written without its seconds.
_MINUTES_ALONE = 600


def number(value: float | None, digits: int = 3) -> str:
    """Returns a score as `0.760`; '' for None."""
    return "" if value is None else f"{value:.{digits}f}"


def difference(value: float) -> str:
    """Returns a difference between scores with its sign, as `+0.060`."""
    return f"{value:+.3f}"


def percent(share: float | None, digits: int = 0) -> str:
    """Returns a share as `95%`; '' for None."""
    return "" if share is None else f"{share:.{digits}%}"


def short(value: float | None) -> str:
    """Returns a setting or a measured time with three significant digits; '' for None."""
    return "" if value is None else f"{value:.3g}"


def interval(mean: float | None, high: float | None, digits: int = 3) -> str:
    """Returns a mean with its symmetric interval as `0.720 ± 0.012`; '' without a mean.

    Args:
        mean: The mean.
        high: Upper end of its confidence interval; None for a single value.
        digits: Digits after the point.
    """
    if mean is None:
        return ""
    return number(mean, digits) + half_interval(mean, high, digits)


def half_interval(mean: float, high: float | None, digits: int = 3) -> str:
    """Returns half of a symmetric interval as ` ± 0.012`; '' without one."""
    return "" if high is None else f" ± {number(high - mean, digits)}"


def millions(count: float | None) -> str:
    """Returns a number of parameters as `22.7 M` or `850 k`; '' for None."""
    if count is None:
        return ""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def megabytes(size_bytes: float) -> str:
    """Returns a size in bytes as `12.5 MB` (10⁶ bytes)."""
    return f"{size_bytes / 1e6:.1f} MB"


def gibibytes(size_gib: float) -> str:
    """Returns an amount of memory as `1.25 GiB`."""
    return f"{size_gib:.2f} GiB"


def duration(seconds: float) -> str:
    """Returns a duration as `45 s`, `1 min 56 s`, `11 min` or `2 h 1 min`."""
    rounded = round(seconds)
    if rounded < _SECONDS_ALONE:
        return f"{rounded} s"
    if rounded < _MINUTES_ALONE:
        minutes, rest = divmod(rounded, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(rounded / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def layer_map(entries: Iterable[int] | str) -> str:
    """Returns a layer map as `0-2-4-6`; a text such as `random` as it is."""
    return entries if isinstance(entries, str) else "-".join(map(str, entries))


def start_of(init: str, layers: str | None) -> str:
    """Returns what a student started from, as `the teacher's top layers` or the name of a model.

    '' if that were the layers of its map, or random weights.
    """
    if init not in INIT_KEYWORDS:
        return model_name(init)
    if layers is None:
        return ""
    named = layers in ("bottom", "top")
    return f"the teacher's {layers} layers" if named else f"the teacher's layers {layers}"


def layer_maps(word: str, layer: str) -> str:
    """Returns a trial's two layer maps for a table's cell: one if they are equal."""
    return word if word == layer else f"{word} / {layer}"


def named_layer_maps(word: str, layer: str) -> str:
    """Returns a trial's two layer maps with their names: one without a name if they are equal."""
    return word if word == layer else f"words {word}, layers {layer}"


def relations_end(share: float | None) -> str:
    """Returns when terms ended, as `after 50% of the steps`; '' for None, if none ended early."""
    return "" if share is None else f"after {percent(share)} of the steps"


def scale_ranges(scales: LossScales) -> str:
    """Returns the scales of the loss terms as `wr_pair 42.6, logits 1 to 11.3`."""
    return ", ".join(
        f"{name} {short(low)}" if low == high else f"{name} {short(low)} to {short(high)}"
        for name, (low, high) in scales.ranges().items()
    )


def weights(of_terms: Mapping[str, float]) -> str:
    """Returns the weights of the loss terms as `wr_pair 0.5, logits 1`, without those of 0."""
    return ", ".join(f"{name} {short(weight)}" for name, weight in of_terms.items() if weight)
