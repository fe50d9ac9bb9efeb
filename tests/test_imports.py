"""Who may import whom: data goes one way, and heavy libraries are met at few places."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lkd_tune"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "ray", "transformers", "deepspeed", "optuna", "datasets", "sklearn", "scipy"}

# What a room must not import: rooms of this package, and libraries.
FORBIDDEN = {
    "spec": {"distill", "search", "results", "cli", *HEAVY, "numpy"},
    "distill": {"search", "results", "cli", "ray", "optuna"},
    "search": {"results", "cli"},
    "results": {"search", "cli", *HEAVY} - {"optuna"},
}
# Libraries that only these files may import.
PLACES = {
    "ray": {"search", "submission.py"},
    "optuna": {
        "search/study.py",
        "search/ask_tell.py",
        "search/bounded_tpe.py",
        "search/journal.py",
        "search/samplers.py",
        "search/evolution.py",
        "results/study.py",
        "results/dashboard.py",
    },
    "tensorboardX": {"search/trackers/tensorboard.py"},
    "mlflow": {"search/trackers/mlflow.py"},
    "wandb": {"search/trackers/wandb.py"},
    "deepspeed": {"distill/process_group.py"},
}


def imported(path, *, everywhere=True):
    """Returns the absolute names a file imports, or those it imports as it is loaded itself."""
    tree = ast.parse(path.read_text("utf-8"))
    lazy = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lazy.update(map(id, ast.walk(node)))
    names = set()
    for node in ast.walk(tree):
        if not everywhere and id(node) in lazy:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room_or_library(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "lkd_tune" and len(parts) > 1 else parts[0]


def told(path):
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=told)
def test_rooms(path):
    forbidden = FORBIDDEN.get(told(path).split("/")[0], set())
    assert not {name for name in imported(path) if room_or_library(name) in forbidden}


@pytest.mark.parametrize("path", FILES, ids=told)
def test_libraries_are_met_at_their_places(path):
    for library, places in PLACES.items():
        if any(told(path) == place or told(path).startswith(f"{place}/") for place in places):
            continue
        assert library not in {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize(
    "name",
    ["__init__.py", "cli.py", "cluster_cli.py", "export_cli.py", "report_cli.py", "spaces.py"],
)
def test_the_command_line_imports_nothing_heavy_by_itself(name):
    found = {n.split(".")[0] for n in imported(PACKAGE / name, everywhere=False)}
    assert not found & (HEAVY | {"pydantic", "rich", "yaml", "numpy"})


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import lkd_tune", HEAVY | {"numpy", "pydantic", "typer", "rich", "yaml"}),
        ("import lkd_tune.cli", HEAVY | {"numpy", "pydantic", "yaml"}),
        ("import lkd_tune.spec.space", HEAVY | {"numpy", "typer", "rich"}),
        ("import lkd_tune.results.leaderboard, lkd_tune.results.export", HEAVY | {"numpy", "rich"}),
        ("import lkd_tune.words", HEAVY | {"numpy"}),
        (
            "from lkd_tune.distill.process_group import load_deepspeed; load_deepspeed()",
            {"mlflow"},
        ),
        (
            "import sys; sys.argv[1:] = ['spaces', '--settings']\n"
            "from lkd_tune.cli import main\n"
            "try: main()\n"
            "except SystemExit: pass",
            HEAVY,
        ),
    ],
)
def test_what_is_loaded(code, unwanted):
    code += f"\nimport sys; print('loaded:', *sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]
