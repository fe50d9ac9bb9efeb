"""How much more a GPU trains when several trials share it (`resources.gpus`: 0.5, 0.25, …).

Look at the column "of one": the examples per second of all trials together over those of one trial
that has the GPU for itself. A small student leaves most of a large GPU free (`engine_step.py`), so
trials may cost each other little until the GPU, or the CPU cores that feed it, are full.

Each trial is a process of its own, as in a search, and trains a student of half the teacher's
layers under all five losses, with stored targets; the teacher is a BERT with random weights.

    python benchmarks/gpu_share.py [--layers 12] [--hidden 768] [--trials 1 2 4 8] [--steps 200]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def make_spec(folder: Path, layers: int, batch: int, steps: int, seed: int = 0) -> Any:
    """Returns a trial with every second of the teacher's layers."""
    from lkd_tune.config.trial import TrialSpec

    every_second = tuple(range(0, layers + 1, 2))
    return TrialSpec.model_validate(
        {
            "task": {
                "name": "random",
                "train": str(folder / "data.csv"),
                "dev": str(folder / "dev.csv"),
            },
            "teacher": str(folder / "teacher"),
            "student": {"depth": len(every_second) - 1},
            "layer_map": {"word": every_second, "layer": every_second},
            "train": {"steps": steps, "batch_size": batch, "evaluations": 1},
            "seed": seed,
        }
    )


def train_when_told(
    folder: Path, given: argparse.Namespace, place: int, rounds: Any, found: Any
) -> None:
    """Trains in each round that has room for this process; tells its peak GiB."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(1)
    from lkd_tune.distillation.engine import Distillation

    # To load kernels and to store the targets.
    cache, size = folder / "cache", (given.layers, given.batch)
    with Distillation(make_spec(folder, *size, 5, place), cache=cache) as distillation:
        next(distillation)
    for trials in given.trials:
        if place < trials:
            spec = make_spec(folder, *size, given.steps, place)
            with Distillation(spec, cache=cache) as distillation:
                rounds.wait()
                found.put(next(distillation).peak_memory_gib)
        else:
            rounds.wait()
        rounds.wait()


def main() -> None:
    """Prints a line for each number of trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as apart:  # this process is to hold no GPU
            where, parameters = apart.apply(prepare, (folder, given))
        if not where:
            print("there is no GPU here")
            return
        print(
            f"a teacher of {parameters / 1e6:.0f} M parameters, batches of {given.batch}, {where}"
        )
        print(f"{'trials':>6} {'examples/s':>11} {'of one':>7} {'GiB each':>9}")
        most = max(given.trials)
        rounds, found = context.Barrier(most + 1, timeout=600), context.Queue()
        processes = [
            context.Process(target=train_when_told, args=(folder, given, i, rounds, found))
            for i in range(most)
        ]
        for process in processes:
            process.start()
        one = None
        for trials in given.trials:
            rounds.wait()
            began = time.perf_counter()
            peak = max(found.get() for _ in range(trials))
            speed = trials * given.steps * given.batch / (time.perf_counter() - began)
            one = one or speed / trials
            print(f"{trials:>6} {speed:>11.0f} {speed / one:>7.2f} {peak:>9.2f}", flush=True)
            rounds.wait()
        for process in processes:
            process.join()


def prepare(folder: Path, given: argparse.Namespace) -> tuple[str, int]:
    """Writes data and teacher; returns the GPU's name, if any, and the teacher's parameters."""
    import torch
    from large_teacher import make_data, make_teacher

    make_data(folder, 4096, 4, 40)
    parameters = make_teacher(folder, given.layers, given.hidden)
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "", parameters


if __name__ == "__main__":
    main()
