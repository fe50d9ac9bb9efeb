"""Throughput of a GPU that several trials share (`resources.gpus`: 0.5, 0.25, …).

Number to look at: "of one", the examples per second of all trials together relative to one trial
that has the GPU to itself. A small student leaves most of a large GPU idle (see `engine_step.py`),
so trials slow each other down little until the GPU, or the CPU cores that feed it, are saturated.

Each trial is its own process, as in a search, and trains a student with half of the teacher's
layers under all loss terms, with stored targets. The teacher is a BERT with random weights.

    python benchmarks/tuning/gpu_share.py [--layers 12] [--hidden 768] [--trials 1 2 4 8]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any


def train_in_rounds(
    folder: Path, given: argparse.Namespace, place: int, rounds: Any, found: Any
) -> None:
    """Trains in each round that includes this process, and reports its peak GiB."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(1)
    from benchmarks.random_teacher import make_spec
    from lkd_tune.distillation.engine import Distillation

    # Warm-up: loads kernels and stores the targets.
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
        with context.Pool(1) as helper:  # this process must not use the GPU
            where, parameters = helper.apply(prepare, (folder, given))
        if not where:
            print("this benchmark needs a GPU, and there is none")
            return
        print(
            f"a teacher of {parameters / 1e6:.0f} M parameters, batches of {given.batch}, {where}"
        )
        print(f"{'trials':>6} {'examples/s':>11} {'of one':>7} {'GiB each':>9}")
        most = max(given.trials)
        rounds, found = context.Barrier(most + 1, timeout=600), context.Queue()
        processes = [
            context.Process(target=train_in_rounds, args=(folder, given, i, rounds, found))
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
    """Writes data and teacher; returns the GPU's name (or "") and the teacher's parameters."""
    import torch

    from benchmarks.random_teacher import make_data, make_teacher

    make_data(folder, 4096, 4, 40)
    parameters = make_teacher(folder, given.layers, given.hidden)
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "", parameters


if __name__ == "__main__":
    main()
