"""Checks before a search starts: the space against its teacher and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import GENERATED, is_file_name
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.student import InitModel, StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.width import Width, asks_for_width, resolve_width
from lkd_tune.config.space import SearchSpace
from lkd_tune.data.loading import SPLITS, check_data, label_names, load_split
from lkd_tune.data.soundness import data_notes
from lkd_tune.data.survey import SplitFacts, survey, survey_notes
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.training_text import load_training_text
from lkd_tune.distillation.augmentation import check_predictor
from lkd_tune.evaluation.scoring import check_labels
from lkd_tune.evaluation.teacher_check import check_start, check_teacher
from lkd_tune.models.comparable import check_attention, check_relation_heads
from lkd_tune.models.families import count_positions
from lkd_tune.models.loading import (
    empty_model,
    has_vocabulary_of,
    load_config,
    load_tokenizer,
    read_config,
    read_depth,
)
from lkd_tune.models.self_test import check_layers, check_model, check_trimming
from lkd_tune.models.teacher_size import (
    teacher_depth,
    teacher_positions,
    teacher_start,
    teacher_width,
)
from lkd_tune.models.vocabulary import check_tokenizer
from lkd_tune.models.width.self_test import check_narrowing


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
        models = _read_init_models(space)
        for check in (
            lambda: space.check_init_models(models, layers),
            lambda: _check_length(space),
            lambda: space.check_teacher(layers),
            lambda: space.check_width(width),
            lambda: _check_layers(space),
            lambda: _check_trimming(space),
            lambda: _check_attention(space),
            lambda: _check_augmentation(space),
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
    """Returns warnings about an existing teacher and other models, after loading and running them.

    The `check` command does this after `read_data`. A search does it with the teacher before it
    scores it.

    Raises:
        SpecError: If one can't be the teacher, or a student, of the task.
    """
    teacher, task = space.settings.teacher, space.settings.task
    start, notes = teacher_start(teacher), list[str]()
    try:
        if start is not None:
            notes += (check_teacher if teacher.model else check_start)(start, task)
    except SpecError as error:
        raise SpecError(_with_place(space, error)) from None
    for model in space.start_models:
        try:
            notes += check_start(model, task)
        except SpecError as error:
            problem = space.source.problem(("student", "init"), error.problems[0].message)
            raise SpecError(problem) from None
    return notes


def _with_place(space: SearchSpace, error: SpecError, above: tuple[str, ...] = ()) -> list[Problem]:
    """Returns problems with their place in the space file.

    Args:
        space: The space that has the settings.
        error: The problems. Those of models and data have only a key; `model` is the teacher.
        above: The block of their keys.
    """
    named = "teacher" if space.settings.teacher.train is None else "teacher.train.model"
    keys = [named if problem.key == "model" else problem.key for problem in error.problems]
    return [
        problem
        if problem.where
        else space.source.problem((*above, *key.split(".")), problem.message)
        for key, problem in zip(keys, error.problems, strict=True)
    ]


def _check_layers(space: SearchSpace) -> None:
    """Checks that students can be made of the teacher's layers, and be narrower.

    Raises:
        SpecError: If they can't.
    """
    start, head = teacher_start(space.settings.teacher), kind_of(space.settings.task).head
    students = [shape.student for shape in space.shapes() if not shape.student.starts_from_model]
    if not start or not students:
        return
    check_layers(start, head)
    narrowed = [student for student in students if asks_for_width(student)]
    if narrowed:
        check_narrowing(start, head, pruned=any(student.init == "teacher" for student in narrowed))


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


def _read_init_models(space: SearchSpace) -> dict[str, InitModel]:
    """Returns what is known of each model in `student.init`.

    Raises:
        SpecError: With the first that can't be a student.
    """
    teacher, head = teacher_start(space.settings.teacher), kind_of(space.settings.task).head
    found = {}
    for model in space.start_models:
        try:
            depth = read_depth(model)
            check_model(model, head)
        except SpecError as error:
            raise SpecError(Problem("", "student.init", error.problems[0].message)) from None
        # The tokens of a teacher from scratch are those of its training text.
        own = teacher is None or not has_vocabulary_of(model, teacher, "student.init")
        found[model] = InitModel(depth, own)
    return found


def _check_augmentation(space: SearchSpace) -> None:
    """Checks that the model which predicts words for augmented text has the teacher's vocabulary.

    Raises:
        SpecError: If it has not, or does not exist.
    """
    teacher, augment = teacher_start(space.settings.teacher), space.settings.task.augment
    # The vocabulary of a teacher from scratch is not known yet; its trials check it.
    if teacher and augment is not None and augment.model is not None:
        check_predictor(augment.model, teacher)


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
    layers = teacher_depth(space.settings.teacher)
    students = [s.student for s in space.shapes() if space.compares_layers(s.student, layers)]
    models = {start, *(each.init for each in students if each.starts_from_model)}
    widths = {name: check_attention(empty_model(name, head), name) for name in models if name}
    teacher = teacher_width(space.settings.teacher)
    for heads in asked:
        check_relation_heads(heads or teacher.heads, teacher.attention_size, "teacher")
        for student in students:
            width = widths.get(student.init) or _attention_size(student, teacher)
            check_relation_heads(heads or teacher.heads, width, "student")


def _attention_size(student: StudentSettings, teacher: Width) -> int:
    """Returns the channels of a student's queries; the teacher's if its width is invalid."""
    try:
        return resolve_width(student, teacher).attention_size
    except SpecError:  # it is drawn again
        return teacher.attention_size


def _check_length(space: SearchSpace) -> None:
    """Checks that the inputs of each task are no longer than those of the models.

    If the file does not set the length, the default becomes what all of them take.

    Raises:
        SpecError: With each task whose inputs may be longer.
    """
    found = {"the teacher": teacher_positions(space.settings.teacher, space.settings.task)}
    found |= {model: count_positions(read_config(model)) for model in space.start_models}
    known = {name: positions for name, positions in found.items() if positions is not None}
    if not known:
        return
    shortest = min(known, key=lambda name: known[name])
    positions, problems = known[shortest], []
    for path, task in _tasks(space):
        key = (*path, "max_length")
        if task.max_length <= positions:
            continue
        if not space.is_written(key):
            space.set_default(key, positions)
            continue
        message = (
            f"{task.max_length} is above the {positions} positions of {shortest}; "
            f"use at most {positions}"
        )
        problems.append(space.source.problem(key, message))
    if problems:
        raise SpecError(problems)


def _tasks(space: SearchSpace) -> list[tuple[tuple[str, ...], TaskSettings]]:
    """Returns the tasks of a space, each after its path in the space file."""
    other = space.settings.evaluate_on
    others = [(("evaluate_on", "task"), other.task)] if other is not None else []
    return [(("task",), space.settings.task), *others]
