"""Where a student comes from: its teacher by name, its base model, licence and language."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lkd_tune.config.settings.known_tasks import GENERATED, TASKS, is_file_name
from lkd_tune.config.trial import TrialSpec
from lkd_tune.config.uri import is_uri
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.fetch import local_model
from lkd_tune.storage.hub import reading_hub

_LANGUAGE_OF_KNOWN_TASKS = "en"


@dataclass(frozen=True)
class Origin:
    """Where a student comes from; None stands for what is not known.

    Attributes:
        teacher: The teacher's name, for readers.
        base_model: The hub id of the model whose weights the student's are made from.
        license: The licence of these models, if they have the same one.
        language: The language or languages of the task's text.
    """

    teacher: str
    base_model: str | None
    license: str | None
    language: str | list[str] | None


def origin_of(run: RunFolder, spec: TrialSpec) -> Origin:
    """Returns where a student of a run comes from.

    Licences, and the language of a task that is not known by name, are those in the model cards of
    the teacher and of the model that the student starts from. Cards on the hub are read if it can
    be reached.
    """
    cwd = Path(run.read_manifest().get("cwd", "."))
    teacher, is_start = _teacher_of(run, spec)
    names = [spec.student.init] if spec.student.init not in ("teacher", "random") else []
    names += [] if teacher is None else [teacher]
    cards = [_card_of(name, cwd) for name in names]
    base = None
    if names and spec.student.init != "random":
        base = names[0] if is_hub_id(names[0], cwd) else cards[0].get("base_model")
    licenses = {card["license"] for card in cards if card.get("license")}
    languages = [card["language"] for card in cards if card.get("language")]
    if spec.task.name in TASKS:
        languages = [_LANGUAGE_OF_KNOWN_TASKS]
    if teacher is None:
        name = f"trained from scratch on {spec.task.name}"
    else:
        name = teacher if is_hub_id(teacher, cwd) else Path(teacher).name
        name += f", fine-tuned on {spec.task.name}" if is_start else ""
    return Origin(
        teacher=name,
        base_model=base if isinstance(base, str) else None,
        license=licenses.pop() if len(licenses) == 1 else None,
        language=languages[0] if languages else None,
    )


def is_hub_id(name: str | None, cwd: Path = Path()) -> bool:
    """Returns whether a name is one of the hub, and not a path, an address or a file.

    Args:
        name: The name of a model or data set.
        cwd: The folder that local paths are relative to.
    """
    if name is None or name == GENERATED or is_uri(name) or is_file_name(name):
        return False
    if (cwd / local_model(name)).exists():
        return False
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1


def _teacher_of(run: RunFolder, spec: TrialSpec) -> tuple[str | None, bool]:
    """Returns the teacher's model, and whether that is only what the teacher was trained from.

    The model is None for a teacher from scratch. The space is read, because a trial's spec names a
    trained teacher by its folder in the cache.
    """
    settings = yaml.safe_load(run.space.read_text("utf-8")).get("teacher")
    if isinstance(settings, str):
        return settings, False
    if training := (settings or {}).get("train"):
        return training.get("model"), True
    return (settings or {}).get("model", spec.teacher), False


def _card_of(model: str, cwd: Path) -> dict[str, Any]:
    """Returns the metadata of a model's card; {} if there is none that can be read."""
    from huggingface_hub import ModelCard, hf_hub_download

    if is_uri(model):
        return {}
    try:
        if is_hub_id(model, cwd):
            with reading_hub():
                card = Path(hf_hub_download(model, "README.md"))
        else:
            card = cwd / local_model(model) / "README.md"
        return ModelCard.load(card).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):
        return {}
