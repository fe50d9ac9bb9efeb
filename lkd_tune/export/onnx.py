"""ONNX: written from a program, made int8, and run by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lkd_tune.export.exported_model import Runnable


def save_onnx(
    program: torch.export.ExportedProgram,
    axes: dict[str, dict[int, Any]],
    outputs: tuple[str, ...],
    path: Path,
) -> None:
    """Writes a program as ONNX, with PyTorch's names of inputs, axes and outputs.

    Args:
        program: From `export_program`.
        axes: From `open_axes`; the program's own have lost their names.
        outputs: Names of its outputs.
        path: The file; its folder is made.
    """
    path.parent.mkdir(exist_ok=True)
    with _quiet():
        found = torch.onnx.export(
            program, dynamo=True, output_names=outputs, dynamic_shapes=axes, verbose=False
        )
    assert found is not None
    found.save(path)


def save_int8(path: Path, to: Path) -> None:
    """Writes an ONNX model with its weights in int8 and activations quantised as they come.

    Weights are scaled for each output channel and use 7 bits: processors without VNNI add up pairs
    of products in 16 bits, which 8 bits overflow. On a MiniLM fine-tuned on SST-2 the two together
    moved the logits less than half as far as one scale and 8 bits, at the same size and speed.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    # The quantiser transposes weights under their names; their shapes stated here would be wrong.
    del model.graph.value_info[:]
    with _quiet():
        quantize_dynamic(
            model, to, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
        )


def open_onnx(path: Path, config: Any) -> Runnable:
    """Returns an ONNX model from its file; it runs on the CPU, on as many threads as PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return Runnable(config, run)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's and the quantiser's advice to their developers off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
