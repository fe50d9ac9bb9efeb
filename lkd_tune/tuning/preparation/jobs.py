"""Work on models outside the trials, for a `SideProcess`: the teacher, speeds, scores on test."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lkd_tune.cluster.ray import describe_node
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import PLAIN, Inference, TargetSettings, TeacherSettings
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.uri import is_address
from lkd_tune.files.atomic import atomic_folder
from lkd_tune.files.cache import node_cache
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.progress_file import pace_in, pace_noter
from lkd_tune.records.run import append_measurement
from lkd_tune.storage.fetch import send_model


def prepare_teacher(
    threads: int, teacher: str, task: str, cache: str, cwd: str, progress: str, copy: str | None
) -> dict[str, Any]:
    """Returns a teacher's facts: `model`, `parameters`, `flops`, its metrics on `dev` and `test`.

    Args:
        threads: CPU threads to use.
        teacher: TeacherSettings as JSON; it is trained if they say so.
        task: TaskSettings as JSON.
        cache: Folder of trained teachers and tokenised data.
        cwd: What paths are relative to.
        progress: Folder for the measurements and the pace of the training.
        copy: Where to copy a trained teacher to, if not all nodes see the cache: a folder, or an
            address in an object store.

    Raises:
        SpecError: If the teacher or the data can't be had or do not fit together.
    """
    _settle(threads, cwd)
    from lkd_tune.data.tasks.registry import kind_of
    from lkd_tune.distillation.teacher import train_teacher
    from lkd_tune.models.loading import describe_model, load_config
    from lkd_tune.models.room import check_room
    from lkd_tune.models.size import count_size

    settings = TeacherSettings.model_validate_json(teacher)
    goal = TaskSettings.model_validate_json(task)
    model = settings.model
    if settings.train is not None:

        def note(measurement: Measurement) -> None:
            append_measurement(Path(progress), measurement)

        Path(progress).mkdir(parents=True, exist_ok=True)
        folder = train_teacher(
            goal,
            settings.train,
            cache=node_cache(cache),
            progress=note,
            on_progress=pace_noter(pace_in(Path(progress))),
        )
        pace_in(Path(progress)).unlink(missing_ok=True)
        if copy is not None and is_address(copy):
            send_model(folder, copy)
        elif copy is not None:
            with atomic_folder(Path(copy)) as draft:
                shutil.copytree(folder, draft, dirs_exist_ok=True)
        model = copy or str(folder)
    assert model is not None  # TeacherSettings sees to it
    head = kind_of(goal).head
    check_room(model, head, settings.inference)
    scores = score_model(threads, model, task, cache, cwd, inference=settings.inference)
    parameters = describe_model(model, head)["parameters"]
    flops = count_size(load_config(model), head, goal.max_length).flops
    facts = {"model": model, "parameters": parameters, "flops": flops}
    return {**facts, **scores, "node": describe_node()}


def prepare_targets(
    threads: int,
    model: str,
    inference: str,
    task: str,
    targets: str,
    cache: str,
    cwd: str,
    progress: str,
) -> dict[str, Any]:
    """Returns the facts of the stored targets, built if there are none; {} if they don't fit.

    Args:
        threads: CPU threads to use.
        model: The teacher.
        inference: Inference as JSON.
        task: TaskSettings as JSON.
        targets: TargetSettings as JSON.
        cache: Folder of stored targets and tokenised data.
        cwd: What paths are relative to.
        progress: A file that is told the share that is done.

    Raises:
        SpecError: If the data can't be had.
    """
    _settle(threads, cwd)
    from lkd_tune.data.loading import count_labels
    from lkd_tune.data.tasks.registry import kind_of
    from lkd_tune.distillation.augmentation import load_training_tokens
    from lkd_tune.distillation.targets.store import ensure_store, read_facts, stored_targets_fit
    from lkd_tune.models.loading import load_tokenizer, read_depth
    from lkd_tune.runtime.process_group import device

    settings = TaskSettings.model_validate_json(task)
    tokens = load_training_tokens(
        settings, model, load_tokenizer(model), device(), cache=node_cache(cache)
    )
    limits = TargetSettings.model_validate_json(targets)
    kind, classes = kind_of(settings), count_labels(settings, cache=node_cache(cache))
    if not stored_targets_fit(limits, tokens, read_depth(model) + 1, classes, kind):
        return {}

    def note(done: int, total: int) -> None:
        Path(progress).parent.mkdir(parents=True, exist_ok=True)
        Path(progress).write_text(f"{done / total:.0%}", "utf-8")

    folder = ensure_store(
        model,
        tokens,
        kind,
        device(),
        node_cache(cache),
        inference=Inference.model_validate_json(inference),
        progress=note,
    )
    return read_facts(folder)


def prepare_fine_tuning(
    threads: int, model: str, task: str, cache: str, cwd: str
) -> dict[str, int]:
    """Returns the examples of `evaluate_on`, `train` and `dev`, after tokenising them.

    What is wrong with them is told so before the first trial, and not at its end.

    Args:
        threads: CPU threads to use.
        model: The teacher, whose tokenizer the students have.
        task: TaskSettings as JSON.
        cache: Folder of tokenised data.
        cwd: What paths are relative to.

    Raises:
        SpecError: If the data can't be had or do not fit.
    """
    _settle(threads, cwd)
    from lkd_tune.data.loading import count_labels
    from lkd_tune.data.tokenize import load_tokens
    from lkd_tune.models.loading import load_tokenizer

    settings, folder = TaskSettings.model_validate_json(task), node_cache(cache)
    tokenizer = load_tokenizer(model)
    count_labels(settings, cache=folder)
    return {
        split: len(load_tokens(settings, split, tokenizer, cache=folder))
        for split in ("train", "dev")
    }


def time_students(
    threads: int, own: int, model: str, students: list[str], train: str, task: str, cwd: str
) -> dict[str, str]:
    """Returns what is to stand in a run's folder of latencies, by file.

    A student for which memory is short here is left out, and one that there is not: its trial says
    so.

    Args:
        threads: CPU threads of this process.
        own: CPU threads of a trial, by which they are timed.
        model: The teacher.
        students: StudentSettings of each, as JSON.
        train: TrainSettings as JSON.
        task: TaskSettings as JSON.
        cwd: What paths are relative to.
    """
    _settle(min(own, threads), cwd)
    from lkd_tune.data.tasks.registry import kind_of
    from lkd_tune.distillation.build import uses_bf16
    from lkd_tune.models.size import expected_config, measure_size
    from lkd_tune.runtime.oom import is_out_of_memory
    from lkd_tune.runtime.process_group import device

    goal = TaskSettings.model_validate_json(task)
    head, bf16 = kind_of(goal).head, uses_bf16(TrainSettings.model_validate_json(train))
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder)
        for student in students:
            try:
                config = expected_config(StudentSettings.model_validate_json(student), model)
                measure_size(config, head, goal.max_length, device(), bf16=bf16, known=known)
            except SpecError:
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        return {file.name: file.read_text("utf-8") for file in known.iterdir()}


def score_model(
    threads: int,
    model: str,
    task: str,
    cache: str,
    cwd: str,
    splits: tuple[str, ...] = (),
    inference: Inference = PLAIN,
) -> dict[str, Any]:
    """Returns a model's metrics by split; without `splits` on dev, and on test if there is one.

    Raises:
        SpecError: If the model or the data can't be had or do not fit together.
    """
    _settle(threads, cwd)
    from lkd_tune.evaluation.scoring import evaluate_model

    settings = TaskSettings.model_validate_json(task)
    if not splits:
        splits = ("dev",) if settings.test is None else ("dev", "test")
    return evaluate_model(
        model, settings, splits=splits, cache=node_cache(cache), inference=inference
    )


def _settle(threads: int, cwd: str) -> None:
    if os.path.isdir(cwd):
        os.chdir(cwd)
    import torch

    torch.set_num_threads(threads)
