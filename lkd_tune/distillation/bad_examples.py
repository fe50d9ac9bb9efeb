"""Training examples whose loss is not finite, or that raise: found, named, and left out.

A loss is looked at every few steps only, and by then the weights are lost: the update after the
bad batch made them NaN. So the batch is looked at again with the student as it was at its start,
in halves and then example by example. What was bad there is what was bad in the training, unless
the weights had grown beyond all bounds; then no example is at fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.settings.losses import TERM_NAMES
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.build import load_teacher, starting_student
from lkd_tune.records.measurement import BadExample
from lkd_tune.runtime.oom import is_out_of_memory
from lkd_tune.runtime.process_group import device

# A larger share of the training examples is no accident: the teacher or the data are wrong.
MOST_SKIPPED = 0.01
# So many are named in an error; all of them are in the trial's folder.
_NAMED = 3

# Returns the sum of each of TERM_NAMES over some examples; raises what the examples make it raise.
LossesOf = Callable[[np.ndarray], Sequence[float]]
# Bad examples: each one's term, none if it raised, and what was found.
_Found = dict[int, tuple[str | None, str]]


class DivergedError(RuntimeError):
    """A loss is not finite; going on would be in vain."""


class BadExamplesError(DivergedError):
    """Some training examples have a loss that is not finite, or raise.

    Attributes:
        examples: Those that were found.
        may_skip: Whether the trial may begin again without them.
    """

    def __init__(self, examples: Sequence[BadExample], advice: str, may_skip: bool = False):
        super().__init__(examples, advice, may_skip)  # what it is pickled by
        self.examples, self.may_skip = tuple(examples), may_skip
        self._advice = advice

    def __str__(self) -> str:
        named = ", ".join(map(str, self.examples[:_NAMED]))
        more = len(self.examples) - _NAMED
        named += f" and {more} more" if more > 0 else ""
        return f"no student can learn from {named}; {self._advice}"


def may_be_an_examples(error: Exception) -> bool:
    """Returns whether an example may have made an error: no lack of memory, no lost GPU.

    On a GPU that is lost, as after an index out of range, every example would seem to be bad.
    """
    return not is_out_of_memory(error) and not isinstance(error, torch.AcceleratorError)


def look_again(
    losses: BatchLosses,
    batch: np.ndarray,
    step: int,
    at_once: int,
    *,
    cache: Path | None,
    skipped: Sequence[int],
    collective: bool,
) -> BadExamplesError | None:
    """Returns an error that names what is wrong with a batch; None if no example is at fault.

    If bad examples are to be skipped, all others are looked at as well once one was found, so that
    a trial begins again once and not for each of them.

    Args:
        losses: What the trial asks of a student.
        batch: Some of the training examples, shape (examples,).
        step: The step that they were seen in, the first is 0.
        at_once: Examples that there is room for.
        cache: Folder for what a narrower student's parts score; none: the user's cache.
        skipped: Those that are left out already.
        collective: Whether all ranks call; they share the work then, and get the same. If only one
            does, its student has to start from what is in the cache already.
    """
    spec, tokens = losses.spec, losses.tokens
    torch.manual_seed(spec.seed)
    teacher = load_teacher(spec, cache)
    student = starting_student(spec, teacher, tokens, losses.vocabulary, cache)
    student.to(device()).eval()
    losses.use_own_teacher(teacher)  # ranks that find bad examples look more often than others
    maps = losses.maps(step)

    def losses_of(examples: np.ndarray) -> Sequence[float]:
        with torch.no_grad():
            sums = losses.sums(student, losses.read(examples, step), maps)
        return torch.stack([loss.total.double() for loss in sums]).tolist()

    world = dist.get_world_size() if collective else 1
    found: _Found = {}
    for part in _parts(batch, at_once * world):
        found |= _shared(part, losses_of, collective)
    if not found:
        return None
    most = MOST_SKIPPED * len(tokens)
    skip = spec.train.bad_examples == "skip"
    if skip:
        others = np.setdiff1d(np.arange(len(tokens)), [*batch, *skipped])
        others = others[np.argsort(tokens.lengths[others], kind="stable")]
        for part in _parts(others, at_once * world):
            if len(found) + len(skipped) > most:
                break
            found |= _shared(part, losses_of, collective)
    named = [_named(spec, tokens, example, *found[example]) for example in sorted(found)]
    number = len(found) + len(skipped)
    if not skip:
        advice = f"mend or remove it in {spec.task.train}, or set train.bad_examples=skip"
        return BadExamplesError(named, advice)
    if number > most:
        advice = (
            f"at least {number} of {len(tokens)} examples are bad, more than {MOST_SKIPPED:.0%} "
            "are not skipped: look at the teacher, its stored targets and the data"
        )
        return BadExamplesError(named, advice)
    return BadExamplesError(named, "the trial begins again without them", may_skip=True)


def _parts(examples: np.ndarray, size: int) -> list[np.ndarray]:
    return np.array_split(examples, max(1, -(-len(examples) // size)))


def _shared(examples: np.ndarray, losses_of: LossesOf, collective: bool) -> _Found:
    """Returns the bad ones among some examples, each with its term and what was found."""
    if not collective or dist.get_world_size() == 1:
        return _bad_among(examples, losses_of)
    rank, world = dist.get_rank(), dist.get_world_size()
    own = _bad_among(examples[rank::world], losses_of)
    # What one rank finds all leave out: the ranks' batches have to stay the same.
    all_found: list[_Found] = [{}] * world
    dist.all_gather_object(all_found, own)
    return {example: bad for found in all_found for example, bad in found.items()}


def _bad_among(examples: np.ndarray, losses_of: LossesOf) -> _Found:
    if len(examples) == 0:
        return {}
    try:
        losses = losses_of(examples)
    except Exception as error:
        if not may_be_an_examples(error):
            raise
        bad: tuple[str | None, str] = (None, f"{type(error).__name__}: {_one_line(error)}")
    else:
        wrong = [
            (term, str(loss))
            for term, loss in zip(TERM_NAMES, losses, strict=True)
            if not math.isfinite(loss)
        ]
        if not wrong:
            return {}
        bad = wrong[0]
    if len(examples) == 1:
        return {int(examples[0]): bad}
    half = len(examples) // 2
    return _bad_among(examples[:half], losses_of) | _bad_among(examples[half:], losses_of)


def _named(
    spec: TrialSpec, tokens: Tokens, example: int, term: str | None, found: str
) -> BadExample:
    copies = spec.task.augment.copies if spec.task.augment and spec.teacher else 0
    rows = len(tokens) // (copies + 1)  # the copies follow all of the split itself
    row = kind_of(spec.task).data_row(example % rows, tokens)
    return BadExample(
        example=example, row=row + 1, copy_of_row=example // rows, term=term, found=found
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
