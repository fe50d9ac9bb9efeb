"""Checks before a search starts: the space against its teacher and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import GENERATED, is_file_name
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.data.loading import SPLITS, check_data, label_names, load_split
from lkd_tune.data.soundness import data_notes
from lkd_tune.data.survey import SplitFacts, survey, survey_notes
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.training_text import load_training_text
from lkd_tune.evaluation.scoring import check_labels
from lkd_tune.evaluation.teacher_check import check_start, check_teacher
from lkd_tune.models.comparable import check_attention, check_relation_heads
from lkd_tune.models.loading import check_vocabulary, empty_model, load_config, load_tokenizer
from lkd_tune.models.self_test import check_layers, check_trimming
from lkd_tune.models.teacher_size import (
    teacher_depth,
    teacher_positions,
    teacher_start,
    teacher_width,
)
from lkd_tune.models.vocabulary import check_tokenizer


def check_space(space: SearchSpace) -> int:
    """Returns the teacher's depth after checking it and the data against the space.

    Raises:
        SpecError: With all problems.
    """
    problems = [
        space.source.problem((*path, *key.split(".")), message)
        for path, task in _tasks(space)
        for key, message in check_data(task)
    ]
    problems += space.missing_trackers()
    layers = 0
    try:
        layers = teacher_depth(space.settings.teacher)
        width = teacher_width(space.settings.teacher)
        problems += _check_length(space)
        for check in (
            lambda: space.check_teacher(layers),
            lambda: space.check_width(width),
            lambda: _check_layers(space),
            lambda: _check_trimming(space),
            lambda: _check_starts(space),
            lambda: _check_attention(space),
        ):
            try:
                check()
            except SpecError as error:
                problems += _with_place(space, error)
    except SpecError as error:
        problems += _with_place(space, error)
    if problems:
        raise SpecError(problems)
    return layers


def tried_recipes(space: SearchSpace) -> list[str]:
    """Returns the recipes whose losses a search starts with, even if its space lacks them."""
    search = space.settings.search
    if search.is_exhaustive:
        return []
    served: list[str] = [name for name in search.recipes if recipe_problem(space, name) is None]
    return served[: search.most_recipe_starts]


def recipe_problem(space: SearchSpace, recipe: str) -> str | None:
    """Returns why the models of a space can't be trained with a recipe; None if they can."""
    losses = LossSettings.model_validate({"recipe": recipe})
    if space.settings.task.train is None and not losses.needs_teacher:
        return "it needs labels, and without task.train there are none"
    attention = losses.attention
    try:
        _check_relation_heads(space, {attention.heads} if attention.weight else set())
    except SpecError as error:
        return error.problems[0].message.partition(";")[0]
    return None


@dataclass(frozen=True)
class DataFindings:
    """What reading local data has shown.

    Attributes:
        notes: What a user should know of them, a line each.
        splits: Counts over each split.
    """

    notes: list[str] = field(default_factory=list)
    splits: list[SplitFacts] = field(default_factory=list)


def check_all(space: SearchSpace) -> tuple[int, DataFindings]:
    """Returns the teacher's depth after checking space, teacher and data; and what the data are.

    The `check` command does this. In a search, trials find the problems of the data later.

    Raises:
        SpecError: With all problems, those of the data after those of the space.
    """
    problems: list[Problem] = []
    layers, found = 0, DataFindings()
    try:
        layers = check_space(space)
    except SpecError as error:
        problems += error.problems
    try:
        found = read_data(space)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError([*dict.fromkeys(problems)])  # both have checked the task
    return layers, found


def read_data(space: SearchSpace) -> DataFindings:
    """Returns what the local data are, after comparing them with an existing teacher.

    Raises:
        SpecError: With the file, row and column of the first problem in each split.
    """
    problems: list[Problem] = []
    found = DataFindings()
    start = teacher_start(space.settings.teacher)
    for path, task in _tasks(space):
        splits = {}
        for split in SPLITS:
            where = getattr(task, split)
            if task.data != GENERATED and where is not None and is_file_name(where):
                try:
                    splits[split] = load_split(task, split)
                except SpecError as error:
                    problems += _with_place(space, error, path[:-1])
        try:
            if task.named_in in splits:
                found.notes.extend(data_notes(task, splits, label_names(task)))
                facts = survey(task, splits, label_names(task), _tokenizer(start))
                found.notes.extend(survey_notes(task, facts))
                found.splits.extend(facts)
            if not problems and task.unlabelled is not None and _is_on_disk(task):
                found.notes.append(load_training_text(task).note)
        except SpecError as error:
            problems += _with_place(space, error, path[:-1])
    task, teacher = space.settings.task, space.settings.teacher.model
    if not problems and teacher is not None and is_file_name(str(getattr(task, task.named_in))):
        try:
            check_labels(load_config(teacher), teacher, task)
        except SpecError as error:
            problems += _with_place(space, error)
    if problems:
        # Without duplicates: every split has the classes of the training split.
        raise SpecError([*dict.fromkeys(problems)])
    return found


