"""ONNX: writes a traced model, quantises it to int8, and runs it with onnxruntime."""

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
from lkd_tune.export.torch_export import TracedModel

MAX_FILE_MB = 2000
"""What one file in protobuf, and so in ONNX, can hold, in MB (10⁶ bytes)."""


def save_onnx(traced: TracedModel, path: Path) -> None:
    """Writes a traced model as ONNX, with PyTorch's names of inputs, axes and outputs.

    Args:
        traced: The model.
        path: The file. Its folder is created.
    """
    path.parent.mkdir(exist_ok=True)
    with _quiet():
        exported = torch.onnx.export(
            traced.program,
            dynamo=True,
            output_names=traced.outputs,
            dynamic_shapes=traced.axes,
            verbose=False,
        )
    assert exported is not None
    exported.save(path)


def save_int8(source: Path, path: Path) -> None:
    """Writes an ONNX model with weights in int8; activations are quantised at run time.

    Each output channel has its own scale, and weights use 7 bits: processors without VNNI add up
    pairs of products in 16 bits, which 8-bit weights overflow. On a MiniLM fine-tuned on SST-2 this
    changed the logits less than half as much as one scale and 8 bits, at the same size and speed.

    Args:
        source: The ONNX file in fp32.
        path: The file to write.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The quantiser transposes weights but keeps their names, so these shapes would be wrong.
    del model.graph.value_info[:]
    with _quiet():
        quantize_dynamic(
            model, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
        )


def open_onnx(path: Path, config: Any) -> Runnable:
    """Returns the model in an ONNX file; it runs on the CPU, with as many threads as PyTorch.

    Args:
        path: The file.
        config: Configuration of the transformers model that it was exported from.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return Runnable(config, run)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides log lines and warnings of the exporter and the quantiser meant for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
