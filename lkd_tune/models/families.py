"""Where the parts of a model are: names of modules and of entries of configurations.

All such names are here. Layers are found by structure (`lkd_tune.models.stack`), so a family needs
an entry in `FAMILIES` only if its width is to be pruned. Other modules ask a `Structure` about a
model's weights, and the functions below about its configuration.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.width import Width
from lkd_tune.models.stack import find_stack

# What an axis of a weight counts. Queries and keys share one, as they are multiplied. `pooled` is
# what the classifier reads: the output of a dense layer, or hidden states if there is none.
Axis = Literal["embedding", "hidden", "query", "value", "neurons", "pooled"]

# The axes of a weight by its module's role. A bias or a norm has the first of them.
AXES: dict[str, tuple[Axis | None, ...]] = {
    "embeddings": (None, "embedding"),
    "embedding_norm": ("embedding",),
    "embedding_projection": ("hidden", "embedding"),
    "query": ("query", "hidden"),
    "key": ("query", "hidden"),
    "value": ("value", "hidden"),
    "attention_output": ("hidden", "value"),
    "feed_forward_input": ("neurons", "hidden"),
    "feed_forward_output": ("hidden", "neurons"),
    "layer_norm": ("hidden",),
    "pooler": ("pooled", "hidden"),
    "classifier": (None, "pooled"),
    "span_head": (None, "hidden"),
    "word_head_dense": ("hidden", "hidden"),
    "word_head_norm": ("hidden",),
    "word_head": (None, "hidden"),
    "word_head_bias": (None,),  # one number for each token
    "embedding_head_dense": ("embedding", "hidden"),
    "embedding_head_norm": ("embedding",),
    "embedding_head": (None, "embedding"),
}


# The configuration entries for `layers` and for the fields of `Width`; the general name is first.
_SIZE_KEYS = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "hidden_size": ("hidden_size", "dim", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "intermediate_size": ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim"),
}
# Types of models that number positions from behind the padding id, by default 1.
_POSITIONS_AFTER_PADDING = re.compile("roberta|camembert|mpnet|longformer|data2vec-text|ibert|luke")

# For each family whose width can be pruned: a regular expression for the modules of each role in
# `AXES` that it has.
_ALL = {
    "embeddings": r"\.embeddings\.\w+_embeddings$",
    "embedding_norm": r"\.embeddings\.LayerNorm$",
    "span_head": r"^qa_outputs$",
}
# RoBERTa and ELECTRA have BERT's layers.
_BERT_LAYERS = _ALL | {
    "query": r"\.layer\.\d+\.attention\.self\.query$",
    "key": r"\.layer\.\d+\.attention\.self\.key$",
    "value": r"\.layer\.\d+\.attention\.self\.value$",
    "attention_output": r"\.layer\.\d+\.attention\.output\.dense$",
    "feed_forward_input": r"\.layer\.\d+\.intermediate\.dense$",
    "feed_forward_output": r"\.layer\.\d+\.output\.dense$",
    "layer_norm": r"\.layer\.\d+\..*LayerNorm$",
}
FAMILIES = {
    "BERT": (
        _BERT_LAYERS
        | {
            "pooler": r"^\w+\.pooler\.dense$",
            "classifier": r"^classifier$",
            "word_head_dense": r"^cls\.predictions\.transform\.dense$",
            "word_head_norm": r"^cls\.predictions\.transform\.LayerNorm$",
            "word_head": r"^cls\.predictions\.decoder$",
            "word_head_bias": r"^cls\.predictions$",
        }
    ),
    "RoBERTa": (  # and XLM-R
        _BERT_LAYERS
        | {
            "pooler": r"^(\w+\.pooler|classifier)\.dense$",
            "classifier": r"^classifier(\.out_proj)?$",
            "word_head_dense": r"^lm_head\.dense$",
            "word_head_norm": r"^lm_head\.layer_norm$",
            "word_head": r"^lm_head\.decoder$",
            "word_head_bias": r"^lm_head$",
        }
    ),
    "DistilBERT": (
        _ALL
        | {
            "query": r"\.layer\.\d+\.attention\.q_lin$",
            "key": r"\.layer\.\d+\.attention\.k_lin$",
            "value": r"\.layer\.\d+\.attention\.v_lin$",
            "attention_output": r"\.layer\.\d+\.attention\.out_lin$",
            "feed_forward_input": r"\.layer\.\d+\.ffn\.lin1$",
            "feed_forward_output": r"\.layer\.\d+\.ffn\.lin2$",
            "layer_norm": r"\.layer\.\d+\.(sa|output)_layer_norm$",
            "pooler": r"^pre_classifier$",
            "classifier": r"^classifier$",
            "word_head_dense": r"^vocab_transform$",
            "word_head_norm": r"^vocab_layer_norm$",
            "word_head": r"^vocab_projector$",
        }
    ),
    "ELECTRA": (
        _BERT_LAYERS
        | {
            "embedding_projection": r"\.embeddings_project$",
            "pooler": r"^classifier\.dense$",
            "classifier": r"^classifier(\.out_proj)?$",
            "embedding_head_dense": r"^generator_predictions\.dense$",
            "embedding_head_norm": r"^generator_predictions\.LayerNorm$",
            "embedding_head": r"^generator_lm_head$",
        }
    ),
}

# What `Structure.attention` finds: roles of the families above and, for families whose width can't
# be pruned, MPNet's and DeBERTa's names.
ATTENTION_ROLES = ("query", "key", "value")
_OTHER_ATTENTION = {
    role: rf"\.layer\.\d+\.attention\.(attn\.{role[0]}|self\.{role}_proj)$"
    for role in ATTENTION_ROLES
}


class Structure:
    """The parts of a model: its stack of layers, and roles by the names of its modules.

    Layers are counted from 0, without the embeddings.
    """

    def __init__(self, model: Any):
        """Finds the stack.

        Raises:
            SpecError: If the model has none.
        """
        self._model = model
        self._stack = find_stack(model)
        self._layer = re.compile(rf"{re.escape(self._stack)}\.(\d+)\.(.*)")

    def layer_of(self, weight: str) -> int | None:
        """Returns the layer of a weight, None for one outside the stack of layers."""
        found = self._layer.fullmatch(weight)
        return int(found[1]) if found else None

    def in_layer(self, weight: str, layer: int) -> str:
        """Returns the name that a weight of a layer has in another layer."""
        found = self._layer.fullmatch(weight)
        assert found is not None
        return f"{self._stack}.{layer}.{found[2]}"

    def role_of(self, weight: str) -> str:
        """Returns the role of a weight's module, a key of `AXES`.

        Raises:
            SpecError: If no family has such a weight.
        """
        role = _role(weight.rpartition(".")[0])
        if role is None:
            message = (
                f"{weight} is not a weight of {', '.join(FAMILIES)} or XLM-R; leave "
                "student.hidden_size, heads and intermediate_size out"
            )
            raise SpecError(Problem("", "student", message))
        return role

    def linears(self, role: str) -> Iterator[tuple[int | None, torch.nn.Linear]]:
        """Yields the linear modules that have a role, each after its layer."""
        for name, module in self._model.named_modules():
            if isinstance(module, torch.nn.Linear) and _role(name) == role:
                yield self.layer_of(f"{name}.weight"), module

    def attention(self) -> Iterator[tuple[int, str, torch.nn.Linear]]:
        """Yields the modules that compute queries, keys and values, after their layer and role."""
        for name, module in self._model.named_modules():
            layer = self.layer_of(f"{name}.weight")
            if layer is None or not isinstance(module, torch.nn.Linear):
                continue
            role = _role(name) or _other_attention_role(name)
            if role in ATTENTION_ROLES:
                yield layer, role, module


@lru_cache(maxsize=4096)
def _role(module: str) -> str | None:
    # A name means the same in all families that have it, so which one it is does not matter.
    for family in FAMILIES.values():
        for role, pattern in family.items():
            if re.search(pattern, module):
                return role
    return None


def _other_attention_role(module: str) -> str | None:
    found = (role for role, pattern in _OTHER_ATTENTION.items() if re.search(pattern, module))
    return next(found, None)


def size_in(config: Mapping[str, Any], size: str) -> int | None:
    """Returns the `layers` or a field of `Width` from a configuration, None if it is not there."""
    found = [config[key] for key in _SIZE_KEYS[size] if isinstance(config.get(key), int)]
    return found[0] if found else None


def width_in(config: Mapping[str, Any], model: str) -> Width:
    """Returns the width in a configuration.

    Args:
        config: As plain data.
        model: What error messages call the model.

    Raises:
        SpecError: If a size is not there.
    """
    sizes = {size: size_in(config, size) or 0 for size in Width.__dataclass_fields__}
    # GPT-2 and Bloom mean this if they name no other width.
    sizes["intermediate_size"] = sizes["intermediate_size"] or 4 * sizes["hidden_size"]
    for size, value in sizes.items():
        if not value:
            message = f"{model} has no {_SIZE_KEYS[size][0]} in its configuration"
            raise SpecError(Problem("", "teacher", message))
    return Width(**sizes)


def resize_config(config: Any, width: Width) -> Any:
    """Returns a copy of a configuration with another width."""
    config = copy.deepcopy(config)
    if getattr(config, "embedding_size", None) == config.hidden_size:
        config.embedding_size = width.hidden_size
    written = config.to_dict()
    for size, value in vars(width).items():
        # Only the family's name is set; the general name would be written in addition.
        own = next(key for key in reversed(_SIZE_KEYS[size]) if key in written)
        setattr(config, own, value)
    return config


def count_positions(config: Mapping[str, Any]) -> int | None:
    """Returns the tokens of a model's longest input, None if its configuration does not have it."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    if _POSITIONS_AFTER_PADDING.search(str(config.get("model_type"))):
        positions -= config.get("pad_token_id", 1) + 1
    return positions


def takes_token_types(config: Any) -> bool:
    """Whether token types change a model's output: RoBERTa has one type, DistilBERT none."""
    return getattr(config, "type_vocab_size", 0) > 1
