"""The process group that the ranks of a distillation talk through.

Joined once in the life of a process and kept over many distillations: starting one takes
seconds, a new DeepSpeed engine in a standing group a fraction of one.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lkd_tune.runtime.deepspeed import opening_ops

# A rank that waits longer for another has lost it.
TIMEOUT = timedelta(minutes=10)


def free_address() -> tuple[str, int]:
    """Returns an address of this machine and a port that is free now, for `join_process_group`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", probe.getsockname()[1]


def join_process_group(
    rank: int, world_size: int, address: str, port: int, *, timeout: timedelta = TIMEOUT
) -> None:
    """Joins the group; all ranks must call it with the same address, rank 0's.

    Rank 0 listens on that address and no other, a rank that is alone on none.

    Raises:
        RuntimeError: If the others do not come in time, or this process is in a group already.
    """
    if dist.is_initialized():
        raise RuntimeError("this process is in a process group already; leave it first")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # DeepSpeed reads these even in a group that stands already.
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK="0",  # Ray shows each worker its own GPUs only, counted from 0
    )
    if address.startswith("127."):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo listens where this host's name is
    dist.init_process_group(
        backend,
        store=_store(rank, world_size, address, port, timeout),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    deepspeed = load_deepspeed()
    # It prints that its op was built.
    with opening_ops(), contextlib.redirect_stdout(io.StringIO()):
        deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _store(rank: int, world_size: int, address: str, port: int, timeout: timedelta) -> dist.Store:
    """Returns what the ranks find each other through.

    By itself torch would listen on all of the machine's addresses, and asks nobody who they are.
    """
    if world_size == 1:
        return dist.HashStore()
    listening = None
    if rank == 0:
        listening = socket.create_server((address, port), backlog=world_size).detach()
    return dist.TCPStore(
        address,
        port,
        world_size,
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listening,
    )


def leave_process_group() -> None:
    """Leaves the group if in one."""
    if not dist.is_initialized():
        return
    deepspeed = load_deepspeed()
    dist.destroy_process_group()
    # DeepSpeed keeps a handle of its own, and would go on using the dead group.
    deepspeed.comm.comm.cdb = None
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)


def ensure_process_group() -> None:
    """Joins a group of one, left when this process ends, unless this process is in a group."""
    if not dist.is_initialized():
        join_process_group(0, 1, *free_address())
        atexit.register(leave_process_group)  # on a GPU there would be a warning else


def load_deepspeed() -> Any:
    """Returns the deepspeed module, on the CPU where there is no GPU, without its chatter."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read while deepspeed is imported
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed 0.19 calls collectives by names that torch 2.13 deprecates, in every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # Its autotuner, which is not used here, takes mlflow along where there is one: 1.2 s.
    with _hidden("mlflow"):
        import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    return deepspeed


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Makes it as if a package were not installed, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # importing it is an ImportError
    try:
        yield
    finally:
        del sys.modules[package]


def device() -> torch.device:
    """Returns the device this rank trains on."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def summed(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum over all ranks."""
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def largest(value: float) -> float:
    """Returns the largest of all ranks' values."""
    tensor = torch.tensor([value], dtype=torch.float64, device=device())
    if dist.get_world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return float(tensor)
