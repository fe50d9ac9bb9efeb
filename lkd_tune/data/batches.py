"""The examples of each training batch, equal on all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec

# Tensor cores and vector units work best on multiples of 8; a larger multiple only adds padding.
PAD_MULTIPLE = 8
# Examples are sorted by length within a pool of this many batches: enough for batches of similar
# lengths, and few enough to keep the order of the data random.
POOL_BATCHES = 50


def padded_width(lengths: np.ndarray) -> int:
    """Returns the width of a batch: its longest example, rounded up to a multiple of 8."""
    return padded(int(lengths.max()))


def padded(length: int) -> int:
    """Returns a length rounded up to a multiple of 8."""
    return -(-length // PAD_MULTIPLE) * PAD_MULTIPLE


def batches_of_tokens(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Returns examples of similar lengths in batches of at most so many tokens, padding included.

    An example that is longer is a batch of its own.

    Args:
        lengths: Tokens of each example, shape (examples,).
        tokens: The most tokens of a batch.
    """
    order = np.argsort(lengths, kind="stable")
    widths = [padded(int(lengths[example])) for example in order]  # rising
    batches, start = [], 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * widths[end] <= tokens:
            end += 1
        batches.append(order[start:end])
        start = end
    return batches


def max_accumulation(spec: TrialSpec) -> int:
    """Returns the largest number of parts of a micro-batch: parts of single examples."""
    if spec.train.tokens_per_batch is not None:
        # Batches of the longest examples have the fewest examples.
        longest = padded(spec.task.max_length) * spec.resources.workers
        return max(1, spec.train.tokens_per_batch // longest)
    share = spec.train.batch_size // spec.resources.workers
    return share // count_micro_batches(spec)


def count_micro_batches(spec: TrialSpec) -> int:
    """Returns the number of micro-batches in a worker's share of a batch."""
    if spec.train.tokens_per_batch is not None:
        return 1
    share = spec.train.batch_size // spec.resources.workers
    return share // min(spec.train.micro_batch_size or share, share)


def used_examples(spec: TrialSpec, labelled: np.ndarray) -> np.ndarray:
    """Returns the training examples that a trial's batches are drawn from.

    Examples without a label are left out if the losses read nothing but labels, or beyond
    `train.unlabelled_share`. A smaller share is a part of each larger one, the same for all seeds.

    Args:
        spec: The trial.
        labelled: Whether each example has a label, shape (examples,).
    """
    if labelled.all():
        return np.arange(len(labelled))
    rows = len(labelled) // (spec.task.copies + 1)  # copies follow the text
    others = np.random.default_rng(0).permutation(np.flatnonzero(~labelled[:rows]))
    share = spec.train.unlabelled_share if spec.losses.needs_teacher else 0.0
    used = labelled[:rows].copy()
    used[others[: math.ceil(share * len(others))]] = True
    return np.flatnonzero(np.tile(used, spec.task.copies + 1))


def evaluation_steps(train: TrainSettings, total: int) -> list[int]:
    """Returns the steps at which a student is scored: the end, half of it, a quarter, …

    The steps are geometric, like the rungs of successive halving, so that a scheduler has a score
    at each of its decisions.
    """
    return sorted({max(1, round(total / 2**k)) for k in range(train.evaluations)})


class Batches:
    """The batches of a training, each of examples of similar lengths.

    A batch has `train.batch_size` examples. With `train.tokens_per_batch` it has as many examples
    as fit into that number of tokens, including padding. Batches have no state: each rank can
    compute all of them, and a resumed training continues at any step. They do not depend on the
    number of shares, unless a token budget is too small for two of the longest examples per share.

    Args:
        lengths: Tokens of each example, shape (examples,).
        train: Batch size or token budget.
        seed: Seed of the order.
        shares: Minimum number of examples in a batch of a token budget, even if they exceed the
            budget: one for each micro-batch of each worker.
        skipped: Examples to leave out of their batches; the batches do not change otherwise.
        examples: Those that batches are drawn from. Default: all. The number of steps is that of
            all, so that students with and without some text are trained equally long.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        train: TrainSettings,
        seed: int,
        *,
        shares: int = 1,
        skipped: Sequence[int] = (),
        examples: np.ndarray | None = None,
    ):
        self._lengths, self._train, self._seed = lengths, train, seed
        self._shares, self._skipped = shares, np.asarray(skipped, np.int64)
        self._examples = np.arange(len(lengths)) if examples is None else examples

    def total_steps(self) -> int:
        """Returns the optimizer steps of the whole training.

        With a token budget, epochs differ slightly in their number of batches; the total is
        computed from the first one.
        """
        if self._train.steps is not None:
            return self._train.steps
        whole = Batches(self._lengths, self._train, self._seed, shares=self._shares)
        return max(1, round(self._train.epochs * whole._steps_in(0)))

    def starting_at(self, step: int) -> Iterator[np.ndarray]:
        """Yields the examples of optimizer step `step`, step + 1, …, without end."""
        epoch = 0
        while step >= (steps := self._steps_in(epoch)):
            epoch, step = epoch + 1, step - steps
        while True:
            yield from map(self._without_skipped, self.epoch(epoch)[step:])
            epoch, step = epoch + 1, 0

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Returns the examples of each batch in one epoch.

        With a fixed batch size, the rest that does not fill a batch is dropped; it differs from
        epoch to epoch. If there are fewer examples than one batch needs, they are repeated.
        """
        rng = np.random.default_rng((self._seed, epoch))
        order = self._examples[rng.permutation(len(self._examples))]
        if len(order) < self._min_examples:
            order = np.resize(order, self._min_examples)
        if self._train.tokens_per_batch is None:
            order = order[: len(order) // self._min_examples * self._min_examples]
        pools = np.split(order, range(self._pool_examples, len(order), self._pool_examples))
        batches = [batch for pool in pools for batch in self._cut(pool)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _steps_in(self, epoch: int) -> int:
        if self._train.tokens_per_batch is None:
            return max(1, len(self._examples) // self._train.batch_size)
        return len(self.epoch(epoch))

    def _without_skipped(self, batch: np.ndarray) -> np.ndarray:
        kept = batch[~np.isin(batch, self._skipped)]
        if len(kept) < min(len(batch), self._shares):
            # Each micro-batch needs an example; if too few are left, they are repeated.
            substitute = np.setdiff1d(self._examples, self._skipped)[:1]
            kept = np.resize(kept if len(kept) else substitute, self._shares)
        return kept

    @property
    def _min_examples(self) -> int:
        """Minimum number of examples in a batch."""
        budget = self._train.tokens_per_batch
        if budget is None:
            return self._train.batch_size
        # Half a batch of the longest examples. The last batch of a pool can always take that many
        # from the batch before it, whatever the number of shares below that.
        half = budget // padded_width(self._lengths) // 2
        return max(self._shares, min(half, len(self._examples)))

    @property
    def _pool_examples(self) -> int:
        """Number of examples that are sorted together."""
        budget = self._train.tokens_per_batch
        if budget is None:
            return POOL_BATCHES * self._train.batch_size
        return POOL_BATCHES * max(self._shares, int(budget / self._lengths[self._examples].mean()))

    def _cut(self, pool: np.ndarray) -> list[np.ndarray]:
        examples = pool[np.argsort(self._lengths[pool], kind="stable")]
        budget = self._train.tokens_per_batch
        if budget is None:
            return np.split(examples, len(examples) // self._train.batch_size)
        # Ascending, so the width of a batch is that of its last example.
        widths = -(-self._lengths[examples] // PAD_MULTIPLE) * PAD_MULTIPLE
        ends, begin, minimum = [], 0, self._min_examples
        for end in range(1, len(examples)):
            is_full = (end + 1 - begin) * widths[end] > budget
            if is_full and end - begin >= minimum:
                ends.append(end)
                begin = end
        if ends and len(examples) - begin < minimum:
            # The rest is too small: it takes examples from the batch before, or is merged with it.
            before = ends.pop()
            begin = ends[-1] if ends else 0
            if len(examples) - begin >= 2 * minimum:
                ends.append(min(before, len(examples) - minimum))
        return np.split(examples, ends)
