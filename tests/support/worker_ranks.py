"""Gangs of two, and how to get at their members."""

from __future__ import annotations

import psutil

TWO = {"workers": 2, "cpus": 1, "zero_stage": 2}


def ranks_of(pid: int) -> list[psutil.Process]:
    """The other ranks' processes; Ray starts all workers from its raylet."""
    siblings = psutil.Process(pid).parent().children()
    return [p for p in siblings if p.name().startswith("ray::Rank")]
