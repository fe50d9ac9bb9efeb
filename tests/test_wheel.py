"""What is built is what works: installed from the wheel, far from the checkout."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def build(root: Path, to: Path, *targets: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(to)]
    for target in targets:
        command += ["-t", target]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the sdist, made with rubbish lying around."""
    folder = tmp_path_factory.mktemp("built")
    root = folder / "checkout"
    ignore = shutil.ignore_patterns(".git", ".venv", ".*_cache", "build", "dist", "runs", "shared")
    shutil.copytree(ROOT, root, ignore=ignore)
    for rubbish in ("lkd_tune/__pycache__/cli.cpython-311.pyc", "search_spaces/.own.yaml.swp"):
        (root / rubbish).parent.mkdir(exist_ok=True)
        (root / rubbish).write_bytes(b"rubbish")
    (root / ".gitignore").write_text((ROOT / ".gitignore").read_text() + "*.swp\n")
    build(root, folder, "wheel", "sdist")
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


def files_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel):
    files = files_in(wheel)
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lkd_tune").rglob("*.py")}
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lkd_tune").rglob("*.j2")}
    spaces = {f"lkd_tune/search_spaces/{path.name}" for path in ROOT.glob("search_spaces/*.yaml")}
    assert sources
    assert templates
    assert spaces
    assert files >= sources | templates | spaces | {"lkd_tune/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in files)
    rest = {name for name in files if not name.startswith(("lkd_tune/", "lkd_tune-"))}
    assert not rest
    assert not [name for name in files if "__pycache__" in name or name.endswith(".swp")]


def test_a_wheel_from_the_sdist_is_the_same(built, wheel, tmp_path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
        assert not [name for name in archive.getnames() if "__pycache__" in name]
    build(next(tmp_path.iterdir()), tmp_path / "again", "wheel")
    assert files_in(next((tmp_path / "again").glob("*.whl"))) == files_in(wheel)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of an environment's programs: the wheel, and what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True, timeout=120)
    # Libraries from here; files named .pth there are not looked at, so no checkout is seen.
    packages = {str(Path(torch.__file__).parents[1]), *site.getsitepackages()}
    own = next((folder / "lib").glob("python*/site-packages"))
    (own / "libraries.pth").write_text("\n".join(sorted(packages)))
    return folder / "bin"


def called(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [installed / "lkd-tune", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_works_from_anywhere(installed, tmp_path):
    code = "import lkd_tune; print(lkd_tune.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    place = subprocess.run(
        [installed / "python", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert place.startswith(str(installed.parent))
    assert "search" in called(installed, tmp_path, "--help")
    listed = called(installed, tmp_path, "spaces")
    assert all(path.name in listed for path in ROOT.glob("search_spaces/*.yaml"))
    checked = called(installed, tmp_path, "check", "--space", "layer_map.yaml")
    assert "the space is valid" in checked
