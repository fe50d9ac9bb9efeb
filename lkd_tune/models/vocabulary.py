"""A student's own vocabulary: the tokens that its task's training text needs.

Teacher and student have to compare the same words. So training text is tokenized by the teacher's
tokenizer alone, and the student gets the same tokens under its own ids; all of them are kept. Text
for scoring is tokenized by the student's trimmed tokenizer, which is saved with it.

On text whose tokens are all kept, both tokenizers give the same tokens:

- WordPiece takes the longest token that fits, and that one is kept.
- BPE merges by rank. Every merge that can lead to a kept token is kept, in the same order; a merge
  that is not kept leads to a token that is not kept.
- Unigram takes the path with the best score. Scores stay the same, and the best path remains among
  the fewer paths. All single characters are kept, so no further character becomes unknown. The
  token with the lowest score is kept, as the score of an unknown character depends on it.

Dev and test text do not count, because they represent unseen text.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.models.loading import load_tokenizer

_BYTE = re.compile(r"^<0x[0-9A-Fa-f]{2}>$")
_SUPPORTED = ("WordPiece", "WordLevel", "BPE", "Unigram")
_FIRST_TOKENS = 10
_TESTED_TOKENS = 512
_CONFIG_IDS = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens a student keeps.

    Attributes:
        tokenizer: The student's tokenizer.
        kept: The teacher's id of each kept token, ascending, shape (kept tokens,).
        table: The student's id for each of the teacher's ids, -1 for tokens that are not kept; on
            the device.
    """

    tokenizer: Any
    kept: np.ndarray
    table: torch.Tensor

    def translate(self, batch: Batch) -> Batch:
        """Returns a batch with the student's ids in place of the teacher's."""
        return replace(batch, ids=self.table[batch.ids])

    def trim(self, model: Any) -> None:
        """Removes the embeddings of other tokens from a model; its outputs stay the same.

        Raises:
            SpecError: If the model predicts tokens, or has fewer tokens than the tokenizer.
        """
        embeddings = model.get_input_embeddings()
        if model.get_output_embeddings() is not None:
            message = "trim does not work with a model that predicts tokens; use vocab: teacher"
            raise SpecError(Problem("", "student.vocab", message))
        if self.kept[-1] >= embeddings.num_embeddings:
            message = (
                f"the model has {embeddings.num_embeddings} tokens, the teacher's tokenizer at "
                f"least {self.kept[-1] + 1}; use a model that has the teacher's vocabulary"
            )
            raise SpecError(Problem("", "student.vocab", message))
        # The module stays: that of Gemma multiplies its rows.
        rows = embeddings.weight.detach()[torch.from_numpy(self.kept)]
        embeddings.weight = torch.nn.Parameter(rows)
        embeddings.num_embeddings = len(self.kept)
        if embeddings.padding_idx is not None:
            embeddings.padding_idx = self._new_id(embeddings.padding_idx)
        # Read where the model is built again.
        model.config.vocab_size = len(self.kept)
        for name in _CONFIG_IDS:
            key = f"{name}_token_id"
            old = getattr(model.config, key, None)
            if isinstance(old, list):  # several tokens may end a text
                kept = [new for token in old if (new := self._new_id(token)) is not None]
                setattr(model.config, key, kept)
            elif old is not None and (new := self._new_id(old)) is not None:
                setattr(model.config, key, new)

    def _new_id(self, token: int) -> int | None:
        """Returns the student's id for one of the teacher's, None if it is not kept."""
        new = int(self.table[token]) if 0 <= token < len(self.table) else -1
        return new if new >= 0 else None


