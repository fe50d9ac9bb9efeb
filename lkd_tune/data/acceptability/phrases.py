"""Seeded choices, and the phrases from which the acceptability grammar builds its sentences."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from lkd_tune.data.acceptability import lexicon
from lkd_tune.data.acceptability.lexicon import PLURAL, SINGULAR, Noun

T = TypeVar("T")
Words = list[str]

# Share of singular subjects and of sentences with an object where verb classes are contrasted. At
# 0.5 a bag of words is at chance and 6 layers need about twice the steps; at 0.7 a bag of words
# reaches a Matthews correlation of about 0.2.
SINGULAR_SHARE = 0.7
OBJECT_SHARE = 0.7
ADJECTIVE_SHARE = 0.1
# Share of declaratives that stand under "the queen thinks that ..." or after "today"; both move
# the words away from fixed positions.
EMBEDDED_SHARE = 0.15
OPENER_SHARE = 0.15


class Chooser:
    """Seeded choices; uses only `Random.random`, the one method Python keeps stable for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return int(self._random.random() * limit)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.below(len(options))]

    def word(self, options: Sequence[T]) -> T:
        """One of the options; earlier ones are more likely, like frequent words of a language.

        Nested uniform draws (of integers only) approximate Zipf's law. Some plain uniform draws
        raise the end of the tail, so that no word is too rare to be learned.
        """
        limit = len(options)
        if self.chance(0.15):
            return options[self.below(limit)]
        for _ in range(3):
            limit = self.below(limit) + 1
        return options[limit - 1]

    def chance(self, probability: float) -> bool:
        """True with the probability given."""
        return self._random.random() < probability

    def number(self) -> int:
        """SINGULAR or, less often, PLURAL."""
        return SINGULAR if self.chance(SINGULAR_SHARE) else PLURAL


def noun_phrase(choose: Chooser, number: int, nouns: Sequence[Noun] = lexicon.PEOPLE) -> Words:
    """The noun phrase: "the", at times an adjective, a noun of this number."""
    adjective = [choose.word(lexicon.SIZES)] if choose.chance(ADJECTIVE_SHARE) else []
    return ["the", *adjective, choose.word(nouns)[number]]


def person(choose: Chooser) -> Words:
    """A noun phrase for one person or several."""
    return noun_phrase(choose, choose.number())


def prepositional(choose: Chooser) -> Words:
    """A preposition and a noun phrase, of people or of things."""
    nouns = lexicon.PEOPLE if choose.chance(0.5) else lexicon.THINGS
    return [choose.pick(lexicon.PREPOSITIONS), *noun_phrase(choose, choose.number(), nouns)]


def relative(choose: Chooser, number: int) -> Words:
    """A relative clause for a head of this number, with the subject or the object missing."""
    verb = choose.word(lexicon.TRANSITIVE)
    if choose.chance(0.5):
        return ["that", verb[number], *person(choose)]
    inner = choose.number()
    return ["that", *noun_phrase(choose, inner), verb[inner]]


def predicates(choose: Chooser) -> tuple[Words, Words]:
    """The same predicate for a singular and for a plural subject."""
    kind = choose.below(4)
    if kind == 0:
        verb, rest = choose.word(lexicon.TRANSITIVE), person(choose)
    elif kind == 1:
        verb, rest = choose.word(lexicon.INTRANSITIVE), []
    else:  # the commonest verbs of all, from which number is learned first
        verb, rest = choose.pick(lexicon.BE), [choose.word(lexicon.ADJECTIVES)]
    return [verb[SINGULAR], *rest], [verb[PLURAL], *rest]


def setting(choose: Chooser) -> Words:
    """What may stand before a declarative: an adverb, a matrix clause, mostly nothing."""
    opener = [choose.pick(lexicon.OPENERS)] if choose.chance(OPENER_SHARE) else []
    if not choose.chance(EMBEDDED_SHARE):
        return opener
    number = choose.number()
    verb = choose.word(lexicon.CLAUSAL)[number]
    return [*opener, *noun_phrase(choose, number), verb, "that"]
