"""Milliseconds of a whole optimizer step of a trial, by its losses and its precision.

Numbers to look at: "of labels", the time of each objective with stored targets relative to training
on the labels alone in the same precision; "of ckd", relative to the relations of CKD; and "of
fp32", relative to the same objective in fp32. A step reads a batch and runs forward pass, losses,
backward pass and DeepSpeed's step. On a GPU the step of a small student takes as long as launching
its operations, so their number counts and not their size. On a CPU the time is that of one thread
of this process, which a busy machine changes little.

The teachers are BERTs with random weights, of the size of the embedded task's teacher and of
MiniLM; on a GPU of MiniLM and of BERT-base. The students have half of their layers; batches have 32
sentences of 4 to 40 words.

    python benchmarks/distillation/engine_step.py [--sizes 6x384 12x768] [--steps 60]
        [--precisions fp32] [--objectives labels ckd attention]
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
from lkd_tune.distillation.engine import Distillation
from lkd_tune.runtime.hardware import cpu_name

WARM = 30  # warm-up steps
OBJECTIVES = {
    "labels": LABELS_ONLY,
    "ckd": LossSettings(),
    "hidden": LossSettings.model_validate({"recipe": "soft_labels", "hidden": 1}),
    "attention": LossSettings.model_validate({"recipe": "soft_labels", "attention": 1}),
    "attention, all layers": LossSettings.model_validate(
        {"recipe": "soft_labels", "attention": {"weight": 1, "layers": "all"}}
    ),
}


def milliseconds(spec: Any, cache: Path, steps: int) -> float:
    """Returns the mean time of a step, after some warm-up steps."""
    with Distillation(spec, cache=cache) as distillation:
        distillation._train_until(WARM)
        _wait()
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        begin = clock()
        distillation._train_until(WARM + steps)
        _wait()
        return 1000 * (clock() - begin) / steps


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Prints a line for each size, precision and objective."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", metavar="LAYERSxHIDDEN")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "auto", "bf16"])
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=[*OBJECTIVES])
    given = parser.parse_args()
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    sizes = given.sizes or (["6x384", "12x768"] if on_gpu else ["6x64", "6x384"])
    precisions = given.precisions or (["fp32", "bf16"] if on_gpu else ["fp32", "auto", "bf16"])
    print(f"on {torch.cuda.get_device_name() if on_gpu else cpu_name() + ', 1 thread'}")
    columns = f"{'ms':>8} {'of labels':>10} {'of ckd':>7} {'of fp32':>8}"
    print(f"{'teacher':<9}{'':<6}{'objective':<22}{columns}")
    for size in sizes:
        layers, hidden = (int(number) for number in size.split("x"))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_data(folder, 4096, 4, 40)
            make_teacher(folder, layers, hidden)
            base = make_spec(folder, layers, batch=32, steps=WARM + given.steps + 1)
            found: dict[tuple[str, str], float] = {}
            for precision in precisions:
                train = base.train.model_copy(update={"precision": precision})
                for objective in given.objectives:
                    spec = base.model_copy(update={"train": train, "losses": OBJECTIVES[objective]})
                    found[precision, objective] = milliseconds(spec, folder / "cache", given.steps)
                    others = [(precision, "labels"), (precision, "ckd"), ("fp32", objective)]
                    ratios = [
                        f"{found[precision, objective] / found[other]:.2f}"
                        if other in found
                        else ""
                        for other in others
                    ]
                    print(
                        f"{size:<9}{precision:<6}{objective:<22}"
                        f"{found[precision, objective]:>8.1f} {ratios[0]:>10} {ratios[1]:>7} "
                        f"{ratios[2]:>8}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
