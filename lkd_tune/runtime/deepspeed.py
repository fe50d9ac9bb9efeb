"""Access to DeepSpeed: loading it and its compiled op, and freeing the memory that it holds."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock

# After this time a mark may be one of a process that died: opening a compiled op takes a fraction
# of a second, compiling it up to a minute or two. Processes of other machines that share the folder
# can't be seen from here.
_OPENING_S, _COMPILING_S = 10.0, 300.0


def load_deepspeed() -> Any:
    """Returns the deepspeed module, without its log messages; on the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read while deepspeed is imported
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed 0.19 calls collectives by names that torch 2.13 deprecates, in every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # Its autotuner, which is not used here, imports mlflow if that is installed: 1.2 s.
    with _hidden("mlflow"):
        import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    return deepspeed


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Makes importing a package an ImportError, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def op_lock(root: Path | None = None) -> Iterator[None]:
    """Lets one process of this package at a time open the op that DeepSpeed compiles once.

    PyTorch marks an extension that is being opened with a file, and waits without limit for a mark
    that it finds. A process that is killed at that moment leaves its mark for good, and every later
    DeepSpeed process of the machine would hang. So such marks are removed here first.

    Args:
        root: Folder of compiled extensions. Default: PyTorch's.
    """
    if root is None:
        from torch.utils.cpp_extension import get_default_build_root

        root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    _put_own_programs_first()
    # Unlike PyTorch's mark, this lock ends with its process.
    with FileLock(root / "lkd_tune.lock"):
        for mark in root.glob("**/deepspeed_*/lock"):
            _wait_or_remove(mark)
        yield


def _put_own_programs_first() -> None:
    """Puts this environment's programs, such as ninja, before the system's.

    Two versions of ninja consider each other's builds outdated: processes that find different
    versions would compile the op again each time, for a minute.
    """
    own = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = f"{own}{os.pathsep}{path}"


def _wait_or_remove(mark: Path) -> None:
    """Waits until a mark is gone, or removes it when no process can be at work there any more.

    No process of this package made it, as they hold the lock. A process that made it keeps the file
    open while it works.
    """
    compiled = any(mark.parent.glob("*.so"))
    limit = _OPENING_S if compiled else _COMPILING_S
    while True:
        try:
            age = time.time() - mark.stat().st_mtime
        except FileNotFoundError:
            return
        if age > limit and not _is_open(mark):
            mark.unlink(missing_ok=True)
            return
        time.sleep(0.1)


def _is_open(path: Path) -> bool:
    """Returns whether a process of this machine has a file open, as far as this user may see."""
    for process in psutil.process_iter():
        try:
            if any(file.path == str(path) for file in process.open_files()):
                return True
        except psutil.Error:  # it has just ended, or belongs to another user
            continue
    return False


def free_engine(engine: Any) -> None:
    """Frees weights, gradients and moments of an engine without ZeRO; the objects stay.

    An engine, its model and its optimizer refer to each other. Python frees such objects only in
    its next full garbage collection, which is slow and rare; until then a GPU would hold the
    students of several trials. ZeRO holds them in its own buffers, which `collect_garbage` frees.
    """
    trained = [
        parameter for group in engine.optimizer.param_groups for parameter in group["params"]
    ]
    for parameter in [*engine.module.parameters(), *trained]:
        parameter.grad = None
        parameter.data = parameter.new_empty(0)
    engine.optimizer.state.clear()
    _empty_cache()


def forget_zero3_modules(model: Any) -> None:
    """Removes a model from ZeRO-3's global state, so that it can be freed."""
    zero = load_deepspeed().runtime.zero
    own = {id(module) for module in model.modules()}
    stack = zero.parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if id(module) not in own]
    # One of its methods, behind a decorator, has a cache by object and module.
    coordinator = zero.partitioned_param_coordinator.PartitionedParameterCoordinator
    for method in filter(inspect.isfunction, vars(coordinator).values()):
        for inner in inspect.getclosurevars(method).nonlocals.values():
            if hasattr(inner, "cache_clear"):
                inner.cache_clear()


def collect_garbage() -> None:
    """Frees all objects that refer only to each other; takes about a third of a second."""
    gc.collect()
    _empty_cache()


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
