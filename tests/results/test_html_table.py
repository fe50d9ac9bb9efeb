"""The leaderboard in a notebook."""

import dataclasses

import html5lib

from lkd_tune.results.html_table import leaderboard_html
from lkd_tune.results.leaderboard_files import read_leaderboard
from tests.support.run_folder import HandMade, full_run


def cells_of(text):
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parseFragment(text)
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")], tree


def test_a_row_for_the_teacher_and_each_trial(tmp_path):
    board = read_leaderboard(full_run(tmp_path / "run"))
    (head, teacher, *rows), tree = cells_of(leaderboard_html(board))
    assert {"score", "params"} & {*head}
    assert any("teacher" in cell for cell in teacher)
    assert len(rows) == len(board.rows)
    assert board.rows[0].name in rows[0]
    assert "acceptability: matthews on dev" in next(tree.iter("p")).text


def test_names_are_escaped_and_long_tables_cut(tmp_path):
    board = read_leaderboard(full_run(tmp_path / "run"))
    board = dataclasses.replace(board, task="<script>x</script>", rows=board.rows[:1] * 25)
    text = leaderboard_html(board)
    assert "<script>" not in text
    assert "… and 5 more in leaderboard.csv" in text
    assert len(cells_of(text)[0]) == 22


def test_before_the_first_trial(tmp_path):
    text = leaderboard_html(read_leaderboard(HandMade(tmp_path / "empty").run))
    assert "none yet" in text
    assert len(cells_of(text)[0]) == 2  # the header and the teacher
