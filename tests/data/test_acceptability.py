import hashlib
from collections import Counter

import pytest

from lkd_tune.data.acceptability.task import (
    PHENOMENA,
    VOCABULARY,
    Sentence,
    build_acceptability,
)

DEFAULT_SHA256 = "e2edafbd5c79c5f155533603a7890e2fa5e7d194afd30136a036532cfd92504a"

# What the checker below knows of English; on purpose not taken from the grammar's word lists.
SIZES = {"old", "new", "big", "small", "red", "blue", "heavy", "dirty"}
MEN = {"boy", "man", "king", "brother", "uncle", "waiter", "actor", "prince", "father", "monk"}
SINGULAR_DETERMINERS = {"this", "every", "each", "another"}
PLURAL_DETERMINERS = {"these", "those", "many", "several"}
DETERMINERS = {"the", "no"} | SINGULAR_DETERMINERS | PLURAL_DETERMINERS
PREPOSITIONS = {"near", "behind", "beside", "with"}
OPENERS = {"today", "clearly", "perhaps", "sadly"}
TAKES_THAT = ("think", "claim", "believe", "hope")
INTRANSITIVE = (
    *("laugh", "smile", "sneeze", "cough", "yawn", "snore"),
    *("blush", "giggle", "sleep", "arrive", "vanish", "faint"),
)
DITRANSITIVE = ("give", "hand", "lend", "loan", "award")


@pytest.fixture(scope="module")
def default():
    return build_acceptability()


@pytest.fixture(scope="module")
def clean():
    return build_acceptability(label_noise=0.0)


# --- a small parser, the judge ---------------------------------------------------------------


def is_plural_noun(noun):
    return noun in {"men", "women"} or (noun.endswith("s") and not noun.endswith("ess"))


def is_plural_verb(verb):
    return verb == "impress" or not verb.endswith("s")


def noun_phrase(words, at):
    """The noun of the phrase that starts at `at`, and where the phrase ends."""
    assert words[at] in DETERMINERS, (words, at)
    at += 1
    while words[at] in SIZES:
        at += 1
    return words[at], at + 1


def without_setting(words):
    """Without "today" and "the queen thinks that"."""
    if words[0] in OPENERS:
        words = words[1:]
    if words[0] not in DETERMINERS:
        return words
    _, end = noun_phrase(words, 0)
    embedded = words[end].startswith(TAKES_THAT) and words[end + 1] == "that"
    return words[end + 2 :] if embedded else words


def subject(words):
    """Head noun, (noun, verb) of the relative clause if there is one, where the verb stands."""
    head, at = noun_phrase(words, 0)
    while words[at] in PREPOSITIONS:
        _, at = noun_phrase(words, at + 1)
    if words[at] != "that":
        return head, [], at
    if words[at + 1] in DETERMINERS:
        inner, at = noun_phrase(words, at + 1)
        return head, [(inner, words[at])], at + 1
    verb = words[at + 1]
    _, at = noun_phrase(words, at + 2)
    return head, [(head, verb)], at


def agrees(words):
    head, inner, at = subject(words)
    return all(
        is_plural_noun(noun) == is_plural_verb(verb) for noun, verb in [*inner, (head, words[at])]
    )


def is_bound(words):
    head, _, _ = subject(words)
    singular = {"men": "man", "women": "woman"}.get(head, head)
    if is_plural_noun(head):
        return words[-1] == "themselves"
    return words[-1] == ("himself" if singular in MEN else "herself")


def fills_gap(words):
    ends_in_verb = words[-2] not in DETERMINERS | SIZES
    return ends_in_verb == ("who" in words)


def fills_relative_gap(words):
    _, at = noun_phrase(words, 0)
    assert words[at] == "that"
    at += 1
    object_gap = words[at] in DETERMINERS
    if object_gap:
        _, at = noun_phrase(words, at)
    return (words[at + 1] in DETERMINERS) != object_gap