def _tokenizer(start: str | None) -> Any:
    """Returns the tokenizer of a teacher or its start; None if it can't be loaded.

    `try_teacher` reports why not.
    """
    try:
        return load_tokenizer(start) if start is not None else None
    except SpecError:
        return None


def _is_on_disk(task: TaskSettings) -> bool:
    """Returns whether all text of a task, also that without labels, is read from local files."""
    tasks = [task, *([task.of_unlabelled()] if task.unlabelled else [])]
    named = (getattr(each, split) for each in tasks for split in SPLITS if each.data != GENERATED)
    return all(is_file_name(where) for where in named if where is not None)


def try_teacher(space: SearchSpace) -> list[str]:
    """Returns warnings about an existing teacher, after loading and running it.

    The `check` command does this after `read_data`. A search does it before it scores the teacher.

    Raises:
        SpecError: If it can't be the teacher of the task.
    """
    teacher, task = space.settings.teacher, space.settings.task
    start = teacher_start(teacher)
    if start is None:
        return []
    try:
        return (check_teacher if teacher.model else check_start)(start, task)
    except SpecError as error:
        raise SpecError(_with_place(space, error)) from None


def _with_place(space: SearchSpace, error: SpecError, above: tuple[str, ...] = ()) -> list[Problem]:
    """Returns problems with their place in the space file.

    Args:
        space: The space that has the settings.
        error: The problems. Those of models and data have only a key; `model` is the teacher.
        above: The block of their keys.
    """
    keys = ["teacher" if problem.key == "model" else problem.key for problem in error.problems]
    return [
        problem
        if problem.where
        else space.source.problem((*above, *key.split(".")), problem.message)
        for key, problem in zip(keys, error.problems, strict=True)
    ]


def _check_layers(space: SearchSpace) -> None:
    """Checks that students can be made of the teacher's layers.

    Raises:
        SpecError: If they can't.
    """
    start = teacher_start(space.settings.teacher)
    if start and {"teacher", "random"} & {shape.student.init for shape in space.shapes()}:
        check_layers(start, kind_of(space.settings.task).head)


def _check_trimming(space: SearchSpace) -> None:
    """Checks that the vocabularies which a trial may trim can be trimmed.

    Raises:
        SpecError: With the first that can't.
    """
    teacher = teacher_start(space.settings.teacher)
    trimmed = [shape.student for shape in space.shapes() if shape.student.vocab == "trim"]
    for model in {each.init if each.starts_from_model else teacher for each in trimmed} - {None}:
        check_trimming(model, kind_of(space.settings.task).head)
        check_tokenizer(model)


def _check_starts(space: SearchSpace) -> None:
    """Checks that the models in `student.init` have the teacher's vocabulary.

    Raises:
        SpecError: With the first that does not.
    """
    teacher = teacher_start(space.settings.teacher)
    for model in space.start_models:
        # The vocabulary of a teacher from scratch is not known yet; its trials check it.
        if teacher:
            check_vocabulary(model, teacher, "student.init")


def _check_attention(space: SearchSpace) -> None:
    """Checks that the attention term can compare the teacher with every student.

    Raises:
        SpecError: With the first problem.
    """
    terms: Any = space.possible_terms("attention").get("attention", ())
    _check_relation_heads(space, {term.heads for term in terms})


def _check_relation_heads(space: SearchSpace, asked: set[int | None]) -> None:
    """Checks that models have attention vectors which divide into these numbers of heads."""
    if not asked:
        return
    start, head = teacher_start(space.settings.teacher), kind_of(space.settings.task).head
    models = [start, *space.start_models]
    widths = {name: check_attention(empty_model(name, head), name) for name in models if name}
    teacher = teacher_width(space.settings.teacher)
    for heads in asked:
        check_relation_heads(heads or teacher.heads, teacher.hidden_size, "teacher")
        for shape in space.shapes():
            own = shape.student.hidden_size or teacher.hidden_size
            width = widths.get(shape.student.init, own)
            check_relation_heads(heads or teacher.heads, width, "student")


def _check_length(space: SearchSpace) -> list[Problem]:
    """Returns a problem for each task whose inputs may be longer than the teacher's.

    If the file does not set the length, the default becomes what the teacher takes.
    """
    positions = teacher_positions(space.settings.teacher, space.settings.task)
    if positions is None:
        return []
    problems = []
    for path, task in _tasks(space):
        key = (*path, "max_length")
        if task.max_length <= positions:
            continue
        if not space.is_written(key):
            space.set_default(key, positions)
            continue
        message = (
            f"{task.max_length} is above the {positions} positions of the teacher; "
            f"use at most {positions}"
        )
        problems.append(space.source.problem(key, message))
    return problems


def _tasks(space: SearchSpace) -> list[tuple[tuple[str, ...], TaskSettings]]:
    """Returns the tasks of a space, each after its path in the space file."""
    other = space.settings.evaluate_on
    others = [(("evaluate_on", "task"), other.task)] if other is not None else []
    return [(("task",), space.settings.task), *others]
