"""Milliseconds of a whole optimizer step of a trial, by its losses and its precision.

Numbers to look at: "of labels", the time of all loss terms with stored targets relative to training
on the labels alone in the same precision; and "of fp32", the time relative to fp32. A step reads a
batch and runs forward pass, losses, backward pass and DeepSpeed's step. On a GPU the step of a
small student takes as long as launching its operations, so their number counts and not their size.

The teachers are BERTs with random weights, of the size of the embedded task's teacher and of
MiniLM; on a GPU of MiniLM and of BERT-base. The students have half of their layers; batches have 32
sentences of 4 to 40 words.

    python benchmarks/distillation/engine_step.py [--sizes 6x384 12x768] [--steps 60]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as trials have it; read by torch

import torch

from benchmarks.random_teacher import make_data, make_spec, make_teacher
from lkd_tune.config.settings.losses import LABELS_ONLY, LossSettings
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.distillation.engine import Distillation
from lkd_tune.runtime.hardware import cpu_name

WARM = 30  # warm-up steps


def milliseconds(spec: Any, cache: Path, steps: int) -> float:
    """Returns the mean time of a step, after some warm-up steps."""
    with Distillation(spec, cache=cache) as distillation:
        distillation._train_until(WARM)
        _wait()
        begin = time.perf_counter()
        distillation._train_until(WARM + steps)
        _wait()
        return 1000 * (time.perf_counter() - begin) / steps


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Prints a line for each size and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", metavar="LAYERSxHIDDEN")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    sizes = given.sizes or (["6x384", "12x768"] if on_gpu else ["6x64", "6x384"])
    print(f"on {torch.cuda.get_device_name() if on_gpu else cpu_name() + ', 1 thread'}")
    print(
        f"{'teacher':<9}{'':<6}{'labels, ms':>11} {'all losses, ms':>16} {'of labels':>10} "
        f"{'of fp32':>8}"
    )
    for size in sizes:
        layers, hidden = (int(number) for number in size.split("x"))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_data(folder, 4096, 4, 40)
            make_teacher(folder, layers, hidden)
            base = make_spec(folder, layers, batch=32, steps=WARM + given.steps + 1)
            fp32 = None
            for precision in ("fp32", "bf16") if on_gpu else ("fp32", "auto", "bf16"):
                train = TrainSettings.model_validate(
                    {**base.train.model_dump(), "precision": precision}
                )
                labels, five = (
                    milliseconds(
                        base.model_copy(update={"train": train, "losses": losses}),
                        folder / "cache",
                        given.steps,
                    )
                    for losses in (LABELS_ONLY, LossSettings())
                )
                fp32 = fp32 or five
                print(
                    f"{size:<9}{precision:<6}{labels:>11.1f} {five:>16.1f} {five / labels:>10.2f} "
                    f"{five / fp32:>8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
