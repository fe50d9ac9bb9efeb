"""Smaller micro-batches for trials whose worker was killed because the host ran out of memory.

A process notices failed allocations itself, see `is_out_of_memory`. But Linux rarely lets an
allocation fail: the kernel, or Ray shortly before it, kills a process without any warning to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.trial_folder import TrialFolder

# From the message of Ray's memory monitor about an actor that it has killed.
_KILLED_BY_RAY = "due to the node running low on memory"


def halve_micro_batches(folder: TrialFolder, spec: TrialSpec) -> bool:
    """Halves a trial's micro-batches from its next start on; returns False if they can't shrink."""
    from lkd_tune.data.batches import max_accumulation

    parts = folder.read_accumulation()
    if parts >= max_accumulation(spec):
        return False
    folder.write_accumulation(2 * parts)
    return True


def killed_by_ray(error: str) -> bool:
    """Whether Ray killed a trial's worker to keep its node from running out of memory."""
    return _KILLED_BY_RAY in error


def record_start(
    folder: TrialFolder, spec: TrialSpec, workers: list[dict[str, Any]], session: str
) -> None:
    """Records where a trial starts or resumes.

    Halves its micro-batches if the kernel probably killed its previous process.

    Args:
        folder: The trial's folder.
        spec: The trial.
        workers: The `node`, `host` and `pid` of each worker; the first is this process.
        session: The driver's session.
    """
    previous = folder.read_last_start()
    current = {"workers": workers, "session": session, "oom_kills": _count_oom_kills()}
    if previous is not None and _killed_by_kernel(previous, current):
        halve_micro_batches(folder, spec)
    folder.append_start(current)


def _killed_by_kernel(previous: dict[str, Any], current: dict[str, Any]) -> bool:
    """Whether the kernel probably killed the process that ran a trial before.

    The kernel counts its kills and does not say which processes they were. If this is wrong, the
    smaller micro-batches cost a little time and do not change the objective.
    """
    before, now = previous["workers"][0], current["workers"][0]
    return (
        previous.get("session") == current["session"]
        and before["node"] == now["node"]
        and before["pid"] != now["pid"]
        and previous["oom_kills"] < current["oom_kills"]
    )


def _count_oom_kills() -> int:
    """Returns how many processes this machine's kernel has killed because it ran out of memory."""
    counters = Path("/proc/vmstat").read_text("utf-8").split()
    return int(counters[counters.index("oom_kill") + 1]) if "oom_kill" in counters else 0
