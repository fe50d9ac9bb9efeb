"""Workers that are killed because their host is short of memory, and smaller micro-batches then.

What a process is refused it can tell itself; see `is_out_of_memory`. But Linux refuses nothing
until it is too late, and then the kernel, or Ray a moment before it, kills a process without a word
to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.trial_folder import TrialFolder

# What Ray says of an actor that its memory monitor has killed.
_KILLED_BY_RAY = "due to the node running low on memory"


def cut_micro_batches(folder: TrialFolder, spec: TrialSpec) -> bool:
    """Halves a trial's micro-batches from its next start on; returns whether that can be done."""
    from lkd_tune.data.batches import max_accumulation

    parts = folder.read_accumulation()
    if parts >= max_accumulation(spec):
        return False
    folder.write_accumulation(2 * parts)
    return True


def killed_by_ray(error: str) -> bool:
    """Whether Ray has killed a trial's worker, so that its node's memory is not used up."""
    return _KILLED_BY_RAY in error


def note_start(
    folder: TrialFolder, spec: TrialSpec, workers: list[dict[str, Any]], session: str
) -> None:
    """Notes where a trial begins or goes on, with smaller micro-batches if the kernel was why.

    Args:
        folder: The trial's.
        spec: The trial.
        workers: The `node`, `host` and `pid` of each; the first is this process.
        session: The driver's.
    """
    before = folder.read_last_start()
    now = {"workers": workers, "session": session, "oom_kills": _oom_kills()}
    if before is not None and _killed_by_kernel(before, now):
        cut_micro_batches(folder, spec)
    folder.append_start(now)


def _killed_by_kernel(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether it was probably the kernel that ended the process which had a trial before.

    It tells how often it has killed, and not whom. In doubt smaller micro-batches cost a little
    time, and change no objective.
    """
    was, there = before["workers"][0], now["workers"][0]
    return (
        before.get("session") == now["session"]
        and was["node"] == there["node"]
        and was["pid"] != there["pid"]
        and before["oom_kills"] < now["oom_kills"]
    )


def _oom_kills() -> int:
    """Returns how many processes this machine's kernel has killed for want of memory."""
    counters = Path("/proc/vmstat").read_text("utf-8").split()
    return int(counters[counters.index("oom_kill") + 1]) if "oom_kill" in counters else 0
