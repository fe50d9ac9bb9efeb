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
        assert len(blocks(language, README)) >= 2


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


# Those of the docs are checked as they are built.
@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()
