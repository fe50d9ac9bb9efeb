"""A test whether students can be made of a model's layers, on a small copy with random weights.

It needs nothing but a configuration, so it holds for any family, also for one that is not known
here: what a trial relies on is what is tested.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.models.loading import auto_model, load_config
from lkd_tune.models.small_copy import (
    EXAMPLES,
    build_random,
    cannot_run,
    example_inputs,
    is_equal,
    small_config,
)
from lkd_tune.models.stack import config_of_layers, find_stack
from lkd_tune.models.student import copy_layers
from lkd_tune.models.vocabulary import Vocabulary
from lkd_tune.runtime.usage import count_parameters

# A larger copy would take too much memory and time. Only its modules and weights are compared.
_MAX_PARAMETERS = 600e6
_WORDS, _PADDING = 12, 4


@lru_cache(maxsize=8)
def check_layers(model: str, head: str) -> None:
    """Checks that students of a model's layers compute what the layers compute in the model.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….

    Raises:
        SpecError: If they don't, with what differs; or if there is no such model.
    """
    find_stack(_empty(small_config(load_config(model)), head), model)
    problem = _problem_of_copy(model, head, _problem_of_students)
    if problem is not None:
        message = f"layers can't be taken from {model}: {problem}; use another teacher"
        raise SpecError(Problem("", "teacher", message))


@lru_cache(maxsize=8)
def check_model(model: str, head: str) -> None:
    """Checks that a model can be a student as it is: what it returns, and that padding is nothing.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….

    Raises:
        SpecError: If it can't, with the reason; or if there is no such model.
    """
    problem = _problem_of_copy(model, head, _problem_of_model)
    if problem is not None:
        message = f"{model} can't be a student: {problem}; use another model"
        raise SpecError(Problem("", "student.init", message))


@lru_cache(maxsize=8)
def check_trimming(model: str, head: str) -> None:
    """Checks that a model answers the same with the embeddings of fewer tokens.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….

    Raises:
        SpecError: If it does not; or if there is no such model.
    """
    problem = _problem_of_copy(model, head, _problem_of_trimming)
    if problem is not None:
        message = f"the vocabulary of {model} can't be trimmed: {problem}; use vocab: teacher"
        raise SpecError(Problem("", "student.vocab", message))


def _problem_of_copy(model: str, head: str, find: Callable[[Any, str], str | None]) -> str | None:
    """Returns what a test finds on a small copy of a model; None for nothing.

    A copy that is too large is not tested.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….
        find: The test; its arguments are the copy's configuration and the head.

    Raises:
        SpecError: If there is no such model, or as the test.
    """
    config = small_config(load_config(model))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        try:
            if count_parameters(_empty(config, head)) > _MAX_PARAMETERS:
                return None
            return find(config, head)
        except SpecError:
            raise
        except Exception as error:  # whatever a model of any family may raise
            return cannot_run(error)


def _problem_of_model(config: Any, head: str) -> str | None:
    model, inputs = build_random(config, head), example_inputs(config, _WORDS)
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    return _problem_of_states(config, states) or _problem_of_padding(model, inputs, states)


def _problem_of_trimming(config: Any, head: str) -> str | None:
    whole, inputs = build_random(config, head), example_inputs(config, _WORDS)
    kept = {*inputs["input_ids"].flatten().tolist(), *range(config.pad_token_id + 1)}
    vocabulary = _vocabulary_of(sorted(kept), config.vocab_size)
    trimmed = copy.deepcopy(whole)
    vocabulary.trim(trimmed)
    ours = {**inputs, "input_ids": vocabulary.table[inputs["input_ids"]]}
    with torch.no_grad():
        same = is_equal(trimmed(**ours)[0], whole(**inputs)[0])
    return None if same else "with the embeddings of fewer tokens it answers differently"


def _vocabulary_of(kept: list[int], tokens: int) -> Vocabulary:
    table = torch.full((tokens,), -1)
    table[kept] = torch.arange(len(kept))
    return Vocabulary(None, np.array(kept), table)


def _problem_of_students(config: Any, head: str) -> str | None:
    """Returns what differs between a model and its students, None if nothing does."""
    teacher = build_random(config, head)
    number = config.num_hidden_layers
    inputs = example_inputs(config, _WORDS)
    with torch.no_grad():
        expected = teacher(**inputs, output_hidden_states=True)
    states = expected.hidden_states
    if problem := _problem_of_states(config, states):
        return problem
    whole = _student(teacher, range(1, number + 1), head)
    with torch.no_grad():
        found = whole(**inputs, output_hidden_states=True)
    if not is_equal(found[0], expected[0]):
        return "a student of all layers gives another output"
    if not all(is_equal(a, b) for a, b in zip(found.hidden_states, states, strict=True)):
        return "a student of all layers has other hidden states"
    return (
        _problem_of_layers(teacher, sorted({1, (number + 1) // 2, number}), inputs, head)
        or _problem_of_padding(teacher, inputs, states)
        or _problem_of_gradients(whole, inputs)
    )


def _problem_of_states(config: Any, states: Sequence[Tensor]) -> str | None:
    shape = (EXAMPLES, _WORDS)
    if len(states) == config.num_hidden_layers + 1 and all(s.shape[:2] == shape for s in states):
        return None
    return "it does not return the hidden states of the embeddings and of each layer"


def _problem_of_layers(
    teacher: Any, layers: Sequence[int], inputs: dict[str, Tensor], head: str
) -> str | None:
    """Each layer of a student has to do to its input what the teacher's layer does to it."""
    theirs = list(teacher.get_submodule(find_stack(teacher)))
    with torch.no_grad(), _recorded(theirs) as seen:
        teacher(**inputs)
    student = _student(teacher, layers, head)
    ours = list(student.get_submodule(find_stack(student)))
    given = [seen[layer - 1][0] for layer in layers]
    with torch.no_grad(), _replaced(ours, given), _recorded(ours) as found:
        student(**inputs)
    for place, layer in enumerate(layers):
        if not is_equal(found[place][1], seen[layer - 1][1]):
            return f"layer {layer} computes something else as layer {place + 1} of a student"
    return None


