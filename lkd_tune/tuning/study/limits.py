"""Which students are known to be above a limit before they become trials."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.pareto import excesses
from lkd_tune.records.size import ModelSize


class Admission:
    """Compares what is known of students with the limits, by the devices that trials run on.

    Args:
        limits: What is bounded, and by what.
        latencies: The run's folder of them.
        earlier: Numbers of the trials that an earlier session began.
    """

    def __init__(self, limits: dict[str, float], latencies: Path, earlier: Collection[int]):
        self._limits, self._latencies, self._earlier = limits, latencies, earlier
        self._devices: set[str] = set()

    def excesses(self, spec: TrialSpec) -> dict[str, float]:
        """Returns all of a student's excesses if it is known to be above a limit, else {}."""
        if not self._limits:
            return {}
        from lkd_tune.models.size import expected_size  # loads torch

        size = expected_size(spec, known=self._latencies, devices=self._devices)
        found = excesses(self._limits, size)
        return found if any(by > 0 for by in found.values()) else {}

    def note_device(self, number: int, result: dict[str, Any]) -> None:
        """Notes from a trial's result what it was timed on.

        An earlier session's trials were timed on what may not be there now.
        """
        if number in self._earlier or "size" not in result:
            return
        device = ModelSize.model_validate_json(result["size"]).device
        if device is not None:
            self._devices.add(device)
