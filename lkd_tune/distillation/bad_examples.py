"""Training examples whose loss is not finite, or that raise an error: found and skipped.

Losses are checked only every few steps. By then the weights are NaN, as the update after the bad
batch made them so. So the batch is run again on the student as it was before the first step, in
halves down to single examples. Examples that are bad there were bad in the training too. If none
is, the weights had diverged, and no example is the cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.training_text import TrainingText, load_training_text
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.build import build_initial_student, load_teacher
from lkd_tune.losses.terms import TERMS
from lkd_tune.models.comparable import make_comparable
from lkd_tune.records.measurement import BadExample
from lkd_tune.runtime.oom import is_out_of_memory
from lkd_tune.runtime.process_group import device

# The largest share of the training examples to skip: beyond it the teacher or the data are wrong.
MAX_SKIPPED_SHARE = 0.01
# Examples that an error message lists; all of them are in the trial's folder.
_MAX_LISTED = 3

# Returns the sum of each of TERMS over some examples, or raises the error that they cause.
LossesOf = Callable[[np.ndarray], Sequence[float]]
# The term of each bad example, None if it raised an error; and its loss or error as text.
_Found = dict[int, tuple[str | None, str]]


class DivergedError(RuntimeError):
    """A loss is not finite, so the training can't continue."""


class BadExamplesError(DivergedError):
    """Some training examples have a loss that is not finite, or raise an error.

    Attributes:
        examples: The examples that were found.
        may_skip: Whether the trial may start again without them.
    """

    def __init__(self, examples: Sequence[BadExample], advice: str, may_skip: bool = False):
        super().__init__(examples, advice, may_skip)  # pickle needs all arguments
        self.examples, self.may_skip = tuple(examples), may_skip
        self._advice = advice

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.examples[:_MAX_LISTED]))
        more = len(self.examples) - _MAX_LISTED
        listed += f" and {more} more" if more > 0 else ""
        return f"no student can learn from {listed}; {self._advice}"


def may_come_from_examples(error: Exception) -> bool:
    """Whether an example may have caused an error; false if memory ran out or the GPU was lost.

    On a lost GPU, for example after an index out of range, every example seems to be bad.
    """
    return not is_out_of_memory(error) and not isinstance(error, torch.AcceleratorError)


def find_bad_examples(
    losses: BatchLosses,
    batch: np.ndarray,
    step: int,
    at_once: int,
    *,
    cache: Path | None,
    skipped: Sequence[int],
    collective: bool,
) -> BadExamplesError | None:
    """Returns an error that names the bad examples of a batch, None if none is bad.

    If bad examples are to be skipped and one is found, all others are checked as well. So a trial
    starts again once, and not once for each of them.

    Args:
        losses: The losses of the trial.
        batch: Some of the training examples, shape (examples,).
        step: The step that trained on them, the first is 0.
        at_once: Number of examples that fit into memory.
        cache: Folder for the importance scores of a narrower student. Default: the user's cache.
        skipped: Examples that are skipped already.
        collective: Whether all ranks call this. They share the work, and get the same result. If
            only one rank does, the importance scores must be in the cache.
    """
    spec, tokens = losses.spec, losses.tokens
    torch.manual_seed(spec.seed)
    teacher = load_teacher(spec, cache)
    student = make_comparable(
        build_initial_student(spec, teacher, tokens, losses.vocabulary, cache),
        spec.losses,
        teacher,
        spec.seed,
    )
    student.to(device()).eval()
    losses.use_own_teacher(teacher)  # ranks that find bad examples run the teacher more often
    losses = losses.at(step)
    maps = losses.maps(step)

    def losses_of(examples: np.ndarray) -> Sequence[float]:
        with torch.no_grad():
            sums = losses.sums(student, losses.read(examples, step), maps)
        return torch.stack([loss.total.double() for loss in sums]).tolist()

    world = dist.get_world_size() if collective else 1
    found: _Found = {}
    for part in _parts(batch, at_once * world):
        found |= _bad_of_all_ranks(part, losses_of, collective)
    if not found:
        return None
    limit = MAX_SKIPPED_SHARE * len(tokens)
    skip = spec.train.bad_examples == "skip"
    if skip:
        others = np.setdiff1d(np.arange(len(tokens)), [*batch, *skipped])
        others = others[np.argsort(tokens.lengths[others], kind="stable")]
        for part in _parts(others, at_once * world):
            if len(found) + len(skipped) > limit:
                break
            found |= _bad_of_all_ranks(part, losses_of, collective)
    more_text = None
    if not tokens.labelled[sorted(found)].all():
        more_text = load_training_text(spec.task, cache=cache)
    examples = [
        _describe(spec, tokens, more_text, example, *found[example]) for example in sorted(found)
    ]
    number = len(found) + len(skipped)
    if not skip:
        more = spec.task.unlabelled
        files = {"train": spec.task.train, "unlabelled": more.split if more else None}
        where = dict.fromkeys(str(files[each.split]) for each in examples)
        advice = f"correct or remove it in {', '.join(where)}, or set train.bad_examples=skip"
        return BadExamplesError(examples, advice)
    if number > limit:
        advice = (
            f"at least {number} of {len(tokens)} examples are bad, and at most "
            f"{MAX_SKIPPED_SHARE:.0%} may be skipped; check the teacher, its stored targets and "
            "the data"
        )
        return BadExamplesError(examples, advice)
    return BadExamplesError(examples, "the trial starts again without them", may_skip=True)


def _parts(examples: np.ndarray, size: int) -> list[np.ndarray]:
    return np.array_split(examples, max(1, -(-len(examples) // size)))


def _bad_of_all_ranks(examples: np.ndarray, losses_of: LossesOf, collective: bool) -> _Found:
    """Returns the bad ones among some examples, the same on all ranks if `collective`."""
    if not collective or dist.get_world_size() == 1:
        return _bad_among(examples, losses_of)
    rank, world = dist.get_rank(), dist.get_world_size()
    own = _bad_among(examples[rank::world], losses_of)
    # All ranks skip what one of them finds, as their batches have to be the same.
    all_found: list[_Found] = [{}] * world
    dist.all_gather_object(all_found, own)
    return {example: bad for found in all_found for example, bad in found.items()}


def _bad_among(examples: np.ndarray, losses_of: LossesOf) -> _Found:
    if len(examples) == 0:
        return {}
    try:
        losses = losses_of(examples)
    except Exception as error:
        if not may_come_from_examples(error):
            raise
        bad: tuple[str | None, str] = (None, f"{type(error).__name__}: {_one_line(error)}")
    else:
        wrong = [
            (term.name, str(loss))
            for term, loss in zip(TERMS, losses, strict=True)
            if not math.isfinite(loss)
        ]
        if not wrong:
            return {}
        bad = wrong[0]
    if len(examples) == 1:
        return {int(examples[0]): bad}
    half = len(examples) // 2
    return _bad_among(examples[:half], losses_of) | _bad_among(examples[half:], losses_of)


def _describe(
    spec: TrialSpec,
    tokens: Tokens,
    more_text: TrainingText | None,
    example: int,
    term: str | None,
    found: str,
) -> BadExample:
    copies = spec.task.copies if spec.teacher else 0
    rows = len(tokens) // (copies + 1)  # augmented copies follow the text itself
    row, split = kind_of(spec.task).data_row(example % rows, tokens), "train"
    if not tokens.labelled[example]:
        assert more_text is not None
        row, split = more_text.rows[row - more_text.labelled], "unlabelled"
    return BadExample(
        example=example,
        split=split,
        row=row + 1,
        copy_of_row=example // rows,
        term=term,
        found=found,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
