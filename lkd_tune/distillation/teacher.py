"""Fine-tuning a teacher before the search, with the loop that trains the students."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import LABELS_ONLY
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import TeacherTraining
from lkd_tune.config.settings.training import ResourceSettings, TrainSettings
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.data.loading import source_fingerprint
from lkd_tune.distillation.run import distill
from lkd_tune.files.cache import cache_dir, get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.files.disk import IN_CACHE, disk_space_for
from lkd_tune.models.from_scratch import build_from_scratch
from lkd_tune.models.loading import (
    load_config,
    model_digest,
    read_depth,
)
from lkd_tune.records.measurement import Measurement, TrainingProgress
from lkd_tune.runtime.cpu import threads_for_width
from lkd_tune.runtime.process_group import ensure_process_group


def train_teacher(
    task: TaskSettings,
    training: TeacherTraining,
    *,
    workers: int = 1,
    cache: Path | None = None,
    on_measurement: Callable[[Measurement], None] | None = None,
    on_progress: Callable[[TrainingProgress], object] | None = None,
) -> Path:
    """Returns the folder of a teacher fine-tuned on the task's labels.

    It is trained once for the same data, model and settings, and then taken from the cache. If
    several processes ask for it at the same time, one trains it and the others wait.

    Args:
        task: The task.
        training: What to start from and how to train.
        workers: Ranks of this process group. Each of them calls this.
        cache: Folder for teachers and tokenized data. Default: the user's cache.
        on_measurement: Called with each measurement.
        on_progress: As for `Distillation`.

    Raises:
        SpecError: If the model or the data can't be loaded.
        DivergedError: If the loss is not finite.
    """
    ensure_process_group()
    base = cache or cache_dir()
    key = digest(
        "teacher-1",
        # Without what gives the same model.
        training.model_dump(
            exclude={"bad_examples", "activation_checkpointing", "unlabelled_share"}
        ),
        model_digest(training.model) if training.model else None,
        [source_fingerprint(task, split) for split in ("train", "dev")],
        task.max_length,
        task.metric,
    )
    folder = base / "teachers" / f"{task.name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    built = False

    def train(draft: Path | None) -> None:
        _train_into(draft, task, training, workers, base, on_measurement, on_progress)

    def build(draft: Path) -> None:
        nonlocal built
        built = _value_of_rank_0(True)
        train(draft)

    # Rank 0 decides whether to train, and holds the lock for all ranks.
    if dist.get_rank() == 0:
        get_or_build(folder, build, "the teacher")
        if not built:
            _value_of_rank_0(False)
    elif _value_of_rank_0(None):
        with disk_space_for(f"the teacher {IN_CACHE}", folder.parent):
            train(None)
    dist.barrier()  # now all ranks see the folder
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
    on_measurement: Callable[[Measurement], None] | None,
    on_progress: Callable[[TrainingProgress], object] | None,
) -> None:
    """Trains a teacher and writes it to a folder; None on the ranks that do not write it."""
    start = training.model
    with tempfile.TemporaryDirectory(dir=cache / "teachers", prefix=".building-") as scratch:
        if training.architecture is not None:
            start = str(Path(scratch) / "start")
            torch.manual_seed(training.seed)
            build_from_scratch(training.architecture, task, Path(start))
        assert start is not None  # TeacherTraining checks it
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
                if on_measurement is not None:
                    on_measurement(measurement)
