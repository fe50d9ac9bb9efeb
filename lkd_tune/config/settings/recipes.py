"""The published recipes by name: which losses each has. Plain data.

To add one: an entry in `RECIPES`, and its name in `RecipeName`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RecipeName = Literal["labels", "soft_labels", "ckd"]
DEFAULT_RECIPE: RecipeName = "ckd"


@dataclass(frozen=True)
class Recipe:
    """A published way to train a student.

    Attributes:
        compares: What it compares of student and teacher, and what differs from the source.
        source: Authors, title, year, section.
        losses: Its block `losses`. Terms that it does not name are left out.
    """

    compares: str
    source: str
    losses: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    "labels": Recipe(
        compares="nothing: plain fine-tuning on the labels",
        source='Devlin et al., "BERT", NAACL 2019, section 4; layers taken from the teacher as in '
        'Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models", 2023',
        losses={"logits": {"alpha": 1.0}},
    ),
    "soft_labels": Recipe(
        compares="probabilities of the classes at a raised temperature, half of the loss, beside "
        "the labels",
        source='Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, '
        "section 2, which leaves temperature and share open",
        losses={"logits": {"temperature": 2.0, "alpha": 0.5}},
    ),
    "ckd": Recipe(
        compares="relations between words and between layers, and probabilities of the classes; "
        "the weights are those for CoLA",
        source='Park, Kim, Yang, "Distilling Linguistic Context for Language Model Compression", '
        "EMNLP 2021, section 3 and appendix",
        losses={
            "wr_pair": {"weight": 1.0},
            "wr_triple": {"weight": 10.0},
            "ltr_pair": {"weight": 1.0},
            "ltr_triple": {"weight": 10.0},
            "logits": {"temperature": 3.0, "alpha": 0.0},
        },
    ),
}
