"""The jobs of a `PreparationWorker`: teacher, stored targets, latencies, loss scales, test scores.

Arguments are plain data, because they travel to another process: settings as JSON.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lkd_tune.cluster.ray import describe_node
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.settings.teacher import PLAIN, Inference, TargetSettings, TeacherSettings
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.config.uri import is_uri
from lkd_tune.files.atomic import atomic_folder
from lkd_tune.files.cache import node_cache
from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.progress_file import progress_path, progress_writer
from lkd_tune.records.trial_folder import append_measurement
from lkd_tune.results.formatting import duration, megabytes
from lkd_tune.storage.fetch import send_model

_TIMED = ("latency_ms", "latency_ms_batch_32", "device")


def prepare_teacher(
    threads: int, teacher: str, task: str, cache: str, cwd: str, progress: str, copy: str | None
) -> dict[str, Any]:
    """Returns a teacher's `model`, `parameters`, `flops`, and metrics on `dev` and `test`.

    Further entries are `constant`, the metric on dev of a model that always answers the same,
    `dev_rows`, the number of rows in dev if each has one answer, and `warnings`.

    Args:
        threads: CPU threads to use.
        teacher: TeacherSettings as JSON. The teacher is trained if they say so.
        task: TaskSettings as JSON.
        cache: Folder of trained teachers and tokenised data.
        cwd: What paths are relative to.
        progress: Folder for the measurements and the progress of the training.
        copy: Where to copy a trained teacher if not all nodes share the cache: a folder, or an
            address in an object store.

    Raises:
        SpecError: If the teacher or the data can't be loaded or do not fit together.
    """
    _configure_process(threads, cwd)
    from lkd_tune.data.loading import load_split
    from lkd_tune.data.tasks.registry import kind_of
    from lkd_tune.data.training_text import load_training_text
    from lkd_tune.distillation.teacher import train_teacher
    from lkd_tune.evaluation.teacher_check import check_teacher, score_of_constant
    from lkd_tune.models.loading import describe_model, load_config
    from lkd_tune.models.memory import check_memory
    from lkd_tune.models.size import count_size

    settings = TeacherSettings.model_validate_json(teacher)
    task_settings = TaskSettings.model_validate_json(task)
    model = settings.model
    if settings.train is not None:

        def append(measurement: Measurement) -> None:
            append_measurement(Path(progress), measurement)

        Path(progress).mkdir(parents=True, exist_ok=True)
        folder = train_teacher(
            task_settings,
            settings.train,
            cache=node_cache(cache),
            on_measurement=append,
            on_progress=progress_writer(progress_path(Path(progress))),
        )
        progress_path(Path(progress)).unlink(missing_ok=True)
        if copy is not None and is_uri(copy):
            send_model(folder, copy)
        elif copy is not None:
            with atomic_folder(Path(copy)) as draft:
                shutil.copytree(folder, draft, dirs_exist_ok=True)
        model = copy or str(folder)
    assert model is not None  # TeacherSettings checks it
    head = kind_of(task_settings).head
    check_memory(model, head, settings.inference)
    warnings = check_teacher(model, task_settings, cache=node_cache(cache))
    if task_settings.unlabelled is not None:
        warnings.append(load_training_text(task_settings, cache=node_cache(cache)).note)
    scores = score_model(threads, model, task, cache, cwd, inference=settings.inference)
    parameters = describe_model(model, head)["parameters"]
    flops = count_size(load_config(model), head, task_settings.max_length).flops
    size = {"parameters": parameters, "flops": flops}
    constant = score_of_constant(task_settings, model, cache=node_cache(cache))
    found = {"model": model, **size, **scores, "constant": constant}
    if KINDS[task_settings.kind].of_whole_texts:  # a score is a mean over rows, or nearly so
        rows = load_split(task_settings, "dev", cache=node_cache(cache)).text
        found["dev_rows"] = len(rows)
    return {**found, "warnings": warnings, "node": describe_node()}


def prepare_targets(
    threads: int,
    model: str,
    inference: str,
    task: str,
    targets: str,
    cache: str,
    cwd: str,
    progress: str,
    parts: Sequence[str],
) -> dict[str, Any]:
    """Returns what describes the stored targets, {} if they do not fit; stores them if necessary.

    The entry `live` lists those of `parts` that do not fit.

    Args:
        threads: CPU threads to use.
        model: Folder or hub id of the teacher.
        inference: Inference as JSON.
        task: TaskSettings as JSON.
        targets: TargetSettings as JSON.
        cache: Folder of stored targets and tokenised data.
        cwd: What paths are relative to.
        progress: File for the share that is done, the size of the targets, and the time left.
        parts: The `VECTOR_PARTS` that any trial may compare.

    Raises:
        SpecError: If the data can't be loaded.
    """
    _configure_process(threads, cwd)
    from lkd_tune.data.loading import count_labels
    from lkd_tune.data.tasks.registry import kind_of
    from lkd_tune.distillation.augmentation import load_training_tokens
    from lkd_tune.distillation.targets.store import parts_that_fit, stored_bytes
    from lkd_tune.distillation.targets.store_build import get_or_build_store
    from lkd_tune.distillation.targets.store_format import read_store_info
    from lkd_tune.distillation.targets.vectors import VECTOR_PARTS, vector_folder
    from lkd_tune.models.loading import load_config, load_tokenizer
    from lkd_tune.runtime.process_group import device

    settings = TaskSettings.model_validate_json(task)
    tokens = load_training_tokens(
        settings, model, load_tokenizer(model), device(), cache=node_cache(cache)
    )
    limits = TargetSettings.model_validate_json(targets)
    kind, classes = kind_of(settings), count_labels(settings, cache=node_cache(cache))
    fitting = parts_that_fit(limits, tokens, load_config(model), classes, kind)
    if not fitting:
        return {}
    vectors = [part for part in VECTOR_PARTS if part in parts and part in fitting]

    size = megabytes(stored_bytes(vectors, tokens, load_config(model), classes, kind))
    begin = time.monotonic()

    def write_progress(done: int, total: int) -> None:
        left = duration((time.monotonic() - begin) * (total - done) / done)
        text = f"{done / total:.0%} of {size} for {total:,} examples, about {left} left"
        Path(progress).parent.mkdir(parents=True, exist_ok=True)
        Path(progress).write_text(text, "utf-8")

    folder = get_or_build_store(
        model,
        tokens,
        kind,
        device(),
        node_cache(cache),
        inference=Inference.model_validate_json(inference),
        vectors=vectors,
        progress=write_progress,
    )
    stores = [
        read_store_info(each) for each in (folder, *(vector_folder(folder, p) for p in vectors))
    ]
    return {
        **stores[0],
        "bytes": sum(store["bytes"] for store in stores),
        "build_s": max(store["build_s"] for store in stores),  # all in one pass, or later
        "live": [part for part in parts if part not in fitting],
    }


def prepare_fine_tuning(
    threads: int, model: str, task: str, cache: str, cwd: str
) -> dict[str, int]:
    """Returns the number of examples in `train` and `dev` of `evaluate_on`, and tokenises them.

    So errors in the data are reported before the first trial, not at its end.

    Args:
        threads: CPU threads to use.
        model: Folder or hub id of the teacher, whose tokenizer the students have.
        task: TaskSettings of `evaluate_on` as JSON.
        cache: Folder of tokenised data.
        cwd: What paths are relative to.

    Raises:
        SpecError: If the data can't be loaded or do not fit.
    """
    _configure_process(threads, cwd)
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
    threads: int,
    trial_threads: int,
    model: str,
    inference: str,
    students: list[str],
    train: str,
    task: str,
    cwd: str,
) -> dict[str, Any]:
    """Returns the latencies of the teacher and of students.

    `files` has the content of the run's folder of latencies by file name; `teacher` the teacher's,
    None if it is not run as it was loaded; `warning` what is wrong with them, None for nothing. A
    model that can't be built, or for which there is not enough memory here, is left out: its trial
    reports the error.

    Args:
        threads: CPU threads of this process.
        trial_threads: CPU threads of a trial, with which models are timed.
        model: Folder or hub id of the teacher.
        inference: Inference of the teacher as JSON.
        students: StudentSettings of each, as JSON.
        train: TrainSettings as JSON.
        task: TaskSettings as JSON.
        cwd: What paths are relative to.
    """
    _configure_process(min(trial_threads, threads), cwd)
    from lkd_tune.data.tasks.registry import kind_of
    from lkd_tune.distillation.build import uses_bf16
    from lkd_tune.models.loading import load_config
    from lkd_tune.models.size import expected_config, measure_size
    from lkd_tune.runtime.oom import is_out_of_memory
    from lkd_tune.runtime.process_group import device
    from lkd_tune.runtime.timing import busy_warning

    task_settings = TaskSettings.model_validate_json(task)
    head, length = kind_of(task_settings).head, task_settings.max_length
    bf16 = uses_bf16(TrainSettings.model_validate_json(train))

    def time_model(config_of: Callable[[], Any], folder: Path) -> ModelSize | None:
        try:
            return measure_size(config_of(), head, length, device(), bf16=bf16, latencies=folder)
        except SpecError:
            return None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    with tempfile.TemporaryDirectory() as scratch:
        own, found = Path(scratch) / "teacher", Path(scratch) / "students"
        found.mkdir()
        teacher = None
        if Inference.model_validate_json(inference).placement == "device":
            teacher = time_model(partial(load_config, model), own)
        sizes = [
            time_model(
                partial(expected_config, StudentSettings.model_validate_json(text), model), found
            )
            for text in students
        ]
        spreads = [each.latency_spread for each in (teacher, *sizes) if each is not None]
        return {
            "files": {file.name: file.read_text("utf-8") for file in found.iterdir()},
            "teacher": None if teacher is None else teacher.model_dump(include={*_TIMED}),
            "warning": busy_warning([spread for spread in spreads if spread is not None]),
        }


def measure_scales(
    threads: int, specs: list[str], terms: dict[str, list[str]], cache: str, cwd: str
) -> str:
    """Returns the scales of loss terms, as LossScales in JSON.

    Args:
        threads: CPU threads to use.
        specs: TrialSpecs as JSON, which differ in their students.
        terms: TermSettings as JSON by the name of their term: what to measure, at weight 1.
        cache: Folder of tokenised data and stored targets.
        cwd: What paths are relative to.

    Raises:
        SpecError: If the teacher or the data can't be loaded or do not fit together.
    """
    _configure_process(threads, cwd)
    from lkd_tune.distillation.balance import measure_loss_scales

    kinds = {name: type(term) for name, term in LossSettings().terms()}
    scales = measure_loss_scales(
        [TrialSpec.model_validate_json(spec) for spec in specs],
        {name: [kinds[name].model_validate_json(text) for text in terms[name]] for name in terms},
        cache=node_cache(cache),
    )
    return scales.model_dump_json()


def score_model(
    threads: int,
    model: str,
    task: str,
    cache: str,
    cwd: str,
    splits: tuple[str, ...] = (),
    inference: Inference = PLAIN,
) -> dict[str, Any]:
    """Returns a model's metrics by split; by default on dev, and on test if there is one.

    Raises:
        SpecError: If the model or the data can't be loaded or do not fit together.
    """
    _configure_process(threads, cwd)
    from lkd_tune.evaluation.scoring import evaluate_model

    settings = TaskSettings.model_validate_json(task)
    if not splits:
        splits = ("dev",) if settings.test is None else ("dev", "test")
    return evaluate_model(
        model, settings, splits=splits, cache=node_cache(cache), inference=inference
    )


def _configure_process(threads: int, cwd: str) -> None:
    """Sets the working folder, if it exists here, and the number of threads."""
    if os.path.isdir(cwd):
        os.chdir(cwd)
    import torch

    torch.set_num_threads(threads)
