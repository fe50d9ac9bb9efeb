"""Population-based training: the worst trials go on as copies of the best, with other weights."""

from __future__ import annotations

import json
import random
import shutil
from typing import Any

from lkd_tune.config.perturbation import perturbed_weights
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import PUBLISHED
from lkd_tune.config.trial import TrialSpec, WeightChange
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.pareto import costs_of, nondominated_order
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import TrialRecord

# Truncation selection of Jaderberg et al. (2017): the last quarter takes over the first.
_PART = 4


def generations(evaluations: int) -> list[int]:
    """Returns where the generations of a population end, in halvings of a trial's steps.

    All trials train to the first evaluation, then all to the next, and so on to 0, the end. So
    trials are compared at the same share of their steps, however few of them run at a time.
    """
    return list(reversed(range(evaluations)))


def evolve(run: RunFolder, space: SearchSpace, halvings: int) -> list[str]:
    """Has the worst trials of a generation go on as copies of the best, with perturbed weights.

    A copy takes over everything: spec, checkpoint, what was measured so far. What it differs by
    from then on is written into its spec as a change of weights at this step, so that the spec
    alone, run again, gives the same student.

    Who takes over whom is decided once and written first; called again after a crash, this does
    what is left of it.

    Args:
        run: Its trials wait at the end of the generation.
        space: What weights may be.
        halvings: Which generation.

    Returns:
        A line for each copy that was made now.
    """
    decided = _read(run)
    if str(halvings) not in decided:
        waiting = [r for r in run.read_trials() if _waits_at(r, halvings)]
        decided[str(halvings)] = _decide(waiting, space, halvings)
        write_atomically(run.population, json.dumps(decided, indent=2))
    told = []
    for name, copy in decided[str(halvings)].items():
        record = run.read_trial(name)
        spec = TrialSpec.model_validate(copy["spec"])
        if _waits_at(record, halvings) and record.spec != spec:
            _take_over(run, name, copy["from"], spec)
            weights = ", ".join(
                f"{term} {weight:.3g}" for term, weight in spec.weight_changes[-1].weights.items()
            )
            told.append(f"trial {name} goes on as trial {copy['from']} with {weights}")
    return told


def _decide(
    waiting: list[TrialRecord], space: SearchSpace, halvings: int
) -> dict[str, dict[str, Any]]:
    """Returns for each trial that gives way: the trial it goes on from, and its spec."""
    if len(waiting) < 2:
        return {}
    objectives = space.settings.objectives
    costs = {r.name: costs_of(objectives, _measured(r).score, r.size) for r in waiting}
    order = sorted(costs, key=lambda name: (costs[name], name))
    if len(objectives) > 1:
        order = nondominated_order(costs)
    records = {record.name: record for record in waiting}
    part = max(1, len(order) // _PART)
    # The published recipe is what the others are compared with: it stays what it is.
    last = [name for name in order[-part:] if records[name].origin != PUBLISHED]
    copies = {}
    for name in last:
        rng = random.Random(f"{space.settings.search.seed} {halvings} {name}")
        source = records[rng.choice(order[:part])]
        step = _measured(source).step
        losses = source.spec.losses_at(step)
        change = WeightChange(
            step=step, weights=perturbed_weights(losses, space.distributions(), rng)
        )
        changes = (*source.spec.weight_changes, change)
        spec = source.spec.model_copy(update={"weight_changes": changes})
        copies[name] = {"from": source.name, "spec": spec.model_dump(mode="json")}
    return copies


def _take_over(run: RunFolder, name: str, source: str, spec: TrialSpec) -> None:
    """Makes a trial the copy of another; its spec, written last, says that all is there."""
    own, theirs = TrialFolder(run.trial(name)), TrialFolder(run.trial(source))
    checkpoint, before = theirs.read_checkpoint(), own.read_checkpoint()
    assert checkpoint is not None  # the source waits with it
    spent = (before.wall_s, before.worker_s) if before else (0.0, 0.0)
    with own.new_checkpoint(checkpoint.step, *spent) as folder:
        shutil.copytree(checkpoint.path, folder, dirs_exist_ok=True)
    for file in ("size.json", "accumulation", "measurements.jsonl"):
        if (theirs.path / file).exists():
            write_atomically(own.path / file, (theirs.path / file).read_text("utf-8"))
    own.write_spec(spec)


def _waits_at(record: TrialRecord, halvings: int) -> bool:
    return (
        record.is_drawn
        and record.outcome is None
        and bool(record.measurements)
        and _measured(record).halvings == halvings
    )


def _measured(record: TrialRecord) -> Measurement:
    return record.measurements[-1]


def _read(run: RunFolder) -> dict[str, dict[str, Any]]:
    return json.loads(run.population.read_text("utf-8")) if run.population.exists() else {}
