"""Fine-tuning a teacher before the search, with the loop that trains the students."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import LABELS_ONLY
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import Architecture, TeacherSettings, TeacherTraining
from lkd_tune.config.settings.training import ResourceSettings, TrainSettings
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.data.loading import GENERATED, count_labels, load_split, source_fingerprint
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenizer_training import (
    SPECIAL,
    as_bert_tokenizer,
    train_subword_tokenizer,
)
from lkd_tune.distillation.run import distill
from lkd_tune.files.cache import cache_dir, get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.files.disk import IN_CACHE, room_for
from lkd_tune.models.loading import (
    auto_model,
    count_positions,
    load_config,
    model_digest,
    read_config,
    read_depth,
    save_model,
)
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.pace import Pace
from lkd_tune.runtime.cpu import threads_for_width
from lkd_tune.runtime.process_group import ensure_process_group


def teacher_depth(settings: TeacherSettings) -> int:
    """Returns the number of encoder layers of a teacher, trained already or not.

    Raises:
        SpecError: If its model can't be had.
    """
    if settings.train is None:
        assert settings.model is not None  # TeacherSettings sees to it
        return read_depth(settings.model)
    if settings.train.architecture is not None:
        return settings.train.architecture.layers
    assert settings.train.model is not None
    return read_depth(settings.train.model)


def teacher_positions(settings: TeacherSettings, task: TaskSettings) -> int | None:
    """Returns the tokens of a teacher's longest input, None if its configuration says none.

    Raises:
        SpecError: If its model can't be had.
    """
    start = settings.model or (settings.train and settings.train.model)
    if start:
        return count_positions(read_config(start))
    return task.max_length  # as `build_from_scratch` makes it


def train_teacher(
    task: TaskSettings,
    training: TeacherTraining,
    *,
    workers: int = 1,
    cache: Path | None = None,
    progress: Callable[[Measurement], None] | None = None,
    on_progress: Callable[[Pace], object] | None = None,
) -> Path:
    """Returns the folder of a teacher fine-tuned on the task's labels.

    It is trained once for the same data, model and settings and taken from the cache after that;
    of several processes that ask at the same time one trains and the others wait.

    Args:
        task: The task.
        training: What to start from and how to train.
        workers: Ranks of this process group; each of them calls.
        cache: Folder for teachers and tokenised data; none: the user's cache.
        progress: Is told each measurement.
        on_progress: As for `Distillation`.

    Raises:
        SpecError: If the model or the data can't be had.
        DivergedError: If the loss is not finite.
    """
    ensure_process_group()
    base = cache or cache_dir()
    key = digest(
        "teacher-1",
        training.model_dump(exclude={"bad_examples", "activation_checkpointing"}),  # the same model
        model_digest(training.model) if training.model else None,
        [source_fingerprint(task, split) for split in ("train", "dev")],
        task.max_length,
        task.metric,
    )
    folder = base / "teachers" / f"{task.name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    built = False

    def train(draft: Path | None) -> None:
        _train_into(draft, task, training, workers, base, progress, on_progress)

    def build(draft: Path) -> None:
        nonlocal built
        built = _value_of_rank_0(True)
        train(draft)

    # Rank 0 finds out whether to train, and holds the lock for all ranks.
    if dist.get_rank() == 0:
        get_or_build(folder, build, "the teacher")
        if not built:
            _value_of_rank_0(False)
    elif _value_of_rank_0(None):
        with room_for(f"the teacher {IN_CACHE}", folder.parent):
            train(None)
    dist.barrier()  # from here on all ranks see the folder
    return folder


def _value_of_rank_0(value: bool | None) -> bool:
    values = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return bool(values[0])


def _train_into(
    folder: Path | None,
    task: TaskSettings,
    training: TeacherTraining,
    workers: int,
    cache: Path,
    progress: Callable[[Measurement], None] | None,
    on_progress: Callable[[Pace], object] | None,
) -> None:
    """Trains a teacher and writes it to a folder; None on the ranks that do not write it."""
    start = training.model
    with tempfile.TemporaryDirectory(dir=cache / "teachers", prefix=".building-") as scratch:
        if training.architecture is not None:
            start = str(Path(scratch) / "start")
            torch.manual_seed(training.seed)
            build_from_scratch(training.architecture, task, Path(start))
        assert start is not None  # TeacherTraining sees to it
        depth = read_depth(start)
        identity = preset_map("first", depth, depth)
        settings = training.model_dump(include=set(TrainSettings.model_fields))
        spec = TrialSpec(
            task=task,
            teacher=None,
            student=StudentSettings(depth=depth, init=start),
            layer_map=ResolvedLayerMap(word=identity, layer=identity),
            losses=LABELS_ONLY,
            train=TrainSettings(**settings),
            resources=ResourceSettings(workers=workers),
            seed=training.seed,
        )
        trained = distill(
            spec,
            cache=cache,
            finish=lambda d: d.save_student(folder or Path(scratch) / "teacher"),
            on_progress=on_progress,
        )
        with threads_for_width(load_config(start).hidden_size):
            for measurement in trained:
                if progress is not None:
                    progress(measurement)


def build_from_scratch(architecture: Architecture, task: TaskSettings, folder: Path) -> None:
    """Writes a BERT with random weights and a tokenizer of the task's text."""
    from transformers import BertConfig

    tokenizer = _build_tokenizer(architecture, task)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.intermediate_size or 4 * architecture.hidden_size,
        hidden_dropout_prob=architecture.dropout,
        attention_probs_dropout_prob=architecture.dropout,
        initializer_range=architecture.init_std,
        max_position_embeddings=task.max_length,
        num_labels=count_labels(task) or 2,  # of no weight to a head over the vocabulary
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(auto_model(kind_of(task).head).from_config(config), tokenizer, folder)


def _build_tokenizer(architecture: Architecture, task: TaskSettings) -> Any:
    if architecture.vocabulary == "words":
        return build_word_tokenizer(_words(task), task.max_length)
    train = load_split(task, "train")
    return train_subword_tokenizer(
        architecture.vocabulary,
        train.strings(),
        architecture.vocabulary_size,
        task.max_length,
    )


def build_word_tokenizer(words: list[str], max_length: int) -> Any:
    """Returns a BERT tokenizer whose vocabulary is whole words; others become [UNK]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return as_bert_tokenizer(backend, max_length)


def _words(task: TaskSettings) -> list[str]:
    """Returns the words of the training text, sorted."""
    if task.data == GENERATED:
        from lkd_tune.data.acceptability.task import VOCABULARY

        return sorted(VOCABULARY)
    from tokenizers import normalizers, pre_tokenizers

    normalize, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    train = load_split(task, "train")
    words: set[str] = set()
    for text in train.strings():
        words.update(word for word, _ in split.pre_tokenize_str(normalize.normalize_str(text)))
    return sorted(words)
