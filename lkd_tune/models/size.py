"""What a student's architecture costs: counted without weights, and timed on the device."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from lkd_tune.config.objectives import COSTS
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.width import asks_for_width, resolve_width
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.files.atomic import write_once
from lkd_tune.files.digest import digest
from lkd_tune.models.families import count_positions, resize_config, width_of_config
from lkd_tune.models.loading import auto_model, load_config
from lkd_tune.models.student import student_config
from lkd_tune.records.measurement import ModelSize
from lkd_tune.runtime.hardware import timed_on
from lkd_tune.runtime.timing import time_in_turns
from lkd_tune.runtime.usage import count_parameters

LARGE_BATCH = 32
_LATENCIES = tuple(name for name, cost in COSTS.items() if cost.measured == "timing")


def expected_size(
    spec: TrialSpec, *, latencies: Path, devices: Collection[str] = ()
) -> ModelSize | None:
    """Returns the size of a trial's student before anything is trained, as far as it is known.

    None for a trimmed vocabulary, whose size depends on the training text. If the size depends
    on the trial's device, it is the smallest possible one: the disk size of bfloat16 with
    `train.precision: auto` on a GPU, and the lowest latencies of several devices.

    Args:
        spec: The trial.
        latencies: Folder with the latencies of architectures that were timed before.
        devices: What the trial may run on, as in `ModelSize.device`. Latencies are known only if
            the student was timed on all of them.

    Raises:
        SpecError: If the teacher or the model in `student.init` does not exist.
    """
    if spec.student.vocab == "trim":
        return None
    student, length = spec.student.model_dump_json(), spec.task.max_length
    precision = spec.train.precision
    bf16 = precision == "bf16" or (precision == "auto" and spec.resources.gpus > 0)
    size, architecture = _expected(spec.teacher, student, kind_of(spec.task).head, length, bf16)
    files = [
        _timing(latencies, architecture, device)
        for device in devices
        if precision == "auto" or device.endswith(precision)
    ]
    if not files or not all(file.exists() for file in files):
        return size
    times = [json.loads(file.read_text("utf-8")) for file in files]
    least = {name: min(each[name] for each in times) for name in _LATENCIES}
    return size.model_copy(update=least)


@lru_cache(maxsize=256)
def _expected(
    teacher: str | None, student: str, head: str, length: int, bf16: bool
) -> tuple[ModelSize, str]:
    config = expected_config(StudentSettings.model_validate_json(student), teacher)
    size = count_size(config, head, length, _dtype(bf16))
    return size, architecture_key(config, head, length)


def expected_config(student: StudentSettings, teacher: str | None) -> Any:
    """Returns the configuration that a student will have, with its whole vocabulary.

    Raises:
        SpecError: If the teacher or the model in `student.init` does not exist, or the teacher
            can't be pruned to the student's width.
    """
    teacher_config = load_config(teacher) if teacher is not None else None
    config = student_config(student, teacher_config)
    if not student.starts_from_model and asks_for_width(student):
        config = resize_config(config, resolve_width(student, width_of_config(config)))
    return config


def count_size(
    config: Any, head: str, length: int, saved_as: torch.dtype = torch.float32
) -> ModelSize:
    """Returns parameters, FLOPs and disk size of a model, without allocating its weights.

    Args:
        config: The model's configuration.
        head: As in transformers' AutoModelFor….
        length: Tokens of the example that FLOPs are counted for.
        saved_as: The type of its weights on disk; the configuration may name another one.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = _build(config, head)
        # Not ids, which have no values here: some families look for padding among them.
        size = model.get_input_embeddings().embedding_dim
        words = torch.zeros(1, fitting_length(config, length), size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=words)
    parameters = count_parameters(model)
    return ModelSize(
        parameters=parameters,
        embedding_parameters=model.get_input_embeddings().weight.numel(),
        flops=counter.get_total_flops(),
        disk_mb=parameters * saved_as.itemsize / 1e6,
    )


def measure_size(
    config: Any, head: str, length: int, on: torch.device, *, bf16: bool, latencies: Path
) -> ModelSize:
    """Returns a student's size with its latencies on a device.

    An architecture is timed once in a run for each kind of device and precision. Trials of the
    same architecture then have the same latency, and noise does not decide between them.

    Args:
        config: The student's configuration.
        head: As in transformers' AutoModelFor….
        length: Tokens of each example.
        on: Where it is timed, with random weights.
        bf16: Whether it is trained and timed in bfloat16, else in fp32.
        latencies: Folder with the latencies of architectures that were timed before; new ones
            are added.
    """
    device, fitting = timed_on(on, bf16=bf16), fitting_length(config, length)
    path = _timing(latencies, architecture_key(config, head, length), device)
    if path.exists():
        found = path.read_text("utf-8")
    else:
        with torch.random.fork_rng():  # keeps the trial's random numbers
            model = _build(config, head).to(on, _dtype(bf16))
        calls = [forward_call(model, batch, fitting) for batch in (1, LARGE_BATCH)]
        one, large = time_in_turns(calls, on)
        times = {
            "latency_ms": one.ms,
            "latency_ms_batch_32": large.ms,
            "latency_spread": one.spread,
            "device": device,
        }
        found = write_once(path, json.dumps(times))
    return count_size(config, head, length, _dtype(bf16)).model_copy(update=json.loads(found))


def architecture_key(config: Any, head: str, length: int) -> str:
    """Returns a digest that identifies an architecture with its head and input length."""
    entries = copy.deepcopy(config).to_dict()
    for key in ("_name_or_path", "id2label", "label2id", "problem_type", "dtype"):
        entries.pop(key, None)  # without effect on speed
    return digest("architecture", head, json.dumps(entries, sort_keys=True, default=str), length)


def _timing(latencies: Path, architecture: str, device: str) -> Path:
    return latencies / f"{digest(architecture, device)}.json"


def _dtype(bf16: bool) -> torch.dtype:
    return torch.bfloat16 if bf16 else torch.float32


def forward_call(model: Any, batch: int, length: int) -> Callable[[], object]:
    """Returns a forward pass of `batch` full-length examples, to be timed."""
    ids = torch.ones(batch, length, dtype=torch.long, device=next(model.parameters()).device)
    return partial(model, input_ids=ids)


def fitting_length(config: Any, length: int) -> int:
    """Returns the length, or the model's number of positions if that is less."""
    positions = count_positions(config.to_dict())
    return length if positions is None else min(length, positions)


def _build(config: Any, head: str) -> Any:
    return auto_model(head).from_config(copy.deepcopy(config)).eval()
