"""The documentation builds without a warning or a network, and has what it takes from the code."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lkd_tune.cli.main import app
from lkd_tune.config.reference import settings_reference
from lkd_tune.config.schema import space_schema
from lkd_tune.config.shipped import shipped_spaces
from lkd_tune.records import trial_folder
from lkd_tune.records.run import RunFolder
from lkd_tune.results.plots.style import COLOURS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_fetched_by_a_reader(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        fetched = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?([^\" >]+)", text)
        assert not [address for address in fetched if re.match(r"(?:https?:)?//", address)]


def test_every_setting_is_there(site):
    text = (site / "reference" / "space-file" / "index.html").read_text("utf-8")
    assert all(f"<code>{key}</code>" in text for key, *_ in settings_reference())


def test_every_command_and_option_is_there(site):
    text = html.unescape((site / "reference" / "commands" / "index.html").read_text("utf-8"))
    for name, command in typer.main.get_command(app).commands.items():
        assert f"<code>lkd-tune {name}</code>" in text
        options = [param for param in command.params if param.param_type_name == "option"]
        assert all(re.search(rf"<code>[^<]*{option.opts[0]}\b", text) for option in options)


def test_every_file_of_a_run_is_there():
    text = (ROOT / "docs" / "reference" / "run-folder.md").read_text("utf-8")
    run = RunFolder(Path("run"))
    paths = [getattr(run, name) for name, kind in vars(RunFolder).items() if type(kind) is property]
    names = {path.name for path in paths if isinstance(path, Path)}
    source = Path(trial_folder.__file__).read_text("utf-8")
    files = re.findall(r'self\.(?:path / |_write\(|_read_\w+\()"([\w.]+)"', source)
    names |= {f"trials/0007/{name}" for name in files}
    assert {"ablation.json", "trials/0007/fine_tuned.json"} <= names
    assert not {name for name in names if name not in text}


def test_the_schema_is_there(site):
    assert json.loads((site / "space.schema.json").read_text("utf-8")) == space_schema()


def test_the_examples_are_there(site):
    text = (site / "how-to" / "python" / "index.html").read_text("utf-8")
    for path in (ROOT / "examples").glob("[!_]*.py"):
        assert f"examples/{path.name}" in text


def test_the_picture_is_drawn_from_a_run(finished_run, tmp_path):
    command = [
        sys.executable,
        ROOT / "docs" / "draw_search.py",
        finished_run.path,
        "--to",
        tmp_path,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=env, check=True, timeout=120)
    light, dark = (
        (tmp_path / f"search-{scheme}.svg").read_text("utf-8") for scheme in ("light", "dark")
    )
    assert light.count("<path") == dark.count("<path") > 50
    assert COLOURS["ink"][0] in light
    assert COLOURS["ink"][1] in dark


def test_results_and_changelog_are_pages(site):
    results = (site / "benchmarks" / "RESULTS" / "index.html").read_text("utf-8")
    for heading in re.findall(r"^## (.*)$", (ROOT / "benchmarks/RESULTS.md").read_text(), re.M):
        assert heading in results
    assert (site / "benchmarks" / "LOG" / "index.html").exists()
    assert (site / "benchmarks" / "plots" / "layer_maps.png").exists()
    assert "Unreleased" in (site / "CHANGELOG" / "index.html").read_text("utf-8")


def test_each_shipped_space_is_advised_on():
    text = (ROOT / "docs" / "how-to" / "choose-a-space.md").read_text("utf-8")
    assert not {name for name in shipped_spaces() if f"`{name}`" not in text}


def test_the_messages_that_are_explained_are_those_of_the_code():
    text = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text("utf-8")
    # Parts of a message in the source: text that is split over lines is joined.
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "lkd_tune").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    messages = re.findall(r"^### `(.*)`$", text, re.MULTILINE)
    assert len(messages) > 5
    for message in messages:
        for part in filter(None, map(str.strip, message.split("…"))):
            assert part in code, message


def test_nothing_is_left_to_be_filled_in(site):
    assert not [
        page for page in site.rglob("*.html") if "<!-- generated" in page.read_text("utf-8")
    ]
    assert not [page for page in site.rglob("*.html") if "<!-- example" in page.read_text("utf-8")]


def test_formulas_are_mathml(site):
    text = (site / "method" / "index.html").read_text("utf-8")
    assert text.count("<math") > 20
    assert "arithmatex" not in text
