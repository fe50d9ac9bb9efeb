"""Teachers and students: loading, carving a student from a teacher, saving."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.teacher import Inference
from lkd_tune.files.digest import digest, file_digest
from lkd_tune.runtime.usage import count_parameters
from lkd_tune.storage.fetch import local_model

# The encoder layers of every family that is meant here, by the names of their weights:
# bert.encoder.layer.3.…, roberta.encoder.layer.3.…, distilbert.transformer.layer.3.…,
# electra.encoder.layer.3.…; XLM-R's are RoBERTa's.
_LAYER = re.compile(r"^(.*\.layer\.)(\d+)(\..*)$")
_DEPTH_KEYS = ("num_hidden_layers", "n_layers", "num_layers")


def model_digest(model: str) -> str:
    """Returns a model's part of a cache key: a digest of its folder's files, or its hub id."""
    folder = Path(local_model(model))
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return digest([(path.name, file_digest(path)) for path in files])


def read_depth(model: str) -> int:
    """Returns the number of encoder layers of a model: a folder, an address, or a hub id.

    Raises:
        SpecError: If there is no such model, or it says no number of layers.
    """
    config = read_config(model)
    for key in _DEPTH_KEYS:
        if isinstance(config.get(key), int):
            return config[key]
    message = f"{model} says no number of layers; encoders such as BERT's are supported"
    raise SpecError(Problem("", "teacher", message))


def count_positions(config: dict[str, Any]) -> int | None:
    """Returns the tokens of the longest input of a model, None if its configuration says none."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    # RoBERTa and XLM-R count positions from behind the padding id, which is 1 unless they say.
    if "roberta" in str(config.get("model_type")):
        positions -= config.get("pad_token_id", 1) + 1
    return positions


def read_config(model: str) -> dict[str, Any]:
    """Returns the configuration of a model folder or hub id as plain data.

    Raises:
        SpecError: If there is no such model.
    """
    folder = Path(local_model(model))
    if not folder.is_dir():
        return load_config(model).to_dict()
    # Read by hand: seconds faster than transformers, for `check` and for error messages.
    path = folder / "config.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        message = f"{model} is no model folder: it has no config.json"
        raise SpecError(Problem("", "teacher", message)) from None
    except (OSError, json.JSONDecodeError) as error:
        raise SpecError(Problem("", "teacher", f"{path} can't be read: {error}")) from None


def load_config(model: str) -> Any:
    """Returns a model's configuration.

    Raises:
        SpecError: If there is no such model.
    """
    from transformers import AutoConfig

    return _from_hub(AutoConfig.from_pretrained, model)


def load_tokenizer(model: str) -> Any:
    """Returns a model's fast tokenizer.

    Raises:
        SpecError: If there is none.
    """
    from transformers import AutoTokenizer

    tokenizer = _from_hub(AutoTokenizer.from_pretrained, model)
    if not tokenizer.is_fast:
        raise SpecError(Problem("", "teacher", f"{model} has no fast tokenizer (tokenizer.json)"))
    return tokenizer


@lru_cache(maxsize=8)  # a worker asks again for each trial
def check_vocabulary(model: str, teacher: str, key: str) -> None:
    """Refuses a model whose tokens are not the teacher's: the same ids would be other words to it.

    Args:
        model: Folder or hub id.
        teacher: Likewise.
        key: The setting that names the model.

    Raises:
        SpecError: If they differ, or there is no tokenizer to compare with.
    """
    try:
        ours, theirs = (load_tokenizer(name).get_vocab() for name in (model, teacher))
    except SpecError as error:
        raise SpecError(Problem("", key, error.problems[0].message)) from None
    if ours != theirs:
        message = (
            f"{model} has another vocabulary than the teacher {teacher} ({len(ours)} and "
            f"{len(theirs)} tokens); use a model that has the teacher's tokenizer"
        )
        raise SpecError(Problem("", key, message))


def auto_model(head: str) -> Any:
    """Returns transformers' AutoModelFor… class for a head, such as SequenceClassification."""
    import transformers

    return getattr(transformers, f"AutoModelFor{head}")


