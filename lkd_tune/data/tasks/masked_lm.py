"""Masked language modelling, to distil a student for any task from raw text (Devlin et al. 2019).

Lines are joined and cut into blocks of `task.max_length` tokens, so that no block but the last is
shorter. Masks are drawn again in each step. They depend on the seed, the step and the block alone,
not on micro-batches or workers. On dev they never change.
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

# Of the tokens to predict: the shares replaced by [MASK] and by a random token; others stay.
_MASKED_SHARE, _RANDOM_SHARE = 0.8, 0.1


class MaskedLM(LabelledTokens):
    """Prediction of masked tokens; a row of the loss is one of them, over the vocabulary."""

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
            raise SpecError(Problem("", "teacher", "its tokenizer has no mask token"))
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
        masking = {
            "mask": tokenizer.mask_token_id,
            "special": tokenizer.all_special_ids,
            "vocabulary": len(tokenizer),
            "share": task.mask_share,
        }
        types = [[0] * len(block) for block in blocks]
        return Encoded(blocks, types, np.zeros(len(blocks), np.int64), {}, masking)

    @override
    def prepare_batch(self, batch: Batch, tokens: Tokens, seed: int, step: int) -> Batch:
        assert tokens.folder is not None
        masking = _masking(tokens.folder)
        ids = batch.ids.numpy().copy()
        labels = np.full_like(ids, IGNORED)
        words = batch.mask.numpy() & ~np.isin(ids, masking["special"])
        for row, example in enumerate(batch.examples):
            rng = np.random.default_rng((seed, step, int(example)))
            # As many draws as the block has tokens: padding must not change the masks.
            length = int(tokens.lengths[example])
            block = ids[row, :length]
            chosen = words[row, :length] & (rng.random(length) < masking["share"])
            labels[row, :length][chosen] = block[chosen]
            fate = rng.random(length)
            others = rng.integers(0, masking["vocabulary"], length)
            block[chosen & (fate < _MASKED_SHARE)] = masking["mask"]
            replaced = chosen & (fate >= _MASKED_SHARE) & (fate < _MASKED_SHARE + _RANDOM_SHARE)
            block[replaced] = others[replaced]
        return replace(batch, ids=torch.from_numpy(ids), labels=torch.from_numpy(labels))

    @override
    def scoring_outputs(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns loss, correct predictions and masked tokens of each block, shape (B, 3)."""
        chosen = batch.labels != IGNORED
        labels = batch.labels.clamp(min=0)
        loss = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), labels, reduction="none"
        )
        right = (logits.argmax(-1) == labels) & chosen
        return torch.stack([(loss * chosen).sum(-1), right.sum(-1), chosen.sum(-1)], dim=-1)

    @override
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns the accuracy on masked tokens, the mean loss, and perplexity, its exponential."""
        loss, right, words = outputs.astype(np.float64).sum(0)
        mean = loss / max(words, 1)
        return {
            "accuracy": float(right / max(words, 1)),
            "loss": float(mean),
            "perplexity": float(np.exp(min(mean, 700.0))),
        }


@lru_cache(maxsize=4)
def _masking(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "references.json").read_text("utf-8"))
