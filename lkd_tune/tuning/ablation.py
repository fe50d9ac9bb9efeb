"""Ablation: the winner trained without each of its loss terms, to measure what each is worth."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from typing import Any

from lkd_tune.cluster.nodes import check_cluster
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.manifest import folder_of_paths, update_manifest
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.run import RunFolder
from lkd_tune.records.seed_stats import is_indistinguishable, summarise_seeds
from lkd_tune.tuning.confirm import seed_name, train_fixed_trials
from lkd_tune.tuning.guard import guarded
from lkd_tune.tuning.lock import locked
from lkd_tune.tuning.mirror.run_mirror import fetch_run
from lkd_tune.tuning.progress.view import View
from lkd_tune.tuning.resume_rules import refuse_retired
from lkd_tune.tuning.session import Session
from lkd_tune.tuning.trackers.build import check_trackers


@dataclass(frozen=True)
class AblationResult:
    """How an ablation, or one session of it, ended.

    Attributes:
        summary: The content of ablation.json; None if no variant has ended yet.
        interrupted: Whether Ctrl-C or SIGTERM stopped it; another call continues it.
        disk_full: A description of the disk, if a full disk stopped it.
        failures: Error messages by the names of the trials that failed.
    """

    summary: dict[str, Any] | None
    interrupted: bool
    disk_full: str | None
    failures: dict[str, str]


def ablate(
    run: RunFolder, *, seeds: int = 1, address: str | None = None, quiet: bool = False
) -> AblationResult:
    """Trains the winner of a run with the weight of each of its loss terms at 0.

    Nothing is trained twice: neither trials of an earlier call, nor the winner with the seeds of
    its confirmation.

    Args:
        run: A run with a complete trial.
        seeds: Number of seeds. 1 is the winner's own seed, which is biased: the search selected the
            winner by it. More are the seeds after it, which at most chose among the best few.
        address: Ray cluster; default: that of RAY_ADDRESS, else this machine.
        quiet: Whether to print nothing.

    Raises:
        SpecError: If the run has no complete trial, its winner has only one term, the run is being
            searched, or it has settings that were removed.
    """
    run = run.absolute()
    if run.remote_uri is not None:
        with locked(run):
            fetch_run(run)
    manifest = run.read_manifest()
    refuse_retired(run)
    winner = _winner(run)
    specs = without_each_term(run.read_trial(winner).spec)
    if not specs:
        message = f"the winner, trial {winner}, has only one loss term, so none can be removed"
        raise SpecError(Problem(run.where, "", message))
    # The time budget applies to the search only.
    space = load_space(run.space, ["search.time_budget=null"])
    check_trackers(space)
    resume = f"Resume with: lkd-tune ablate {shlex.quote(run.where)} --seeds {seeds}"
    with (
        guarded(run, resume) as guard,
        View(space.settings.search.trials, space.settings.task.metric, quiet=quiet) as view,
        contextlib.chdir(folder_of_paths(run)),
        locked(run),
        guard.connected(address) as started_here,
    ):
        capacity = check_cluster(space, run, is_local_cluster=started_here)
        session = Session(space, run, capacity, view)
        try:
            with (
                guard.stopping(session.stop),
                session.mirroring(),
                session.tracking(),
            ):
                return _run_ablation(session, winner, specs, seeds)
        finally:
            update_manifest(run, finished=manifest.get("finished"))  # the search's own


def without_each_term(spec: TrialSpec) -> dict[str, TrialSpec]:
    """Returns a spec without each of its active terms, by term; {} if there is only one term."""
    active = [name for name, _ in spec.losses.active()]
    if len(active) < 2:
        return {}
    return {name: _without(spec, name) for name in active}


def _without(spec: TrialSpec, term: str) -> TrialSpec:
    return spec.model_copy(update={"losses": spec.losses.with_weights({term: 0.0})})


def _winner(run: RunFolder) -> str:
    names = rank_run(run).names
    if not names:
        message = "has no complete trial, so there is no winner to ablate"
        raise SpecError(Problem(run.where, "", message))
    return names[0]


def _run_ablation(
    session: Session, winner: str, specs: dict[str, TrialSpec], seeds: int
) -> AblationResult:
    run = session.run
    complete = run.read_trial(winner).spec
    variants: dict[str | None, dict[str, TrialSpec]] = {
        removed: _seeds(winner if removed is None else f"{winner}-without-{removed}", spec, seeds)
        for removed, spec in [(None, complete), *specs.items()]
    }
    trials = {name: spec for each in variants.values() for name, spec in each.items()}
    # The winner's own trial has ended, so it is not trained again.
    train_fixed_trials(
        session, trials, f"training trial {winner} without each of its {len(specs)} loss terms"
    )
    summary = _summarise(session, winner, variants)
    if summary is not None:
        write_atomically(run.ablation, json.dumps(summary, indent=2))
    ended = {name: run.read_trial(name) for name in trials if run.trial(name).exists()}
    return AblationResult(
        summary,
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


def _summarise(
    session: Session, winner: str, variants: dict[str | None, dict[str, TrialSpec]]
) -> dict[str, Any] | None:
    """Returns the content of ablation.json: the winner, then the variants from the worst on."""
    scores: dict[str, dict[int, float]] = {}
    for removed, specs in variants.items():
        own = scores.setdefault(removed or "", {})
        for name, spec in specs.items():
            if not (session.run.trial(name) / "spec.json").exists():
                continue
            record = session.run.read_trial(name)
            if record.state == "complete" and record.score is not None:
                own[spec.seed] = record.score
    ended = {entry.trial: entry for entry in summarise_seeds(scores, {}, {})}
    if "" not in ended or len(ended) < 2:
        return None
    all_terms = ended.pop("")
    entries = [
        {
            "removed": entry.trial or None,
            "seeds": entry.seeds,
            "scores": entry.scores,
            "mean": entry.mean,
            "low": entry.low,
            "high": entry.high,
            "difference": entry.mean - all_terms.mean,
            "ties_with_winner": is_indistinguishable(entry.scores, all_terms.scores),
        }
        for entry in (all_terms, *sorted(ended.values(), key=lambda e: (e.mean, e.trial)))
    ]
    return {"metric": session.settings.score_name, "winner": winner, "entries": entries}
