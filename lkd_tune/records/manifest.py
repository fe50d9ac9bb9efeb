"""The manifest of a run: its settings, versions and costs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.run import RunFolder
from lkd_tune.version import __version__

_PACKAGES = ("torch", "ray", "deepspeed", "transformers", "optuna", "datasets", "numpy")


def new_manifest(settings: SpaceSettings, cwd: str) -> dict[str, Any]:
    """Returns the manifest of a run that starts now."""
    return {
        "started": now(),
        "finished": None,
        "seconds": 0.0,
        "seed": settings.search.seed,
        "objectives": settings.objectives,
        "score": settings.score_name,
        "limits": settings.limits.by_name,
        "cwd": cwd,
        "git_revision": _git_revision(cwd),
        "versions": {
            "lkd_tune": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def update_manifest(run: RunFolder, **facts: Any) -> None:
    """Adds facts to the manifest or replaces them."""
    manifest = run.read_manifest() if run.manifest.exists() else {}
    write_manifest(run, {**manifest, **facts})


def folder_of_paths(run: RunFolder) -> str:
    """Returns the folder that relative paths of a run are relative to.

    That is where its search was started, if that folder still exists, else the working directory.
    Only runs of earlier versions have relative paths.
    """
    started = run.read_manifest().get("cwd", "") if run.manifest.exists() else ""
    return started if os.path.isdir(started) else os.getcwd()


def add_cost(run: RunFolder, part: str, cost: dict[str, float]) -> None:
    """Adds the cost of work outside the trials to the manifest's `costs`.

    Args:
        run: The run.
        part: The work: teacher, targets, evaluate_on, latencies, loss_scales or test.
        cost: wall_s, gpu_s, cpu_s and energy_j, as in `Leaderboard.totals`.
    """
    costs = run.read_manifest().get("costs", {})
    before = costs.get(part, {})
    summed = {name: before.get(name, 0.0) + value for name, value in cost.items()}
    update_manifest(run, costs={**costs, part: summed})


def write_manifest(run: RunFolder, manifest: dict[str, Any]) -> None:
    """Writes the manifest."""
    write_atomically(run.manifest, json.dumps(manifest, indent=2, ensure_ascii=False))


def now() -> str:
    """Returns the current time as ISO 8601 text in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_revision(cwd: str) -> str | None:
    command = ["git", "-C", cwd, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
