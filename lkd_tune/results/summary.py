"""The results of a run as short texts: key figures, settings, costs and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lkd_tune.config.loss_scales import LossScales, TermScale
from lkd_tune.results.formatting import (
    difference,
    duration,
    gibibytes,
    half_interval,
    megabytes,
    millions,
    named_layer_maps,
    number,
    percent,
    relations_end,
    short,
    start_of,
    weights,
)
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.verdict import gain_of

_STATE_LABELS = {
    "complete": "complete",
    "stopped": "stopped early",
    "refused": "refused",
    "failed": "failed",
    "running": "unfinished",
}
_PART_LABELS = {
    "teacher": "teacher",
    "targets": "teacher targets",
    "evaluate_on": "data of evaluate_on",
    "latencies": "latency measurements",
    "loss_scales": "gradient norms of the loss terms",
    "test": "winner's score on test",
}


@dataclass(frozen=True)
class KeyFigure:
    """A figure with its name above and a note below."""

    name: str
    value: str
    note: str = ""


def key_figures(board: Leaderboard) -> list[KeyFigure]:
    """Returns what the best student scores, how small and fast it is, and what the run cost.

    Empty without a complete trial.
    """
    best = board.best
    if best is None:
        return []
    score = best.mean if best.mean is not None else best.score
    figures = [KeyFigure(f"{board.metric} on dev", number(score), _score_note(best, board))]
    teacher = board.teacher_score
    if score is not None and teacher is not None and teacher > 0:
        share = percent(max(0.0, score / teacher), 1)
        figures.append(
            KeyFigure("share of the teacher's score", share, f"teacher {number(teacher)}")
        )
    parameters = board.teacher.get("parameters")
    if best.parameters and parameters:
        share_of_size = best.parameters / parameters
        figures.append(
            KeyFigure(
                "share of the teacher's size",
                percent(share_of_size, 0 if share_of_size >= 0.1 else 1),
                f"{millions(best.parameters)} of {millions(parameters)} parameters",
            )
        )
    elif best.parameters:
        figures.append(KeyFigure("parameters", millions(best.parameters)))
    flops = board.teacher.get("flops")
    latency = f"{short(best.latency_ms)} ms" if best.latency_ms else ""
    if best.flops and flops:
        note = f"{latency} for one example" if latency else ""
        figures.append(KeyFigure("less computation", f"{flops / best.flops:.2g}×", note))
    elif latency:
        figures.append(KeyFigure("latency of one example", latency))
    gain = gain_of(board)
    if gain is not None:
        note = f"{number(gain.scores[1])} on the labels alone"
        figures.append(KeyFigure("gain by distillation", difference(gain.value), note))
    figures.append(KeyFigure("machine time", duration(board.totals["wall_s"]), _cost_note(board)))
    return figures


def state_counts(board: Leaderboard) -> str:
    """Returns the number of trials in each state, as `3 complete, 1 failed`; '' without trials."""
    counts = {label: board.count(state) for state, label in _STATE_LABELS.items()}
    return ", ".join(f"{count} {label}" for label, count in counts.items() if count)


def state_of(board: Leaderboard) -> str:
    """Returns whether the search is finished, and the number of trials in each state."""
    done = "finished" if board.manifest.get("finished") else "not finished"
    counts = state_counts(board)
    return f"{done}; trials: {counts}" if counts else f"{done}; no trial yet"


def machine_of(board: Leaderboard) -> str:
    """Returns the GPU or the CPU that the search ran on; '' if it is unknown."""
    hardware = board.manifest.get("hardware") or {}
    return str(next(iter(hardware.get("gpus") or []), hardware.get("cpu")) or "")


def ray_dashboard_of(manifest: Mapping[str, Any]) -> str | None:
    """Returns the address of Ray's dashboard; None unless it is an http(s) address."""
    address = str(manifest.get("dashboard") or "")
    # A run folder may come from somebody else, and a link may run a script.
    return address if address.startswith(("http://", "https://")) else None


def settings_of(row: Row) -> list[tuple[str, str]]:
    """Returns the architecture of a student and the settings it was trained with."""
    width = (
        f"{row.hidden_size} hidden, {row.heads} heads, {row.intermediate_size} feed-forward"
        if row.hidden_size
        else ""
    )
    settings = [
        ("trial", row.name),
        ("depth", str(row.depth)),
        ("width", width),
        ("starts from", start_of(row.init, row.layers)),
        ("layer map", named_layer_maps(row.word_map, row.layer_map)),
        ("weights", weights(row.weights)),
        ("relations end", relations_end(row.relations_until)),
        ("temperature", short(row.temperature)),
        ("learning rate", short(row.lr)),
    ]
    return [(name, value) for name, value in settings if value]


def term_strengths(board: Leaderboard) -> list[tuple[str, str, str]]:
    """Returns each measured term with its settings, its strength and the scale of its weight.

    Empty unless the search balanced its terms. Settings are given where a term has several. A
    strength is a gradient norm as a multiple of the loss's against the teacher's logits.
    """
    if board.manifest.get("loss_scales") is None:
        return []
    terms = LossScales.model_validate(board.manifest["loss_scales"]).terms
    return [
        (name + _differing(each, measured), short(each.strength), short(each.scale))
        for name, measured in terms.items()
        for each in measured
    ]


