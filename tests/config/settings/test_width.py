"""Widths that can be pruned out of a teacher, and those that can't."""

from __future__ import annotations

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.width import Width, resolve_width, with_width
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import SearchSpace
from tests.support.draws import RandomSuggester

TEACHER = Width(384, 12, 1536)
BASE = "task: cola\nteacher: t\nstudent:\n"


def _space(student: str) -> SearchSpace:
    return build_space(parse_source(BASE + student, "s.yaml"))


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ({"hidden_size": 256}, (256, 8, 1024)),
        ({"hidden_size": 300}, (300, 12, 1200)),
        ({"hidden_size": 192, "heads": 12}, (192, 12, 768)),
        ({"hidden_size": 192, "intermediate_size": 1000}, (192, 6, 1000)),
        ({"intermediate_size": 600}, (384, 12, 600)),
        ({"hidden_size": 512, "heads": 4, "init": "random"}, (512, 4, 2048)),
        ({}, (384, 12, 1536)),
    ],
)
def test_what_is_not_set_follows_the_teacher(student, expected):
    assert resolve_width(StudentSettings(**student), TEACHER) == Width(*expected)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("  hidden_size: 400", "s.yaml:4 student.hidden_size: 400 is above the teacher's 384"),
        ("  heads: 13", "s.yaml:4 student.heads: 13: 13 heads do not divide hidden size 384"),
        ("  heads: 6", "student.heads: 6 heads of hidden size 384 have 64 channels each, the"),
        ("  heads: 16", "s.yaml:4 student.heads: 16 heads are more than the teacher's 12"),
        ("  hidden_size: 100", "student.hidden_size: 100: 12 heads do not divide hidden size 100"),
        ("  intermediate_size: 2000", "student.intermediate_size: 2000 is above the teacher's"),
        ("  hidden_size: {choice: [192, 400]}", "student.hidden_size: 400 is above the teacher's"),
        ("  hidden_size: 192\n  heads: {choice: [6, 7]}", "heads: 7: 7 heads do not divide hidden"),
    ],
)
def test_a_width_that_never_fits_is_refused_in_one_line(student, message):
    with pytest.raises(SpecError) as caught:
        _space(student).check_width(TEACHER)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


ROTARY = Width(768, 12, 1152, keeps_heads=True)
GROUPED = Width(1024, 16, 3072, own_head_size=128, group=2, keeps_heads=True)
COUPLED = Width(896, 14, 4864, group=7, keeps_heads=True)
PROJECTED = Width(256, 4, 1024, embedding_size=128)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ({"hidden_size": 384}, ROTARY, (384, 6, 576)),
        ({"hidden_size": 512}, GROUPED, (512, 8, 1536)),
        ({"hidden_size": 600}, GROUPED, (600, 10, 1800)),
        ({"hidden_size": 40}, GROUPED, (40, 2, 120)),
        ({"hidden_size": 512, "heads": 16}, GROUPED, (512, 16, 1536)),
        ({"heads": 4}, GROUPED, (1024, 4, 3072)),
        ({"hidden_size": 448}, COUPLED, (448, 7, 2432)),
        ({"hidden_size": 128, "init": "random"}, PROJECTED, (128, 2, 512)),
    ],
)
def test_heads_follow_the_teachers_kind(student, teacher, expected):
    found = resolve_width(StudentSettings(**student), teacher)
    assert found == Width(*expected)
    assert found.group == teacher.group
    if teacher.keeps_heads:
        assert found.head_size == teacher.head_size


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ({"hidden_size": 400}, ROTARY, "hidden_size: 400: 12 heads of hidden size 400 do not have"),
        ({"hidden_size": 384, "heads": 12}, ROTARY, "heads: 12: 12 heads of hidden size 384 do"),
        ({"heads": 3}, GROUPED, "heads: 3: the teacher's heads share keys and values in groups"),
        ({"heads": 18}, GROUPED, "heads: 18 heads are more than the teacher's 16"),
        ({"hidden_size": 128}, COUPLED, "use multiples of 448 for hidden_size and leave heads out"),
        ({"hidden_size": 128}, PROJECTED, "hidden_size: 128 is the size of the teacher's embed"),
    ],
)
def test_heads_that_do_not_fit_the_teachers_kind_are_refused(student, teacher, message):
    with pytest.raises(SpecError) as caught:
        resolve_width(StudentSettings(**student), teacher)
    assert message in str(caught.value)


def test_a_combination_that_does_not_fit_is_drawn_again():
    space = _space("  hidden_size: {choice: [192, 256]}\n  heads: {choice: [8, 6]}")
    space.check_width(TEACHER)  # 192/6, 192/8 and 256/8 fit, 256/6 does not
    seen = set()
    for seed in range(40):
        try:
            spec = space.draw(RandomSuggester(seed), teacher="t", teacher_layers=6, seed=0)
        except SpecError as error:
            seen.add(str(error.problems[0].key))
            continue
        seen.add((spec.student.hidden_size, spec.student.heads))
        assert spec.student.intermediate_size == 4 * spec.student.hidden_size
    assert seen == {(192, 6), (192, 8), (256, 8), "student.heads"}


def test_the_same_width_in_other_words_is_the_same():
    one, other = (
        with_width(StudentSettings(hidden_size=192, **more), TEACHER)
        for more in ({}, {"heads": 6, "intermediate_size": 768})
    )
    assert one == other


def test_without_a_width_nothing_is_written_out():
    assert with_width(StudentSettings(), TEACHER) == StudentSettings()
    given = StudentSettings(init="some/model", hidden_size=128)
    assert with_width(given, TEACHER) == given
