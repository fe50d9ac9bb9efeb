"""Processes of a test, forked from one that has loaded what they need: that takes seconds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from lkd_tune.runtime.process_group import free_address, join_process_group


def run_processes(function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
    """Calls a function with each of some arguments, side by side, and waits for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    # The server has the environment of the test that it was started in.
    cache = os.environ["LKD_TUNE_CACHE"]
    processes = [context.Process(target=_call, args=(function, cache, call)) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
        assert process.exitcode == 0


def run_ranks(workers: int, function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function in each process of a group, with its rank first."""
    _, port = free_address()
    calls = [(function, rank, workers, port, arguments) for rank in range(workers)]
    run_processes(_in_group, calls)


def _call(function: Callable[..., None], cache: str, arguments: tuple[Any, ...]) -> None:
    os.environ["LKD_TUNE_CACHE"] = cache
    function(*arguments)


def _in_group(
    function: Callable[..., None], rank: int, workers: int, port: int, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    join_process_group(rank, workers, "127.0.0.1", port)
    function(rank, *arguments)
    os._exit(0)  # gloo's threads may outlive a tidy exit
