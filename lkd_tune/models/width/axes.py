"""What each dimension of a model's weights counts, found by structure, whatever its family.

A small copy of the model, whose sizes all differ, is run once. Modules are told apart by their
shapes and by the order in which they are called: in a layer the linear modules of its feed-forward
part have its number of neurons; of the others the first are queries, keys and values, and the last
is attention's output. `lkd_tune.models.width.self_test` tests whether that is true of a model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.width import Width
from lkd_tune.models.families import resize_config, width_of_config
from lkd_tune.models.small_copy import cannot_run, example_inputs, small_config
from lkd_tune.models.stack import Stack

# `query` and `key` are the channels that are multiplied for attention scores, `value` those of the
# values, of which `context` has one set for each head: heads may share keys and values. `pooled` is
# what the classifier reads behind a dense module of its own.
Axis = Literal["hidden", "query", "key", "value", "context", "heads", "neurons", "pooled"]
# A dimension's axes, one after the other; several in a fused module, none if it has other sizes.
Blocks = tuple[Axis, ...]
# One for each dimension of a weight.
Dims = tuple[Blocks, ...]

ATTENTION_ROLES = ("query", "key", "value")
_WORDS = 6
# Channels of a head, if heads may have any size, and the least hidden size otherwise.
_HEAD_SIZE, _HIDDEN = 8, 40


class Axes:
    """The axes of a model's weights."""

    def __init__(self, model: Any):
        """Finds them.

        Args:
            model: With any head; its weights may be on the meta device.

        Raises:
            SpecError: If the model's parts are not those of a transformer layer.
        """
        self._model, self._stack = model, Stack(model)
        self._dims = _find(model)

    def layer_of(self, name: str) -> int | None:
        """Returns the layer of a weight or module from 0, None for one outside the layers."""
        return self._stack.layer_of(name)

    def of(self, weight: str) -> Dims:
        """Returns the axes of each dimension of a weight.

        Raises:
            SpecError: If other models of this kind have no such weight.
        """
        dims = self._dims.get(_in_any_layer(self._stack, weight))
        if dims is None:
            raise not_narrowed(self._model, f"it has the weight {weight} besides")
        return dims

    @property
    def share_heads(self) -> bool:
        """Whether something outside the layers belongs to heads, as MPNet's biases by distance."""
        outer = (dims for name, dims in self._dims.items() if self._stack.layer_of(name) is None)
        return any(("heads",) in dims for dims in outer)

    def linears(self) -> Iterator[tuple[int | None, torch.nn.Linear, Blocks, Blocks]]:
        """Yields the linear modules with their layer, what they write and what they read."""
        for name, module in self._model.named_modules():
            dims = self._dims.get(_in_any_layer(self._stack, f"{name}.weight"))
            if isinstance(module, torch.nn.Linear) and dims is not None:
                yield self.layer_of(name), module, dims[0], dims[1]

    def attention(self) -> Iterator[tuple[int, str, torch.nn.Linear]]:
        """Yields the modules of queries, keys and values, after their layer and role.

        What fused modules write is left out. Rotary positions and norms come after these modules.
        """
        seen = set()
        for layer, module, writes, _ in self.linears():
            for role in ATTENTION_ROLES:
                if layer is not None and writes == (role,) and (layer, role) not in seen:
                    seen.add((layer, role))
                    yield layer, role, module


def not_narrowed(model: Any, why: str) -> SpecError:
    """Returns the error of a model whose width can't be pruned.

    Args:
        model: The model, or what the message calls it.
        why: The reason.
    """
    name = model if isinstance(model, str) else type(model).__name__
    message = (
        f"{name} can't be made narrower: {why}; leave student.hidden_size, heads and "
        "intermediate_size out, or use student.init: random"
    )
    return SpecError(Problem("", "student", message))


