"""Whether the files of a model hold all of its weights, without loading them, and after loading."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lkd_tune.config.errors import Problem, SpecError

_LFS_POINTER = b"version https://git-lfs"
# What torch.compile and DistributedDataParallel put before the names of weights.
_WRAPPERS = r"^(?:(?:_orig_mod|module)\.)+"
KEY_MAPPING = {_WRAPPERS: ""}
"""For `from_pretrained`: the names of weights as the model has them."""
_NAMES_SHOWN = 3


def check_files(model: str, folder: Path) -> None:
    """Checks that a model's folder is not that of an adapter, and that its weights are whole.

    Only the first bytes, the header and the size of a file are read.

    Args:
        model: The model, for messages.
        folder: Its folder; nothing is checked if there is none.

    Raises:
        SpecError: With the file that can't be used.
    """
    if (folder / "adapter_config.json").exists() and not _weight_files(folder):
        message = (
            f"{model} is a PEFT adapter, not a model; merge it into its base model first: "
            "peft's model.merge_and_unload().save_pretrained(FOLDER)"
        )
        raise SpecError(Problem("", "model", message))
    for path in _weight_files(folder):
        if problem := _file_problem(path):
            raise SpecError(Problem("", "model", f"{path} {problem}"))


def has_wrapper_names(folder: Path) -> bool:
    """Whether weights in safetensors files are named as torch.compile or DDP names them."""
    from safetensors import safe_open

    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if any(re.match(_WRAPPERS, name) for name in file.keys()):  # noqa: SIM118
                return True
    return False


def check_loaded(model: str, loaded: Any, report: dict[str, Any], *, new_head: bool) -> None:
    """Checks that a model's files held its weights, which are random where they did not.

    Weights that the model has no place for are ignored if they are of other parts, such as a pooler
    or another head. They are an error if the model has parts of the same name, such as fewer layers
    than there are in the files.

    Args:
        model: The model, for messages.
        loaded: The loaded model.
        report: transformers' loading info.
        new_head: Whether the weights outside the encoder may be missing, as for a pre-trained model
            that is to be fine-tuned.

    Raises:
        SpecError: With the names of the weights.
    """
    mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
    wanting = set(report["missing_keys"]) | mismatched
    if new_head:
        wanting = {name for name in wanting if _is_of_encoder(loaded, name)}
    known = {_without_numbers(name) for name in loaded.state_dict()}
    surplus = {name for name in report["unexpected_keys"] if _without_numbers(name) in known}
    if wanting and not any(_is_of_encoder(loaded, name) for name in wanting):
        message = (
            f"{model} has no trained head for this task ({_listed(wanting)} not in its weights); "
            "fine-tune it on the task first (teacher.train.model), or name a model that is"
        )
    elif wanting:
        other = set(report["unexpected_keys"])
        found = f"; they hold {_listed(other)} instead" if other else ""
        message = f"the weights of {model} lack {_listed(wanting)}{found}; save the model again"
    elif surplus:
        message = (
            f"the weights of {model} hold {_listed(surplus)}, for which its config.json has no "
            "place; save the model again"
        )
    else:
        return
    raise SpecError(Problem("", "model", message))


def check_finite(model: str, loaded: Any) -> None:
    """Checks that no weight of a model is NaN or infinite; reads all of them.

    Raises:
        SpecError: With the names of those that are.
    """
    weights = loaded.state_dict()
    wrong = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        message = (
            f"{len(wrong)} of {len(weights)} weights of {model} are NaN or infinite "
            f"({_listed(wrong)}); its training has diverged: use an earlier checkpoint"
        )
        raise SpecError(Problem("", "model", message))


def _weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")])


def _file_problem(path: Path) -> str | None:
    """Returns what is wrong with a file of weights, None if its header fits its size."""
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        return "is a Git LFS pointer, not the weights; get them with `git lfs pull`"
    cut = "is cut short or damaged; copy or download it again"
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt"):
                return None
        except SafetensorError:
            return cut
    # Files of old versions of torch are no archives and say nothing about their size.
    is_archive = start.startswith(b"PK")
    return cut if not start or (is_archive and not zipfile.is_zipfile(path)) else None


def _is_of_encoder(model: Any, name: str) -> bool:
    """Whether a weight is of the part that all heads share; the pooler belongs to the heads."""
    return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name


def _without_numbers(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return ", ".join(found[:_NAMES_SHOWN]) + more
