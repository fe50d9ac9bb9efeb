"""What a report says in words and figures, read from a leaderboard and its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lkd_tune.results.leaderboard import Leaderboard, Row

_PARTS = {
    "teacher": "the teacher",
    "targets": "its targets",
    "evaluate_on": "data to fine-tune on",
    "latencies": "timing students",
    "test": "the winner on test",
}


@dataclass(frozen=True)
class Fact:
    """A figure that answers, with what it means below it."""

    name: str
    value: str
    note: str = ""


def answer(board: Leaderboard) -> list[Fact]:
    """Returns the best student: what it keeps of the teacher, how small, how fast, at what cost."""
    best = board.best
    if best is None:
        return []
    score = best.mean if best.mean is not None else best.score
    facts = [Fact(f"{board.metric} on dev", number(score), _score_note(best, board))]
    teacher = board.teacher_score
    if score is not None and teacher is not None and teacher > 0:
        facts.append(
            Fact("of the teacher kept", f"{max(0.0, score / teacher):.1%}", f"of {number(teacher)}")
        )
    parameters = board.teacher.get("parameters")
    if best.parameters and parameters:
        note = f"{millions(best.parameters)} of {millions(parameters)} parameters"
        share = best.parameters / parameters
        facts.append(Fact("of its size", f"{share:.0%}" if share >= 0.1 else f"{share:.1%}", note))
    elif best.parameters:
        facts.append(Fact("parameters", millions(best.parameters)))
    flops = board.teacher.get("flops")
    latency = f"{best.latency_ms:.3g} ms for one example" if best.latency_ms else ""
    if best.flops and flops:
        facts.append(Fact("less computation", f"{flops / best.flops:.2g}×", latency))
    elif latency:
        facts.append(Fact("for one example", f"{best.latency_ms:.3g} ms"))
    gain = distillation_gain(board)
    if gain is not None:
        facts.append(Fact("by distillation", f"{gain[0]:+.3f}", f"{number(gain[1])} without it"))
    facts.append(Fact("of machine time", duration(board.totals["wall_s"]), _cost_note(board)))
    return facts


def distillation_gain(board: Leaderboard) -> tuple[float, float] | None:
    """Returns the gain over the baseline and the baseline's score, by means if both have one.

    None without a baseline of the best student's shape.
    """
    best, baseline = board.best, board.baseline
    if best is None or baseline is None:
        return None
    if (best.depth, best.hidden_size) != (baseline.depth, baseline.hidden_size):
        return None  # after an interruption it may be that of an earlier winner
    if best.mean is not None and baseline.mean is not None:
        return best.mean - baseline.mean, baseline.mean
    if best.score is None or baseline.score is None:
        return None
    return best.score - baseline.score, baseline.score


def state_of(board: Leaderboard) -> str:
    """Returns where the search stands, in a few words."""
    words = {"complete": "complete", "stopped": "stopped early", "refused": "refused",
             "failed": "failed", "running": "unfinished"}  # fmt: skip
    counts = [f"{n} {word}" for state, word in words.items() if (n := board.count(state))]
    done = "finished" if board.manifest.get("finished") else "not finished"
    return f"{done}; trials: {', '.join(counts)}" if counts else f"{done}; no trial yet"


def dashboard_of(manifest: dict[str, Any]) -> str | None:
    """Returns the address of Ray's dashboard while the search runs there, if it has one."""
    address = str(manifest.get("dashboard") or "")
    # A run may come from others, and a link may be more than an address.
    return address if address.startswith(("http://", "https://")) else None


def settings_of(row: Row) -> list[tuple[str, str]]:
    """Returns what a student is and how it was trained."""
    width = []
    if row.hidden_size:
        text = f"{row.hidden_size} hidden, {row.heads} heads, {row.intermediate_size} feed-forward"
        width = [("width", text)]
    same = row.word_map == row.layer_map
    maps = row.word_map if same else f"words {row.word_map}, layers {row.layer_map}"
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items() if weight)
    return [
        ("trial", row.name),
        ("depth", str(row.depth)),
        *width,
        ("layer map", maps),
        ("weights", weights),
        ("temperature", f"{row.temperature:.3g}"),
        ("learning rate", f"{row.lr:.3g}"),
    ]  # fmt: skip


