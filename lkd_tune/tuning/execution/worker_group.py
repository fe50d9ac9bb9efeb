"""The processes that train one student together, kept over many trials."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lkd_tune.cluster.nodes import WITHOUT_GPUS, NodeRequirements, check_this_node
from lkd_tune.config.settings.training import ResourceSettings, trials_on_a_gpu
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.cache import node_cache
from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.progress_file import progress_writer
from lkd_tune.storage.fetch import local_model
from lkd_tune.storage.object_store import retry_until_available

LOOPBACK = "127.0.0.1"
# Once a rank has failed the others need not wait for it: they would for the group's timeout.
_GRACE_S = 10.0
# What a process takes of a GPU beside PyTorch's allocator: CUDA's context, some 0.3 to 0.5 GiB, the
# kernels of libraries, which are loaded as they are needed, and NCCL's buffers.
_CONTEXT_BYTES = 2**30


class LostWorkerError(RuntimeError):
    """A process of the gang is gone; the trial is not to blame."""


class Rank:
    """One process of a gang and its part of a distillation.

    Rank 0 is an object in the trainable's own process, the others are Ray actors.
    """

    def __init__(self, cpus: float, gpus: float, cwd: str, needs: NodeRequirements):
        """Makes this process fit for training; nothing of torch is imported before."""
        check_this_node(needs)
        if gpus == 0:
            os.environ.update(WITHOUT_GPUS)
        # As in `side_process.py`; read when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        if 0 < gpus < 1 and torch.cuda.is_available():
            # Trials that share a GPU: each is out of memory by itself, and not by another's doing.
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
            # gloo looks its address up by host name, which on many machines is 127.0.1.1.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        join_process_group(rank, world_size, address, port)
        self._rank = rank

    def where(self) -> dict[str, Any]:
        """Returns where this process runs."""
        node = ray.get_runtime_context().get_node_id()
        return {"node": node, "host": socket.gethostname(), "pid": os.getpid()}

    def begin(
        self,
        spec: str,
        cache: str,
        checkpoint: str | None,
        accumulation: int,
        skipped: list[int],
        pace: str,
    ) -> None:
        """Builds a distillation, from where a checkpoint left it; `pace` is told its pace."""
        from lkd_tune.distillation.engine import Distillation

        if self._distillation is not None:
            self.end()
        trial = TrialSpec.model_validate_json(spec)
        for model in filter(None, (trial.teacher, trial.student.init)):
            retry_until_available(partial(local_model, model))  # it may lie in an object store
        if os.path.isdir(self._cwd):
            os.chdir(self._cwd)  # for relative paths; Tune changes it with each trial
        self._distillation = Distillation(
            trial,
            cache=node_cache(cache),
            accumulation=accumulation,
            skipped=skipped,
            on_progress=progress_writer(Path(pace)) if self._rank == 0 else None,
        )
        if checkpoint is not None:
            self._distillation.load_checkpoint(Path(checkpoint))

    def measure_size(self, latencies: str) -> ModelSize | None:
        """Returns what the student's architecture costs, on rank 0."""
        return self._distillation.measure_size(Path(latencies))

    def advance(self) -> Measurement:
        """Trains to the next evaluation."""
        return next(self._distillation)

    def save_checkpoint(self, folder: str) -> None:
        """Writes this rank's part of a checkpoint."""
        self._distillation.save_checkpoint(Path(folder))

    def save_student(self, folder: str) -> None:
        """Writes the student, on rank 0."""
        self._distillation.save_student(Path(folder))

    def evaluate(self, split: str) -> dict[str, float]:
        """Scores the student on a split."""
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
    """Returns the share of a GPU that PyTorch's allocator may take in a trial that has a part.

    What CUDA itself takes in each process comes on top, so that is left out of what is shared.

    Args:
        gpus: The part, below 1.
        total: The GPU's memory in bytes.

    Raises:
        ValueError: If nothing is left to share.
    """
    own = trials_on_a_gpu(gpus) * _CONTEXT_BYTES
    if own >= total:
        raise ValueError(
            f"{trials_on_a_gpu(gpus)} processes take up a GPU of {total / 2**30:.1f} GiB before "
            "they train anything; set resources.gpus to a larger share"
        )
    return gpus * (1 - own / total)


