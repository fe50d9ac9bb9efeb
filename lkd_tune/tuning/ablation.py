"""The winner again without each of its loss terms: what each of them is worth."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import Any

from lkd_tune.cluster.nodes import find_room
from lkd_tune.cluster.ray import connected
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import load_space
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.run import RunFolder
from lkd_tune.records.seed_stats import alike, summarise
from lkd_tune.tuning.confirm import seed_name, train_fixed_trials
from lkd_tune.tuning.lock import locked
from lkd_tune.tuning.mirror.run_mirror import fetch_state
from lkd_tune.tuning.resume_rules import refuse_retired
from lkd_tune.tuning.session import Session
from lkd_tune.tuning.trackers.callback import check_trackers


@dataclass(frozen=True)
class AblationResult:
    """How an ablation, or one session of it, ended.

    Attributes:
        facts: What ablation.json holds; None if nothing is known yet.
        interrupted: Whether it was stopped by Ctrl-C or SIGTERM; called again it goes on.
        disk_full: If it was stopped for want of room on a disk, which one.
        failures: Reasons by the names of the trials that failed.
    """

    facts: dict[str, Any] | None
    interrupted: bool
    disk_full: str | None
    failures: dict[str, str]


def ablate(
    run: RunFolder, *, seeds: int = 1, address: str | None = None, quiet: bool = False
) -> AblationResult:
    """Trains the winner of a run with the weight of each of its loss terms at 0.

    What is trained already is not trained again: neither trials of an earlier call, nor the
    winner with the seeds that it was confirmed with.

    Args:
        run: A run with a complete trial.
        seeds: How many; 1 is the winner's own seed, by whose score it was chosen; more are the
            seeds after it, by which confirmation at most chose between the best few.
        address: Ray cluster; none: that of RAY_ADDRESS, else this machine.
        quiet: Shows nothing.

    Raises:
        SpecError: If the run has no complete trial, its winner has one term only, the run is
            being searched, or it used settings that this version no longer has.
    """
    run = run.absolute()
    if run.home is not None:
        with locked(run):
            fetch_state(run)
    manifest = run.read_manifest()
    refuse_retired(run)
    winner = _winner(run)
    specs = ablated(run.read_trial(winner).spec)
    if not specs:
        message = f"its winner, trial {winner}, has one loss term only: there is none to remove"
        raise SpecError(Problem(run.where, "", message))
    # The budget was one for the search.
    space = load_space(run.space, ["search.time_budget=null"])
    cwd = manifest["cwd"] if os.path.isdir(manifest.get("cwd", "")) else os.getcwd()
    check_trackers(space)
    with contextlib.chdir(cwd), locked(run), connected(address) as started_here:
        room = find_room(space, run, alone=started_here)
        session = Session(space, run, room, quiet=quiet)
        try:
            with session.stop.on_signals(), session.view, session.mirrored(), session.followed():
                return _go(session, winner, specs, seeds)
        finally:
            update_manifest(run, finished=manifest.get("finished"))  # the search's own


def ablated(spec: TrialSpec) -> dict[str, TrialSpec]:
    """Returns a spec without each of its active terms, by the term; none if there is only one."""
    active = [name for name, term in spec.losses if term.weight > 0]
    if len(active) < 2:
        return {}
    return {name: _without(spec, name) for name in active}


def _without(spec: TrialSpec, term: str) -> TrialSpec:
    changes = tuple(
        change.model_copy(update={"weights": {**change.weights, term: 0.0}})
        for change in spec.weight_changes
    )
    off = spec.losses.with_weights({term: 0.0})
    return spec.model_copy(update={"losses": off, "weight_changes": changes})


def _winner(run: RunFolder) -> str:
    names = rank_run(run).names
    if not names:
        message = "has no complete trial, so there is no winner to take terms from"
        raise SpecError(Problem(run.where, "", message))
    return names[0]


def _go(session: Session, winner: str, specs: dict[str, TrialSpec], seeds: int) -> AblationResult:
    run = session.run
    whole = run.read_trial(winner).spec
    variants: dict[str | None, dict[str, TrialSpec]] = {
        removed: _seeds(winner if removed is None else f"{winner}-without-{removed}", spec, seeds)
        for removed, spec in [(None, whole), *specs.items()]
    }
    wanted = {name: spec for each in variants.values() for name, spec in each.items()}
    session.view.phase(f"training trial {winner} without each of its {len(specs)} loss terms")
    # The winner's own trial is complete, so it is passed over.
    train_fixed_trials(session, wanted)
    facts = _facts(session, winner, variants)
    if facts is not None:
        write_atomically(run.ablation, json.dumps(facts, indent=2))
    ended = {name: run.read_trial(name) for name in wanted if (run.trial(name)).exists()}
    return AblationResult(
        facts,
        interrupted=session.stop.reason == "interrupted",
        disk_full=session.stop.full_disk,
        failures={
            name: record.outcome.error or ""
            for name, record in ended.items()
            if record.outcome is not None and record.outcome.state == "failed"
        },
    )


def _seeds(name: str, spec: TrialSpec, seeds: int) -> dict[str, TrialSpec]:
    if seeds == 1:
        return {name: spec}
    return {
        seed_name(name, i): spec.model_copy(update={"seed": spec.seed + i})
        for i in range(1, seeds + 1)
    }


def _facts(
    session: Session, winner: str, variants: dict[str | None, dict[str, TrialSpec]]
) -> dict[str, Any] | None:
    """Returns what is known of each variant, the winner first and then what was missed most."""
    scores: dict[str, dict[int, float]] = {}
    for removed, specs in variants.items():
        own = scores.setdefault(removed or "", {})
        for name, spec in specs.items():
            if not (session.run.trial(name) / "spec.json").exists():
                continue
            record = session.run.read_trial(name)
            if record.state == "complete" and record.score is not None:
                own[spec.seed] = record.score
    told = {entry.trial: entry for entry in summarise(scores, {}, {})}
    if "" not in told or len(told) < 2:
        return None
    all_terms = told.pop("")
    entries = [
        {
            "removed": entry.trial or None,
            "seeds": entry.seeds,
            "scores": entry.scores,
            "mean": entry.mean,
            "low": entry.low,
            "high": entry.high,
            "difference": entry.mean - all_terms.mean,
            "ties_with_winner": alike(entry.scores, all_terms.scores),
        }
        for entry in (all_terms, *sorted(told.values(), key=lambda e: (e.mean, e.trial)))
    ]
    return {"metric": session.settings.score_name, "winner": winner, "entries": entries}
