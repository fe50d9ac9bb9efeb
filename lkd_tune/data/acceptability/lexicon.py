"""Word lists of the acceptability grammar.

A form is indexed by its number: `word[SINGULAR]`, `word[PLURAL]`. Transitive verbs are only
those that English does not let stand without their object ("the boy admires" is out), so that a
missing object is an error and not a matter of taste.
"""

from typing import NamedTuple

SINGULAR, PLURAL = 0, 1


class Noun(NamedTuple):
    """A countable noun."""

    singular: str
    plural: str


class Verb(NamedTuple):
    """A verb in the present; the plural form is also the bare form after "did"."""

    singular: str
    plural: str
    participle: str = ""


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def _nouns(words: str) -> tuple[Noun, ...]:
    return tuple(Noun(*word.split("/")) if "/" in word else Noun(word, word + "s")
                 for word in words.split())  # fmt: skip


def _verbs(words: str) -> tuple[Verb, ...]:
    return tuple(Verb(*word.split("/")) for word in words.split())


MEN = _nouns("boy man/men king brother uncle waiter actor prince father monk")
WOMEN = _nouns(
    "girl woman/women queen sister aunt waitress/waitresses actress/actresses "
    "princess/princesses mother nun"
)
PROFESSIONS = _nouns("teacher doctor driver farmer pilot lawyer painter singer student nurse")
# Early words are drawn more often, so the kinds alternate.
GENDERED = tuple(noun for pair in zip(MEN, WOMEN, strict=True) for noun in pair)
PEOPLE = tuple(noun for trio in zip(MEN, WOMEN, PROFESSIONS, strict=True) for noun in trio)
THINGS = _nouns("key cabinet car book box/boxes letter picture table lamp coat bag cup")

TRANSITIVE = _verbs(
    "admires/admire/admired blames/blame/blamed praises/praise/praised greets/greet/greeted "
    "avoids/avoid/avoided defends/defend/defended describes/describe/described "
    "fears/fear/feared betrays/betray/betrayed protects/protect/protected "
    "insults/insult/insulted respects/respect/respected impresses/impress/impressed "
    "comforts/comfort/comforted distracts/distract/distracted thanks/thank/thanked"
)
INTRANSITIVE = _verbs(
    "laughs/laugh/laughed smiles/smile/smiled sneezes/sneeze/sneezed coughs/cough/coughed "
    "yawns/yawn/yawned snores/snore/snored blushes/blush/blushed giggles/giggle/giggled "
    "sleeps/sleep/slept arrives/arrive/arrived vanishes/vanish/vanished faints/faint/fainted"
)
DITRANSITIVE = _verbs("gives/give hands/hand lends/lend loans/loan awards/award")
# These take "that ..." and, in the second list, "who ..." as well.
CLAUSAL = _verbs("thinks/think claims/claim believes/believe hopes/hope")
INTERROGATIVE = _verbs("knows/know guesses/guess reveals/reveal explains/explain")
BE = (Verb("is", "are"), Verb("was", "were"))
HAVE = Verb("has", "have")

REFLEXIVES = ("himself", "herself", "themselves")
DETERMINERS = (
    ("this", "every", "each", "another"),
    ("these", "those", "many", "several"),
)  # [number]
ADJECTIVES = _words("tall young clever quiet happy famous tired proud strange lucky nervous rich")
SIZES = _words("old new big small red blue heavy dirty")  # fit people and things
PREPOSITIONS = ("near", "behind", "beside", "with")
OPENERS = ("today", "clearly", "perhaps", "sadly")
CLOSERS = ("often", "again", "daily")
FUNCTION_WORDS = ("the", "that", "who", "did", "no", "ever")


def _vocabulary() -> tuple[str, ...]:
    inflected = (PEOPLE, THINGS, TRANSITIVE, INTRANSITIVE, DITRANSITIVE, CLAUSAL, INTERROGATIVE,
                 BE, (HAVE,), DETERMINERS)  # fmt: skip
    invariant = (REFLEXIVES, ADJECTIVES, SIZES, PREPOSITIONS, OPENERS, CLOSERS, FUNCTION_WORDS)
    forms = {form for words in inflected for word in words for form in word}
    forms.update(form for words in invariant for form in words)
    forms.discard("")
    return tuple(sorted(forms))


VOCABULARY: tuple[str, ...] = _vocabulary()
"""Every word form that the grammar can produce, sorted."""
