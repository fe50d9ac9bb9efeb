"""Acceptability judgements of English sentences, generated: the task that needs no download.

Like CoLA (label 1 acceptable, 0 not), but drawn from a seeded grammar as minimal pairs, so that
the size is free and what a model has learned can be read off per phenomenon.
"""

from dataclasses import dataclass, replace

from lkd_tune.data.acceptability.grammar import PHENOMENA, SCHEDULE
from lkd_tune.data.acceptability.lexicon import VOCABULARY
from lkd_tune.data.acceptability.phrases import Chooser

__all__ = ["PHENOMENA", "VOCABULARY", "Sentence", "build_acceptability"]


@dataclass(frozen=True)
class Sentence:
    """One judged sentence."""

    text: str
    """Lower-case words separated by single spaces, no punctuation."""
    label: int
    """1 acceptable, 0 not; in a noisy train split possibly the wrong one."""
    phenomenon: str
    """Key of `PHENOMENA`: what the sentence tests."""


def build_acceptability(
    seed: int = 0,
    train: int = 24_000,
    dev: int = 2_000,
    test: int = 2_000,
    label_noise: float = 0.1,
) -> dict[str, list[Sentence]]:
    """Train, dev and test split of generated acceptability judgements.

    The same arguments give the same sentences on every platform and Python. Sentences 2k and
    2k + 1 of a split are a minimal pair, in either order; no sentence occurs twice, in a split or
    across splits. Dev and test depend on `seed`, `dev` and `test` alone.

    Args:
        seed: Seed of all choices.
        train: Number of train sentences, even.
        dev: Number of dev sentences, even.
        test: Number of test sentences, even.
        label_noise: Share of train labels turned round, as by careless annotators; dev and test
            stay clean.

    Returns:
        The sentences under "train", "dev" and "test", half of them acceptable (before noise).

    Raises:
        ValueError: If a size is odd or negative, or `label_noise` not in [0, 1].
    """
    for name, size in (("train", train), ("dev", dev), ("test", test)):
        if size < 0 or size % 2:
            raise ValueError(f"{name}={size}: minimal pairs need an even number >= 0")
    if not 0.0 <= label_noise <= 1.0:
        raise ValueError(f"label_noise={label_noise}: a share must lie in [0, 1]")
    choose = Chooser(seed)
    seen: set[str] = set()
    # The small splits first: a larger train split must not change what is measured.
    splits = {name: _draw(choose, size, seen) for name, size in (("test", test), ("dev", dev))}
    splits["train"] = _flip(choose, _draw(choose, train, seen), label_noise)
    return {name: splits[name] for name in ("train", "dev", "test")}


def _draw(choose: Chooser, size: int, seen: set[str]) -> list[Sentence]:
    """`size` new sentences in minimal pairs, the phenomena in turn; adds them to `seen`."""
    sentences: list[Sentence] = []
    while len(sentences) < size:
        name = SCHEDULE[len(sentences) // 2 % len(SCHEDULE)]
        acceptable, unacceptable = (" ".join(words) for words in PHENOMENA[name](choose))
        if acceptable in seen or unacceptable in seen:
            continue
        seen.update((acceptable, unacceptable))
        pair = [Sentence(acceptable, 1, name), Sentence(unacceptable, 0, name)]
        sentences += reversed(pair) if choose.chance(0.5) else pair
    return sentences


def _flip(choose: Chooser, sentences: list[Sentence], share: float) -> list[Sentence]:
    """The sentences with the labels of this share of them, drawn at random, turned round."""
    order = list(range(len(sentences)))
    for last in range(len(order) - 1, 0, -1):  # Fisher-Yates
        other = choose.below(last + 1)
        order[last], order[other] = order[other], order[last]
    flipped = set(order[: round(share * len(order))])
    return [
        replace(sentence, label=1 - sentence.label) if index in flipped else sentence
        for index, sentence in enumerate(sentences)
    ]
