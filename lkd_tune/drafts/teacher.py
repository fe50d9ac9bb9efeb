"""What a draft needs to know of a teacher, or of the model that one is fine-tuned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.models.families import count_positions, size_in
from lkd_tune.models.loading import read_config

# What `read_config` would say of the models that are proposed, so that nothing is downloaded.
_PROPOSED: Mapping[str, Mapping[str, Any]] = {
    "bert-base-uncased": {
        "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072,
        "vocab_size": 30522, "max_position_embeddings": 512,
    },
    "bert-base-multilingual-cased": {
        "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072,
        "vocab_size": 119547, "max_position_embeddings": 512,
    },
}  # fmt: skip
# Share of the letters in a text that English and its like do not go below.
_LATIN = 0.95
_TEXTS_READ = 500


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher.

    Attributes:
        model: Folder or hub id.
        is_proposed: Whether it was chosen here, as the user named none.
        config: Its configuration as plain data.
        is_tuned: Whether it has a head for the task; otherwise it is fine-tuned first.
        why: Why it is, or is not.
        names: Names of its classes; [] without a head for the task.
    """

    model: str
    is_proposed: bool
    config: Mapping[str, Any]
    is_tuned: bool
    why: str
    names: Sequence[str] = ()

    @property
    def layers(self) -> int:
        """Number of its layers."""
        found = size_in(self.config, "layers")
        assert found is not None  # `read_teacher` checks it
        return found

    @property
    def positions(self) -> int | None:
        """Tokens of its longest input, None if that is unknown."""
        return count_positions(self.config)

    def embedding_share(self, depth: int) -> float:
        """Returns the share of the word embeddings in the parameters of a student."""
        hidden = size_in(self.config, "hidden_size") or 0
        inner = size_in(self.config, "intermediate_size") or 4 * hidden
        words = hidden * int(self.config.get("vocab_size", 0))
        layer = 4 * hidden * hidden + 2 * hidden * inner
        return words / (words + depth * layer) if words else 0.0


def read_teacher(
    model: str | None, kind: str, classes: int | None, texts: Sequence[str]
) -> TeacherFacts:
    """Returns what is known of a teacher.

    Args:
        model: Folder or hub id; None: one is proposed for the texts' script.
        kind: The kind of task.
        classes: The number of its classes, None if it has none.
        texts: Texts of the task.

    Raises:
        SpecError: If there is no such model, or its configuration has no number of layers.
    """
    if model is None:
        chosen = "bert-base-uncased" if is_latin(texts) else "bert-base-multilingual-cased"
        why = "none was given"
        return TeacherFacts(chosen, True, _PROPOSED[chosen], kind == "masked_lm", why)
    try:
        config = read_config(model)
    except SpecError as error:
        raise SpecError(Problem("--teacher", "", p.message) for p in error.problems) from None
    if size_in(config, "layers") is None:
        message = f"{model} has no number of layers in its configuration; use another model"
        raise SpecError(Problem("--teacher", "", message))
    head = KINDS[kind].head
    has_head = any(str(name).endswith(f"For{head}") for name in config.get("architectures") or ())
    names = [str(name) for _, name in sorted(_classes(config).items())]
    wanted = 1 if kind == "regression" else classes
    if not has_head:
        return TeacherFacts(model, False, config, False, f"it has no head for {kind}")
    if wanted is not None and len(names) != wanted:
        why = f"its head has {len(names)} outputs, the data have {wanted} classes"
        return TeacherFacts(model, False, config, False, why)
    return TeacherFacts(model, False, config, True, f"it has a head for {kind}", names)


def is_latin(texts: Sequence[str]) -> bool:
    """Returns whether texts are written in letters without accents, as English is."""
    letters = [letter for text in texts[:_TEXTS_READ] for letter in text if letter.isalpha()]
    return sum(map(str.isascii, letters)) >= _LATIN * len(letters)


def _classes(config: Mapping[str, Any]) -> dict[int, str]:
    # transformers leaves out the names of a head with two outputs.
    found = config.get("id2label") or {number: f"LABEL_{number}" for number in range(2)}
    return {int(number): name for number, name in found.items()}
