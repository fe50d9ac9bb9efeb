"""A student's own vocabulary: the tokens that its task's training text needs.

Teacher and student have to compare the same words, so training text is cut up by the teacher's
tokenizer alone, and the student is given the same tokens by its own ids: all of them are kept. Text
the student is scored on is cut up by its own, trimmed tokenizer, the one it is saved with.

On text whose tokens are all kept the two agree:

- WordPiece takes the longest token that fits, and that one is still there.
- BPE merges by rank. Every merge that could have led to a kept token is kept in its place, and a
  merge that is not would have led to a token that is not.
- Unigram takes the path of the best score. Scores stay, and there are fewer paths, the best one
  among them. All single characters are kept, so no character becomes unknown that was not, and so
  is the token of the lowest score, from which that of an unknown character is reckoned.

Dev and test text have no say in what is kept: they stand for text not seen.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.data.types import Batch, Tokens

_BYTE = re.compile(r"^<0x[0-9A-Fa-f]{2}>$")
_KINDS = ("WordPiece", "WordLevel", "BPE", "Unigram")
_CONFIG_IDS = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens a student keeps.

    Attributes:
        tokenizer: Cuts text up with them.
        kept: The teacher's id of each, rising, shape (kept tokens,).
        table: The student's id for each of the teacher's, -1 where it is not kept, on the device.
    """

    tokenizer: Any
    kept: np.ndarray
    table: torch.Tensor

    def translate(self, batch: Batch) -> Batch:
        """Returns a batch of the teacher's ids by the student's."""
        return replace(batch, ids=self.table[batch.ids])

    def trim(self, model: Any) -> None:
        """Leaves a model the embeddings of the kept tokens; its outputs for them stay the same.

        Raises:
            SpecError: If the model has another vocabulary than the tokenizer, or predicts tokens.
        """
        embeddings = model.get_input_embeddings()
        if model.get_output_embeddings() is not None:
            message = "trim does not go with a model that predicts tokens; use vocab: teacher"
            raise SpecError(Problem("", "student.vocab", message))
        if self.kept[-1] >= embeddings.num_embeddings:
            message = (
                f"the model has {embeddings.num_embeddings} tokens, the teacher's tokenizer at "
                f"least {self.kept[-1] + 1}: they do not belong together"
            )
            raise SpecError(Problem("", "student.vocab", message))
        table = self.table.cpu()
        pad = embeddings.padding_idx
        trimmed = torch.nn.Embedding(
            len(self.kept), embeddings.embedding_dim, None if pad is None else int(table[pad])
        )
        with torch.no_grad():
            trimmed.weight.copy_(embeddings.weight[torch.from_numpy(self.kept)])
        model.set_input_embeddings(trimmed)
        model.config.vocab_size = len(self.kept)
        for name in _CONFIG_IDS:
            old = getattr(model.config, f"{name}_token_id", None)
            if isinstance(old, int) and 0 <= old < len(table) and table[old] >= 0:
                setattr(model.config, f"{name}_token_id", int(table[old]))


def trim_vocabulary(tokenizer: Any, tokens: Tokens, on: torch.device) -> Vocabulary:
    """Returns the vocabulary of a student on a training split.

    Kept are the tokens that occur, special and added ones, single characters and bytes, and what
    the tokenizer needs to come to any of them.

    Args:
        tokenizer: The teacher's.
        tokens: The training split, cut up by it.
        on: Where the student is trained.

    Raises:
        SpecError: If the tokenizer is of another kind than WordPiece, BPE or Unigram.
    """
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    model = tree["model"]
    if model["type"] not in _KINDS:
        message = f"a {model['type']} tokenizer can't be trimmed; {', '.join(_KINDS)} can"
        raise SpecError(Problem("", "student.vocab", message))
    texts = _texts(model)
    added = {entry["id"]: entry["content"] for entry in tree["added_tokens"]}
    wanted = set(np.unique(tokens.ids).tolist()) | set(added)
    wanted |= {i for i, text in texts.items() if _is_single(text, model)}
    # RoBERTa counts positions from the padding's id on, so that must not move.
    wanted |= set(range((tokenizer.pad_token_id or 0) + 1))
    if model["type"] == "Unigram":
        wanted.add(min(texts, key=lambda i: model["vocab"][i][1]))
        wanted |= {model["unk_id"]} - {None}
    elif model.get("unk_token") is not None:
        wanted.add(model["vocab"][model["unk_token"]])
    if model["type"] == "BPE":
        wanted |= _ancestors(wanted, model)
    kept = np.array(sorted(wanted & (set(texts) | set(added))), dtype=np.int64)
    table = np.full(max([*texts, *added]) + 1, -1, dtype=np.int64)
    table[kept] = np.arange(len(kept))
    _rewrite(tree, table)
    return Vocabulary(
        _with_backend(tokenizer, json.dumps(tree)), kept, torch.from_numpy(table).to(on)
    )


def _texts(model: dict[str, Any]) -> dict[int, str]:
    """Returns the text of each token of a tokenizer's model by its id."""
    if model["type"] == "Unigram":
        return {i: text for i, (text, _) in enumerate(model["vocab"])}
    return {i: text for text, i in model["vocab"].items()}


def _is_single(text: str, model: dict[str, Any]) -> bool:
    bare = text.removeprefix(model.get("continuing_subword_prefix") or "")
    bare = bare.removesuffix(model.get("end_of_word_suffix") or "")
    return len(bare) == 1 or _BYTE.match(text) is not None


def _ancestors(wanted: Iterable[int], model: dict[str, Any]) -> set[int]:
    """Returns the ids of all tokens that merges could have made the wanted ones from."""
    vocab, parts = model["vocab"], defaultdict(list)
    for left, right in map(_pair, model["merges"]):
        parts[_merged(left, right, model)].append((left, right))
    texts = {i: text for text, i in vocab.items()}
    todo, found = [texts[i] for i in wanted if i in texts], set()
    while todo:
        for pair in parts[todo.pop()]:
            for part in pair:
                if vocab[part] not in found:
                    found.add(vocab[part])
                    todo.append(part)
    return found


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _merged(left: str, right: str, model: dict[str, Any]) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _rewrite(tree: dict[str, Any], table: np.ndarray) -> None:
    """Puts the new ids in all places of a tokenizer.json and drops the tokens that have none."""
    model = tree["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if table[i] >= 0]
        if model["unk_id"] is not None:
            model["unk_id"] = int(table[model["unk_id"]])
    else:
        model["vocab"] = {t: int(table[i]) for t, i in model["vocab"].items() if table[i] >= 0}
    if model["type"] == "BPE":
        model["merges"] = [
            merge
            for merge in model["merges"]
            if {(pair := _pair(merge))[0], pair[1], _merged(pair[0], pair[1], model)}
            <= model["vocab"].keys()
        ]
    for entry in tree["added_tokens"]:
        entry["id"] = int(table[entry["id"]])
    if tree.get("padding"):
        tree["padding"]["pad_id"] = int(table[tree["padding"]["pad_id"]])
    post = tree.get("post_processor") or {}
    for part in [post, *post.get("processors", ())]:
        for name in ("sep", "cls"):  # of BERT's and RoBERTa's processors: [token, id]
            if name in part:
                part[name][1] = int(table[part[name][1]])
        for special in (part.get("special_tokens") or {}).values():
            special["ids"] = [int(table[i]) for i in special["ids"]]


def _with_backend(tokenizer: Any, text: str) -> Any:
    """Returns a tokenizer that differs in nothing but its tokenizer.json."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    # The general class: those of the families build a backend of their own from a vocabulary.
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )
