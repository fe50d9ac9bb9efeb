"""The process group through which the ranks of a distillation communicate.

A process joins once and stays over many distillations: starting a group takes seconds, a new
DeepSpeed engine in an existing group a fraction of one.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import socket
from datetime import timedelta

import torch
import torch.distributed as dist

from lkd_tune.runtime.deepspeed import load_deepspeed, op_lock

# A rank that waits longer than this for another one gives up.
TIMEOUT = timedelta(minutes=10)


def free_address() -> tuple[str, int]:
    """Returns an address of this machine and a free port, for `join_process_group`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", probe.getsockname()[1]


def join_process_group(
    rank: int, world_size: int, address: str, port: int, *, timeout: timedelta = TIMEOUT
) -> None:
    """Joins the group. All ranks must call it, with the same address: rank 0's.

    Rank 0 listens on that address only. In a group of one no address is listened on.

    Raises:
        RuntimeError: If other ranks do not join in time, or this process is in a group already.
    """
    if dist.is_initialized():
        raise RuntimeError("this process is in a process group already; leave it first")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # DeepSpeed reads these even if there is a group already.
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK="0",  # Ray shows each worker its own GPUs only, counted from 0
    )
    if address.startswith("127."):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would listen at this host's name
    dist.init_process_group(
        backend,
        store=_store(rank, world_size, address, port, timeout),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    deepspeed = load_deepspeed()
    # DeepSpeed prints that its op was built.
    with op_lock(), contextlib.redirect_stdout(io.StringIO()):
        deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _store(rank: int, world_size: int, address: str, port: int, timeout: timedelta) -> dist.Store:
    """Returns the key-value store through which the ranks find each other.

    Torch's default store listens on all addresses of the machine, without authentication.
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
    """Leaves the group, if this process is in one."""
    if not dist.is_initialized():
        return
    deepspeed = load_deepspeed()
    # DeepSpeed's own function also forgets the groups that its engines share; a later engine would
    # find them destroyed. It keeps its handle, though.
    deepspeed.comm.destroy_process_group()
    deepspeed.comm.comm.cdb = None
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)


def ensure_process_group() -> None:
    """Joins a group of one until this process ends, unless this process is in a group already."""
    if not dist.is_initialized():
        join_process_group(0, 1, *free_address())
        atexit.register(leave_process_group)  # without it, torch warns on a GPU


def device() -> torch.device:
    """Returns the device that this rank trains on."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum of a tensor over all ranks; changes the tensor in place."""
    if dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def all_reduce_max(value: float) -> float:
    """Returns the maximum of a number over all ranks."""
    tensor = torch.tensor([value], dtype=torch.float64, device=device())
    if dist.get_world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return float(tensor)