def cost_of(board: Leaderboard) -> list[tuple[str, str]]:
    """Returns what the search took, and on what."""
    manifest, totals, facts = board.manifest, board.totals, list[tuple[str, str]]()
    elapsed = _elapsed(manifest)
    if elapsed is not None:
        facts.append(("wall time, all in all", duration(elapsed)))
    facts.append(("time of trials, added up", duration(board.costs["trials"]["wall_s"])))
    facts += costs_beside(board)
    if totals["gpu_s"]:
        facts.append(("GPU time held", duration(totals["gpu_s"])))
    facts.append(("CPU time held", duration(totals["cpu_s"])))
    if totals["energy_j"]:
        facts.append(("energy of the GPUs", f"{totals['energy_j'] / 3.6e6:.3g} kWh"))
    peaks = [row.peak_memory_gib for row in board.rows if row.peak_memory_gib]
    if peaks:
        facts.append(("largest worker", f"{max(peaks):.2f} GiB"))
    hosts = [row.peak_host_gib for row in board.rows if row.peak_host_gib]
    if hosts:
        facts.append(("the same on the host", f"{max(hosts):.2f} GiB"))
    targets = manifest.get("targets")
    if targets:
        text = f"{targets['bytes'] / 1e6:.1f} MB, built in {duration(targets['build_s'])}"
        facts.append(("stored teacher targets", text))
    hardware = manifest.get("hardware") or {}
    if hardware.get("gpus"):
        facts.append(("GPUs", ", ".join(map(str, hardware["gpus"]))))
    if hardware.get("cpu"):
        facts.append(("CPU", f"{hardware['cpu']}, {hardware.get('cpus', '?')} cores"))
    if hardware.get("memory_gib"):
        facts.append(("memory", f"{hardware['memory_gib']:.0f} GiB"))
    return facts


def costs_beside(board: Leaderboard) -> list[tuple[str, str]]:
    """Returns what work beside the trials has cost, part by part, and what all of it has."""
    parts = {_PARTS.get(part, part): cost for part, cost in board.costs.items() if part != "trials"}
    if not parts:
        return []
    parts["all of it, added up"] = board.totals
    return [(name, duration(cost["wall_s"]) + held(cost)) for name, cost in parts.items()]


def held(cost: dict[str, float]) -> str:
    """Returns ', 0.20 GPU-hours, 0.1 kWh' of a cost, nothing where there were no GPUs."""
    text = f", {cost['gpu_s'] / 3600:.2f} GPU-hours" if cost["gpu_s"] else ""
    return text + (f", {cost['energy_j'] / 3.6e6:.3g} kWh" if cost["energy_j"] else "")


def origin_of(board: Leaderboard) -> list[tuple[str, str]]:
    """Returns what the run was made with: time, seed, revision, versions."""
    manifest = board.manifest
    named = [("started", "started"), ("finished", "finished"), ("seed", "seed"),
             ("git revision", "git_revision")]  # fmt: skip
    facts = [(name, str(manifest[key])) for name, key in named if manifest.get(key) is not None]
    versions = manifest.get("versions") or {}
    return facts + [(name, str(version)) for name, version in versions.items()]


def number(value: float | None) -> str:
    """Returns a score as text."""
    return "" if value is None else f"{value:.3f}"


def millions(count: float) -> str:
    """Returns a number of parameters as text."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def duration(seconds: float) -> str:
    """Returns a time as text, in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def interval(row: Row) -> str:
    """Returns a mean with its 95 % interval as text."""
    if row.mean is None:
        return ""
    return number(row.mean) + (f" ± {row.high - row.mean:.3f}" if row.high is not None else "")


def _score_note(best: Row, board: Leaderboard) -> str:
    notes = []
    if best.mean is not None:
        notes.append(f"mean of {board.seeds} other seeds" if board.seeds > 1 else "another seed")
        if best.high is not None:
            notes[-1] += f" ± {best.high - best.mean:.3f}"
    if best.task_score is not None:
        notes.append(f"after fine-tuning; {board.task_metric} {number(best.task_score)} before")
    test = best.test_mean if best.test_mean is not None else best.test_score
    if test is not None:
        notes.append(f"{number(test)} on test")
    return ", ".join(notes)


def _cost_note(board: Leaderboard) -> str:
    trials = f"{sum(row.name.isdigit() for row in board.rows)} trials"
    beside = " and the teacher" if "teacher" in board.costs else ""
    hardware: dict[str, Any] = board.manifest.get("hardware") or {}
    machine = next(iter(hardware.get("gpus") or []), hardware.get("cpu"))
    return trials + beside + held(board.totals) + (f" on {machine}" if machine else "")


def _elapsed(manifest: dict[str, Any]) -> float | None:
    started, finished = manifest.get("started"), manifest.get("finished")
    if not (started and finished):
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
