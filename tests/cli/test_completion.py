"""Completion as a shell asks for it, and as bash itself does it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def offered(*words, shell="bash"):
    """Returns what is offered for the last word."""
    line = " ".join(["lkd-tune", *words])
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [BIN / "lkd-tune"],
        env={**os.environ, **asked, "_LKD_TUNE_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sea"], "search"),
        (["search", "--sp"], "--space"),
        (["search", "--space", "lay"], "layer_map.yaml"),
        (["submit", "--space", "gl"], "glue.yaml"),
        (["search", "--task", "cola,rt"], "cola,rte"),
        (["check", "--set", "student.dep"], "student.depth="),
    ],
)
def test_what_is_offered(words, expected):
    assert offered(*words).split() == [expected]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell):
    assert "layer_map.yaml" in offered("search", "--space", "lay", shell=shell)


def test_bash(tmp_path):
    """Installs it into a home of its own, and has a new shell complete a line."""
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}
    script = """
    lkd-tune --install-completion
    source ~/.bashrc
    COMP_WORDS=(lkd-tune search --space lay) COMP_CWORD=3
    _lkd_tune_completion lkd-tune
    echo "offered ${COMPREPLY[*]}"
    """
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "offered layer_map.yaml"
    assert (tmp_path / ".bash_completions" / "lkd-tune.sh").exists()
