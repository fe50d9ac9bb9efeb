"""What a search has found, in words: the best student, what distillation brought, what to try."""

from __future__ import annotations

from dataclasses import dataclass

from lkd_tune.config.settings.student import INIT_KEYWORDS
from lkd_tune.records.seed_stats import difference_interval, is_indistinguishable
from lkd_tune.results.advice import advice
from lkd_tune.results.formatting import difference, interval, number, percent
from lkd_tune.results.leaderboard import Leaderboard, Row

_ADVICE = "Try longer training (train.epochs), more text, or another teacher."


@dataclass(frozen=True)
class Gain:
    """What the best student, a distilled one, gains over a student on the labels alone.

    Attributes:
        labels: The student on the labels alone.
        is_same: Whether it is otherwise the best student's: its shape and its training.
        value: The difference of the two scores on dev.
        scores: The score of the best student, and that of the other one.
        seeds: Number of other seeds whose means the scores are; 0: the scores of one seed each.
        low: Lower end of the 95 % confidence interval of the difference (Welch); None if unknown.
        high: Its upper end.
        is_clear: Whether the two are statistically distinguishable; None if that is unknown.
    """

    labels: Row
    is_same: bool
    value: float
    scores: tuple[float, float]
    seeds: int = 0
    low: float | None = None
    high: float | None = None
    is_clear: bool | None = None


def gain_of(board: Leaderboard) -> Gain | None:
    """Returns the best student's gain over training on the labels alone.

    It is compared with its own student on the labels alone, or else with the best student on the
    labels alone. Means over other seeds are compared if both have one. None if the best student is
    not distilled, or if there is nothing to compare it with.
    """
    best = board.best
    if best is None or not best.distilled:
        return None
    labels = _labels_of(board, best)
    if labels is None or best.score is None or labels.score is None:
        return None
    is_same = _student_of(labels) == _student_of(best)
    if best.mean is None or labels.mean is None:
        return Gain(labels, is_same, best.score - labels.score, scores=(best.score, labels.score))
    own, others = (board.seed_scores.get(row.name, []) for row in (best, labels))
    low, high = difference_interval(own, others)
    return Gain(
        labels,
        is_same,
        best.mean - labels.mean,
        scores=(best.mean, labels.mean),
        seeds=board.seeds,
        low=low,
        high=high,
        is_clear=None if low is None else not is_indistinguishable(own, others),
    )


def verdict(board: Leaderboard) -> str:
    """Returns in a few sentences what the search has found; '' without a complete trial.

    They say how good and how small the best student is, whether distillation was worth it, and what
    to try. With several objectives they are about the recommended student.
    """
    if board.best is None:
        return ""
    found = [_best_sentence(board, board.best), distillation_verdict(board), *advice(board)]
    return " ".join(sentence for sentence in found if sentence)


def _best_sentence(board: Leaderboard, best: Row) -> str:
    text = f"Best student: {board.metric} {number(best.score)}"
    if best.share is not None:
        text += f", {percent(best.share)} of the teacher's {number(board.teacher_score)}"
    if best.parameters and board.teacher.get("parameters"):
        size = best.parameters / board.teacher["parameters"]
        whose = "its" if best.share is not None else "the teacher's"
        text += f" with {percent(size)} of {whose} parameters"
    if best.mean is not None:
        text += f"; with {board.seeds} other seeds {interval(best.mean, best.high)}"
    test = best.test_mean if best.test_mean is not None else best.test_score
    if test is not None:
        text += f", on test {number(test)}"
    return f"{text}."


def distillation_verdict(board: Leaderboard) -> str:
    """Returns in words whether distillation was worth it; '' if that is not known."""
    best = board.best
    if best is None:
        return ""
    if not best.distilled:
        return _without_distillation(board)
    gain = gain_of(board)
    if gain is None:
        return ""
    terms = [name for name, weight in best.weights.items() if weight]
    subject = "Distillation" if terms != ["logits"] else "Distillation of the logits alone"
    value = difference(gain.value) if gain.value > 0 else "nothing"
    whom = "the same student" if gain.is_same else "the best student"
    own, others = map(number, gain.scores)
    text = f"{subject} gains {value} over {whom} trained on the labels alone"
    text += f" (trial {gain.labels.name}): {own} against {others}"
    text += f", means of {gain.seeds} other seeds" if gain.seeds else ", one seed each"
    if gain.low is not None and gain.high is not None:
        text += f" (95 % interval of the gain: {difference(gain.low)} to {difference(gain.high)})"
    text += _on_test(best, gain.labels)
    if gain.is_clear is not None:
        kind, sign = ("distinguishable", "≤") if gain.is_clear else ("indistinguishable", ">")
        text += f"; the two are statistically {kind} (Welch's t-test, p {sign} 0.05)"
    return f"{text}." + ("" if gain.value > 0 else f" {_ADVICE}")


def _on_test(best: Row, labels: Row) -> str:
    """Returns the scores of both on test; '' unless both have one."""
    means = best.test_mean, labels.test_mean
    own, others = means if None not in means else (best.test_score, labels.test_score)
    if own is None or others is None:
        return ""
    return f"; on test {number(own)} against {number(others)}"


def _without_distillation(board: Leaderboard) -> str:
    """Returns the verdict if the best student was trained on the labels alone."""
    several = len(board.objectives) > 1
    text = f"The {'recommended' if several else 'best'} student was trained on the labels alone"
    distilled = next((row for row in board.rows if row.rank and row.distilled), None)
    if distilled is None:
        return f"{text}, as were all complete students of this run."
    score = distilled.score if distilled.mean is None else distilled.mean
    found = f"trial {distilled.name}, has {number(score)}"
    if several:
        text += f": no distilled student is nearer to the ideal point here (the next, {found})"
    else:
        text += f": no distilled student was better here (the best of them, {found})"
    return f"{text}. {_ADVICE}"


def _labels_of(board: Leaderboard, best: Row) -> Row | None:
    """Returns the student on the labels alone that the best student is compared with."""
    baseline = board.baseline
    if baseline is not None and _student_of(baseline) == _student_of(best):
        return baseline
    ranked = (row for row in board.rows if row.rank is not None and not row.distilled)
    return next(ranked, baseline)


def _student_of(row: Row) -> tuple[object, ...]:
    """Returns the shape of a student, where it starts, and its learning rate."""
    shape = (row.depth, row.hidden_size, row.heads, row.intermediate_size)
    # A map says which layers a student is made of, unless it starts from another model.
    maps = (row.word_map, row.layer_map) if row.init in INIT_KEYWORDS else ()
    return (*shape, row.init, row.layers, *maps, row.lr)
