"""A leaderboard as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from lkd_tune.results.columns import Shown, terminal_columns
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.summary import state_counts
from lkd_tune.results.verdict import verdict

_MAX_ROWS = 20


def leaderboard_html(board: Leaderboard) -> str:
    """Returns the teacher and the first trials as a table, between a heading and the verdict.

    It has no style of its own except the alignment of cells: notebooks style tables themselves,
    for light and dark themes.
    """
    columns = terminal_columns(board)
    head = _row("th", columns, (column.header_of(board) for column in columns))
    body = []
    if board.teacher:
        body.append(_row("td", columns, (column.teacher(board) for column in columns)))
    body += [_row("td", columns, _cells(columns, row, board)) for row in board.rows[:_MAX_ROWS]]
    more = len(board.rows) - _MAX_ROWS
    lines = [
        f"{board.task}: {board.metric} on dev; trials: {state_counts(board) or 'none yet'}",
        f"… and {more} more in leaderboard.csv" if more > 0 else "",
        verdict(board),
    ]
    heading, *below = (Markup("<p>{}</p>").format(line) if line else Markup() for line in lines)
    table = Markup("<table><thead>{}</thead><tbody>{}</tbody></table>")
    return str(Markup().join([heading, table.format(head, Markup().join(body)), *below]))


def _cells(columns: Iterable[Shown], row: Row, board: Leaderboard) -> Iterable[str]:
    return (column.text(row, board) for column in columns)


def _row(tag: str, columns: Iterable[Shown], texts: Iterable[str]) -> Markup:
    cells = (
        Markup('<{0} style="text-align: {1}">{2}</{0}>').format(
            Markup(tag), "right" if column.is_number else "left", escape(text)
        )
        for column, text in zip(columns, texts, strict=True)
    )
    return Markup("<tr>{}</tr>").format(Markup().join(cells))
