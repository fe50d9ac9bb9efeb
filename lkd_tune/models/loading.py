"""Models, tokenizers and their configurations, read from folders and the hub, and written."""

from __future__ import annotations

import contextlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.teacher import Inference
from lkd_tune.files.digest import digest, file_digest
from lkd_tune.models.families import size_in
from lkd_tune.runtime.usage import count_parameters
from lkd_tune.storage.fetch import local_model
from lkd_tune.storage.hub import is_hub_reachable, reading_hub
from lkd_tune.storage.weights import KEY_MAPPING, check_files, check_loaded


def model_digest(model: str) -> str:
    """Returns a model's part of a cache key: a digest of its folder's files, or its hub id."""
    folder = Path(local_model(model))
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return digest([(path.name, file_digest(path)) for path in files])


def read_depth(model: str) -> int:
    """Returns the number of encoder layers of a model: a folder, a URI, or a hub id.

    Raises:
        SpecError: If there is no such model, or its configuration has no number of layers.
    """
    depth = size_in(read_config(model), "layers")
    if depth is None:
        message = (
            f"{model} has no number of layers in its configuration; encoders such as BERT are "
            "supported"
        )
        raise SpecError(Problem("", "teacher", message))
    return depth


def read_config(model: str) -> dict[str, Any]:
    """Returns the configuration of a model folder or hub id as plain data.

    Raises:
        SpecError: If there is no such model.
    """
    folder = Path(local_model(model))
    if not folder.is_dir():
        return load_config(model).to_dict()
    # Without transformers, whose import takes seconds: for `check` and for error messages.
    path = folder / "config.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        check_files(model, folder)
        message = f"{model} is not a model folder: it has no config.json"
        raise SpecError(Problem("", "teacher", message)) from None
    except (OSError, json.JSONDecodeError) as error:
        raise SpecError(Problem("", "teacher", f"{path} can't be read: {error}")) from None


def load_config(model: str) -> Any:
    """Returns a model's configuration, which has the padding token of its tokenizer.

    Raises:
        SpecError: If there is no such model.
    """
    from transformers import AutoConfig

    config = _from_hub(AutoConfig.from_pretrained, model)
    pad_as_its_tokenizer(config, model)
    return config


def load_tokenizer(model: str) -> Any:
    """Returns a model's fast tokenizer.

    One without a padding token, as many decoders have it, pads with its end-of-text token.

    Raises:
        SpecError: If the model has no fast tokenizer, or one without words or special tokens.
    """
    from transformers import AutoTokenizer

    tokenizer = _from_hub(AutoTokenizer.from_pretrained, model)
    if not tokenizer.is_fast:
        raise SpecError(Problem("", "teacher", f"{model} has no fast tokenizer (tokenizer.json)"))
    # Without files, transformers makes a tokenizer whose whole vocabulary is the special tokens.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        message = (
            f"{model} has no tokenizer files (tokenizer.json or vocab.txt), so all text would be "
            "unknown tokens; save the tokenizer that the model was trained with into it"
        )
        raise SpecError(Problem("", "teacher", message))
    if tokenizer.pad_token is None:
        special = [tokenizer.eos_token, tokenizer.bos_token, *tokenizer.all_special_tokens]
        tokenizer.pad_token = next((token for token in special if token is not None), None)
    if tokenizer.pad_token is None:
        message = (
            f"the tokenizer of {model} has no special token to pad texts with; set its pad_token"
        )
        raise SpecError(Problem("", "teacher", message))
    return tokenizer


@lru_cache(maxsize=8)  # a worker checks the same models in each trial
def has_vocabulary_of(model: str, teacher: str, key: str) -> bool:
    """Returns whether a model has the teacher's tokens: otherwise ids mean other words.

    Args:
        model: Folder or hub id.
        teacher: Folder or hub id.
        key: The setting that names the model.

    Raises:
        SpecError: If there is no tokenizer to compare with.
    """
    try:
        ours, theirs = (load_tokenizer(name).get_vocab() for name in (model, teacher))
    except SpecError as error:
        raise SpecError(Problem("", key, error.problems[0].message)) from None
    return ours == theirs


def auto_model(head: str) -> Any:
    """Returns transformers' AutoModelFor… class for a head, such as SequenceClassification."""
    import transformers

    return getattr(transformers, f"AutoModelFor{head}")


