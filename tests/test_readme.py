"""What README and docs show works: commands and options exist, spaces load, names are there."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

from lkd_tune.cli.main import app
from lkd_tune.config.read_space import build_space, load_space
from lkd_tune.config.shipped import find_space, shipped_spaces
from lkd_tune.config.source import parse_source

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
LOG = (ROOT / "benchmarks" / "LOG.md").read_text("utf-8")
DOCS = [path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join([README, *DOCS])


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def words_of_commands():
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            yield words[: words.index(">")] if ">" in words else words
    for line in re.findall(r"`(lkd-tune [^`]*)`", TEXT):
        yield shlex.split(line)


COMMANDS = [words for words in words_of_commands() if words and words[0] == "lkd-tune"]
# The same one is often shown more than once.
COMMANDS = [words for i, words in enumerate(COMMANDS) if words not in COMMANDS[:i]]
SPACES = [w for w in COMMANDS if "--space" in w and w[w.index("--space") + 1] in shipped_spaces()]
GROUP = typer.main.get_command(app)


def test_there_is_something_to_check():
    assert len(COMMANDS) > 40
    assert len(SPACES) > 10
    for language in ("bash", "yaml", "python"):
        assert blocks(language, README)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_exists(words):
    name, *args = words[1:]
    if name.startswith("--"):
        assert name in {option for parameter in GROUP.params for option in parameter.opts}
        return
    command = GROUP.commands[name]
    if not args:  # named in a sentence, not shown as a call
        return
    # Parses options and arguments as the command line does, without running the command.
    command.make_context(name, args)


@pytest.mark.parametrize("words", SPACES, ids=" ".join)
def test_space_and_overrides_are_right(words):
    context = GROUP.commands[words[1]].make_context(words[1], words[2:])
    load_space(find_space(context.params["space"]), context.params["overrides"] or [])


@pytest.mark.parametrize("text", blocks("yaml"))
def test_space_loads(text):
    space = build_space(parse_source(text, "README.md"))
    space.check_teacher(12)


@pytest.mark.parametrize("text", blocks("python"))
def test_names_can_be_imported(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_readme_is_a_front_page_and_the_results_are_read_in_two_minutes():
    assert len(README.splitlines()) <= 150
    assert len(RESULTS.splitlines()) <= 150


def test_each_figure_of_readme_is_in_the_results():
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    other = {"3.11", "3.13", "2.0"}  # versions of Python and of the licence
    figures = {*re.findall(r"\d+\.\d+|\d+,\d{3}", prose)} - other
    assert len(figures) > 15
    assert not {figure for figure in figures if figure not in RESULTS}


def test_each_score_of_the_results_is_in_the_log():
    scores = {*re.findall(r"\d\.\d{3}", RESULTS)}
    assert len(scores) > 40
    assert not {score for score in scores if score not in LOG}


def test_each_table_of_the_results_has_a_command():
    for section in re.split(r"^## ", RESULTS, flags=re.MULTILINE)[1:]:
        if "\n|" in section:
            assert re.search(r"`(lkd-tune|python)\s", section), section.splitlines()[0]


@pytest.mark.parametrize(
    "path", sorted({*re.findall(r"benchmarks/[\w/]+\.py", TEXT + RESULTS + LOG)})
)
def test_benchmarks_that_are_named_are_there(path):
    assert (ROOT / path).exists()


def test_links_of_the_docs_lead_somewhere_in_the_repository_too():
    generated = {"../space.schema.json"}
    for page in (ROOT / "docs").rglob("*.md"):
        links = {*re.findall(r"\]\((?!http)([^)#]+)", page.read_text("utf-8"))} - generated
        assert not {link for link in links if not (page.parent / link).exists()}, page


# Those of the docs are checked on the site, too, as it is built.
@pytest.mark.parametrize("path", re.findall(r'(?:\]\(|src=")(?!http)([^)"#]+)', README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()
