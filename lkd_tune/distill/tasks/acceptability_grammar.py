"""Minimal pairs: an acceptable sentence and its nearest unacceptable neighbour.

In every phenomenon the label is an interaction (subject number x verb number, "who" x object,
verb class x object) whose factors are drawn independently and equally often, or a matter of word
order alone. So no single word, and no length, says anything about the label.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from lkd_tune.distill.tasks import acceptability_lexicon as lexicon
from lkd_tune.distill.tasks.acceptability_lexicon import NUMBERS, PLURAL, SINGULAR, Noun

T = TypeVar("T")
Words = list[str]
Pair = tuple[Words, Words]
"""The acceptable and the unacceptable sentence."""

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

    def chance(self, probability: float) -> bool:
        """True with the probability given."""
        return self._random.random() < probability

    def number(self) -> int:
        """SINGULAR or PLURAL."""
        return self.pick(NUMBERS)


# --- phrases ---------------------------------------------------------------------------------


def _noun_phrase(
    choose: Chooser, number: int, nouns: Sequence[Noun] = lexicon.PEOPLE, determiner: str = "the"
) -> Words:
    adjective = [choose.pick(lexicon.SIZES)] if choose.chance(0.15) else []
    return [determiner, *adjective, choose.pick(nouns)[number]]


def _person(choose: Chooser) -> Words:
    return _noun_phrase(choose, choose.number())


def _prepositional(choose: Chooser) -> Words:
    nouns = lexicon.PEOPLE if choose.chance(0.5) else lexicon.THINGS
    return [choose.pick(lexicon.PREPOSITIONS), *_noun_phrase(choose, choose.number(), nouns)]


def _relative(choose: Chooser, number: int) -> Words:
    """A relative clause for a head of this number, with the subject or the object missing."""
    verb = choose.pick(lexicon.TRANSITIVE)
    if choose.chance(0.5):
        return ["that", verb[number], *_person(choose)]
    inner = choose.number()
    return ["that", *_noun_phrase(choose, inner), verb[inner]]


def _modifier(choose: Chooser, number: int) -> Words:
    return _prepositional(choose) if choose.chance(0.5) else _relative(choose, number)


def _predicates(choose: Chooser) -> Pair:
    """The same predicate for a singular and for a plural subject."""
    kind = choose.below(3)
    if kind == 0:
        verb, rest = choose.pick(lexicon.BE), [choose.pick(lexicon.ADJECTIVES)]
    elif kind == 1:
        verb, rest = choose.pick(lexicon.INTRANSITIVE), []
    else:
        verb, rest = choose.pick(lexicon.TRANSITIVE), _person(choose)
    return [verb[SINGULAR], *rest], [verb[PLURAL], *rest]


def _setting(choose: Chooser) -> Words:
    """What may stand before a declarative: an adverb, a matrix clause, mostly nothing."""
    opener = [choose.pick(lexicon.OPENERS)] if choose.chance(OPENER_SHARE) else []
    if not choose.chance(EMBEDDED_SHARE):
        return opener
    number = choose.number()
    verb = choose.pick(lexicon.CLAUSAL)[number]
    return [*opener, *_noun_phrase(choose, number), verb, "that"]


# --- subject-verb agreement ------------------------------------------------------------------


def _agree(choose: Chooser, modifiers: Callable[[int], Words]) -> Pair:
    """[setting] subject, modifiers of a subject of that number, predicate in either number."""
    number = choose.number()
    before = [*_setting(choose), *_noun_phrase(choose, number), *modifiers(number)]
    predicates = _predicates(choose)
    return before + predicates[number], before + predicates[1 - number]


def agreement_local(choose: Chooser) -> Pair:
    """The boys laugh / *laughs."""
    return _agree(choose, lambda number: [])


def agreement_prepositional(choose: Chooser) -> Pair:
    """The boys near the girl laugh / *laughs; with one or two prepositional phrases."""
    phrases = 1 + choose.below(2)
    return _agree(choose, lambda number: [w for _ in range(phrases) for w in _prepositional(choose)])


def agreement_relative(choose: Chooser) -> Pair:
    """The boys that the girl admires laugh / *laughs."""
    return _agree(choose, lambda number: _relative(choose, number))


def agreement_inside_relative(choose: Chooser) -> Pair:
    """The boys that the girl admires / *admire laugh; the boys that admire / *admires ..."""
    number, inner = choose.number(), choose.number()
    verb = choose.pick(lexicon.TRANSITIVE)
    before = [*_setting(choose), *_noun_phrase(choose, number), "that"]
    after = _predicates(choose)[number]
    other = _noun_phrase(choose, inner)
    if choose.chance(0.5):
        after = other + after
        agreeing = number
    else:
        before = before + other
        agreeing = inner
    return [*before, verb[agreeing], *after], [*before, verb[1 - agreeing], *after]


# --- reflexives ------------------------------------------------------------------------------


def _antecedent(choose: Chooser) -> tuple[int, int, Words]:
    """Index of the matching reflexive (each equally often), number, noun phrase."""
    reflexive = choose.below(len(lexicon.REFLEXIVES))
    if reflexive == 2:
        return reflexive, PLURAL, _noun_phrase(choose, PLURAL, lexicon.MEN + lexicon.WOMEN)
    nouns = (lexicon.MEN, lexicon.WOMEN)[reflexive]
    return reflexive, SINGULAR, _noun_phrase(choose, SINGULAR, nouns)


def _reflexive(choose: Chooser, before: Words, right: int, lure: int) -> Pair:
    """Ends in the right reflexive, and in the one of the lure if that is another."""
    wrong = lure if lure != right else (right + 1 + choose.below(2)) % len(lexicon.REFLEXIVES)
    return [*before, lexicon.REFLEXIVES[right]], [*before, lexicon.REFLEXIVES[wrong]]


def reflexive_local(choose: Chooser) -> Pair:
    """The boy admires himself / *herself / *themselves."""
    right, number, subject = _antecedent(choose)
    verb = choose.pick(lexicon.TRANSITIVE)[number]
    return _reflexive(choose, [*_setting(choose), *subject, verb], right, right)


def reflexive_attractor(choose: Chooser) -> Pair:
    """The boys near the girl admire themselves / *herself; a noun that does not c-command."""
    right, number, subject = _antecedent(choose)
    lure, lure_number, attractor = _antecedent(choose)
    verb = choose.pick(lexicon.TRANSITIVE)[number]
    inner = choose.pick(lexicon.TRANSITIVE)
    kind = choose.below(4)
    if kind < 2:
        modifier = [choose.pick(lexicon.PREPOSITIONS), *attractor]
    elif kind == 2:
        modifier = ["that", inner[number], *attractor]
    else:
        modifier = ["that", *attractor, inner[lure_number]]
    return _reflexive(choose, [*_setting(choose), *subject, *modifier, verb], right, lure)


def reflexive_embedded(choose: Chooser) -> Pair:
    """The queen thinks that the boys admire themselves / *herself; binding is local."""
    right, number, subject = _antecedent(choose)
    lure, lure_number, outer = _antecedent(choose)
    clausal = choose.pick(lexicon.CLAUSAL)[lure_number]
    verb = choose.pick(lexicon.TRANSITIVE)[number]
    return _reflexive(choose, [*outer, clausal, "that", *subject, verb], right, lure)


# --- filler and gap --------------------------------------------------------------------------


def _gap(choose: Chooser, start_with_filler: Words, start_without: Words, end: Words) -> Pair:
    """With a filler the object must be missing, without one it must be there."""
    with_object = _person(choose) + end
    if choose.chance(0.5):
        return start_with_filler + end, start_with_filler + with_object
    return start_without + with_object, start_without + end


def gap_question(choose: Chooser) -> Pair:
    """Who did the boy admire / *admire the girl; did the boy admire the girl / *admire."""
    subject = _person(choose)
    if choose.chance(0.3):
        subject = subject + _prepositional(choose)
    verb = choose.pick(lexicon.TRANSITIVE)
    if choose.chance(0.3):
        inner = choose.number()
        clausal = choose.pick(lexicon.CLAUSAL)[PLURAL]
        middle = [*subject, clausal, "that", *_noun_phrase(choose, inner), verb[inner]]
    else:
        middle = [*subject, verb[PLURAL]]
    return _gap(choose, ["who", "did", *middle], ["did", *middle], [])


def gap_embedded(choose: Chooser) -> Pair:
    """The man knows who the boy admires / *admires the girl; ... that the boy admires ..."""
    outer, inner = choose.number(), choose.number()
    start = [*_noun_phrase(choose, outer), choose.pick(lexicon.INTERROGATIVE)[outer]]
    middle = [*_noun_phrase(choose, inner), choose.pick(lexicon.TRANSITIVE)[inner]]
    return _gap(choose, [*start, "who", *middle], [*start, "that", *middle], [])


def gap_relative(choose: Chooser) -> Pair:
    """The man that the boy admires / *admires the girl laughs; ... that admires the girl ..."""
    number, inner = choose.number(), choose.number()
    start = [*_setting(choose), *_noun_phrase(choose, number), "that"]
    verb = choose.pick(lexicon.TRANSITIVE)
    object_gap = [*start, *_noun_phrase(choose, inner), verb[inner]]
    return _gap(choose, object_gap, [*start, verb[number]], _predicates(choose)[number])


# --- determiner and noun ---------------------------------------------------------------------


def _determine(choose: Chooser, adjectives: int) -> Pair:
    number = choose.number()
    right, wrong = (choose.pick(lexicon.DETERMINERS[n]) for n in (number, 1 - number))
    between = [choose.pick(lexicon.SIZES) for _ in range(adjectives)]
    nouns = lexicon.PEOPLE if choose.chance(0.5) else lexicon.THINGS
    noun_phrase = [*between, choose.pick(nouns)[number]]
    before = _setting(choose)
    if nouns is lexicon.PEOPLE and choose.chance(0.5):
        after = _predicates(choose)[number]
    else:
        subject = choose.number()
        before = [*before, *_noun_phrase(choose, subject), choose.pick(lexicon.TRANSITIVE)[subject]]
        after = []
    return [*before, right, *noun_phrase, *after], [*before, wrong, *noun_phrase, *after]


def determiner_local(choose: Chooser) -> Pair:
    """The boy admires these cars / *car."""
    return _determine(choose, 0)


def determiner_adjectives(choose: Chooser) -> Pair:
    """The boy admires these big old cars / *car."""
    return _determine(choose, 1 + choose.below(3))


# --- arguments of the verb -------------------------------------------------------------------


def arguments_transitive(choose: Chooser) -> Pair:
    """The boy admires / *laughs the girl; the boy laughs / *admires (near the girl)."""
    number = choose.number()
    subject = [*_setting(choose), *_noun_phrase(choose, number)]
    if choose.chance(0.3):
        subject = subject + _modifier(choose, number)
    right = choose.pick(lexicon.TRANSITIVE)[number]
    wrong = choose.pick(lexicon.INTRANSITIVE)[number]
    rest = _person(choose)
    if choose.chance(0.5):
        right, wrong = wrong, right
        rest = []
    kind = choose.below(3)
    end = ([], [choose.pick(lexicon.CLOSERS)], _prepositional(choose))[kind]
    return [*subject, right, *rest, *end], [*subject, wrong, *rest, *end]


def arguments_ditransitive(choose: Chooser) -> Pair:
    """The boy gives / *admires the girl the book; the boy admires / *gives the girl."""
    number = choose.number()
    subject = [*_setting(choose), *_noun_phrase(choose, number)]
    right = choose.pick(lexicon.DITRANSITIVE)[number]
    wrong = choose.pick(lexicon.TRANSITIVE)[number]
    rest = _person(choose)
    thing = _noun_phrase(choose, choose.number(), lexicon.THINGS)
    if choose.chance(0.5):
        rest = rest + thing
    else:
        right, wrong = wrong, right
        # As many things as in the other half, but none of them an object.
        rest = [*rest, choose.pick(lexicon.PREPOSITIONS), *thing]
    return [*subject, right, *rest], [*subject, wrong, *rest]


# --- negative polarity -----------------------------------------------------------------------


def polarity_local(choose: Chooser) -> Pair:
    """No boy has ever admired the girl / *the boy has ever admired no girl."""
    number = choose.number()
    before = _setting(choose)
    subject, other = _noun_phrase(choose, number)[1:], _person(choose)[1:]
    verb = [lexicon.HAVE[number], "ever", choose.pick(lexicon.TRANSITIVE).participle]
    return (
        [*before, "no", *subject, *verb, "the", *other],
        [*before, "the", *subject, *verb, "no", *other],
    )


def polarity_attractor(choose: Chooser) -> Pair:
    """No boy that the girl admires has ever laughed / *the boy that no girl admires ..."""
    number, inner = choose.number(), choose.number()
    before = _setting(choose)
    subject, other = _noun_phrase(choose, number)[1:], _noun_phrase(choose, inner)[1:]
    transitive = choose.pick(lexicon.TRANSITIVE)
    link, end = choose.pick(
        (
            ([choose.pick(lexicon.PREPOSITIONS)], []),
            (["that", transitive[number]], []),
            (["that"], [transitive[inner]]),
        )
    )
    after = [*end, lexicon.HAVE[number], "ever", choose.pick(lexicon.INTRANSITIVE).participle]
    return (
        [*before, "no", *subject, *link, "the", *other, *after],
        [*before, "the", *subject, *link, "no", *other, *after],
    )


PHENOMENA: dict[str, Callable[[Chooser], Pair]] = {
    build.__name__: build
    for build in (
        agreement_local,
        agreement_prepositional,
        agreement_relative,
        agreement_inside_relative,
        reflexive_local,
        reflexive_attractor,
        reflexive_embedded,
        gap_question,
        gap_embedded,
        gap_relative,
        determiner_local,
        determiner_adjectives,
        arguments_transitive,
        arguments_ditransitive,
        polarity_local,
        polarity_attractor,
    )
}
