"""A student's folder gets further formats, and each is checked, scored and timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import evaluate
from lkd_tune.export.check import (
    MAX_DIFFERENCE,
    check_batches,
    largest_difference,
)
from lkd_tune.export.formats import FACTS, FORMATS, Conversion, FormatError, FormatFacts
from lkd_tune.export.onnx import open_onnx, save_int8, save_onnx
from lkd_tune.export.torch_export import (
    export_program,
    open_axes,
    open_program,
    output_names,
    save_program,
)
from lkd_tune.files.atomic import write_atomically
from lkd_tune.models.forward import model_inputs
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.size import fitting_length, time_calls

_CPU = torch.device("cpu")
# Batches of 32: the logits of a masked language model are large.
_CUT = 4
# What one file in protobuf, and so in ONNX, can hold.
_ONNX_LIMIT_MB = 2000


def convert_student(
    folder: Path, formats: Sequence[str], task: TaskSettings, *, cache: Path | None = None
) -> Conversion:
    """Writes a student in further formats beside its weights, and returns what each of them is.

    Each is read back from its file, compared with PyTorch on real text of the dev split, scored on
    all of it and timed, on the CPU. The result is also written to formats.json.

    Args:
        folder: A student's; what is written is added.
        formats: Of `FORMATS`.
        task: Its task.
        cache: Folder for tokenised data; none: the user's cache.

    Raises:
        SpecError: If the dev split can't be had, or the student is too large for the format.
        FormatError: If logits differ by more than 1e-3 in a format that is not quantised.
    """
    kind = kind_of(task)
    # A program keeps what its weights are; one that needs gradients would take memory for them.
    model = load_model(str(folder), kind.head).requires_grad_(False)
    tokenizer = load_tokenizer(str(folder))
    tokens = load_tokens(task, "dev", tokenizer, cache=cache)
    batches = check_batches(tokens)
    write_formats(folder, formats, model, kind.head)
    length = fitting_length(model.config, task.max_length)
    facts = []
    for name in ("hf", *(name for name in formats if name != "hf")):
        path = folder / FORMATS[name].file
        loaded, difference = model, None
        if name != "hf":
            opened = open_program if name == "torch-export" else open_onnx
            loaded = opened(path, model.config)
            difference = largest_difference(model, loaded, kind, batches)
            # A NaN is not small either.
            if name != "onnx-int8" and not difference <= MAX_DIFFERENCE:
                raise FormatError(
                    f"{FORMATS[name].title} differs from PyTorch by {difference:.1e} in a logit on "
                    f"text of {task.name}'s dev split; allowed is {MAX_DIFFERENCE:g}"
                )
        found = FormatFacts(
            format=name,
            size_mb=path.stat().st_size / 1e6,
            metrics=evaluate(loaded, task, tokens, _CPU, batch_divisor=_CUT),
            latency_ms=time_model(loaded, length),
            difference=difference,
        )
        facts.append(found)
    widths = [batch.ids.shape[1] for batch in batches]
    conversion = Conversion(
        metric=str(task.metric),
        formats=tuple(facts),
        length=length,
        threads=torch.get_num_threads(),
        batch_sizes=tuple(sorted({len(batch.ids) for batch in batches})),
        lengths=(min(widths), max(widths)),
    )
    write_atomically(folder / FACTS, conversion.model_dump_json(indent=2) + "\n")
    return conversion


def write_formats(folder: Path, formats: Sequence[str], model: Any, head: str) -> None:
    """Writes a model in further formats.

    Args:
        folder: Where.
        formats: Of `FORMATS`; `hf` is there already.
        model: On the CPU, in evaluation mode.
        head: As in transformers' AutoModelFor….

    Raises:
        SpecError: If the model is too large for ONNX.
    """
    outputs = output_names(head)
    size_mb = sum(t.numel() * t.element_size() for t in model.parameters()) / 1e6
    if size_mb > _ONNX_LIMIT_MB and any("onnx" in name for name in formats):
        message = (
            f"the student has {size_mb:.0f} MB of weights, an ONNX file holds {_ONNX_LIMIT_MB}"
        )
        raise SpecError(Problem("--format", "", message))
    inputs = example_inputs(model.config, batch=2, length=8)
    axes = open_axes(inputs, fitting_length(model.config, 2**31))
    program = export_program(model, inputs, axes, outputs)
    if "torch-export" in formats:
        save_program(program, folder / FORMATS["torch-export"].file)
    plain, int8 = folder / FORMATS["onnx"].file, folder / FORMATS["onnx-int8"].file
    if "onnx" in formats or "onnx-int8" in formats:
        save_onnx(program, axes, outputs, plain)
    if "onnx-int8" in formats:
        save_int8(plain, int8)
    if "onnx" not in formats:
        plain.unlink(missing_ok=True)


def example_inputs(config: Any, *, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Returns inputs without padding, each of shape (batch, length), for tracing and timing."""
    ids = torch.ones(batch, length, dtype=torch.long)
    return model_inputs(config, ids, torch.ones_like(ids), torch.zeros_like(ids))


def time_model(model: Any, length: int) -> float:
    """Returns the median milliseconds for one example of a length."""
    inputs = example_inputs(model.config, batch=1, length=length)
    with torch.inference_mode():
        return time_calls(lambda: model(**inputs), _CPU)