def trim_vocabulary(tokenizer: Any, tokens: Tokens, on: torch.device) -> Vocabulary:
    """Returns the vocabulary of a student for a training split.

    It keeps the tokens that occur, special and added tokens, single characters and bytes, and all
    tokens that the tokenizer needs to reach these.

    Args:
        tokenizer: The teacher's tokenizer.
        tokens: The training split, tokenized by it.
        on: Where the student is trained.

    Raises:
        SpecError: If the tokenizer is not a WordPiece, word-level, BPE or Unigram tokenizer.
    """
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    model = tree["model"]
    if model["type"] not in _SUPPORTED:
        message = f"a {model['type']} tokenizer can't be trimmed; {', '.join(_SUPPORTED)} can"
        raise SpecError(Problem("", "student.vocab", message))
    texts = _texts(model)
    added = {entry["id"]: entry["content"] for entry in tree["added_tokens"]}
    wanted = {*np.unique(tokens.ids).tolist(), *added, *tokenizer.all_special_ids}
    wanted |= {i for i, text in texts.items() if _is_single(text, model)}
    # RoBERTa numbers positions from the padding id on, so that id must not change. Where it is not
    # among the first tokens, as in decoders, nothing hangs on it.
    if (tokenizer.pad_token_id or 0) < _FIRST_TOKENS:
        wanted |= set(range((tokenizer.pad_token_id or 0) + 1))
    if model["type"] == "Unigram":
        wanted.add(min(texts, key=lambda i: model["vocab"][i][1]))
        wanted |= {model["unk_id"]} - {None}
    elif model.get("unk_token") is not None:
        wanted.add(model["vocab"][model["unk_token"]])
    if model["type"] == "BPE":
        wanted |= _merge_parts(wanted, model)
    kept = np.array(sorted(wanted & (set(texts) | set(added))), dtype=np.int64)
    table = np.full(max([*texts, *added]) + 1, -1, dtype=np.int64)
    table[kept] = np.arange(len(kept))
    _rewrite(tree, table)
    trimmed = _with_backend(tokenizer, json.dumps(tree))
    # Added tokens are numbered anew where they follow the others.
    if trimmed.get_vocab() != {
        text: int(table[i]) for text, i in tokenizer.get_vocab().items() if table[i] >= 0
    }:
        message = "the tokenizer can't be trimmed: tokens would get other ids; use vocab: teacher"
        raise SpecError(Problem("", "student.vocab", message))
    return Vocabulary(trimmed, kept, torch.from_numpy(table).to(on))


@lru_cache(maxsize=8)
def check_tokenizer(model: str) -> None:
    """Checks that a model's tokenizer can be trimmed, with texts made of some of its tokens.

    Raises:
        SpecError: If it can't, or if there is no such model.
    """
    tokenizer = load_tokenizer(model)
    some = np.linspace(0, len(tokenizer) - 1, _TESTED_TOKENS).astype(int).tolist()
    texts = tokenizer.batch_decode([some[i : i + 8] for i in range(0, len(some), 8)])
    theirs = tokenizer(texts)["input_ids"]
    flat = np.array([token for ids in theirs for token in ids])
    nothing = np.zeros(len(flat))
    tokens = Tokens(flat, nothing, np.array([0, len(flat)]), nothing[:1], 0, "")
    problem = None
    try:
        vocabulary = trim_vocabulary(tokenizer, tokens, torch.device("cpu"))
        ours = vocabulary.tokenizer(texts)["input_ids"]
        if [vocabulary.kept[ids].tolist() for ids in ours] != theirs:
            problem = "the trimmed one divides texts into other tokens"
    except SpecError:
        raise
    except Exception as error:  # whatever the parts of any tokenizer may lack
        problem = f"{type(error).__name__} {error}"
    if problem is not None:
        message = f"the tokenizer of {model} can't be trimmed: {problem}; use vocab: teacher"
        raise SpecError(Problem("", "student.vocab", message))


def _texts(model: dict[str, Any]) -> dict[int, str]:
    """Returns the text of each token by its id."""
    if model["type"] == "Unigram":
        return {i: text for i, (text, _) in enumerate(model["vocab"])}
    return {i: text for text, i in model["vocab"].items()}


def _is_single(text: str, model: dict[str, Any]) -> bool:
    bare = text.removeprefix(model.get("continuing_subword_prefix") or "")
    bare = bare.removesuffix(model.get("end_of_word_suffix") or "")
    return len(bare) == 1 or _BYTE.match(text) is not None


def _merge_parts(wanted: Iterable[int], model: dict[str, Any]) -> set[int]:
    """Returns the ids of all tokens that can be merged into the wanted ones."""
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
    """Replaces all ids in a tokenizer.json by new ones, and drops tokens that have none."""
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
    """Returns a copy of a tokenizer with another tokenizer.json."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    # The general class: the families' classes build their own backend from a vocabulary.
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )
