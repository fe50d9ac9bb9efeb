"""One finished search for all tests that only read one: a search takes most of a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.support.tiny import make_csv, make_space

TRIALS = 6
STEPS = 40


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of the command line, to be read and never written to.

    Attributes:
        path: The run folder. Whoever changes something copies it first.
        space: The space file, over a tiny teacher and data.
        printed: Standard output of `lkd-tune search`.
    """

    path: Path
    space: Path
    printed: str


def finished_run(folder: Path) -> FinishedRun:
    """Returns the run in a folder that all processes of pytest share; the first one makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    with FileLock(folder / "lock"):
        if not done.exists():
            done.write_text(json.dumps(_search(folder)))
    facts = json.loads(done.read_text())
    return FinishedRun(folder / "runs" / "first", folder / "space.yaml", facts["printed"])


def _search(folder: Path) -> dict[str, str]:
    splits = {split: str(make_csv(folder / "data", 64, name=split)) for split in ("train", "dev")}
    test = str(make_csv(folder / "data", 32, name="test"))
    make_space(
        folder,
        task={"name": "tiny", **splits, "test": test, "max_length": 16},
        student={"depth": {"int": [1, 2]}},
        losses={
            **dict.fromkeys(["wr_triple", "ltr_triple", "ltr_pair"], 0),
            # So little that the labels are learned as well as without it, and it wins.
            "wr_pair": {"loguniform": [1e-4, 1e-2]},
            "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 1},
        },
        train={"lr": {"loguniform": [1e-4, 3e-2]}, "steps": STEPS},
        search={"trials": TRIALS, "baseline": True, "scheduler": "none"},
    )
    command = [
        sys.executable, "-m", "lkd_tune.cli", "search", "--space", str(folder / "space.yaml"),
        "--run-dir", str(folder / "runs"), "--name", "first",
    ]  # fmt: skip
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root, "LKD_TUNE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return {"printed": ended.stdout}