def load_model(
    model: str,
    head: str = "SequenceClassification",
    *,
    labels: int | None = None,
    new_head: bool = False,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> Any:
    """Returns a model in evaluation mode.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….
        labels: Width of the head. Default: that of its configuration.
        new_head: Whether a pre-trained model without such a head gets a random one.
        dtype: Of its weights. "auto": as in its files; weights then take no memory until they are
            read.

    Raises:
        SpecError: If there is no such model, or its files do not hold its weights.
    """
    options: dict[str, Any] = {} if labels is None else {"num_labels": labels}
    loaded, report = _from_hub(
        auto_model(head).from_pretrained,
        model,
        dtype=dtype,
        key_mapping=KEY_MAPPING,
        ignore_mismatched_sizes=True,  # `check_loaded` reports them
        output_loading_info=True,
        **options,
    )
    check_loaded(model, loaded, report, new_head=new_head)
    pad_as_its_tokenizer(loaded.config, model)
    return loaded.eval()


def pad_as_its_tokenizer(config: Any, model: str) -> None:
    """Sets the padding token of a configuration without one to that of the model's tokenizer.

    A decoder reads its class at the last token before the padding, so it has to know it.
    """
    if getattr(config, "pad_token_id", None) is None:
        with contextlib.suppress(SpecError):  # raised where text is to be read
            config.pad_token_id = load_tokenizer(model).pad_token_id


def load_for_inference(model: str, head: str, inference: Inference) -> Any:
    """Returns a model for inference, loaded in bf16 if it runs in bf16.

    Raises:
        SpecError: If there is no such model.
    """
    dtype = torch.bfloat16 if inference.precision == "bf16" else torch.float32
    return load_model(model, head, dtype=dtype)


def load_masked_lm(model: str) -> Any:
    """Returns a masked language model in fp32, in evaluation mode.

    Raises:
        SpecError: If there is no such model, or it has no head that predicts tokens.
    """
    from transformers import AutoModelForMaskedLM

    found, report = _from_hub(
        AutoModelForMaskedLM.from_pretrained,
        model,
        dtype=torch.float32,
        key_mapping=KEY_MAPPING,
        output_loading_info=True,
    )
    # A head that is tied to the embeddings may miss its bias.
    missing = sorted(name for name in report["missing_keys"] if name.endswith("weight"))
    if missing:
        message = f"{model} is not a masked language model: it has no {missing[0]}"
        raise SpecError(Problem("", "model", message))
    return found.eval()


def save_model(
    model: Any, tokenizer: Any, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Writes a complete model folder; `weights` in place of the model's own if given."""
    _silence_transformers()
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def empty_model(model: str, head: str) -> Any:
    """Returns a model on the meta device, without its weights.

    Raises:
        SpecError: If there is no such model.
    """
    config = load_config(model)
    with torch.device("meta"):
        return auto_model(head).from_config(config)


def describe_model(model: str, head: str = "SequenceClassification") -> dict[str, int]:
    """Returns a model's `layers`, `hidden_size` and `parameters`, its head included.

    Its weights are not loaded.

    Raises:
        SpecError: If there is no such model.
    """
    empty = empty_model(model, head)
    return {
        "layers": empty.config.num_hidden_layers,
        "hidden_size": empty.config.hidden_size,
        "parameters": count_parameters(empty),
    }


def _from_hub(load: Any, model: str, **options: Any) -> Any:
    _silence_transformers()
    source = local_model(model)
    is_local = Path(source).exists()
    check_files(model, Path(source))
    try:
        with contextlib.nullcontext() if is_local else reading_hub():
            # If unset, transformers asks at a terminal whether to run code that a model brings.
            return load(source, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        where = "" if is_local else " (there is no such folder either)"
        if not is_local and not is_hub_reachable():
            first = (
                f"the Hugging Face hub can't be reached, and its cache lacks {model}; name a local "
                f"folder, or call `hf download {model}` where there is a network"
            )
        raise SpecError(Problem("", "model", f"{model} can't be loaded{where}: {first}")) from None


def _silence_transformers() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # a search would show one for each model
    logging.set_verbosity_error()  # what its tables warn of is an error in `check_loaded`