def costs_of(board: Leaderboard) -> list[tuple[str, str]]:
    """Returns the time, energy and memory that the search took, and the hardware it ran on."""
    manifest, totals = board.manifest, board.totals
    lines: list[tuple[str, str]] = []
    elapsed = _elapsed(manifest)
    if elapsed is not None:
        lines.append(("wall time from start to end", duration(elapsed)))
    lines.append(("trials", duration(board.costs["trials"]["wall_s"])))
    lines += part_costs(board)
    if totals["gpu_s"]:
        lines.append(("reserved GPU time", duration(totals["gpu_s"])))
    lines.append(("reserved CPU time", duration(totals["cpu_s"])))
    if totals["energy_j"]:
        lines.append(("energy of the GPUs", _kilowatt_hours(totals["energy_j"])))
    peaks = [row.peak_memory_gib for row in board.rows if row.peak_memory_gib]
    if peaks:
        lines.append(("peak memory of a worker", gibibytes(max(peaks))))
    host_peaks = [row.peak_host_gib for row in board.rows if row.peak_host_gib]
    if host_peaks:
        lines.append(("peak host memory of a worker", gibibytes(max(host_peaks))))
    targets = manifest.get("targets")
    if targets:
        text = f"{megabytes(targets['bytes'])}, built in {duration(targets['build_s'])}"
        lines.append(("stored teacher targets", text))
    hardware = manifest.get("hardware") or {}
    if hardware.get("gpus"):
        lines.append(("GPUs", ", ".join(map(str, hardware["gpus"]))))
    if hardware.get("cpu"):
        lines.append(("CPU", f"{hardware['cpu']}, {hardware.get('cpus', '?')} cores"))
    if hardware.get("memory_gib"):
        lines.append(("memory", f"{hardware['memory_gib']:.0f} GiB"))
    return lines


def part_costs(board: Leaderboard) -> list[tuple[str, str]]:
    """Returns the cost of each part of the run other than trials, and of the whole run.

    Empty if the run has no other parts.
    """
    parts = {name: cost for name, cost in board.costs.items() if name != "trials"}
    if not parts:
        return []
    labelled = {_PART_LABELS.get(name, name): cost for name, cost in parts.items()}
    labelled["whole run"] = board.totals
    return [(label, duration(cost["wall_s"]) + gpu_use(cost)) for label, cost in labelled.items()]


def gpu_use(cost: Mapping[str, float]) -> str:
    """Returns `, 0.20 GPU-hours, 0.1 kWh` of a cost; '' without GPUs."""
    hours = f", {cost['gpu_s'] / 3600:.2f} GPU-hours" if cost["gpu_s"] else ""
    return hours + (f", {_kilowatt_hours(cost['energy_j'])}" if cost["energy_j"] else "")


def provenance_of(board: Leaderboard) -> list[tuple[str, str]]:
    """Returns what the run was made with: times, seed, git revision, versions."""
    manifest = board.manifest
    named = [("started", "started"), ("finished", "finished"), ("seed", "seed"),
             ("git revision", "git_revision")]  # fmt: skip
    lines = [(name, str(manifest[key])) for name, key in named if manifest.get(key) is not None]
    versions = manifest.get("versions") or {}
    return lines + [(name, str(version)) for name, version in versions.items()]


def _differing(scale: TermScale, measured: Sequence[TermScale]) -> str:
    """Returns the settings in which a term differs from the same term with others."""
    first = measured[0].settings
    differing = [
        key for key in first if any(each.settings.get(key) != first[key] for each in measured)
    ]
    texts = [f"{key.replace('_', ' ')} {scale.settings.get(key)}" for key in differing]
    return f" ({', '.join(texts)})" if texts else ""


def _kilowatt_hours(joules: float) -> str:
    return f"{short(joules / 3.6e6)} kWh"


def _score_note(best: Row, board: Leaderboard) -> str:
    notes = []
    if best.mean is not None:
        mean = f"mean of {board.seeds} other seeds" if board.seeds > 1 else "another seed"
        notes.append(mean + half_interval(best.mean, best.high))
    if best.task_score is not None:
        notes.append(f"after fine-tuning; {board.task_metric} {number(best.task_score)} before")
    test = best.test_mean if best.test_mean is not None else best.test_score
    if test is not None:
        notes.append(f"{number(test)} on test")
    return ", ".join(notes)


def _cost_note(board: Leaderboard) -> str:
    count = len(board.drawn)
    trials = f"{count} trial{'s' if count != 1 else ''}"
    teacher = " and the teacher" if "teacher" in board.costs else ""
    machine = machine_of(board)
    return trials + teacher + gpu_use(board.totals) + (f" on {machine}" if machine else "")


def _elapsed(manifest: Mapping[str, Any]) -> float | None:
    started, finished = manifest.get("started"), manifest.get("finished")
    if not (started and finished):
        return None
    between = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
    return between.total_seconds() - manifest.get("paused_s", 0.0)
