"""What to try next, from what a search has found."""

from __future__ import annotations

import math

from lkd_tune.results.formatting import number, percent
from lkd_tune.results.leaderboard import Leaderboard, Row

# From this share of the parameters on, advice on the embeddings is given.
_LARGE_EMBEDDINGS = 0.4
# Up to this difference, scores are told apart well enough.
_SMALL_DIFFERENCE = 0.02
_CORRELATIONS = ("matthews", "spearman", "pearson")


def advice(board: Leaderboard) -> list[str]:
    """Returns sentences on what limits the best student or what is known of it."""
    best = board.best
    if best is None:
        return []
    return [*_on_embeddings(best), *_on_dev(board, best)]


def _on_embeddings(best: Row) -> list[str]:
    if not best.embedding_parameters or not best.parameters or best.vocab == "trim":
        return []
    share = best.embedding_parameters / best.parameters
    if share < _LARGE_EMBEDDINGS:
        return []
    return [
        f"{percent(share)} of its parameters are embeddings: `student.vocab: trim` keeps those of "
        "the words in your text only."
    ]


def _on_dev(board: Leaderboard, best: Row) -> list[str]:
    rows = board.teacher.get("dev_rows")
    if not rows or best.score is None:
        return []
    chance = difference_by_chance(board.metric, best.score, rows)
    if chance <= _SMALL_DIFFERENCE:
        return []
    return [f"dev has {rows:,} rows: differences below about {number(chance, 2)} may be chance."]


def difference_by_chance(metric: str, score: float, rows: int) -> float:
    """Returns about how far two equally good students may be apart on dev, at 95 %.

    It is 1.96 standard errors of a difference between two models that are wrong on half of their
    errors together: √(p (1 - p) / n) for a share of right answers p, √((1 - r²) / n) for a
    correlation r.

    Args:
        metric: The metric's name.
        score: The score of one of them.
        rows: Number n of rows in dev.
    """
    bounded = min(1.0, max(0.0, score))
    variance = 1 - bounded**2 if metric in _CORRELATIONS else bounded * (1 - bounded)
    return 1.96 * math.sqrt(variance / rows)
