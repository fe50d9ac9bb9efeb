"""The settings of one trial without distributions, which the search passes to a distillation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.retired import rerun_problem, without_retired_fields
from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.evaluate_on import EvaluateOn, check_evaluate_on, score_name
from lkd_tune.config.settings.layer_map import LayerMapSettings, map_problem, random_map
from lkd_tune.config.settings.losses import LABELS_ONLY, LossSettings, TermName
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings, check_share
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.settings.teacher import PLAIN, Inference, TargetSettings
from lkd_tune.config.settings.training import ResourceSettings, TrainSettings, check_batch


class ResolvedLayerMap(Settings):
    """The maps of a trial: entry i is the teacher layer for student layer i, 0 the embeddings."""

    word: tuple[int, ...] | Literal["random"]
    layer: tuple[int, ...] | Literal["random"]
    pin_embeddings: bool = True
    pin_last: bool = True

    def at_step(
        self, step: int, *, seed: int, teacher_layers: int, depth: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the maps of the word and the layer relations in one optimizer step.

        If both are random they are the same map, as `random` with `layer: same` is.
        """
        drawn = random_map(
            seed,
            step,
            teacher_layers,
            depth,
            pin_embeddings=self.pin_embeddings,
            pin_last=self.pin_last,
        )
        return (
            drawn if self.word == "random" else self.word,
            drawn if self.layer == "random" else self.layer,
        )


