"""One process of a worker group, and its part of a distillation."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray

from lkd_tune.cluster.nodes import WITHOUT_GPUS, NodeRequirements, check_this_node
from lkd_tune.config.settings.training import trials_on_a_gpu
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.cache import node_cache
from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.progress_file import progress_writer
from lkd_tune.storage.fetch import local_model
from lkd_tune.storage.object_store import retry_until_available

LOOPBACK = "127.0.0.1"
# GPU memory of a process outside PyTorch's allocator: CUDA's context, some 0.3 to 0.5 GiB, the
# kernels of libraries, which are loaded when they are needed, and NCCL's buffers.
_CONTEXT_BYTES = 2**30


class Rank:
    """One process of a worker group and its part of a distillation.

    Rank 0 is an object in the trainable's own process, the others are Ray actors.

    Args:
        cpus: CPU cores of the process.
        gpus: GPUs of the process; a fraction if it shares one.
        cwd: The folder that relative paths in a trial refer to.
        requirements: What the rank's node needs.

    Raises:
        UnfitNodeError: If the node is not fit.
    """

    def __init__(self, cpus: float, gpus: float, cwd: str, requirements: NodeRequirements):
        check_this_node(requirements)
        if gpus == 0:
            os.environ.update(WITHOUT_GPUS)
        # As in `preparation/worker.py`; PyTorch reads it when it is imported, which is below.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        if 0 < gpus < 1 and torch.cuda.is_available():
            # A trial that shares a GPU must not run out of memory because of another one.
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(allocator_share(gpus, total))
        self._cwd = cwd
        self._rank = 0
        self._distillation: Any = None

    def join(self, rank: int, world_size: int, address: str, port: int) -> None:
        """Joins the process group, once for all trials."""
        from lkd_tune.runtime.process_group import join_process_group

        own = LOOPBACK if address == LOOPBACK else ray.util.get_node_ip_address()
        if interface := _interface_of(own):
            # By default gloo looks up the host name, which is 127.0.1.1 on many machines.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        join_process_group(rank, world_size, address, port)
        self._rank = rank

    def location(self) -> dict[str, Any]:
        """Returns the `node`, `host` and `pid` of this process."""
        node = ray.get_runtime_context().get_node_id()
        return {"node": node, "host": socket.gethostname(), "pid": os.getpid()}

    def begin(
        self,
        spec: str,
        cache: str,
        checkpoint: str | None,
        accumulation: int,
        skipped: list[int],
        progress_file: str,
    ) -> None:
        """Builds a distillation, which replaces the one before.

        Args:
            spec: A TrialSpec as JSON.
            cache: The driver's cache.
            checkpoint: The checkpoint to resume from, if any.
            accumulation: Into how many parts micro-batches are split.
            skipped: Training examples to leave out.
            progress_file: Where rank 0 writes its progress between evaluations.
        """
        from lkd_tune.distillation.engine import Distillation

        if self._distillation is not None:
            self.end()
        trial = TrialSpec.model_validate_json(spec)
        for model in filter(None, (trial.teacher, trial.student.init)):
            retry_until_available(partial(local_model, model))  # may be on an object store
        if os.path.isdir(self._cwd):
            os.chdir(self._cwd)  # Tune changes the directory with each trial
        self._distillation = Distillation(
            trial,
            cache=node_cache(cache),
            accumulation=accumulation,
            skipped=skipped,
            on_progress=progress_writer(Path(progress_file)) if self._rank == 0 else None,
        )
        if checkpoint is not None:
            self._distillation.load_checkpoint(Path(checkpoint))

    def measure_size(self, latencies: str) -> ModelSize | None:
        """Returns the size and cost of the student's architecture, on rank 0.

        Args:
            latencies: The run's folder of known latencies.
        """
        return self._distillation.measure_size(Path(latencies))

    def advance(self) -> Measurement:
        """Trains until the next evaluation."""
        return next(self._distillation)

    def save_checkpoint(self, folder: str) -> None:
        """Writes this rank's part of a checkpoint."""
        self._distillation.save_checkpoint(Path(folder))

    def save_student(self, folder: str) -> None:
        """Writes the student, on rank 0."""
        self._distillation.save_student(Path(folder))

    def evaluate(self, split: str) -> dict[str, float]:
        """Returns the student's metrics on a split."""
        return self._distillation.evaluate(split)

    def end(self) -> None:
        """Frees the distillation, also one that failed while it was built; the group stays."""
        from lkd_tune.runtime.deepspeed import collect_garbage

        if self._distillation is None:
            collect_garbage()
        else:
            self._distillation.close()
            self._distillation = None

    def leave(self) -> None:
        """Leaves the process group."""
        from lkd_tune.runtime.process_group import leave_process_group

        leave_process_group()


def allocator_share(gpus: float, total: int) -> float:
    """Returns the share of a GPU's memory for PyTorch's allocator in a process that shares the GPU.

    CUDA itself needs memory in each process besides that, which is subtracted before it is shared.

    Args:
        gpus: The share of the GPU, below 1.
        total: The GPU's memory in bytes.

    Raises:
        ValueError: If no memory is left to share.
    """
    contexts = trials_on_a_gpu(gpus) * _CONTEXT_BYTES
    if contexts >= total:
        raise ValueError(
            f"{trials_on_a_gpu(gpus)} processes need all memory of a GPU of {total / 2**30:.1f} "
            "GiB before they train anything; set resources.gpus to a larger share"
        )
    return gpus * (1 - contexts / total)


def _interface_of(address: str) -> str | None:
    """Returns the name of the network interface with an address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return None