class Gang:
    """All ranks, which do the same calls in lockstep; this process is rank 0.

    Args:
        resources: What a trial gets; the other ranks run in the bundles 1, 2, … of this actor's
            placement group.
        cwd: Working directory for all.
        on_failure: Told what another rank raised if this one is stuck in a collective call with
            it, right before this process ends.
        needs: What a rank's node has to have.

    Attributes:
        workers: Where each rank runs: its `node`, `host` and `pid`.
    """

    def __init__(
        self,
        resources: ResourceSettings,
        cwd: str,
        on_failure: Callable[[BaseException], Any],
        needs: NodeRequirements,
    ):
        self._own = Rank(resources.cpus, resources.gpus, cwd, needs)
        self._on_failure = on_failure
        self._others: list[Any] = []
        if resources.workers > 1:
            group = ray.util.get_current_placement_group()
            actor = ray.remote(Rank)
            self._others = [
                actor.options(
                    num_cpus=resources.cpus,
                    num_gpus=resources.gpus,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
                ).remote(resources.cpus, resources.gpus, cwd, needs)
                for bundle in range(1, resources.workers)
            ]
        others = ray.get([other.where.remote() for other in self._others])
        self.workers: list[dict[str, Any]] = [self._own.where(), *others]
        address, port = _free_address(one_node=len({each["node"] for each in self.workers}) == 1)
        world = resources.workers
        self._lockstep("join", [(rank, world, address, port) for rank in range(world)])

    def run(self, method: str, *arguments: Any) -> Any:
        """Calls a method of all ranks; returns what it gives on rank 0.

        Raises:
            LostWorkerError: If another rank's process is gone.
            Exception: What the method raised on any rank.
        """
        return self._lockstep(method, [arguments] * (1 + len(self._others)))

    def disband(self) -> None:
        """Ends the other ranks and leaves the process group."""
        for other in self._others:
            ray.kill(other)
        self._others = []
        self._own.leave()

    def _lockstep(self, method: str, arguments: list[tuple[Any, ...]]) -> Any:
        calls = [
            getattr(other, method).remote(*of_rank)
            for other, of_rank in zip(self._others, arguments[1:], strict=True)
        ]
        try:
            with self._watched(calls):
                result = getattr(self._own, method)(*arguments[0])
        except Exception:
            # A peer that is gone shows here as a broken connection; say what it was.
            if calls:
                ray.wait(calls, num_returns=len(calls), timeout=_GRACE_S)
            error = _first_failure(calls)
            if error is not None:
                raise _cause(error) from None
            raise
        try:
            ray.get(calls)
        except ray.exceptions.RayError as error:
            raise _cause(error) from None
        return result

    @contextmanager
    def _watched(self, calls: list[Any]) -> Iterator[None]:
        """Ends this process if it is stuck with a rank that failed: no call can be taken back."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                error = _first_failure(calls)
                if error is not None and not done.wait(_GRACE_S):
                    cause = _cause(error)
                    if not isinstance(cause, LostWorkerError):
                        self._on_failure(cause)
                    os._exit(1)

        if calls:
            threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()


def _first_failure(calls: list[Any]) -> ray.exceptions.RayError | None:
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0) if calls else ([], [])
    for call in ready:
        try:
            ray.get(call)
        except ray.exceptions.RayError as error:
            return error
    return None


def _cause(error: ray.exceptions.RayError) -> BaseException:
    """Returns what a rank raised, or that it is lost."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause or error
    return LostWorkerError(str(error).strip().splitlines()[0])


def _free_address(*, one_node: bool) -> tuple[str, int]:
    """Returns the address that this node's ranks, or all, reach it by, and a port free now."""
    address = LOOPBACK if one_node else ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1]


def _interface_of(address: str) -> str | None:
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return None
