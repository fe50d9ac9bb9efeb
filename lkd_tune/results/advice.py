"""What to try next, from what a search has found."""

from __future__ import annotations

from lkd_tune.records.seed_stats import COARSE, difference_by_chance
from lkd_tune.results.formatting import number, percent
from lkd_tune.results.leaderboard import Leaderboard, Row

# From this share of the parameters on, advice on the embeddings is given.
_LARGE_EMBEDDINGS = 0.4


def advice(board: Leaderboard) -> list[str]:
    """Returns sentences on what limits the best student or what is known of it."""
    best = board.best
    if best is None:
        return []
    return [*_on_embeddings(best), *_on_dev(board)]


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


def _on_dev(board: Leaderboard) -> list[str]:
    rows = board.teacher.get("dev_rows")
    if not rows or (chance := difference_by_chance(rows)) <= COARSE:
        return []
    return [f"dev has {rows:,} rows: differences below about {number(chance, 2)} may be chance."]
