"""Limits on students, checked before a drawn spec becomes a trial."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.pareto import violations


class StudentLimits:
    """Compares known sizes and latencies of students with the limits.

    Only latencies on devices that trials of this session run on count.

    Args:
        limits: The limits by name, see `LimitSettings`.
        latencies: The run's folder of measured latencies.
        earlier: Numbers of the trials that an earlier session began.
    """

    def __init__(self, limits: dict[str, float], latencies: Path, earlier: Collection[int]):
        self._limits, self._latencies, self._earlier = limits, latencies, earlier
        self._devices: set[str] = set()

    def violations_of(self, spec: TrialSpec) -> dict[str, float]:
        """Returns by how much a student exceeds each limit, {} if no limit is known to be exceeded.

        A value is a share of the limit: 0.5 is 50% above it, a negative value is within it.
        """
        if not self._limits:
            return {}
        from lkd_tune.models.size import expected_size  # loads torch

        size = expected_size(spec, latencies=self._latencies, devices=self._devices)
        found = violations(self._limits, size)
        return found if any(by > 0 for by in found.values()) else {}

    def add_device(self, number: int, result: dict[str, Any]) -> None:
        """Adds the device that a trial's result was timed on.

        Trials of an earlier session are ignored: their devices may be gone.
        """
        if number in self._earlier or "size" not in result:
            return
        device = ModelSize.model_validate_json(result["size"]).device
        if device is not None:
            self._devices.add(device)
