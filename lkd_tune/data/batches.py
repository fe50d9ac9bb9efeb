"""The examples of each batch of a training, the same on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec

# Tensor cores and vector units like lengths in eights; a larger multiple would only add padding.
PAD_MULTIPLE = 8
# Examples are sorted by length within a pool of this many batches: long enough for batches of
# even lengths, short enough that the order of the data stays random.
POOL_BATCHES = 50


def padded_width(lengths: np.ndarray) -> int:
    """Returns the width of a batch: its longest example, rounded up to a multiple of 8."""
    return padded(int(lengths.max()))


def padded(length: int) -> int:
    """Returns a length rounded up to a multiple of 8."""
    return -(-length // PAD_MULTIPLE) * PAD_MULTIPLE


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


def evaluation_steps(train: TrainSettings, total: int) -> list[int]:
    """Returns the steps at which a student is scored: the end, half of it, a quarter, …

    The grid is geometric like the rungs of successive halving, so that a scheduler has scores where
    it decides.
    """
    return sorted({max(1, round(total / 2**k)) for k in range(train.evaluations)})


class Batches:
    """The batches of a training, each of examples of similar lengths.

    A batch has `train.batch_size` examples, or, with `train.tokens_per_batch`, as many as fit
    into so many tokens, padding counted. Nothing is kept between batches: a resumed training goes
    on where it was, and every rank knows all of them. They are the same for any number of shares,
    unless a token budget has no room for twice as many of the longest examples.

    Args:
        lengths: Tokens of each example, shape (examples,).
        train: Batch size or token budget.
        seed: Of the order.
        shares: A batch of a token budget has at least so many examples, one for each micro-batch
            of each worker, also where they are longer than the budget.
        skipped: Examples that are left out of their batches; all else of the batches stays.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        train: TrainSettings,
        seed: int,
        *,
        shares: int = 1,
        skipped: Sequence[int] = (),
    ):
        self._lengths, self._train, self._seed = lengths, train, seed
        self._shares, self._skipped = shares, np.asarray(skipped, np.int64)

    def total_steps(self) -> int:
        """Returns the optimizer steps of the whole training.

        With a token budget the epochs' numbers of batches differ a little; the first one counts.
        """
        if self._train.steps is not None:
            return self._train.steps
        return max(1, round(self._train.epochs * self._steps_in(0)))

    def starting_at(self, step: int) -> Iterator[np.ndarray]:
        """Gives the examples of optimizer step `step`, step + 1, …, without end."""
        epoch = 0
        while step >= (steps := self._steps_in(epoch)):
            epoch, step = epoch + 1, step - steps
        while True:
            yield from map(self._without_skipped, self.epoch(epoch)[step:])
            epoch, step = epoch + 1, 0

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Returns the examples of each batch in one epoch.

        With a fixed batch size, the examples left over that fill no batch differ from epoch to
        epoch. Where there are fewer examples than one batch needs, they are repeated.
        """
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._lengths))
        if len(order) < self._least:
            order = np.resize(order, self._least)
        if self._train.tokens_per_batch is None:
            order = order[: len(order) // self._least * self._least]
        pools = np.split(order, range(self._pool, len(order), self._pool))
        batches = [batch for pool in pools for batch in self._cut(pool)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _steps_in(self, epoch: int) -> int:
        if self._train.tokens_per_batch is None:
            return max(1, len(self._lengths) // self._train.batch_size)
        return len(self.epoch(epoch))

    def _without_skipped(self, batch: np.ndarray) -> np.ndarray:
        good = batch[~np.isin(batch, self._skipped)]
        if len(good) < min(len(batch), self._shares):
            # Each micro-batch needs an example; where there are too few they are repeated.
            anywhere = np.setdiff1d(np.arange(len(self._lengths)), self._skipped)[:1]
            good = np.resize(good if len(good) else anywhere, self._shares)
        return good

    @property
    def _least(self) -> int:
        """Examples that a batch has at least."""
        budget = self._train.tokens_per_batch
        if budget is None:
            return self._train.batch_size
        # Half of what a batch of the longest examples has: so much the last batch of a pool can
        # always take from the one before, however many shares there are up to that.
        half = budget // padded_width(self._lengths) // 2
        return max(self._shares, min(half, len(self._lengths)))

    @property
    def _pool(self) -> int:
        """Examples that are sorted together."""
        budget = self._train.tokens_per_batch
        if budget is None:
            return POOL_BATCHES * self._train.batch_size
        return POOL_BATCHES * max(self._shares, int(budget / self._lengths.mean()))

    def _cut(self, pool: np.ndarray) -> list[np.ndarray]:
        examples = pool[np.argsort(self._lengths[pool], kind="stable")]
        budget = self._train.tokens_per_batch
        if budget is None:
            return np.split(examples, len(examples) // self._train.batch_size)
        # Ascending, so the width of a batch is that of its last example.
        widths = -(-self._lengths[examples] // PAD_MULTIPLE) * PAD_MULTIPLE
        ends, begin, least = [], 0, self._least
        for end in range(1, len(examples)):
            full = (end + 1 - begin) * widths[end] > budget
            if full and end - begin >= least:
                ends.append(end)
                begin = end
        if ends and len(examples) - begin < least:
            # The rest is too small; it takes from the batch before, or joins it if that is small.
            before = ends.pop()
            begin = ends[-1] if ends else 0
            if len(examples) - begin >= 2 * least:
                ends.append(min(before, len(examples) - least))
        return np.split(examples, ends)