def load_model(
    model: str,
    head: str = "SequenceClassification",
    *,
    labels: int | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> Any:
    """Returns a model in evaluation mode.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….
        labels: Width of the head; a pre-trained model without one of this width gets a new one.
        dtype: Of its weights; auto as they are in its files, which costs no memory until they are
            asked for.

    Raises:
        SpecError: If there is no such model.
    """
    options: dict[str, Any] = {"dtype": dtype}
    if labels is not None:
        options |= {"num_labels": labels, "ignore_mismatched_sizes": True}
    return _from_hub(auto_model(head).from_pretrained, model, **options).eval()


def load_to_run(model: str, head: str, inference: Inference) -> Any:
    """Returns a model that is only run: in bf16 from the start where it is run so.

    Raises:
        SpecError: If there is no such model.
    """
    dtype = torch.bfloat16 if inference.precision == "bf16" else torch.float32
    return load_model(model, head, dtype=dtype)


def load_masked_lm(model: str) -> Any:
    """Returns a masked language model in fp32, in evaluation mode.

    Raises:
        SpecError: If there is no such model, or it has no head to predict words with.
    """
    from transformers import AutoModelForMaskedLM

    found, facts = _from_hub(
        AutoModelForMaskedLM.from_pretrained, model, dtype=torch.float32, output_loading_info=True
    )
    # A missing bias alone is that of a head tied to the embeddings.
    missing = sorted(name for name in facts["missing_keys"] if name.endswith("weight"))
    if missing:
        message = f"{model} is no masked language model: it has no {missing[0]}"
        raise SpecError(Problem("", "model", message))
    return found.eval()


def build_student(
    init: str,
    teacher: Any,
    layers: Sequence[int],
    depth: int,
    labels: int | None,
    head: str = "SequenceClassification",
) -> Any:
    """Returns a student of `depth` encoder layers.

    Args:
        init: 'teacher' (embeddings, encoder layers and head carved from it), 'random' (its
            configuration with new weights), or a folder or hub id to start from.
        teacher: The teacher model; None only if `init` is a folder or hub id.
        layers: For 'teacher': the teacher layer (1 is the first) for each student layer.
        depth: Number of encoder layers.
        labels: Width of the head; None for that of the vocabulary.
        head: As in transformers' AutoModelFor….

    Raises:
        SpecError: If a given starting point does not exist or has another depth.
    """
    if init not in ("teacher", "random"):
        student = load_model(init, head, labels=labels)
        if student.config.num_hidden_layers != depth:
            found = student.config.num_hidden_layers
            message = f"{init} has {found} layers, but student.depth is {depth}"
            raise SpecError(Problem("", "student.init", message))
        return student.train()
    config = student_config(init, teacher.config, depth)
    student = auto_model(head).from_config(config, dtype=torch.float32)
    if init == "teacher":
        student.load_state_dict(carve(teacher.state_dict(), layers))
    return student.train()


def student_config(init: str, teacher_config: Any, depth: int) -> Any:
    """Returns a student's configuration: the teacher's but for its depth, or that of `init`.

    Raises:
        SpecError: If a given starting point does not exist.
    """
    if init not in ("teacher", "random"):
        return load_config(init)
    config = copy.deepcopy(teacher_config)
    config.num_hidden_layers = depth
    return config


def carve(weights: dict[str, torch.Tensor], layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """Returns the weights of a model whose i-th encoder layer is teacher layer `layers[i]`.

    Weights outside the encoder layers (embeddings, pooler, head) are taken as they are. A layer
    may be taken more than once.
    """
    carved = {name: tensor for name, tensor in weights.items() if not _LAYER.match(name)}
    for name, tensor in weights.items():
        match = _LAYER.match(name)
        if match:
            for new, old in enumerate(layers):
                if int(match[2]) == old - 1:
                    carved[f"{match[1]}{new}{match[3]}"] = tensor
    return carved


def save_model(
    model: Any, tokenizer: Any, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Writes a complete model folder; `weights` in place of the model's own if given."""
    _no_progress_bars()
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def describe_model(model: str, head: str = "SequenceClassification") -> dict[str, int]:
    """Returns a model's `layers`, `hidden_size` and `parameters`, its head included.

    Its weights are not loaded.

    Raises:
        SpecError: If there is no such model.
    """
    config = load_config(model)
    with torch.device("meta"):
        empty = auto_model(head).from_config(config)
    return {
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "parameters": count_parameters(empty),
    }


def forward(model: Any, batch: Any, *, hidden_states: bool) -> Any:
    """Returns the model's output for a `Batch`, with hidden states if asked for."""
    inputs = model_inputs(_config_of(model), batch.ids, batch.mask.long(), batch.types)
    return model(**inputs, output_hidden_states=hidden_states)


def model_inputs(
    config: Any, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns what a model of a configuration takes, by name; all of shape (B, N), int64."""
    inputs = {"input_ids": ids, "attention_mask": mask}
    # RoBERTa has one token type, DistilBERT none; only where there are several do they matter.
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = types
    return inputs


def _config_of(model: Any) -> Any:
    # A DeepSpeed engine has a `config` too, its own.
    return getattr(model, "module", model).config


def _from_hub(load: Any, model: str, **options: Any) -> Any:
    _no_progress_bars()
    source = local_model(model)
    try:
        # Said, as transformers would else ask at a terminal whether to run what a model brings.
        return load(source, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        where = "" if Path(source).exists() else " (there is no such folder either)"
        raise SpecError(Problem("", "model", f"{model} can't be loaded{where}: {first}")) from None


def _no_progress_bars() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it shows one for each model of a search
