"""ROUGE (Lin 2004), and a greedy choice of the sentences that maximise it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lkd_tune.config.settings.task_kinds import KINDS

NAMES = KINDS["extractive_summary"].metrics
"""The scores: unigrams, bigrams, and the longest common subsequence of words."""

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Returns the words that ROUGE counts: runs of letters and digits, in lower case, not stemmed.

    They equal those of Google's rouge-score on English text. It drops all letters but a to z.
    """
    return _WORD.findall(text.lower())


def rouge(found: Sequence[str], right: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the F1 scores of summaries by name, in [0, 1], each of shape (summaries,).

    Args:
        found: The predicted summaries.
        right: The reference of each.
    """
    from torchmetrics.functional.text.rouge import rouge_score

    scores = [
        rouge_score(*pair, normalizer=str.lower, tokenizer=words, rouge_keys=NAMES)
        for pair in zip(found, right, strict=True)
    ]
    return {name: np.array([float(one[f"{name}_fmeasure"]) for one in scores]) for name in NAMES}


def best_sentences(sentences: Sequence[str], summary: str, most: int) -> list[int]:
    """Returns the indices of the sentences that a greedy choice puts into a summary, sorted.

    Each step adds the sentence that gives the largest sum of ROUGE-1 and ROUGE-2 F1, the first of
    equals. It stops at `most` sentences, or when no sentence increases the sum.

    Source: Nallapati, Zhai, Zhou, "SummaRuNNer", AAAI 2017, "Extractive Training".

    Args:
        sentences: The document.
        summary: The reference.
        most: Largest number of sentences.
    """
    split = [words(sentence) for sentence in sentences]
    right = [_grams(words(summary), n) for n in (1, 2)]
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < most:
        best = chosen
        for number in range(len(split)):
            if number in chosen:
                continue
            candidate = sorted([*chosen, number])
            joined = [word for i in candidate for word in split[i]]
            score = sum(_f1(_grams(joined, n), of) for n, of in enumerate(right, 1))
            if score > reached:
                best, reached = candidate, score
        if best is chosen:
            break
        chosen = best
    return chosen


def _grams(of: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(of[i:] for i in range(n)), strict=False))


def _f1(found: Counter[tuple[str, ...]], right: Counter[tuple[str, ...]]) -> float:
    # The harmonic mean of precision hits / found and recall hits / right.
    both = found.total() + right.total()
    return 2 * (found & right).total() / both if both else 0.0