def determines(words):
    at = next(i for i, word in enumerate(words) if word in DETERMINERS - {"the"})
    noun, _ = noun_phrase(words, at)
    return is_plural_noun(noun) == (words[at] in PLURAL_DETERMINERS)


def has_its_object(words):
    _, _, at = subject(words)
    has_object = words[at + 1 :][:1] == ["the"]
    return has_object != words[at].startswith(INTRANSITIVE)


def has_its_objects(words):
    _, _, at = subject(words)
    _, end = noun_phrase(words, at + 1)
    return words[at].startswith(DITRANSITIVE) == (words[end] in DETERMINERS)


def is_licensed(words):
    return words[0] == "no"


JUDGES = {
    "agreement": agrees,
    "reflexive": is_bound,
    "gap_relative": fills_relative_gap,
    "gap": fills_gap,
    "determiner": determines,
    "arguments_transitive": has_its_object,
    "arguments_ditransitive": has_its_objects,
    "polarity": is_licensed,
}


def judge(text, phenomenon):
    words = text.split()
    if not phenomenon.startswith("gap_") or phenomenon == "gap_relative":
        words = without_setting(words)
    name = phenomenon if phenomenon in JUDGES else phenomenon.split("_")[0]
    return int(JUDGES[name](words))


# The judge is judged by hand.
@pytest.mark.parametrize(
    ("phenomenon", "label", "text"),
    [
        ("agreement_local", 1, "the old boys laugh"),
        ("agreement_local", 0, "the princess admire the men"),
        ("agreement_prepositional", 1, "the keys near the cabinet are old"),
        ("agreement_prepositional", 0, "today the key with the bags beside the men were red"),
        ("agreement_relative", 1, "the boys that the girl admires laugh"),
        ("agreement_relative", 0, "the queen thinks that the boy that fears the men are proud"),
        ("agreement_inside_relative", 0, "the boys that the girl admire laugh"),
        ("agreement_inside_relative", 1, "the boys that impress the woman were happy"),
        ("reflexive_local", 0, "the boy admires herself"),
        ("reflexive_attractor", 1, "the boys near the girl admire themselves"),
        ("reflexive_attractor", 0, "the boys that the girl fears admire herself"),
        ("reflexive_embedded", 1, "the king thinks that the big queen admires herself"),
        ("reflexive_embedded", 0, "the king thinks that the queens admire himself"),
        ("gap_question", 1, "who did the boy near the girl admire"),
        ("gap_question", 0, "who did the boy admire the girl"),
        ("gap_question", 0, "did the boy believe that the girl admires"),
        ("gap_embedded", 1, "the man knows that the boys admire the old girl"),
        ("gap_embedded", 0, "the man knows who the boys admire the girl"),
        ("gap_relative", 1, "the man that the boy admires laughs"),
        ("gap_relative", 0, "the man that admires laughs"),
        ("determiner_local", 0, "the boy admires these car"),
        ("determiner_adjectives", 1, "perhaps these big old cars are red"),
        ("arguments_transitive", 0, "the boy admires near the girl"),
        ("arguments_transitive", 1, "the boy laughs near the girl"),
        ("arguments_ditransitive", 0, "the boy admires the girl the book"),
        ("arguments_ditransitive", 0, "the boy gives the girl near the book"),
        ("polarity_local", 1, "no boy has ever admired the girl"),
        ("polarity_attractor", 0, "the boy that no girl admires has ever laughed"),
    ],
)
def test_judge(phenomenon, label, text):
    assert set(text.split()) <= set(VOCABULARY)
    assert judge(text, phenomenon) == label


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_labels_are_those_of_an_independent_judge(clean, phenomenon):
    sentences = [s for split in clean.values() for s in split if s.phenomenon == phenomenon]
    wrong = [s for s in sentences if judge(s.text, phenomenon) != s.label]
    assert wrong == []


# --- the data set ----------------------------------------------------------------------------


