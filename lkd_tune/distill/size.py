"""What a student's architecture costs: counted without weights, and timed on the device."""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lkd_tune.distill.cost import count_parameters
from lkd_tune.distill.fingerprint import digest
from lkd_tune.distill.models import auto_model, count_positions, load_config, student_config
from lkd_tune.distill.tasks.kinds import kind_of
from lkd_tune.distill.width import resized, width_of_config
from lkd_tune.spec.run import write_atomically
from lkd_tune.spec.settings import StudentSettings
from lkd_tune.spec.size import ModelSize
from lkd_tune.spec.trial import TrialSpec
from lkd_tune.spec.width import asks_for_width, resolve_width

LARGE_BATCH = 32
# A timing goes on for so long, but has at least and at most so many runs.
_SECONDS, _LEAST, _MOST = 0.5, 3, 50


def expected_size(spec: TrialSpec, *, known: Path) -> ModelSize | None:
    """Returns what is known of a trial's student before anything is trained.

    Nothing is of one whose vocabulary is trimmed: that depends on the training text.

    Args:
        spec: The trial.
        known: Folder with the latencies of architectures that were timed before.

    Raises:
        SpecError: If the teacher or the starting point does not exist.
    """
    if spec.student.vocab == "trim":
        return None
    student, length = spec.student.model_dump_json(), spec.task.max_length
    size, key = _expected(spec.teacher, student, kind_of(spec.task).head, length)
    path = known / f"{key}.json"
    times = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return size.model_copy(update=times)


@lru_cache(maxsize=256)
def _expected(teacher: str | None, student: str, head: str, length: int) -> tuple[ModelSize, str]:
    settings = StudentSettings.model_validate_json(student)
    teacher_config = load_config(teacher) if teacher is not None else None
    config = student_config(settings.made_from, teacher_config, settings.depth)
    if settings.made_from in ("teacher", "random") and asks_for_width(settings):
        config = resized(config, resolve_width(settings, width_of_config(config)))
    return count_size(config, head, length), architecture_key(config, head, length)


def count_size(config: Any, head: str, length: int) -> ModelSize:
    """Returns parameters, FLOPs and disk size of a model, without making its weights.

    Args:
        config: The model's configuration.
        head: As in transformers' AutoModelFor….
        length: Tokens of the example that FLOPs are counted for.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = _build(config, head)
        ids = torch.zeros(1, fitting_length(config, length), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    return ModelSize(
        parameters=count_parameters(model),
        flops=counter.get_total_flops(),
        disk_mb=sum(t.numel() * t.element_size() for t in model.parameters()) / 1e6,
    )


def measure_size(
    config: Any, head: str, length: int, on: torch.device, *, bf16: bool, known: Path
) -> ModelSize:
    """Returns a student's size with its latencies on a device.

    An architecture is timed once for a whole run: two trials of one architecture then have one
    latency, and no noise decides between them.

    Args:
        config: The student's configuration.
        head: As in transformers' AutoModelFor….
        length: Tokens of each example.
        on: Where it is timed, with random weights.
        bf16: Whether in bfloat16, else in fp32.
        known: Folder with the latencies of other trials; this one's are added.
    """
    size = count_size(config, head, length)
    path = known / f"{architecture_key(config, head, length)}.json"
    if not path.exists():
        with torch.random.fork_rng():  # the trial's own random numbers are not to change by this
            model = _build(config, head).to(on, torch.bfloat16 if bf16 else torch.float32)
        times = {
            "latency_ms": time_forward(model, 1, fitting_length(config, length)),
            "latency_ms_batch_32": time_forward(model, LARGE_BATCH, fitting_length(config, length)),
        }
        write_atomically(path, json.dumps(times))
    return size.model_copy(update=json.loads(path.read_text("utf-8")))


def architecture_key(config: Any, head: str, length: int) -> str:
    """Returns what names an architecture with its head and the length it is timed at."""
    facts = copy.deepcopy(config).to_dict()
    for key in ("_name_or_path", "id2label", "label2id", "problem_type", "dtype"):
        facts.pop(key, None)  # of no weight for speed
    return digest("architecture", head, json.dumps(facts, sort_keys=True, default=str), length)


def time_forward(model: Any, batch: int, length: int) -> float:
    """Returns the median milliseconds of forward passes of `batch` full-length examples."""
    on = next(model.parameters()).device
    ids = torch.ones(batch, length, dtype=torch.long, device=on)
    with torch.inference_mode():
        return time_calls(lambda: model(input_ids=ids), on)


def time_calls(call: Callable[[], object], on: torch.device) -> float:
    """Returns the median milliseconds of a call whose work is done on a device."""
    times: list[float] = []
    for _ in range(2):  # to load kernels and fill caches
        call()
    began = time.perf_counter()
    while len(times) < _LEAST or (len(times) < _MOST and time.perf_counter() - began < _SECONDS):
        _wait(on)
        start = time.perf_counter()
        call()
        _wait(on)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def fitting_length(config: Any, length: int) -> int:
    """Returns the length, or what the model's positions allow if that is less."""
    positions = count_positions(config.to_dict())
    return length if positions is None else min(length, positions)


def _build(config: Any, head: str) -> Any:
    return auto_model(head).from_config(copy.deepcopy(config)).eval()


def _wait(on: torch.device) -> None:
    if on.type == "cuda":
        torch.cuda.synchronize(on)
