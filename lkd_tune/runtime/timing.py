"""Latencies that can be compared: models timed in turns, of which a low quantile counts.

Whatever else a machine does only adds time to a call. So a low quantile of many calls is near to
what an idle machine takes, and the spread above it says how busy the machine was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Each call is timed for this long, within these numbers of calls.
_TIMING_S, _MIN_CALLS, _MAX_CALLS = 0.5, 5, 100
_LOW, _HIGH = 0.2, 0.8
_LARGEST_SPREAD = 1.5


@dataclass(frozen=True)
class Timing:
    """The time of a call.

    Attributes:
        ms: The 20 % quantile, in milliseconds.
        spread: The 80 % quantile as a multiple of it.
    """

    ms: float
    spread: float


def time_in_turns(calls: Sequence[Callable[[], object]], on: torch.device) -> list[Timing]:
    """Returns the times of calls that compute on a device, without gradients.

    They take turns, so that whatever slows the machine down for a while slows all of them down.
    """
    times: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for call in calls:
            call()  # loads kernels and fills caches
            call()
        began = time.perf_counter()
        while len(times[0]) < _MIN_CALLS or (
            len(times[0]) < _MAX_CALLS and time.perf_counter() - began < _TIMING_S * len(calls)
        ):
            for call, own in zip(calls, times, strict=True):
                own.append(1000 * _seconds_of(call, on))
    return [_timing(own) for own in times]


def busy_warning(spreads: Sequence[float]) -> str | None:
    """Returns what is wrong with latencies that were measured on a busy machine, else None.

    Args:
        spreads: `Timing.spread` of each.
    """
    spread = max(spreads, default=1.0)
    if spread <= _LARGEST_SPREAD:
        return None
    load = os.getloadavg()[0]
    return (
        f"latencies vary by a factor of {spread:.1f}: the machine is busy (load {load:.1f} on "
        f"{os.cpu_count()} cores), so they may be too high; time again when it is idle"
    )


def _seconds_of(call: Callable[[], object], on: torch.device) -> float:
    _wait(on)
    start = time.perf_counter()
    call()
    _wait(on)
    return time.perf_counter() - start


def _timing(ms: Sequence[float]) -> Timing:
    low, high = np.quantile(ms, [_LOW, _HIGH])
    return Timing(float(low), float(high / low))


def _wait(on: torch.device) -> None:
    if on.type == "cuda":
        torch.cuda.synchronize(on)
