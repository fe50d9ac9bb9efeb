"""Converts a student to other formats, and checks, scores and times each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import evaluate
from lkd_tune.export import onnx, torch_export
from lkd_tune.export.check import MAX_DIFFERENCE, check_batches, largest_difference
from lkd_tune.export.exported_model import Runnable
from lkd_tune.export.formats import (
    FORMATS,
    MEASUREMENTS_FILE,
    Conversion,
    FormatError,
    FormatMeasurement,
)
from lkd_tune.files.atomic import write_atomically
from lkd_tune.models.forward import model_inputs
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.size import fitting_length
from lkd_tune.runtime.hardware import timed_on
from lkd_tune.runtime.timing import busy_warning, time_in_turns

_CPU = torch.device("cpu")
# Makes batches of 32, because the logits of a masked language model are large.
_BATCH_DIVISOR = 4


@dataclass(frozen=True)
class Converter:
    """How a format is written and read.

    Attributes:
        write: Writes the format's file. Its arguments are the `TracedModel`, or the file of
            `source` if there is one, and the path.
        open: Returns the model in the file. Its arguments are the path and the configuration of the
            PyTorch model.
        source: The format that this one is made from, an earlier one in `CONVERTERS`.
        must_match: Whether a logit that differs from PyTorch's by more than `MAX_DIFFERENCE` ends
            the export.
        max_mb: The most weights that a file can hold, in MB (10⁶ bytes). None: no limit.
    """

    write: Callable[[Any, Path], None]
    open: Callable[[Path, Any], Runnable]
    source: str | None = None
    must_match: bool = True
    max_mb: float | None = None


# All of `FORMATS` but `hf`, which a student has from the start.
CONVERTERS: Mapping[str, Converter] = {
    "onnx": Converter(onnx.save_onnx, onnx.open_onnx, max_mb=onnx.MAX_FILE_MB),
    "onnx-int8": Converter(
        onnx.save_int8, onnx.open_onnx, source="onnx", must_match=False, max_mb=onnx.MAX_FILE_MB
    ),
    "torch-export": Converter(torch_export.save_program, torch_export.open_program),
}


def convert_student(
    folder: Path, formats: Sequence[str], task: TaskSettings, *, cache: Path | None = None
) -> Conversion:
    """Writes a student in other formats beside its weights; returns the measurements of each.

    Each format is read back from its file and compared with PyTorch on real text of the dev split.
    It is then scored on the whole split and timed, all on the CPU. The result is also written to
    formats.json.

    Args:
        folder: The student's folder, to which the files are added.
        formats: Names of `FORMATS`.
        task: The student's task.
        cache: Folder for tokenised data. Default: the user's cache.

    Raises:
        SpecError: If the dev split can't be loaded, or the student is too large for a format.
        FormatError: If a logit differs by more than 1e-3 in a format that must match PyTorch.
    """
    kind = kind_of(task)
    # A traced program keeps this flag of its weights; with gradients it would use more memory.
    model = load_model(str(folder), kind.head).requires_grad_(False)
    tokenizer = load_tokenizer(str(folder))
    tokens = load_tokens(task, "dev", tokenizer, cache=cache)
    batches = check_batches(tokens)
    write_formats(folder, formats, model, kind.head)
    length = fitting_length(model.config, task.max_length)
    opened: dict[str, Any] = {"hf": model}
    differences: dict[str, float | None] = {"hf": None}
    for name in formats:
        if name == "hf":
            continue
        opened[name] = CONVERTERS[name].open(folder / FORMATS[name].file, model.config)
        difference = largest_difference(model, opened[name], kind, batches)
        # Written with `not`, so that NaN fails too.
        if CONVERTERS[name].must_match and not difference <= MAX_DIFFERENCE:
            raise FormatError(
                f"{FORMATS[name].title} differs from PyTorch by {difference:.1e} in a logit on "
                f"text of {task.name}'s dev split; the limit is {MAX_DIFFERENCE:g}; export "
                f"without {name}"
            )
        differences[name] = difference
    inputs = example_inputs(model.config, batch=1, length=length)
    timings = time_in_turns([partial(loaded, **inputs) for loaded in opened.values()], _CPU)
    measurements = [
        FormatMeasurement(
            format=name,
            size_mb=(folder / FORMATS[name].file).stat().st_size / 1e6,
            metrics=evaluate(loaded, task, tokens, _CPU, batch_divisor=_BATCH_DIVISOR),
            latency_ms=timing.ms,
            difference=differences[name],
        )
        for (name, loaded), timing in zip(opened.items(), timings, strict=True)
    ]
    widths = [batch.ids.shape[1] for batch in batches]
    conversion = Conversion(
        metric=str(task.metric),
        formats=tuple(measurements),
        length=length,
        device=timed_on(_CPU, bf16=False),
        warning=busy_warning([timing.spread for timing in timings]),
        threads=torch.get_num_threads(),
        batch_sizes=tuple(sorted({len(batch.ids) for batch in batches})),
        lengths=(min(widths), max(widths)),
    )
    write_atomically(folder / MEASUREMENTS_FILE, conversion.model_dump_json(indent=2) + "\n")
    return conversion


def write_formats(folder: Path, formats: Sequence[str], model: Any, head: str) -> None:
    """Writes a model in other formats.

    Args:
        folder: The folder that the files are added to.
        formats: Names of `FORMATS`; `hf` is skipped, it is there already.
        model: On the CPU, in evaluation mode.
        head: The head's name, as in transformers' AutoModelFor….

    Raises:
        SpecError: If the model is too large for a format.
    """
    wanted = [name for name in CONVERTERS if name in formats]
    size_mb = sum(t.numel() * t.element_size() for t in model.parameters()) / 1e6
    problems = [
        Problem(
            "--format",
            "",
            f"{name} can hold {limit:.0f} MB, the student has {size_mb:.0f} MB of weights; "
            f"export without {name}",
        )
        for name in wanted
        if (limit := CONVERTERS[name].max_mb) is not None and size_mb > limit
    ]
    if problems:
        raise SpecError(problems)
    inputs = example_inputs(model.config, batch=2, length=8)
    axes = torch_export.open_axes(inputs, fitting_length(model.config, 2**31))
    traced = torch_export.trace_model(model, inputs, axes, torch_export.output_names(head))
    sources = {CONVERTERS[name].source for name in wanted}
    written = [name for name in CONVERTERS if name in wanted or name in sources]
    for name in written:
        source = CONVERTERS[name].source
        made_from = traced if source is None else folder / FORMATS[source].file
        CONVERTERS[name].write(made_from, folder / FORMATS[name].file)
    for name in set(written) - set(wanted):
        (folder / FORMATS[name].file).unlink()


def example_inputs(config: Any, *, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Returns inputs without padding, each of shape (batch, length), to trace or time a model."""
    ids = torch.ones(batch, length, dtype=torch.long)
    return model_inputs(config, ids, torch.ones_like(ids), torch.zeros_like(ids))
