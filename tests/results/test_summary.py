"""The settings of a student as the summary, the report and the model card show them."""

from lkd_tune.config.settings.losses import LABELS_ONLY
from lkd_tune.export.card import student_card
from lkd_tune.results.columns import terminal_columns
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.summary import settings_of
from tests.support.run_folder import HandMade


def test_an_early_end_of_relations_is_shown_where_there_is_one(tmp_path):
    made = HandMade(tmp_path)
    spec = made.add("0000", 0.5)
    ending = spec.losses.model_copy(update={"relations_until": 0.25})
    made.add("0001", 0.6, like=spec.model_copy(update={"losses": ending}))
    labels = LABELS_ONLY.model_copy(update={"relations_until": 0.25})
    made.add("0002", 0.4, like=spec.model_copy(update={"losses": labels}))
    board = read_leaderboard(made.run)
    assert {row.name: row.relations_until for row in board.rows} == {
        "0000": None, "0001": 0.25, "0002": None,
    }  # fmt: skip
    shown = {row.name: dict(settings_of(row)).get("relations end") for row in board.rows}
    assert shown == {"0000": None, "0001": "after 25% of the steps", "0002": None}
    cards = {row.name: student_card(made.run, board, row) for row in board.rows}
    line = "| relations end | after 25% of the steps |"
    assert {name: line in card for name, card in cards.items()} == {
        "0000": False, "0001": True, "0002": False,
    }  # fmt: skip


def test_where_a_student_starts_is_shown_unless_its_map_says_it(tmp_path):
    made = HandMade(tmp_path)
    spec = made.add("0000", 0.5)
    assert "starts from" not in _headers(made)
    named = {"0001": "top", "0002": (1, 2, 4)}
    for name, layers in named.items():
        student = spec.student.model_copy(update={"layers": layers})
        made.add(name, 0.4, like=spec.model_copy(update={"student": student}))
    board = read_leaderboard(made.run)
    assert "starts from" in _headers(made)
    assert {row.name: row.layers for row in board.rows} == {
        "0000": None, "0001": "top", "0002": "1-2-4",
    }  # fmt: skip
    texts = {"0000": None, "0001": "the teacher's top layers", "0002": "the teacher's layers 1-2-4"}
    for row in board.rows:
        text = texts[row.name]
        assert dict(settings_of(row)).get("starts from") == text
        assert (f"| starts from | {text} |" in student_card(made.run, board, row)) == bool(text)


def _headers(made: HandMade) -> list[str]:
    board = read_leaderboard(made.run)
    return [column.header_of(board) for column in terminal_columns(board)]
