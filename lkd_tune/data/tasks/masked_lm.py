"""Masked language modelling, to distil a student for any task from raw text (Devlin et al. 2019).

Lines are joined and cut into blocks of `task.max_length`, so that nothing is padded. Which words
are masked is drawn anew in each step, and depends on the seed, the step and the block alone: not
on how a batch is cut or shared. On dev it never changes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import LabelledTokens
from lkd_tune.data.types import IGNORED, Batch, Encoded, Split, Tokens

# Of the words to predict: shares that are replaced by [MASK] and by another word; the rest stay.
_MASKED, _REPLACED = 0.8, 0.1


class MaskedLM(LabelledTokens):
    """The words that were masked; a row of the loss is one of them, over the vocabulary."""

    name = "masked_lm"
    has_dynamic_inputs = True

    @override
    def read_texts(self, raw: list[Any], where: str, column: str) -> list[str]:
        texts = super().read_texts(raw, where, column)
        if not any(text.strip() for text in texts):
            raise SpecError(Problem("", "task.columns", f"{where}, column {column}: holds no text"))
        return texts

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[int]:
        return [0] * len(split.text)

    @override
    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        if tokenizer.mask_token_id is None:
            raise SpecError(Problem("", "teacher", "its tokenizer has no token to mask words with"))
        encoded = tokenizer(
            [text for text in split.text if text.strip()],
            add_special_tokens=False,
            return_attention_mask=False,
        )
        stream = list(chain.from_iterable(encoded["input_ids"]))
        room = task.max_length - 2
        blocks = [
            [tokenizer.cls_token_id, *stream[at : at + room], tokenizer.sep_token_id]
            for at in range(0, len(stream), room)
        ]
        facts = {
            "mask": tokenizer.mask_token_id,
            "special": tokenizer.all_special_ids,
            "vocabulary": len(tokenizer),
            "share": task.mask_share,
        }
        types = [[0] * len(block) for block in blocks]
        return Encoded(blocks, types, np.zeros(len(blocks), np.int64), {}, facts)

    @override
    def prepare_batch(self, batch: Batch, tokens: Tokens, seed: int, step: int) -> Batch:
        assert tokens.folder is not None
        facts = _facts(tokens.folder)
        ids = batch.ids.numpy().copy()
        labels = np.full_like(ids, IGNORED)
        words = batch.mask.numpy() & ~np.isin(ids, facts["special"])
        for row, example in enumerate(batch.examples):
            rng = np.random.default_rng((seed, step, int(example)))
            # As long as the block, and no longer: how far it is padded is the batch's affair.
            length = int(tokens.lengths[example])
            block = ids[row, :length]
            chosen = words[row, :length] & (rng.random(length) < facts["share"])
            labels[row, :length][chosen] = block[chosen]
            fate = rng.random(length)
            others = rng.integers(0, facts["vocabulary"], length)
            block[chosen & (fate < _MASKED)] = facts["mask"]
            replaced = chosen & (fate >= _MASKED) & (fate < _MASKED + _REPLACED)
            block[replaced] = others[replaced]
        return replace(batch, ids=torch.from_numpy(ids), labels=torch.from_numpy(labels))

    @override
    def scoring_outputs(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns of each block its loss, its right words and its words to predict, (B, 3)."""
        chosen = batch.labels != IGNORED
        goals = batch.labels.clamp(min=0)
        loss = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), goals, reduction="none"
        )
        right = (logits.argmax(-1) == goals) & chosen
        return torch.stack([(loss * chosen).sum(-1), right.sum(-1), chosen.sum(-1)], dim=-1)

    @override
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns the share of masked words that are found, the mean loss and its exponential."""
        loss, right, words = outputs.astype(np.float64).sum(0)
        mean = loss / max(words, 1)
        return {
            "accuracy": float(right / max(words, 1)),
            "loss": float(mean),
            "perplexity": float(np.exp(min(mean, 700.0))),
        }


@lru_cache(maxsize=4)
def _facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "references.json").read_text("utf-8"))
