"""The formats that a student can be exported in, and the measurements of each.

A new format has its entry here, an entry in `CONVERTERS` of `export/convert.py`, and a file of
`export/` that writes and opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lkd_tune.config.errors import Problem, SpecError, did_you_mean

MEASUREMENTS_FILE = "formats.json"
"""The file of an exported student with the measurements of its formats."""


class FormatError(RuntimeError):
    """A student's logits in another format differ from those in PyTorch."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        title: Its name in the model card and on the terminal.
        file: Its file in the student's folder. ONNX files are where the hub's libraries look for
            them.
        packages: Packages that it needs beyond this package's own requirements.
        tag: The hub's tag for models that have it. None: the hub has no such tag.
        use: Markdown for the model card on how to use it, with FILE for `file`. A card has equal
            texts once, for the first of their formats.
    """

    title: str
    file: str
    packages: tuple[str, ...] = ()
    tag: str | None = None
    use: str = ""


_ONNX = ("onnx", "onnxruntime", "onnxscript")
_USE_ONNX = """\
```python
from onnxruntime import InferenceSession

session = InferenceSession(f"{FOLDER}/FILE")
text = tokenizer(["A sentence."], return_tensors="np", return_token_type_ids=True)
logits = session.run(None, {i.name: text[i.name] for i in session.get_inputs()})
```"""
_USE_TORCH_EXPORT = (
    '`torch.export.load("FILE").module()` needs only PyTorch. It takes the same inputs by name and '
    "returns the logits by name."
)
FORMATS: Mapping[str, Format] = {
    "hf": Format("PyTorch", "model.safetensors"),
    "onnx": Format("ONNX", "onnx/model.onnx", _ONNX, "onnx", _USE_ONNX),
    "onnx-int8": Format("ONNX, int8", "onnx/model_int8.onnx", _ONNX, "onnx", _USE_ONNX),
    "torch-export": Format("torch.export", "model.pt2", use=_USE_TORCH_EXPORT),
}


class FormatMeasurement(BaseModel):
    """The measurements of a student in one format, all made on the file that was written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: str
    """Name of one of `FORMATS`."""
    size_mb: float
    """Size of the file in MB (10⁶ bytes)."""
    metrics: dict[str, float]
    """All metrics on dev, computed from the outputs of the file's model."""
    latency_ms: float
    """Time for one example of `length` tokens, in milliseconds."""
    difference: float | None
    """Largest difference between a logit and PyTorch's; None for PyTorch itself."""


class Conversion(BaseModel):
    """The measurements of a student in several formats, all made on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: str
    """Name of the task's metric."""
    formats: tuple[FormatMeasurement, ...]
    """The measurements of each format, PyTorch first."""
    length: int
    """Length of the example that is timed, in tokens."""
    device: str | None = None
    """What all formats were timed on, in turns: the CPU, its threads and the precision."""
    warning: str | None = None
    """What is wrong with the latencies; None for nothing."""
    threads: int
    """Number of CPU threads that all formats were timed and scored with."""
    batch_sizes: tuple[int, ...]
    """Sizes of the batches from dev whose logits were compared."""
    lengths: tuple[int, int]
    """Length of the shortest and of the longest of these batches, in tokens."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Returns the formats named in a text such as `hf,onnx`, in the order of `FORMATS`.

    `hf` is always one of them.

    Raises:
        SpecError: If a format does not exist, or a package that it needs is not installed.
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
        needing = ", ".join(name for name in named if FORMATS[name].packages)
        message = f"{needing} needs {', '.join(missing)}: pip install 'lkd-tune[onnx]'"
        raise SpecError(Problem("--format", "", message))
    return tuple(name for name in FORMATS if name == "hf" or name in named)


def read_conversion(student: Path) -> Conversion | None:
    """Returns the measurements of an exported student's formats; None if it has only `hf`."""
    path = student / MEASUREMENTS_FILE
    return Conversion.model_validate_json(path.read_text("utf-8")) if path.exists() else None
