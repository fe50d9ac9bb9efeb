"""What `losses.balance: gradient` multiplies weights by, measured once for a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lkd_tune.config.loss_scales import LossScales
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.records.manifest import update_manifest
from lkd_tune.results.formatting import scale_ranges
from lkd_tune.tuning.session import Session

if TYPE_CHECKING:
    from lkd_tune.tuning.preparation.worker import PreparationWorker

# The most students whose gradients are measured.
_MAX_MEASURED = 4


def ensure_loss_scales(session: Session, worker: PreparationWorker, model: str) -> None:
    """Measures what `losses.balance: gradient` multiplies weights by, and sets it in the space.

    A resumed search reads it from its manifest, so that all of its trials have the same objective.
    """
    from lkd_tune.tuning.preparation.jobs import measure_scales

    run, space, view = session.run, session.space, session.view
    manifest = run.read_manifest()
    if manifest.get("loss_scales") is not None:
        space.loss_scales = LossScales.model_validate(manifest["loss_scales"])
        return
    if not (terms := space.balanced_terms()):
        return
    view.phase("measuring the gradient of each loss term")
    specs = _measured_trials(space, model, manifest["teacher"]["layers"])
    if not specs:
        return
    text = worker.run(
        "loss_scales",
        measure_scales,
        [spec.to_json() for spec in specs],
        {name: [term.model_dump_json() for term in own] for name, own in terms.items()},
        session.cache,
        session.cwd,
    )
    if text is None:
        return
    space.loss_scales = scales = LossScales.model_validate_json(text)
    update_manifest(run, loss_scales=scales.model_dump(mode="json"))
    view.note(f"losses.balance: gradient multiplies the weights: {scale_ranges(scales)}")
    for name in scales.without_gradient():
        view.note(f"the gradient of {name} is 0 or not finite at the start, so its weight is kept")


def _measured_trials(space: SearchSpace, teacher: str, teacher_layers: int) -> list[TrialSpec]:
    """Returns trials with some students of a space, of all depths if there are few."""
    settings, specs = space.settings, []
    shapes = {
        shape.student.model_dump_json(): shape.student
        for shape in space.shapes()
        if space.compares_layers(shape.student, teacher_layers)
    }
    students = sorted(shapes.values(), key=lambda student: (student.depth, repr(student)))
    for student in students[:: -(-len(students) // _MAX_MEASURED)]:
        uniform = preset_map("skip", teacher_layers, student.depth)
        specs.append(
            TrialSpec(
                task=settings.task,
                teacher=teacher,
                inference=settings.teacher.inference,
                student=student,
                layer_map=ResolvedLayerMap(word=uniform, layer=uniform),
                train=settings.train,
                targets=settings.targets,
                resources=settings.resources,
                seed=settings.search.seed,
            )
        )
    return specs
