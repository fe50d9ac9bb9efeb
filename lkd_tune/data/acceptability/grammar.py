"""Minimal pairs: an acceptable sentence and its nearest unacceptable neighbour.

In every phenomenon the label is an interaction (subject number x verb number, "who" x object,
verb class x object) or a matter of word order alone, so that single words and length say little
about it. They say a little, because one value of each factor is the commoner: were the factors
balanced, the loss would have no slope to start on, and a small model trained from scratch would
stay on its first plateau for most of a short run.
"""

from collections.abc import Callable

from lkd_tune.data.acceptability import lexicon
from lkd_tune.data.acceptability.lexicon import PLURAL, SINGULAR
from lkd_tune.data.acceptability.phrases import (
    OBJECT_SHARE,
    Chooser,
    Words,
    noun_phrase,
    person,
    predicates,
    prepositional,
    relative,
    setting,
)

Pair = tuple[Words, Words]
"""The acceptable and the unacceptable sentence."""


# --- subject-verb agreement ------------------------------------------------------------------


def _agree(choose: Chooser, before: Words, modifiers: Callable[[int], Words]) -> Pair:
    """`before`, a subject with its modifiers (given its number), a predicate in either number."""
    number = choose.number()
    before = [*before, *noun_phrase(choose, number), *modifiers(number)]
    forms = predicates(choose)
    return before + forms[number], before + forms[1 - number]


def agreement_local(choose: Chooser) -> Pair:
    """The boys laugh / *laughs."""
    return _agree(choose, [], lambda number: [])


def agreement_prepositional(choose: Chooser) -> Pair:
    """The boys near the girl laugh / *laughs; with one or two prepositional phrases."""
    before = setting(choose)
    phrases = prepositional(choose)
    if choose.chance(0.5):
        phrases += prepositional(choose)
    return _agree(choose, before, lambda number: phrases)


def agreement_relative(choose: Chooser) -> Pair:
    """The boys that the girl admires laugh / *laughs."""
    return _agree(choose, setting(choose), lambda number: relative(choose, number))


def agreement_inside_relative(choose: Chooser) -> Pair:
    """The boys that the girl admires / *admire laugh; the boys that admire / *admires ..."""
    number, inner = choose.number(), choose.number()
    verb = choose.word(lexicon.TRANSITIVE)
    before = [*setting(choose), *noun_phrase(choose, number), "that"]
    after = predicates(choose)[number]
    other = noun_phrase(choose, inner)
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
        return reflexive, PLURAL, noun_phrase(choose, PLURAL, lexicon.GENDERED)
    nouns = (lexicon.MEN, lexicon.WOMEN)[reflexive]
    return reflexive, SINGULAR, noun_phrase(choose, SINGULAR, nouns)


def _reflexive(choose: Chooser, before: Words, right: int, lure: int) -> Pair:
    """Ends in the right reflexive, and in the one of the lure if that is another."""
    wrong = lure if lure != right else (right + 1 + choose.below(2)) % len(lexicon.REFLEXIVES)
    return [*before, lexicon.REFLEXIVES[right]], [*before, lexicon.REFLEXIVES[wrong]]


def reflexive_local(choose: Chooser) -> Pair:
    """The boy admires himself / *herself / *themselves."""
    right, number, subject = _antecedent(choose)
    verb = choose.word(lexicon.TRANSITIVE)[number]
    return _reflexive(choose, [*setting(choose), *subject, verb], right, right)


def reflexive_attractor(choose: Chooser) -> Pair:
    """The boys near the girl admire themselves / *herself; a noun that does not c-command."""
    right, number, subject = _antecedent(choose)
    lure, lure_number, attractor = _antecedent(choose)
    verb = choose.word(lexicon.TRANSITIVE)[number]
    inner = choose.word(lexicon.TRANSITIVE)
    kind = choose.below(4)
    if kind < 2:
        modifier = [choose.pick(lexicon.PREPOSITIONS), *attractor]
    elif kind == 2:
        modifier = ["that", inner[number], *attractor]
    else:
        modifier = ["that", *attractor, inner[lure_number]]
    return _reflexive(choose, [*setting(choose), *subject, *modifier, verb], right, lure)


def reflexive_embedded(choose: Chooser) -> Pair:
    """The queen thinks that the boys admire themselves / *herself; binding is local."""
    right, number, subject = _antecedent(choose)
    lure, lure_number, outer = _antecedent(choose)
    clausal = choose.word(lexicon.CLAUSAL)[lure_number]
    verb = choose.word(lexicon.TRANSITIVE)[number]
    return _reflexive(choose, [*outer, clausal, "that", *subject, verb], right, lure)


# --- filler and gap --------------------------------------------------------------------------


def _gap(choose: Chooser, start_with_filler: Words, start_without: Words, end: Words) -> Pair:
    """With a filler the object must be missing, without one it must be there."""
    with_object = person(choose) + end
    if choose.chance(0.5):
        return start_with_filler + end, start_with_filler + with_object
    return start_without + with_object, start_without + end