def _problem_of_padding(
    teacher: Any, inputs: dict[str, Tensor], states: Sequence[Tensor]
) -> str | None:
    """Padding after a text must not change its hidden states."""
    padded = example_inputs(teacher.config, _WORDS, padding=_PADDING)
    padded["input_ids"][:, :_WORDS] = inputs["input_ids"]
    with torch.no_grad():
        found = teacher(**padded, output_hidden_states=True).hidden_states
    if all(is_equal(a[:, :_WORDS], b) for a, b in zip(found, states, strict=True)):
        return None
    return "padding after a text changes its hidden states"


def _problem_of_gradients(student: Any, inputs: dict[str, Tensor]) -> str | None:
    student(**inputs, output_hidden_states=True).hidden_states[-1].square().sum().backward()
    for place, layer in enumerate(student.get_submodule(find_stack(student)), 1):
        if not any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters()):
            return f"no gradient reaches layer {place}"
    return None


def _empty(config: Any, head: str) -> Any:
    with torch.device("meta"):
        return auto_model(head).from_config(copy.deepcopy(config))


def _student(teacher: Any, layers: Sequence[int], head: str) -> Any:
    student = build_random(config_of_layers(teacher.config, layers), head)
    copy_layers(teacher, student, layers)
    return student


@contextmanager
def _recorded(layers: Sequence[Any]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Records input and output of each layer."""
    seen: list[tuple[Tensor, Tensor]] = []

    def record(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        seen.append((given, output[0] if isinstance(output, tuple) else output))

    hooks = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _replaced(layers: Sequence[Any], inputs: Sequence[Tensor]) -> Iterator[None]:
    """Gives each layer an input of its own."""

    def replace(given: Tensor) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (given, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": given}

        return hook

    hooks = [
        layer.register_forward_pre_hook(replace(given), with_kwargs=True)
        for layer, given in zip(layers, inputs, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
