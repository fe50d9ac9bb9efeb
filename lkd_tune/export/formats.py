"""The formats that a student is exported in, and what was measured of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lkd_tune.config.errors import Problem, SpecError, did_you_mean

FACTS = "formats.json"
"""The file of an exported student that says what was measured of its formats."""


class FormatError(RuntimeError):
    """A student in another format does not answer as it does in PyTorch."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        title: Its name for a reader.
        file: Where in the student's folder it lies; ONNX where the hub's libraries look for it.
        packages: What it needs beyond this package's own requirements.
    """

    title: str
    file: str
    packages: tuple[str, ...] = ()


_ONNX = ("onnx", "onnxruntime", "onnxscript")
FORMATS: Mapping[str, Format] = {
    "hf": Format("PyTorch", "model.safetensors"),
    "onnx": Format("ONNX", "onnx/model.onnx", _ONNX),
    "onnx-int8": Format("ONNX, int8", "onnx/model_int8.onnx", _ONNX),
    "torch-export": Format("torch.export", "model.pt2"),
}


class FormatFacts(BaseModel):
    """What a student is in one format, all measured on the file that was written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: str
    """One of `FORMATS`."""
    size_mb: float
    """Size of the file in MB (10⁶ bytes)."""
    metrics: dict[str, float]
    """All metrics on dev, from the file's own outputs."""
    latency_ms: float
    """Milliseconds for one example of `length` tokens."""
    difference: float | None
    """Largest difference of a logit from PyTorch's; None for PyTorch itself."""


class Conversion(BaseModel):
    """A student in several formats, measured alike on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: str
    """The task's."""
    formats: tuple[FormatFacts, ...]
    """PyTorch first."""
    length: int
    """Tokens of the example that is timed."""
    threads: int
    """CPU threads that all formats were timed and scored with."""
    batch_sizes: tuple[int, ...]
    """Sizes of the batches from dev whose logits were compared."""
    lengths: tuple[int, int]
    """Tokens of the shortest and of the longest of these batches."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Returns the formats named in `hf,onnx`, in the order of `FORMATS` and always with `hf`.

    Raises:
        SpecError: If there is no such format, or a package that it needs is missing.
    """
    from importlib.util import find_spec

    named = [name.strip() for name in text.split(",") if name.strip()]
    problems = [
        Problem(
            "--format",
            "",
            f"found {name!r}{did_you_mean(name, list(FORMATS))}; allowed: {', '.join(FORMATS)}",
        )
        for name in named
        if name not in FORMATS
    ]
    if problems:
        raise SpecError(problems)
    needed = {package for name in named for package in FORMATS[name].packages}
    missing = sorted(package for package in needed if find_spec(package) is None)
    if missing:
        asking = ", ".join(name for name in named if FORMATS[name].packages)
        message = f"{asking} needs {', '.join(missing)}: pip install 'lkd-tune[onnx]'"
        raise SpecError(Problem("--format", "", message))
    return tuple(name for name in FORMATS if name == "hf" or name in named)


def read_conversion(student: Path) -> Conversion | None:
    """Returns what was measured of an exported student's formats; None if it has but one."""
    path = student / FACTS
    return Conversion.model_validate_json(path.read_text("utf-8")) if path.exists() else None
