"""The published recipes by name: which losses each has. Plain data.

To add one: an entry in `RECIPES`, and its name in `RecipeName`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RecipeName = Literal["labels", "soft_labels", "ckd", "tinybert", "minilm", "distilbert", "pkd"]
DEFAULT_RECIPE: RecipeName = "ckd"


@dataclass(frozen=True)
class Recipe:
    """A published way to train a student.

    Attributes:
        compares: What it compares of student and teacher.
        source: Authors, title, year, section.
        differs: What differs from the source; '' for nothing. All recipes train the student on the
            task alone, with its layers copied from the teacher.
        losses: Its block `losses`. Terms that it does not name are left out.
    """

    compares: str
    source: str
    differs: str
    losses: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    "labels": Recipe(
        compares="nothing: plain fine-tuning on the labels",
        source='Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer '
        'Models", 2023: layers of a model without the others, fine-tuned',
        differs="",
        losses={"logits": {"alpha": 1.0}},
    ),
    "soft_labels": Recipe(
        compares="probabilities of the classes at temperature 2, beside the labels",
        source='Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, '
        "section 2",
        differs="temperature and share of the labels are open there",
        losses={"logits": {"temperature": 2.0, "alpha": 0.5, "scaled": True}},
    ),
    "ckd": Recipe(
        compares="relations between words and between layers, and probabilities of the classes",
        source='Park, Kim, Yang, "Distilling Linguistic Context for Language Model Compression", '
        "EMNLP 2021, section 3 and appendix",
        differs="the weights are those for CoLA on all tasks; padded neighbours do not count",
        losses={
            "wr_pair": {"weight": 1.0},
            "wr_triple": {"weight": 10.0},
            "ltr_pair": {"weight": 1.0},
            "ltr_triple": {"weight": 10.0},
            "logits": {"temperature": 3.0, "alpha": 0.0},
        },
    ),
    "tinybert": Recipe(
        compares="hidden states, embeddings and attention of all layers in the first half of the "
        "steps, and probabilities of the classes",
        source='Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", '
        "Findings of EMNLP 2020, section 3",
        differs="no distillation before the task and no augmented data; probabilities count from "
        "the first step, where TinyBERT has a second stage for them; relations of values are "
        "compared as well as attention",
        losses={
            "logits": {"temperature": 1.0, "alpha": 0.0},
            "hidden": {"weight": 1.0, "discrepancy": "l2", "layers": "all"},
            "attention": {
                "weight": 1.0,
                "variant": "distributions",
                "discrepancy": "l2",
                "layers": "all",
            },
            "relations_until": 0.5,
        },
    ),
    "minilm": Recipe(
        compares="relations of queries, of keys and of values in the last layer, and soft labels",
        source='Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation for '
        'Compressing Pretrained Transformers", Findings of ACL 2021, section 3',
        differs="it distils before the task and without labels; here the relations are compared "
        "on the task, beside soft labels",
        losses={
            "logits": {"temperature": 2.0, "alpha": 0.5, "scaled": True},
            "attention": {"weight": 1.0, "variant": "self_relations", "layers": "last"},
        },
    ),
    "distilbert": Recipe(
        compares="the direction of hidden states in the last layer, and soft labels",
        source='Sanh et al., "DistilBERT, a distilled version of BERT", 2019, sections 2 and 3; '
        "weights of the published training code",
        differs="it distils masked language modelling before the task; here its terms are "
        "those of the task",
        losses={
            "logits": {"temperature": 2.0, "alpha": 2 / 7, "scaled": True},
            "hidden": {"weight": 1 / 7, "discrepancy": "cosine", "layers": "last"},
        },
    ),
    "pkd": Recipe(
        compares="the direction of the first token's hidden state in all layers, and soft labels",
        source='Sun et al., "Patient Knowledge Distillation for BERT Model Compression", EMNLP '
        "2019, section 3",
        differs="embeddings and last layer are compared too; temperature and weights are searched "
        "there",
        losses={
            "logits": {"temperature": 5.0, "alpha": 0.5, "scaled": True},
            "hidden": {
                "weight": 1.0,
                "discrepancy": "cosine",
                "layers": "all",
                "words": "first",
            },
        },
    ),
}
