"""Time and memory of the loss terms against a direct form written from the formulas.

Numbers to look at: `times faster` and `of the memory`, for forward and backward pass together,
relations included. Each form runs in its own process, so that memory is not mixed. Memory on a CPU
is the growth of resident memory during a call, on a GPU the allocator's peak above the start. Time
is the best of several calls. Both forms run with OMP_WAIT_POLICY=passive unless it is set: with
OpenMP's default, spinning, the fast form took 0.5 to 7 s instead of 0.1 s on cores shared with
other processes.

    python benchmarks/losses/relation_losses.py [--threads 2] [--device cuda] [--student-width 384]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
import torch
from torch import Tensor

from benchmarks.losses.direct_losses import direct_objective, direct_terms
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.losses.ckd import (
    ltr_pair,
    ltr_triple,
    wr_pair,
    wr_triple,
)
from lkd_tune.losses.logits import soft_labels
from lkd_tune.losses.relations import layer_relations, word_relations

WINDOW = 21


def fast_objective(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    window: int,
) -> Tensor:
    """Returns the sum of the terms as the training loop computes it."""
    terms = fast_terms(student, teacher, mask, student_logits, teacher_logits, window)
    return torch.stack(list(terms.values())).sum()


def fast_terms(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    window: int,
) -> dict[str, Tensor]:
    """Returns the terms by name, each 0-dim."""
    with torch.no_grad():
        word_t, layer_t = word_relations(teacher, mask), layer_relations(teacher, mask)
    word, layer = word_relations(student, mask), layer_relations(student, mask)
    sums = {
        "wr_pair": wr_pair(word, word_t, mask),
        "wr_triple": wr_triple(word, word_t, mask, window=window),
        "ltr_pair": ltr_pair(layer, layer_t, mask),
        "ltr_triple": ltr_triple(layer, layer_t, mask),
        "logits": soft_labels(student_logits, teacher_logits),
    }
    return {name: loss.mean() for name, loss in sums.items()}


FORMS: dict[str, Callable[..., Tensor]] = {"direct": direct_objective, "fast": fast_objective}


def make_inputs(args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Returns hidden states of student and teacher, the mask, and the logits of both."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    shape = (args.examples, args.layers, args.length)
    student = torch.randn(*shape, args.student_width, device=device, requires_grad=True)
    teacher = torch.randn(*shape, args.teacher_width, device=device)
    lengths = torch.linspace(args.length // 2, args.length, args.examples).long()
    mask = (torch.arange(args.length)[None] < lengths[:, None]).to(device)
    logits = [torch.randn(args.examples, 2, device=device) for _ in range(2)]
    logits[0].requires_grad_()
    return student, teacher, mask, logits


def run_form(form: str, args: argparse.Namespace) -> dict[str, float]:
    """Returns the loss, seconds for forward and backward (best of several) and peak memory."""
    torch.set_num_threads(args.threads)
    student, teacher, mask, logits = make_inputs(args)
    objective = FORMS[form]

    def once() -> float:
        student.grad = None
        loss = objective(student, teacher, mask, *logits, WINDOW)
        loss.backward()
        return loss.item()  # also waits for the GPU

    # Warm up on one example, so that thread pools and kernels exist before memory is measured.
    objective(student[:1], teacher[:1], mask[:1], *(x[:1] for x in logits), WINDOW).backward()
    student.grad = logits[0].grad = None
    memory = _gpu_peak(once) if student.is_cuda else _cpu_peak(once)
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < 3 or (time.perf_counter() - begin < 5 and len(seconds) < 30):
        start = time.perf_counter()
        loss = once()
        seconds.append(time.perf_counter() - start)
    return {"loss": loss, "seconds": min(seconds), "mib": memory}


def compare_forms(args: argparse.Namespace) -> dict[str, float]:
    """Returns the relative difference between both forms, for each term and its gradient.

    For a gradient it is the norm of the difference over the norm.
    """
    torch.set_num_threads(args.threads)
    student, teacher, mask, logits = make_inputs(args)

    def values(function: Callable[..., dict[str, Tensor]], name: str) -> tuple[float, Tensor]:
        term = function(student, teacher, mask, *logits, WINDOW)[name]
        leaf = logits[0] if name == "logits" else student
        return term.item(), torch.autograd.grad(term, leaf)[0]

    found = {}
    for name, _ in LossSettings().active():
        (direct, slope), (fast, fast_slope) = (
            values(function, name) for function in (direct_terms, fast_terms)
        )
        found[name] = abs(fast - direct) / abs(direct)
        found[f"{name} gradient"] = ((fast_slope - slope).norm() / slope.norm()).item()
    return found


def _gpu_peak(once: Callable[[], float]) -> float:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    once()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _cpu_peak(once: Callable[[], float]) -> float:
    """Returns the growth of resident memory in MiB during a call, sampled every 0.2 ms."""
    process, peak, done = psutil.Process(), [0], threading.Event()
    gc.collect()
    # Otherwise the call could reuse memory that the warm-up freed. glibc only.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    before, mark = process.memory_info().rss, _high_water()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.0002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    once()
    done.set()
    watcher.join()
    # The kernel's high-water mark includes what the watcher missed, if this call raised it.
    highest = max(peak[0], _high_water() if _high_water() > mark else 0)
    return (highest - before) / 2**20


def _high_water() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def copy_seconds(args: argparse.Namespace) -> float:
    """Returns the time to read the hidden states and write the student's gradient once."""
    words = args.examples * args.layers * args.length
    size = 4 * words * (2 * args.student_width + args.teacher_width)
    source = torch.empty(2**29, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    bytes_per_s = 20 * 2 * 2**29 / (start.elapsed_time(end) / 1000)
    return size / bytes_per_s


def main() -> None:
    """Runs both forms and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--teacher-width", type=int, default=768)
    parser.add_argument("--student-width", type=int, default=384)
    parser.add_argument("--form", choices=[*FORMS, "compare"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.form:
        compare = args.form == "compare"
        print(json.dumps(compare_forms(args) if compare else run_form(args.form, args)))
        return
    results = {}
    for form in (*FORMS, "compare"):
        command = [sys.executable, __file__, *sys.argv[1:], "--form", form]
        environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        results[form] = json.loads(done.stdout.splitlines()[-1])
        if form == "compare":
            continue
        r = results[form]
        print(f"{form:<7} {1000 * r['seconds']:9.1f} ms  {r['mib']:8.1f} MiB  {r['loss']:.8f}")
    direct, fast = results["direct"], results["fast"]
    where, difference = max(results["compare"].items(), key=lambda item: item[1])
    print(
        f"{direct['seconds'] / fast['seconds']:.1f} times faster, "
        f"1/{direct['mib'] / fast['mib']:.1f} of the memory, "
        f"largest relative difference {difference:.1e} ({where})"
    )
    if args.device == "cuda":
        print(f"{fast['seconds'] / copy_seconds(args):.1f} times the copy of states and gradients")


if __name__ == "__main__":
    main()
