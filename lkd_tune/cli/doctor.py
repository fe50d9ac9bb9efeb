"""What is wrong with an environment, and what to do about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from lkd_tune.files.cache import cache_dir

_GIB = 2**30
_NEEDED_DISK_GIB, _NEEDED_SHM_GIB, _NEEDED_MEMORY_GIB = 5, 1, 4


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Its name.
        state: ok; warn: it may go wrong; fail: it will.
        found: What was seen.
        remedy: What to do, "" if nothing.
    """

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def examine(runs: Path) -> list[Finding]:
    """Returns the findings of all checks; each runs though others fail.

    Args:
        runs: Where runs are to be put.
    """
    checks: list[Callable[[], Finding]] = [
        check_packages,
        check_compiler,
        check_op,
        check_gpu,
        check_ray,
        lambda: check_folder("cache", cache_dir()),
        lambda: check_folder("runs", runs),
        check_shared_memory,
        check_memory,
    ]
    return [check() for check in checks]


def check_packages() -> Finding:
    """Finds requirements of this package that are not met."""
    from packaging.requirements import Requirement

    wrong = []
    for line in metadata.requires("lkd-tune") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, needed is {requirement.specifier}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), "pip install --upgrade lkd-tune")
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "ray", "deepspeed")
    )
    return Finding("packages", "ok", versions)


def check_compiler() -> Finding:
    """Looks for what DeepSpeed compiles its op with."""
    missing = [name for name in ("g++", "ninja") if shutil.which(name, path=_path()) is None]
    if missing:
        remedy = "install g++ (Debian and Ubuntu: apt-get install g++) and `pip install ninja`"
        return Finding("compiler", "fail", f"{' and '.join(missing)} not found", remedy)
    return Finding("compiler", "ok", str(shutil.which("g++", path=_path())))


def check_op() -> Finding:
    """Opens DeepSpeed's op in a process of its own; the first time it is compiled."""
    code = "from lkd_tune.runtime.process_group import ensure_process_group; ensure_process_group()"
    error = _error_of(code, seconds=400)
    if error is None:
        return Finding("DeepSpeed", "ok", "a process group starts")
    remedy = "see the compiler above; `rm -r ~/.cache/torch_extensions` has it compiled anew"
    return Finding("DeepSpeed", "fail", error, remedy)


def check_gpu() -> Finding:
    """Looks whether PyTorch sees the GPUs that there are."""
    import torch

    driver = shutil.which("nvidia-smi")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", ", ".join(names))
    if driver is None:
        return Finding("GPU", "ok", "none; trials train on the CPU")
    if torch.version.cuda is None:
        remedy = "install the build of torch for your CUDA"
        return Finding(
            "GPU", "fail", f"there is one, but torch {torch.__version__} has no CUDA", remedy
        )
    remedy = (
        "`nvidia-smi` shows the driver's CUDA; update the driver, or take a build for an older one"
    )
    return Finding("GPU", "fail", f"torch for CUDA {torch.version.cuda} sees none", remedy)


def check_ray() -> Finding:
    """Starts Ray here, with its token authentication as it is set, and runs a task."""
    code = (
        "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, "
        "logging_level='ERROR'); ray.get(ray.remote(lambda: 1).remote()); ray.shutdown()"
    )
    error = _error_of(code, seconds=120)
    if error is None:
        return Finding("Ray", "ok", "starts here and runs a task")
    remedy = "`ray get-auth-token --generate` for its token; `ray stop --force` for a busy port"
    return Finding("Ray", "fail", error, remedy)


def check_folder(name: str, folder: Path) -> Finding:
    """Looks whether a folder can be written to and has room."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        remedy = "LKD_TUNE_CACHE" if name == "cache" else "--run-dir"
        return Finding(name, "fail", f"{folder}: {error.strerror}", f"name another with {remedy}")
    free = shutil.disk_usage(there).free / _GIB
    state: Literal["ok", "warn"] = "ok" if free >= _NEEDED_DISK_GIB else "warn"
    remedy = "" if state == "ok" else f"teachers, targets and students want {_NEEDED_DISK_GIB} GiB"
    return Finding(name, state, f"{folder}: {free:.0f} GiB free", remedy)


def check_shared_memory() -> Finding:
    """Looks at /dev/shm, where Ray keeps its objects; containers often have 64 MB of it."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding("shared memory", "warn", "there is no /dev/shm", "Ray uses /tmp, slowly")
    size = shutil.disk_usage(place).total / _GIB
    if size < _NEEDED_SHM_GIB:
        remedy = "docker run --shm-size=2g; in Kubernetes mount a Memory volume on /dev/shm"
        return Finding("shared memory", "warn", f"{size:.2f} GiB", remedy)
    return Finding("shared memory", "ok", f"{size:.0f} GiB")


def check_memory() -> Finding:
    """Looks at the memory that is free, for a container within its limit."""
    from lkd_tune.runtime.host_memory import host_memory

    free = host_memory()[1] / _GIB
    if free < _NEEDED_MEMORY_GIB:
        remedy = "lower train.micro_batch_size, or raise resources.cpus so that fewer trials run"
        return Finding("memory", "warn", f"{free:.1f} GiB free", remedy)
    return Finding("memory", "ok", f"{free:.0f} GiB free")


def _error_of(code: str, *, seconds: int) -> str | None:
    """Returns the last line of what code writes on failing in a clean process, None if it works."""
    environment = {**os.environ, "PATH": _path()}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing after {seconds} seconds"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _path() -> str:
    """Returns where programs are looked for; beside Python first, as trials do."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
