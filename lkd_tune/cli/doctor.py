"""The command `doctor`: what is wrong with an environment, and how to fix it."""

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
from typing import Annotated, Literal

import typer

from lkd_tune.files.cache import cache_dir

_GIB = 2**30
_NEEDED_DISK_GIB, _NEEDED_SHM_GIB, _NEEDED_MEMORY_GIB = 5, 1, 4


def doctor(
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder for runs.")] = Path("runs"),
) -> None:
    """Check this environment, and say how to fix what is wrong.

    Exits with 1 if a search can't run here. The first call compiles DeepSpeed's op, which takes a
    minute.

    Example:

        lkd-tune doctor
    """
    from rich.console import Console

    checks = checks_of(run_dir)
    width = max(map(len, checks))
    console, failed = Console(), False
    for name, check in checks.items():
        with console.status(f"checking {name}"):
            finding = check()
        print(f"{finding.state:<5} {name:<{width}}  {finding.found}", flush=True)
        if finding.remedy:
            print(f"      {'':<{width}}  -> {finding.remedy}", flush=True)
        failed = failed or finding.state == "fail"
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        state: `ok`; `warn`: may cause problems; `fail`: a search can't run.
        found: What the check found.
        remedy: How to fix it; "" if nothing has to be fixed.
    """

    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def checks_of(run_dir: Path) -> dict[str, Callable[[], Finding]]:
    """Returns all checks by their names, quick ones first; one that fails does not end the others.

    Args:
        run_dir: The folder for runs.
    """
    return {
        "packages": check_packages,
        "compiler": check_compiler,
        "cache": lambda: check_folder(cache_dir(), "LKD_TUNE_CACHE"),
        "runs": lambda: check_folder(run_dir, "--run-dir"),
        "shared memory": check_shared_memory,
        "memory": check_memory,
        "GPU": check_gpu,
        "DeepSpeed": check_deepspeed,
        "Ray": check_ray,
    }


def check_packages() -> Finding:
    """Checks that the installed packages meet the requirements of this one."""
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
        return Finding("fail", "; ".join(wrong), "pip install --upgrade lkd-tune")
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "ray", "deepspeed")
    )
    return Finding("ok", versions)


def check_compiler() -> Finding:
    """Checks that DeepSpeed finds the programs that compile its op."""
    missing = [name for name in ("g++", "ninja") if shutil.which(name, path=_path()) is None]
    if missing:
        remedy = "install g++ (Debian and Ubuntu: apt-get install g++) and `pip install ninja`"
        return Finding("fail", f"{' and '.join(missing)} not found", remedy)
    return Finding("ok", str(shutil.which("g++", path=_path())))


def check_deepspeed() -> Finding:
    """Checks that DeepSpeed's op loads in a new process, which compiles it the first time."""
    code = "from lkd_tune.runtime.process_group import ensure_process_group; ensure_process_group()"
    error = _error_of(code, seconds=400)
    if error is None:
        return Finding("ok", "a process group starts")
    remedy = "see the compiler above; to compile the op again: `rm -r ~/.cache/torch_extensions`"
    return Finding("fail", error, remedy)


def check_gpu() -> Finding:
    """Checks that PyTorch sees the GPUs of this machine."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("ok", ", ".join(names))
    if shutil.which("nvidia-smi") is None:
        return Finding("ok", "none; trials train on the CPU")
    if torch.version.cuda is None:
        remedy = "install the build of torch for your CUDA version"
        found = f"there is one, but torch {torch.__version__} was built without CUDA"
        return Finding("fail", found, remedy)
    remedy = (
        "`nvidia-smi` shows the driver's CUDA version; update the driver, or install a build of "
        "torch for that version"
    )
    found = f"torch for CUDA {torch.version.cuda} does not see it"
    return Finding("fail", found, remedy)


def check_ray() -> Finding:
    """Checks that Ray starts, with token authentication as configured, and runs a task."""
    code = (
        "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, "
        "logging_level='ERROR'); ray.get(ray.remote(lambda: 1).remote()); ray.shutdown()"
    )
    error = _error_of(code, seconds=120)
    if error is None:
        return Finding("ok", "starts here and runs a task")
    remedy = "`ray get-auth-token --generate` creates a token; `ray stop --force` frees its port"
    return Finding("fail", error, remedy)


def check_folder(folder: Path, setting: str) -> Finding:
    """Checks that a folder can be written to, and the free space of its disk.

    Args:
        folder: The folder, which need not exist.
        setting: What sets another one.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        found = f"{folder}: {error.strerror}"
        return Finding("fail", found, f"set another folder with {setting}")
    free = shutil.disk_usage(there).free / _GIB
    state: Literal["ok", "warn"] = "ok" if free >= _NEEDED_DISK_GIB else "warn"
    remedy = "" if state == "ok" else f"teachers, targets and students need {_NEEDED_DISK_GIB} GiB"
    return Finding(state, f"{folder}: {free:.0f} GiB free", remedy)


def check_shared_memory() -> Finding:
    """Checks the size of /dev/shm, where Ray keeps its objects; 64 MB in many containers."""
    place = Path("/dev/shm")
    if not place.is_dir():
        remedy = "Ray uses /tmp instead, which is slower"
        return Finding("warn", "there is no /dev/shm", remedy)
    size = shutil.disk_usage(place).total / _GIB
    if size < _NEEDED_SHM_GIB:
        remedy = "docker run --shm-size=2g; in Kubernetes, mount a Memory volume on /dev/shm"
        return Finding("warn", f"{size:.2f} GiB", remedy)
    return Finding("ok", f"{size:.0f} GiB")


def check_memory() -> Finding:
    """Checks the free memory; in a container, within its limit."""
    from lkd_tune.runtime.host_memory import host_memory

    free = host_memory()[1] / _GIB
    if free < _NEEDED_MEMORY_GIB:
        remedy = "reduce train.micro_batch_size, or increase resources.cpus to run fewer trials"
        return Finding("warn", f"{free:.1f} GiB free", remedy)
    return Finding("ok", f"{free:.0f} GiB free")


def _error_of(code: str, *, seconds: int) -> str | None:
    """Returns the last error line of code that fails in a new process, None if it succeeds."""
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
        return f"no answer within {seconds} seconds"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _path() -> str:
    """Returns the search path of trials: the folder of Python first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
