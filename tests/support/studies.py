"""The Optuna study of a run, for tests that look into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna

from lkd_tune.tuning.study.journal import open_journal, study_in


def open_study(journal: Path, objectives: Sequence[str] = ("score",)) -> optuna.Study:
    """Returns the study in a journal, a new one if there is none. One process at a time."""
    return study_in(open_journal(journal), objectives)