def gap_question(choose: Chooser) -> Pair:
    """Who did the boy admire / *admire the girl; did the boy admire the girl / *admire."""
    subject = person(choose)
    if choose.chance(0.3):
        subject = subject + prepositional(choose)
    verb = choose.word(lexicon.TRANSITIVE)
    if choose.chance(0.3):
        inner = choose.number()
        clausal = choose.word(lexicon.CLAUSAL)[PLURAL]
        middle = [*subject, clausal, "that", *noun_phrase(choose, inner), verb[inner]]
    else:
        middle = [*subject, verb[PLURAL]]
    return _gap(choose, ["who", "did", *middle], ["did", *middle], [])


def gap_embedded(choose: Chooser) -> Pair:
    """The man knows who the boy admires / *admires the girl; ... that the boy admires ..."""
    outer, inner = choose.number(), choose.number()
    start = [*noun_phrase(choose, outer), choose.word(lexicon.INTERROGATIVE)[outer]]
    middle = [*noun_phrase(choose, inner), choose.word(lexicon.TRANSITIVE)[inner]]
    return _gap(choose, [*start, "who", *middle], [*start, "that", *middle], [])


def gap_relative(choose: Chooser) -> Pair:
    """The man that the boy admires / *admires the girl laughs; ... that admires the girl ..."""
    number, inner = choose.number(), choose.number()
    start = [*setting(choose), *noun_phrase(choose, number), "that"]
    verb = choose.word(lexicon.TRANSITIVE)
    object_gap = [*start, *noun_phrase(choose, inner), verb[inner]]
    return _gap(choose, object_gap, [*start, verb[number]], predicates(choose)[number])


# --- determiner and noun ---------------------------------------------------------------------


def _determine(choose: Chooser, adjectives: int) -> Pair:
    number = choose.number()
    right, wrong = (choose.pick(lexicon.DETERMINERS[n]) for n in (number, 1 - number))
    between = [choose.word(lexicon.SIZES) for _ in range(adjectives)]
    nouns = lexicon.PEOPLE if choose.chance(0.5) else lexicon.THINGS
    bare = [*between, choose.word(nouns)[number]]
    before = setting(choose)
    if nouns is lexicon.PEOPLE and choose.chance(0.5):
        after = predicates(choose)[number]
    else:
        subject = choose.number()
        before = [*before, *noun_phrase(choose, subject), choose.word(lexicon.TRANSITIVE)[subject]]
        after = []
    return [*before, right, *bare, *after], [*before, wrong, *bare, *after]


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
    subject = [*setting(choose), *noun_phrase(choose, number)]
    right = choose.word(lexicon.TRANSITIVE)[number]
    wrong = choose.word(lexicon.INTRANSITIVE)[number]
    rest = person(choose)
    if not choose.chance(OBJECT_SHARE):
        right, wrong = wrong, right
        rest = []
    end = choose.pick(([], [], [choose.pick(lexicon.CLOSERS)], prepositional(choose)))
    return [*subject, right, *rest, *end], [*subject, wrong, *rest, *end]


def arguments_ditransitive(choose: Chooser) -> Pair:
    """The boy gives / *admires the girl the book; the boy admires / *gives the girl."""
    number = choose.number()
    subject = [*setting(choose), *noun_phrase(choose, number)]
    right = choose.word(lexicon.DITRANSITIVE)[number]
    wrong = choose.word(lexicon.TRANSITIVE)[number]
    rest = person(choose)
    thing = noun_phrase(choose, choose.number(), lexicon.THINGS)
    if choose.chance(OBJECT_SHARE):
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
    before = setting(choose)
    subject, other = noun_phrase(choose, number)[1:], person(choose)[1:]
    verb = [lexicon.HAVE[number], "ever", choose.word(lexicon.TRANSITIVE).participle]
    return (
        [*before, "no", *subject, *verb, "the", *other],
        [*before, "the", *subject, *verb, "no", *other],
    )


def polarity_attractor(choose: Chooser) -> Pair:
    """No boy that the girl admires has ever laughed / *the boy that no girl admires ..."""
    number, inner = choose.number(), choose.number()
    before = setting(choose)
    subject, other = noun_phrase(choose, number)[1:], noun_phrase(choose, inner)[1:]
    transitive = choose.word(lexicon.TRANSITIVE)
    link, end = choose.pick(
        (
            ([choose.pick(lexicon.PREPOSITIONS)], []),
            (["that", transitive[number]], []),
            (["that"], [transitive[inner]]),
        )
    )
    after = [*end, lexicon.HAVE[number], "ever", choose.word(lexicon.INTRANSITIVE).participle]
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

SCHEDULE: tuple[str, ...] = (
    *PHENOMENA,
    "agreement_local",
    "agreement_local",
    "agreement_prepositional",
    "determiner_local",
    "arguments_transitive",
)
"""The phenomena in turn; what is simple comes more often, for learning to start from it."""
