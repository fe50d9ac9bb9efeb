"""Memory of a distillation with a large teacher, and of storing the targets of such a teacher.

Numbers to look at: "of the first", the peak of a row relative to the first row, which has the whole
teacher in fp32 beside the student and keeps all activations; and "off by", the relative difference
of the row's loss from the first row's, which is 0 except in bf16. Each row runs in its own process.
The teacher is a BERT with random weights, by default as large as BERT-large; the student has a
quarter of its layers. Rows with two workers use two processes, with ZeRO-3 for the student, and
report the larger peak. They need two GPUs or none.

On a CPU the device is the host, so only bf16 and activation checkpointing can save memory there,
and the peak includes Python and its libraries. On a GPU it is PyTorch's count of allocated memory.

    python benchmarks/distillation/large_teacher.py [--layers 24] [--hidden 1024] [--steps 2]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.random_teacher import make_data, make_teacher
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import Inference
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets.store_build import get_or_build_store
from lkd_tune.models.loading import load_tokenizer
from lkd_tune.runtime.process_group import device, free_address, join_process_group

# For each row: the teacher's precision and placement, and activation checkpointing.
LIVE = {
    "as it is": ("fp32", "device", False),
    "teacher in bf16": ("bf16", "device", False),
    "teacher on the host": ("fp32", "cpu", False),
    "teacher in bf16 on the host": ("bf16", "cpu", False),
    "activations made anew": ("fp32", "device", True),
    "all three": ("bf16", "cpu", True),
}
# The same for two workers.
SHARED = {
    "two workers, a teacher each": ("fp32", "device", False),
    "two workers share it (ZeRO-3)": ("fp32", "sharded", False),
    "two workers share it in bf16": ("bf16", "sharded", False),
}
STORED = {
    "storing targets": ("fp32", "device", False),
    "storing targets in bf16": ("bf16", "device", False),
    "storing targets from the host": ("fp32", "cpu", False),
    "storing targets in bf16 from the host": ("bf16", "cpu", False),
}


def train(folder: Path, row: str, layers: int, batch: int, steps: int) -> dict[str, float]:
    """Returns peak GiB, objective and seconds per step of a few steps with a live teacher."""
    precision, placement, anew = (LIVE | SHARED)[row]
    depth = max(1, layers // 4)
    layer_map = tuple(layers * i // depth for i in range(depth + 1))
    data = str(folder / "data.csv")
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "random", "train": data, "dev": str(folder / "dev.csv")},
            "teacher": str(folder / "teacher"),
            "inference": {"precision": precision, "placement": placement},
            "student": {"depth": depth},
            "layer_map": {"word": layer_map, "layer": layer_map},
            "train": {
                "steps": steps,
                "batch_size": batch,
                "evaluations": 1,
                "precision": "fp32",
                "activation_checkpointing": anew,
            },
            "targets": {"source": "live"},
            "resources": {"workers": 2, "zero_stage": 3} if row in SHARED else {},
        }
    )
    (last,) = distill(spec, cache=folder / "cache")
    return {
        "gib": last.peak_memory_gib,
        "loss": last.losses["total"],
        "seconds": last.train_s / steps,
    }


def train_on_two_ranks(given: argparse.Namespace) -> None:
    """Trains one student in two processes; the first prints what `train` returns."""
    _, port = free_address()
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=train_rank, args=(rank, port, given)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        sys.exit(f"{given.row}: a worker failed")


def train_rank(rank: int, port: int, given: argparse.Namespace) -> None:
    """Trains as one of two ranks."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(rank)  # as Ray does for a worker; before CUDA is used
    torch.set_num_threads(1)
    join_process_group(rank, 2, "127.0.0.1", port)
    found = train(given.folder, given.row, given.layers, given.batch, given.steps)
    if rank == 0:
        print(json.dumps(found), flush=True)
    os._exit(0)  # gloo's threads may keep a normal exit from ending


def store(folder: Path, row: str) -> dict[str, float]:
    """Returns peak GiB and seconds of a pass of the teacher over the data."""
    import resource

    precision, placement, _ = STORED[row]
    teacher, data = str(folder / "teacher"), str(folder / "data.csv")
    task = TaskSettings(name="random", train=data, dev=data)
    tokens = load_tokens(task, "train", load_tokenizer(teacher), cache=folder / "cache")
    inference = Inference.model_validate({"precision": precision, "placement": placement})
    begin = time.perf_counter()
    cache = folder / row.replace(" ", "-")
    get_or_build_store(teacher, tokens, kind_of(task), device(), cache, inference=inference)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    return {"gib": peak / 2**30, "seconds": time.perf_counter() - begin}


def main() -> None:
    """Measures each row in its own process and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--row", help="of the table; measured in this process, in --folder")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.row in LIVE:
        found = train(given.folder, given.row, given.layers, given.batch, given.steps)
        print(json.dumps(found))
        return
    if given.row in SHARED:
        train_on_two_ranks(given)
        return
    if given.row is not None:
        print(json.dumps(store(given.folder, given.row)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, 4 * given.batch)
        parameters = make_teacher(folder, given.layers, given.hidden)
        on = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
        print(
            f"a teacher of {parameters / 1e6:.0f} M parameters, batches of {given.batch}, on {on}"
        )
        print(f"{'':<40}{'GiB':>7} {'of the first':>12} {'s':>7} {'off by':>9}")
        tables = [LIVE, STORED] if torch.cuda.device_count() == 1 else [LIVE, SHARED, STORED]
        for rows in tables:
            first: dict[str, float] = {}
            for row in rows:
                found = _in_a_process(row, folder)
                first = first or found
                share = f"{found['gib'] / first['gib']:.2f}"
                off = abs(found["loss"] / first["loss"] - 1) if "loss" in found else None
                print(
                    f"{row:<40}{found['gib']:>7.2f} {share:>12} {found['seconds']:>7.1f} "
                    + (f"{off:>9.1e}" if off is not None else ""),
                    flush=True,
                )


def _in_a_process(row: str, folder: Path) -> dict[str, float]:
    arguments = [sys.executable, *sys.argv, "--row", row, "--folder", str(folder)]
    done = subprocess.run(arguments, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
