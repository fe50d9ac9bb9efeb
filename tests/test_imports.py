"""Who may import whom: folders stand in one order, and heavy libraries are met at few places."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lkd_tune"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "ray", "transformers", "deepspeed", "optuna", "datasets", "sklearn", "scipy"}

# Each folder may import those before it. `api` and `cli` stand beside each other at the top.
ORDER = (
    "version", "files", "config", "records", "storage", "losses", "runtime", "cluster", "data",
    "models", "drafts", "evaluation", "distillation", "results", "export", "tuning", "jobs",
    "run", "api", "cli",
)  # fmt: skip
# Folders that load none of these, not even inside functions.
LIGHT = {
    "files": HEAVY | {"numpy"},
    "config": HEAVY | {"numpy"},
    "records": HEAVY - {"scipy"},
    "results": HEAVY - {"optuna"},
}
# Libraries that only these folders or files may import.
PLACES = {
    "ray": {"cluster", "tuning", "jobs/client.py"},
    "optuna": {
        "tuning/study",
        "tuning/samplers",
        "results/study.py",
        "results/report/optuna_dashboard.py",
    },
    "tensorboardX": {"tuning/trackers/tensorboard.py"},
    "mlflow": {"tuning/trackers/mlflow.py"},
    "wandb": {"tuning/trackers/wandb.py"},
    "deepspeed": {"runtime/deepspeed.py"},
}


# Modules of the command line that are imported inside commands.
PRINTING = {"data_table.py", "progress.py", "summary.py", "tables.py", "task_table.py"}


def imported(path, *, everywhere=True):
    """Returns the absolute names a file imports, or those it imports as it is loaded itself."""
    tree = ast.parse(path.read_text("utf-8"))
    lazy = set()
    for node in ast.walk(tree):
        of_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if of_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
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


def modules():
    """Returns the package's modules by name: `lkd_tune.data.types`, a folder's `__init__` as it."""
    named = {}
    for path in FILES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def circles(graph):
    """Returns the sets of nodes that reach each other (Tarjan's strongly connected components)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1 or node in graph[node]:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def folder_or_library(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "lkd_tune" and len(parts) > 1 else parts[0]


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def folder_of(path):
    return relative(path).split("/")[0].removesuffix(".py")


def test_every_folder_has_its_place():
    assert {folder_of(path) for path in FILES} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_folders_import_only_those_before_them(path):
    own = folder_of(path)
    if own == "__init__":
        return
    later = set(ORDER[ORDER.index(own) + 1 :])
    found = {folder_or_library(name) for name in imported(path)} & later
    assert found == set()


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "e"}}
    assert circles(graph) == [["b", "c"], ["e"]]


def test_no_modules_import_each_other():
    """Not inside functions or for type checking either."""
    named = modules()
    graph = {}
    for name, path in named.items():
        # `from lkd_tune.data import types` imports a module, `… .types import Split` a name in one.
        found = {each if each in named else each.rpartition(".")[0] for each in imported(path)}
        graph[name] = found & set(named)
    assert circles(graph) == []


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_light_folders_stay_light(path):
    heavy = LIGHT.get(folder_of(path), set())
    assert not {name for name in imported(path) if name.split(".")[0] in heavy}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_libraries_are_met_at_their_places(path):
    for library, places in PLACES.items():
        if any(f"{relative(path)}/".startswith(f"{place}/") for place in places):
            continue
        assert library not in {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize(
    "path",
    [
        PACKAGE / "__init__.py",
        PACKAGE / "config" / "shipped.py",
        *(path for path in (PACKAGE / "cli").rglob("*.py") if path.name not in PRINTING),
    ],
    ids=relative,
)
def test_the_command_line_imports_nothing_heavy_by_itself(path):
    found = {n.split(".")[0] for n in imported(path, everywhere=False)}
    assert not found & (HEAVY | {"pydantic", "rich", "yaml", "numpy"})


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import lkd_tune", HEAVY | {"numpy", "pydantic", "typer", "rich", "yaml"}),
        ("import lkd_tune.cli.main", HEAVY | {"numpy", "pydantic", "yaml"}),
        ("import lkd_tune.config.read_space", HEAVY | {"numpy", "typer", "rich"}),
        ("import lkd_tune.results.leaderboard_files", HEAVY | {"numpy", "rich"}),
        ("import lkd_tune.export.students", HEAVY | {"numpy", "rich"}),
        ("import lkd_tune.cli.printing.tables", HEAVY | {"numpy"}),
        (
            "from lkd_tune.runtime.deepspeed import load_deepspeed; load_deepspeed()",
            {"mlflow"},
        ),
        (
            "import sys; sys.argv[1:] = ['spaces', '--settings']\n"
            "from lkd_tune.cli.main import main\n"
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
