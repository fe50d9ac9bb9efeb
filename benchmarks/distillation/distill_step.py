"""Training examples per second, from a direct implementation to what trials run.

Numbers to look at: the last column, the speed relative to the direct implementation, and the last
line, the cost of distillation over plain fine-tuning of the same student. Each row adds one thing
to the row above.

A 6-layer teacher and a 3-layer student, both 384 wide, on sentences with the lengths of a file.

    python benchmarks/distillation/distill_step.py [--lengths FILE] [--threads 2] [--device cuda]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.losses.direct_losses import direct_objective
from lkd_tune.config.settings.losses import LABELS_ONLY, LossSettings
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.data.batches import Batches
from lkd_tune.data.tasks.classification import Classification
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.distillation.objective import TrainingObjective
from lkd_tune.distillation.targets.base import LiveTeacher, compared_layers
from lkd_tune.distillation.targets.gpu_store import open_targets
from lkd_tune.distillation.targets.store_build import get_or_build_store
from lkd_tune.distillation.targets.store_format import read_store_info
from lkd_tune.models.forward import forward
from lkd_tune.models.student import build_student

LAYERS = (0, 2, 4, 6)
BATCH, PADDED, VOCABULARY = 32, 128, 30522


@dataclass
class Setup:
    """What all rows have in common."""

    teacher: Any
    tokens: Tokens
    stored: Any
    device: torch.device

    def student(self) -> Any:
        """Returns a student initialised from layers of the teacher."""
        torch.manual_seed(0)
        return build_student(StudentSettings(depth=3), self.teacher, LAYERS[1:], 2).to(self.device)

    def padded(self) -> Iterator[Batch]:
        """Yields random batches, all padded to 128 tokens."""
        rng = np.random.default_rng(0)
        while True:
            batch = self.tokens.batch(rng.integers(0, len(self.tokens), BATCH), self.device)
            more = PADDED - batch.ids.shape[1]
            ids, types, mask = (
                torch.nn.functional.pad(x, (0, more)) for x in (batch.ids, batch.types, batch.mask)
            )
            yield Batch(ids, types, mask, batch.labels, batch.examples)

    def bucketed(self) -> Iterator[Batch]:
        """Yields batches of similar lengths."""
        batches = Batches(self.tokens.lengths, TrainSettings(batch_size=BATCH), 0)
        for examples in batches.starting_at(0):
            yield self.tokens.batch(examples, self.device)


def direct_loss(setup: Setup, student: Any, batch: Batch) -> torch.Tensor:
    """Returns the objective, from a live teacher and with materialised differences."""
    with torch.no_grad():
        theirs = forward(setup.teacher, batch, hidden_states=True)
        teacher = torch.stack([theirs.hidden_states[i] for i in LAYERS], 1)
    ours = forward(student, batch, hidden_states=True)
    hidden = torch.stack(ours.hidden_states, 1)
    return direct_objective(hidden, teacher, batch.mask, ours.logits, theirs.logits, 21)


def our_loss(source: Any, losses: LossSettings) -> Callable[[Setup, Any, Batch], torch.Tensor]:
    """Returns the objective as trials compute it, with targets from `source`."""
    objective = TrainingObjective(losses, Classification())

    def loss(setup: Setup, student: Any, batch: Batch) -> torch.Tensor:
        maps = compared_layers(losses, LAYERS, LAYERS)
        output = forward(student, batch, hidden_states=maps.need_hidden_states)
        targets = source(batch, maps) if source else None
        counts = objective.counts([batch], maps)
        return objective.weighted(objective.sums(output, targets, batch), counts)

    return loss


def examples_per_s(setup: Setup, batches: Iterator[Batch], loss: Any, seconds: float) -> float:
    """Returns the speed of forward pass, objective, backward pass and optimizer step."""
    student = setup.student()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        loss(setup, student, next(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    _wait(setup.device)
    done, begin = 0, time.perf_counter()
    while done < 5 or time.perf_counter() - begin < seconds:
        step()
        done += 1
    _wait(setup.device)
    return done * BATCH / (time.perf_counter() - begin)


def make_tokens(lengths: np.ndarray) -> Tokens:
    """Returns random tokens in sentences of these lengths."""
    rng = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(1000, VOCABULARY, starts[-1]).astype(np.int32)
    labels = rng.integers(0, 2, len(lengths))
    return Tokens(ids, np.zeros_like(ids, dtype=np.int8), starts, labels, 0, "random")


def read_lengths(file: Path | None) -> np.ndarray:
    """Returns token counts: 1.25 per word and two special tokens. Default: like those of CoLA."""
    if file is None:
        return np.random.default_rng(0).gamma(4.5, 2.4, 2000).clip(4, 60).astype(int)
    columns = (line.rstrip("\n").split("\t") for line in file.open(encoding="utf-8"))
    words = [max(len(column.split()) for column in line) for line in columns]
    return np.array([min(PADDED, round(1.25 * n) + 2) for n in words if n][:2000])


def make_teacher() -> Any:
    """Returns a BERT with random weights, 6 layers and 384 wide."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        initializer_range=0.05,
        num_labels=2,
    )
    return BertForSequenceClassification(config).eval().requires_grad_(False)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Prints one line for each row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--lengths", type=Path, help="one sentence per line, or in the longest column"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=8.0, help="of training for each row")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, teacher = torch.device(args.device), make_teacher()
    tokens = make_tokens(read_lengths(args.lengths))
    with tempfile.TemporaryDirectory() as cache:
        teacher.save_pretrained(f"{cache}/teacher")
        folder = get_or_build_store(
            f"{cache}/teacher", tokens, Classification(), device, Path(cache)
        )
        stored = open_targets(folder, tokens, device)
        facts = read_store_info(folder)
        setup = Setup(teacher.to(device), tokens, stored, device)
        live, losses = LiveTeacher(teacher, Classification(), device), LossSettings()
        rows: dict[str, tuple[Callable[[], Iterator[Batch]], Any]] = {
            "direct recipe, padded to 128": (setup.padded, direct_loss),
            "+ batches of similar lengths": (setup.bucketed, direct_loss),
            "+ losses from distances": (setup.bucketed, our_loss(live, losses)),
            "+ stored targets": (setup.bucketed, our_loss(stored, losses)),
            "plain fine-tuning of the student": (setup.bucketed, our_loss(None, LABELS_ONLY)),
        }
        share = tokens.lengths.mean()
        print(f"{len(tokens)} sentences of {share:.1f} tokens on average; targets take "
              f"{facts['bytes'] / 1e6:.1f} MB, built in {facts['build_s']:.1f} s")  # fmt: skip
        speeds: dict[str, float] = {}
        for name, (batches, loss) in rows.items():
            speeds[name] = examples_per_s(setup, batches(), loss, args.seconds)
            over = speeds[name] / next(iter(speeds.values()))
            print(f"{name:<34} {speeds[name]:8.1f} examples/s  {over:6.1f}", flush=True)
    ours, plain = speeds["+ stored targets"], speeds["plain fine-tuning of the student"]
    print(f"distillation costs {plain / ours - 1:.0%} over plain fine-tuning")


if __name__ == "__main__":
    main()