def test_default_data_are_pinned(default):
    """A change here is a new task: scores before and after can't be compared."""
    lines = (
        f"{split}\t{s.phenomenon}\t{s.label}\t{s.text}\n"
        for split, sentences in default.items()
        for s in sentences
    )
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == DEFAULT_SHA256


def test_sizes_and_types(default):
    assert {split: len(sentences) for split, sentences in default.items()} == {
        "train": 24_000,
        "dev": 2_000,
        "test": 2_000,
    }
    assert all(isinstance(s, Sentence) for sentences in default.values() for s in sentences)


def test_same_seed_same_data_and_another_seed_other_data():
    sizes = {"train": 200, "dev": 40, "test": 40}
    assert build_acceptability(1, **sizes) == build_acceptability(1, **sizes)
    one, two = (build_acceptability(seed, **sizes) for seed in (1, 2))
    assert all(one[split] != two[split] for split in one)


def test_dev_and_test_do_not_depend_on_train(default):
    small = build_acceptability(train=100, label_noise=0.3)
    assert (small["dev"], small["test"]) == (default["dev"], default["test"])


def test_no_sentence_occurs_twice(default):
    counts = Counter(s.text for sentences in default.values() for s in sentences)
    assert counts.most_common(1)[0][1] == 1


def test_minimal_pairs_are_complete_and_together(clean):
    for sentences in clean.values():
        for one, other in zip(sentences[::2], sentences[1::2], strict=True):
            assert {one.label, other.label} == {0, 1}
            assert one.phenomenon == other.phenomenon


def test_members_of_a_pair_differ_little(clean):
    """One word put for another, a noun phrase more or less, or "no" and "the" exchanged."""
    for one, other in zip(clean["dev"][::2], clean["dev"][1::2], strict=True):
        a, b = Counter(one.text.split()), Counter(other.text.split())
        difference = (a - b).total() + (b - a).total()
        assert difference <= 3, (one, other)


def test_every_phenomenon_in_every_split(default):
    for sentences in default.values():
        assert {s.phenomenon for s in sentences} == set(PHENOMENA)


def test_vocabulary_is_what_the_grammar_produces(default):
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert 200 <= len(VOCABULARY) <= 400
    used = {word for sentences in default.values() for s in sentences for word in s.text.split()}
    assert used == set(VOCABULARY)


def test_labels_are_balanced(default, clean):
    for split, sentences in clean.items():
        assert 2 * sum(s.label for s in sentences) == len(sentences), split
    noisy = default["train"]
    assert sum(s.label for s in noisy) / len(noisy) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25])
def test_noise_turns_that_share_of_the_train_labels(noise):
    clean, noisy = (build_acceptability(train=2_000, label_noise=n) for n in (0.0, noise))
    pairs = list(zip(clean["train"], noisy["train"], strict=True))
    assert all(a.text == b.text for a, b in pairs)
    assert sum(a.label != b.label for a, b in pairs) == noise * 2_000
    assert (clean["dev"], clean["test"]) == (noisy["dev"], noisy["test"])


def test_single_words_and_length_say_little(default):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import matthews_corrcoef

    # The length as one more word, so that one classifier sees both.
    texts = {
        split: [f"{s.text} length{len(s.text.split())}" for s in sentences]
        for split, sentences in default.items()
    }
    labels = {split: [s.label for s in sentences] for split, sentences in default.items()}
    words = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000)
    model.fit(words.fit_transform(texts["train"]), labels["train"])
    for split in ("dev", "test"):
        predicted = model.predict(words.transform(texts[split]))
        assert matthews_corrcoef(labels[split], predicted) < 0.27, split


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 3}, "train=3: minimal pairs need an even number >= 0"),
        ({"dev": -2}, "dev=-2: minimal pairs need an even number >= 0"),
        ({"label_noise": 1.5}, r"label_noise=1.5: a share must lie in \[0, 1\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_acceptability(**arguments)
