"""The losses in a training loop that knows nothing else of this package.

    python examples/losses_alone.py

Any two models that tell their hidden states will do, of any widths. Here a student of 2 layers and
width 64 learns to relate random words as a teacher of 4 layers and width 96 does, in seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from lkd_tune.losses.ckd import (
    layer_relation_pair,
    layer_relation_triple,
    word_relation_pair,
    word_relation_triple,
)

LAYER_MAP = [0, 2, 4]  # The teacher's layer for each of the student's; 0 is the embeddings.
WORDS = 100


def main(steps: int = 40) -> list[float]:
    """Trains the student; returns the objective at each step."""
    torch.manual_seed(0)
    teacher, student = build_encoder(layers=4, width=96).eval(), build_encoder(layers=2, width=64)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    objectives = []
    for step in range(steps):
        ids = torch.randint(WORDS, (8, 16))
        mask = torch.arange(16) < torch.randint(8, 17, (8, 1))  # True where a word is real
        with torch.no_grad():
            theirs = hidden_states(teacher, ids, mask)[:, LAYER_MAP]
        ours = hidden_states(student, ids, mask)
        terms = {
            "wr_pair": word_relation_pair(ours, theirs, mask),
            "wr_triple": word_relation_triple(ours, theirs, mask, window=7),
            "ltr_pair": layer_relation_pair(ours, theirs, mask),
            "ltr_triple": layer_relation_triple(ours, theirs, mask),
        }
        # The weights published for CoLA: 1 for pairs, 10 for triples.
        objective = torch.stack(
            [loss * (10 if name.endswith("triple") else 1) for name, loss in terms.items()]
        ).sum()
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        objectives.append(objective.item())
        if step % 10 == 0:
            print(step, {name: f"{loss.item():.1e}" for name, loss in terms.items()})
    return objectives


def hidden_states(model: BertModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns all hidden states of a model, shape (B, layers + 1, N, H)."""
    output = model(ids, attention_mask=mask, output_hidden_states=True)
    return torch.stack(output.hidden_states, dim=1)


def build_encoder(layers: int, width: int) -> BertModel:
    """Returns a BERT with random weights."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=16,
    )
    return BertModel(config)


if __name__ == "__main__":
    main()
