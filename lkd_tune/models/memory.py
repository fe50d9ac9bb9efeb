"""The memory that a model takes: measured on the host, and checked before a model is loaded."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.teacher import Inference
from lkd_tune.models.loading import auto_model, describe_model, load_config, load_model
from lkd_tune.models.size import LARGE_BATCH, fitting_length
from lkd_tune.runtime.host_memory import host_memory
from lkd_tune.runtime.process_group import device

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class HostMemory:
    """Resident memory of a process that loads a model and runs one batch, in MB (10⁶ bytes).

    Attributes:
        peak_mb: The peak.
        libraries_mb: What Python, PyTorch and transformers took before the model was loaded.
    """

    peak_mb: float
    libraries_mb: float


def measure_memory(models: Sequence[str], head: str, length: int) -> list[HostMemory]:
    """Returns the memory for loading each model on the CPU and running 32 examples.

    Each model runs in its own process, because it would reuse memory that another one has freed.

    Args:
        models: Folders or hub ids.
        head: As in transformers' AutoModelFor….
        length: Tokens of each example, or a model's number of positions if that is less.

    Raises:
        SpecError: If a process ends before its model has run.
    """
    # At the same time: they take seconds to start, and their memory is separate.
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "lkd_tune.models.memory", model, head, str(length)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for model in models
    ]
    ended = [(*process.communicate(), process.returncode) for process in started]
    found = []
    for model, (out, err, code) in zip(models, ended, strict=True):
        if code != 0:
            reason = err.strip().splitlines()[-1] if err.strip() else f"exit code {code}"
            message = f"its memory can't be measured: {reason}"
            raise SpecError(Problem(model, "", message))
        peak, libraries = (float(word) / 1e6 for word in out.split()[-2:])
        found.append(HostMemory(peak, libraries))
    return found


def _measure_here(model: str, head: str, length: int) -> tuple[int, int]:
    """Returns peak and libraries' bytes of this process; see `HostMemory`."""
    config = load_config(model)
    with torch.device("meta"):
        auto_model(head).from_config(config)  # imports the code of its family, without weights
    libraries = _resident("VmRSS")
    loaded = load_model(model, head)
    # From the whole vocabulary: embeddings that no input has used yet are still on disk.
    shape = (LARGE_BATCH, fitting_length(config, length))
    ids = torch.linspace(0, config.vocab_size - 1, math.prod(shape)).long().reshape(shape)
    with torch.inference_mode():
        loaded(input_ids=ids, attention_mask=torch.ones_like(ids))
    return _resident("VmHWM"), libraries


def _resident(entry: str) -> int:
    """Returns VmRSS (now) or VmHWM (peak so far) of this process in bytes.

    Not getrusage's ru_maxrss, which starts at the parent's memory when it started this process.
    """
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def check_memory(model: str, head: str, inference: Inference) -> None:
    """Checks that one process can hold a model's weights here.

    Only the weights count: batches are made small enough for what they leave.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….
        inference: How the model runs.

    Raises:
        SpecError: If its weights are larger than the whole memory of the GPU or host they lie in.
    """
    needed = _weight_bytes(describe_model(model, head)["parameters"], inference)
    on_gpu = device().type == "cuda" and inference.placement == "device"
    if on_gpu:
        available, where = torch.cuda.mem_get_info()[1], "GPU"
    else:
        available, where = host_memory()[0], "host"
    if needed <= available:
        return
    ways = [] if inference.precision == "bf16" else ["teacher.precision=bf16 halves them"]
    if on_gpu:
        ways.append("teacher.placement=cpu leaves them in the host's memory")
    advice = ", ".join(ways) or "use a machine with more memory"
    message = (
        f"{model} has {needed / 1e9:.1f} GB of weights, the {where} {available / 1e9:.1f} GB of "
        f"memory; {advice}"
    )
    raise SpecError(Problem("", "teacher", message))


def _weight_bytes(parameters: int, inference: Inference) -> int:
    return parameters * (2 if inference.precision == "bf16" else 4)


if __name__ == "__main__":
    print(*_measure_here(sys.argv[1], sys.argv[2], int(sys.argv[3])))
