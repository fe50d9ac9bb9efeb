"""Time and memory of the five losses against a direct form written from the formulas.

Look at the two ratios: `times faster` and `of the memory`, forward and backward together, relations
included. Each form runs in a process of its own, so that one's memory is not the other's.

    python benchmarks/relation_losses.py [--threads 2] [--device cuda] [--student-width 384]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from direct_losses import direct_objective

from lkd_tune.distill.losses import (
    ltr_pair,
    ltr_triple,
    soft_labels,
    wr_pair,
    wr_triple,
)
from lkd_tune.distill.relations import layer_relations, word_relations

WINDOW = 21


def fast_objective(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    window: int,
) -> Tensor:
    """Returns the sum of the five terms as the training loop computes them."""
    with torch.no_grad():
        word_t, layer_t = word_relations(teacher, mask), layer_relations(teacher, mask)
    word, layer = word_relations(student, mask), layer_relations(student, mask)
    terms = [
        wr_pair(word, word_t, mask),
        wr_triple(word, word_t, mask, window=window),
        ltr_pair(layer, layer_t, mask),
        ltr_triple(layer, layer_t, mask),
        soft_labels(student_logits, teacher_logits),
    ]
    return torch.stack([term.mean() for term in terms]).sum()


FORMS: dict[str, Callable[..., Tensor]] = {"direct": direct_objective, "fast": fast_objective}


def run_form(form: str, args: argparse.Namespace) -> dict[str, float]:
    """Returns the loss, seconds for forward and backward (best of several) and peak memory."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    shape = (args.examples, args.layers, args.length)
    student = torch.randn(*shape, args.student_width, device=device, requires_grad=True)
    teacher = torch.randn(*shape, args.teacher_width, device=device)
    lengths = torch.linspace(args.length // 2, args.length, args.examples).long()
    mask = (torch.arange(args.length)[None] < lengths[:, None]).to(device)
    logits = [torch.randn(args.examples, 2, device=device) for _ in range(2)]
    logits[0].requires_grad_()
    objective = FORMS[form]

    def once() -> float:
        student.grad = None
        loss = objective(student, teacher, mask, *logits, WINDOW)
        loss.backward()
        return loss.item()  # also waits for the GPU

    # Warm up on one example, so that thread pools and kernels stand before memory is watched.
    objective(student[:1], teacher[:1], mask[:1], *(x[:1] for x in logits), WINDOW).backward()
    memory = _gpu_peak(once) if device.type == "cuda" else _cpu_peak(once)
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < 3 or (time.perf_counter() - begin < 5 and len(seconds) < 30):
        start = time.perf_counter()
        loss = once()
        seconds.append(time.perf_counter() - start)
    return {"loss": loss, "seconds": min(seconds), "mib": memory}


def _gpu_peak(once: Callable[[], float]) -> float:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    once()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _cpu_peak(once: Callable[[], float]) -> float:
    """Returns the growth of resident memory during a call, looked at every 0.2 ms."""
    process, peak, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.0002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    once()
    done.set()
    watcher.join()
    # The kernel's own high-water mark sees what the watcher missed, if it is this call's.
    highest = max(peak[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return (highest - before) / 2**20


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
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.form:
        print(json.dumps(run_form(args.form, args)))
        return
    results = {}
    for form in FORMS:
        command = [sys.executable, __file__, *sys.argv[1:], "--form", form]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[form] = json.loads(done.stdout.splitlines()[-1])
        r = results[form]
        print(f"{form:<7} {1000 * r['seconds']:9.1f} ms  {r['mib']:8.1f} MiB  {r['loss']:.8f}")
    direct, fast = results["direct"], results["fast"]
    difference = abs(fast["loss"] - direct["loss"]) / abs(direct["loss"])
    print(
        f"{direct['seconds'] / fast['seconds']:.1f} times faster, "
        f"1/{direct['mib'] / fast['mib']:.1f} of the memory, "
        f"relative difference {difference:.1e}"
    )
    if args.device == "cuda":
        print(f"{fast['seconds'] / copy_seconds(args):.1f} times the copy of states and gradients")


if __name__ == "__main__":
    main()
