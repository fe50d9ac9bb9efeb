"""A search in a Jupyter notebook, whose outputs are looked at as they are saved."""

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

from lkd_tune import load_run
from tests.support.tiny import LABELS, make_space_tree

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_search_leaves_its_table_and_its_leaderboard(tmp_path, monkeypatch):
    tree = make_space_tree(tmp_path, losses=LABELS, search={"trials": 2, "scheduler": "none"})
    # Paths relative to the notebook's folder.
    (tmp_path / "tree.json").write_text(json.dumps(tree).replace(f"{tmp_path}/", ""))
    sources = [
        "import json\nfrom lkd_tune import search\nprint('before')\n"
        "run = search(json.load(open('tree.json')), overrides=['search.seed=2'], name='first')",
        "run",
        "help(search)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
    # Not for a single notebook: else it writes into the home directory.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    searching, shown, helped = (cell.outputs for cell in notebook.cells)
    printed = "".join(output.text for output in searching if output.output_type == "stream")
    (table,) = (output for output in searching if output.output_type == "display_data")
    assert printed.startswith("before")  # nothing has cleared it
    assert "[2/2] trial 0001 complete accuracy" in printed
    assert "trials 2/2: 2 complete" in table.data["text/html"]
    # Read from another folder, where the data are found all the same.
    run = load_run(tmp_path / "runs" / "first")
    assert run.spec("0000").task.dev == str(tmp_path / "data" / "dev.csv")
    assert run.evaluate()["accuracy"] == pytest.approx(run.leaderboard()[0]["score"])

    (board,) = shown
    assert "<table>" in board.data["text/html"]
    assert "0001" in board.data["text/html"]

    (said,) = helped
    assert said.text.startswith("Help on function search")
    assert "overrides: Settings to change" in said.text