class TrialSpec(Settings):
    """All settings of a distillation; it converts to JSON and back, so it can be run again.

    `teacher` is a folder or hub id; None if the student is trained on the labels only.
    `evaluate_on` belongs to the trial but not to the distillation; see `fine_tuning`.
    """

    task: TaskSettings
    teacher: str | None
    inference: Inference = PLAIN
    """How the teacher is run."""
    student: StudentSettings
    layer_map: ResolvedLayerMap
    losses: Annotated[LossSettings, block_from("recipe")] = LossSettings()
    loss_scales: dict[TermName, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """`losses.balance: gradient`: the factor of each term's weight. Without them they are measured
    at the start of the trial."""
    train: TrainSettings = TrainSettings()
    targets: TargetSettings = TargetSettings()
    resources: ResourceSettings = ResourceSettings()
    evaluate_on: EvaluateOn | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> TrialSpec:
        check_batch(self.train, self.resources)
        if self.evaluate_on is not None:
            check_evaluate_on(self.task)
            check_batch(self.evaluate_on.train, self.resources, key="evaluate_on.train")
        self.losses.check_labels(self.task.train)
        check_share(self.task, self.train)
        from_teacher = self.student.init == "teacher"
        if self.teacher is None and (self.losses.needs_teacher or from_teacher):
            raise ValueError("these losses or student.init: teacher require a teacher, found none")
        for entries in (self.layer_map.word, self.layer_map.layer):
            if entries != "random" and len(entries) != self.student.depth + 1:
                raise ValueError(
                    f"layer map {list(entries)} needs {self.student.depth + 1} entries for depth "
                    f"{self.student.depth}"
                )
        if problem := self.student.layers_problem():
            raise ValueError(f"student.layers: {problem}")
        missing = [name for name, _ in self.losses.active() if name not in self.loss_scales]
        if self.loss_scales and self.losses.is_balanced and missing:
            raise ValueError(
                f"loss_scales has no entry for {', '.join(missing)}; give one for each active "
                "term, or none at all to have them measured"
            )
        return self

    @property
    def has_layer_map(self) -> bool:
        """Whether the layer map has an effect: layers are compared, or taken from the teacher."""
        return self.losses.needs_layers or not self.student.starts_from_model

    @property
    def effective_scales(self) -> dict[str, float]:
        """The factor of each term's weight, empty if they are all 1.

        The scales of a trial that is not balanced, such as a student trained on the labels alone,
        have no effect.
        """
        return self.loss_scales if self.losses.is_balanced else {}

    @property
    def lacks_scales(self) -> bool:
        """Whether the scales of its terms have yet to be measured."""
        return self.losses.is_balanced and not self.loss_scales

    @property
    def score_name(self) -> str:
        """Name of the score: `accuracy`, or with `evaluate_on` for example `sst2 accuracy`."""
        return score_name(self.task, self.evaluate_on)

    def fine_tuning(self, student: str) -> TrialSpec:
        """Returns the fine-tuning on `evaluate_on` whose last measurement scores this trial.

        Args:
            student: Folder of the student of this trial.
        """
        assert self.evaluate_on is not None
        layers = tuple(range(self.student.depth + 1))
        return TrialSpec(
            task=self.evaluate_on.task,
            teacher=None,
            student=StudentSettings(depth=self.student.depth, init=student),
            layer_map=ResolvedLayerMap(word=layers, layer=layers),
            losses=LABELS_ONLY,
            train=self.evaluate_on.train,
            resources=self.resources,
            seed=self.seed,
        )

    def on_labels_alone(self) -> TrialSpec:
        """Returns the same student and training with the loss against the labels alone."""
        train = self.train.model_copy(update={"unlabelled_share": 1.0})  # no effect on it
        changes = {"losses": LABELS_ONLY, "loss_scales": {}, "train": train}
        return self.model_copy(update=changes)

    @classmethod
    def from_record(cls, text: str) -> TrialSpec:
        """Returns the spec that a run folder holds as JSON, also one of an earlier version."""
        return cls.model_validate(without_retired_fields(json.loads(text)))

    def to_json(self) -> str:
        """Returns the spec as indented JSON text."""
        return self.model_dump_json(indent=2)

    def digest(self) -> str:
        """Returns 16 hex digits that identify what is trained.

        Resources are left out: neither the number of workers nor the placement of weights and
        activations changes the result. Nor does the name of the recipe, whose terms are there.
        """
        excluded: Any = {
            "resources": True,
            "losses": {"recipe"},
            "inference": {"placement"},
            "train": {"activation_checkpointing"},
        }
        text = json.dumps(self.model_dump(mode="json", exclude=excluded), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenizer_problem(model: str, task: TaskSettings, losses: LossSettings) -> str | None:
    """Returns why a student can't have another tokenizer than its teacher, None if it can.

    What describes a whole text is the same for any tokens; words are not.

    Args:
        model: The model in `student.init`, for the message.
        task: The task.
        losses: The losses of the trial.
    """
    words = ", ".join(name for name, term in losses.active() if not term.needs <= {"logits"})
    if not KINDS[task.kind].of_whole_texts:
        why = f"the answers of {task.kind} are those of words"
    elif task.augment is not None:
        why = "task.augment replaces words of the teacher"
    elif words:
        why = f"words are compared by {words}"
    else:
        return None
    advice = "or losses: soft_labels" if words else "or leave student.init out"
    return (
        f"{model} has another vocabulary than the teacher, and {why}; use a model that has the "
        f"teacher's tokenizer, {advice}"
    )


def depth_problem(
    model: str, depth: int, layer_map: LayerMapSettings, teacher_layers: int
) -> str | None:
    """Returns why the layers of a model in `student.init` can't be compared, None if they can."""
    if depth > teacher_layers:
        return (
            f"{model} has {depth} layers, the teacher {teacher_layers}, so layers can't be "
            "compared; use a model with fewer, or losses: soft_labels"
        )
    lists = [each for each in (layer_map.word, layer_map.layer) if isinstance(each, list)]
    found = [map_problem(entries, teacher_layers, depth) for entries in lists]
    problem = next(filter(None, found), None)
    return None if problem is None else f"{model} does not fit the layer map: {problem}"


def read_trial_spec(path: Path, *, rerun: bool = True) -> TrialSpec:
    """Returns the spec in a JSON file: one of its own, or the `spec` in a `student.json`.

    Args:
        path: The file.
        rerun: Whether the trial is to be run again.

    Raises:
        SpecError: If the file can't be read or is not a spec, or if the trial is to be run again
            and this version can't run it.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict):
            tree = tree.get("spec", tree)
        if isinstance(tree, dict):
            if rerun and (problem := rerun_problem(tree)):
                raise SpecError(Problem(path.name, "", f"can't be run again: {problem}"))
            tree = without_retired_fields(tree)
        return TrialSpec.model_validate(tree)
    except OSError as error:
        raise SpecError(Problem(str(path), "", f"can't be read: {error.strerror}")) from None
    except ValidationError as error:
        raise SpecError(
            Problem(path.name, ".".join(map(str, problem["loc"])), problem["msg"])
            for problem in error.errors()
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SpecError(Problem(path.name, "", f"is not JSON: {error}")) from None