def distinct_config(config: Any) -> tuple[Any, Width]:
    """Returns the configuration of a small copy, in which no two sizes are equal, and its width."""
    small = small_config(config)
    full = width_of_config(small)
    taken = {value for value in small.to_dict().values() if isinstance(value, int)}
    taken.add(config.num_labels)
    size = full.head_size if full.keeps_heads else _HEAD_SIZE
    heads = next(
        n
        for n in count(4 * full.group, full.group)
        if not taken & {n, n * size, n // full.group * size}
    )
    queries, keys = heads * size, heads // full.group * size
    taken |= {queries, keys, queries + 2 * keys}
    hidden = queries
    if full.own_head_size:
        hidden = next(n for n in count(_HIDDEN, 8) if n not in taken)
    # Twice as many are the neurons and their gates in one module.
    neurons = next(n for n in count(hidden + 8, 8) if not taken & {n, 2 * n})
    width = full.resized(hidden, heads, neurons)
    small = resize_config(small, width)
    small._attn_implementation = "eager"  # another one may need a GPU
    return small, width


def _find(model: Any) -> dict[str, Dims]:
    """Returns the axes of each weight's dimensions; the names in all layers are those in layer 0.

    Raises:
        SpecError: If they can't be told.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            config, width = distinct_config(model.config)
            small = type(model)(copy.deepcopy(config)).eval()
            called = _called(small, example_inputs(config, _WORDS))
        except Exception as error:  # whatever a model of any family may raise
            raise not_narrowed(model, cannot_run(error)) from error
    stack = Stack(small)
    layers = [stack.layer_of(name) for name in called]
    known: dict[str, Dims] = {}
    for layer in range(config.num_hidden_layers):
        inner = [name for name, of in zip(called, layers, strict=True) if of == layer]
        try:
            known |= _dims_of_layer(small, inner, width)
        except ValueError as error:
            raise not_narrowed(model, str(error)) from None
    last = max(place for place, layer in enumerate(layers) if layer is not None)
    known |= _dims_of_head(small, called[last + 1 :], width)
    found: dict[str, Dims] = {}
    for name, tensor in small.state_dict().items():
        module = name.rpartition(".")[0]
        dims = known.get(module) or _dims_by_size(small, name, tensor, width)
        dims = dims[: tensor.dim()]  # a bias has the first of them
        if found.setdefault(_in_any_layer(stack, name), dims) != dims:
            raise not_narrowed(model, f"{name} is another part in another layer")
    return found


def _called(model: Any, inputs: dict[str, Tensor]) -> list[str]:
    """Returns the names of modules with weights of their own, in the order of their first calls."""
    called: dict[str, None] = {}
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda *_, name=name: called.setdefault(name))
    with torch.no_grad():
        model(**inputs)
    return [*called]


def _dims_of_layer(model: Any, called: list[str], width: Width) -> dict[str, Dims]:
    """Returns the axes of a layer's linear modules.

    Raises:
        ValueError: If they are not those of attention and feed-forward part.
    """
    hidden, neurons, queries = width.hidden_size, width.intermediate_size, width.attention_size
    found: dict[str, Dims] = {}
    attention: list[tuple[str, int, int]] = []
    for name in called:
        module = model.get_submodule(name)
        if not isinstance(module, torch.nn.Linear):
            continue
        shape = (module.out_features, module.in_features)
        if shape[1] == hidden and shape[0] in (neurons, 2 * neurons):
            gated: Blocks = ("neurons", "neurons")
            found[name] = (gated if shape[0] > neurons else gated[:1], ("hidden",))
        elif shape == (hidden, neurons):
            found[name] = (("hidden",), ("neurons",))
        else:
            attention.append((name, *shape))
    if {dims[0] for dims in found.values()} <= {("hidden",)}:
        raise ValueError("its layers have no feed-forward part of linear modules")
    if len(attention) < 2:
        raise ValueError("its layers have no attention of linear modules")
    keys = queries // width.group
    *reading, (output, *shape_of_output) = attention
    expected: list[tuple[Blocks, int]]
    expected = [(("query",), queries), (("key",), keys), (("value",), keys)]
    if reading[0][1] == queries + 2 * keys:
        expected = [(("query", "key", "value"), queries + 2 * keys)]
    # DeBERTa has more, for relative positions.
    expected += [(("query",), queries)] * (len(reading) - len(expected))
    shapes = [[size, hidden] for _, size in expected]
    if shapes != [own for _, *own in reading] or shape_of_output != [hidden, queries]:
        raise ValueError("its attention is not of queries, keys, values and an output")
    found |= {
        name: (blocks, ("hidden",))
        for (name, *_), (blocks, _) in zip(reading, expected, strict=True)
    }
    return found | {output: (("hidden",), ("context",))}


def _dims_of_head(model: Any, called: list[str], width: Width) -> dict[str, Dims]:
    """Returns the axes of modules that are called after the layers."""
    hidden, embeddings = width.hidden_size, model.get_input_embeddings().weight
    modules = {name: model.get_submodule(name) for name in called}
    # Hidden states that are compared with embeddings have their dimensions.
    tied = any(module.weight is embeddings for module in modules.values() if _reads(module))
    found: dict[str, Dims] = {}
    state: Blocks = ("hidden",)
    for name, module in modules.items():
        if _reads(module):
            read = state if module.in_features == hidden else ()
            written: Blocks = ()
            if module.out_features == hidden:
                written = ("hidden",) if tied else ("pooled",)
                state = written
            found[name] = (written, read)
        elif all(weight.shape == (hidden,) for weight in module.parameters(recurse=False)):
            found[name] = (state,)
    return found


def _reads(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear)


def _dims_by_size(model: Any, name: str, tensor: Tensor, width: Width) -> Dims:
    sizes: dict[int, Blocks] = {
        width.hidden_size: ("hidden",),
        width.heads: ("heads",),
        width.intermediate_size: ("neurons",),
    }
    dims = [sizes.get(size, ()) for size in tensor.shape]
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, torch.nn.Embedding):
        dims[0] = ()
    return tuple(dims)


def _in_any_layer(stack: Stack, name: str) -> str:
    return name if stack.layer_of(name) is None else stack.in_layer(name, 0)
