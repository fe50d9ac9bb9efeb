"""The end of a search: the best with other seeds, the baseline, scores on test."""

from __future__ import annotations

import json
import shutil

from lkd_tune.config.settings.losses import LABELS_ONLY
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.tombstones import add_tombstone
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.seed_stats import summarise_seeds
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import BASELINE, TrialRecord
from lkd_tune.tuning.session import Session


def confirm_best(session: Session, best: list[str]) -> str:
    """Trains the best trials with other seeds; returns the one with the best mean score.

    Args:
        session: The search.
        best: Names of the kept trials, best first; at least one.
    """
    confirm = session.settings.confirm
    if confirm is None:
        return best[0]
    names = best[: confirm.top]
    session.view.phase(f"training the best {len(names)} with {confirm.seeds} other seeds")
    specs = {name: session.run.read_trial(name).spec for name in names}
    for name in names:
        _train_seeds(session, name, specs[name], confirm.seeds)
    _write_confirmation(session, names)
    return rank_run(session.run).names[0]


def compare_with_baseline(session: Session, best: str) -> None:
    """Trains the winner's student without distillation, with the same seeds."""
    if not session.settings.search.baseline:
        return
    winner = session.run.read_trial(best)
    spec = winner.spec.model_copy(update={"losses": LABELS_ONLY})
    session.view.phase("training the baseline: the winner's student without distillation")
    train_fixed_trials(session, {BASELINE: spec})
    confirm = session.settings.confirm
    if confirm is not None and not session.stop:
        _train_seeds(session, BASELINE, spec, confirm.seeds)
        names = [entry["trial"] for entry in session.run.read_confirmation()]
        _write_confirmation(session, [*dict.fromkeys([*names, BASELINE])])


def score_on_test(session: Session, best: str) -> None:
    """Scores the winner on test, unless an earlier session has done so."""
    from lkd_tune.tuning.best_students import add_test_metrics
    from lkd_tune.tuning.preparation.jobs import score_model
    from lkd_tune.tuning.preparation.worker import PreparationWorker

    run, settings = session.run, session.settings
    if settings.task.test is None or (run.trial(best) / "test.json").exists():
        return
    session.view.phase("scoring the winner on test")
    with PreparationWorker(session) as worker:
        scores = worker.run(
            "test",
            score_model,
            session.student_location(best),
            settings.task.model_dump_json(),
            session.cache,
            session.cwd,
            ("test",),
        )
    if scores is not None:
        add_test_metrics(run, best, scores["test"])


def seed_name(name: str, number: int) -> str:
    """Returns the name of a trial with the `number`-th seed after its own."""
    return f"{name}-seed{number}"


def _train_seeds(session: Session, name: str, spec: TrialSpec, seeds: int) -> None:
    """Trains a configuration with the seeds after its own."""
    train_fixed_trials(
        session,
        {
            seed_name(name, i): spec.model_copy(update={"seed": spec.seed + i})
            for i in range(1, seeds + 1)
        },
    )


def train_fixed_trials(session: Session, specs: dict[str, TrialSpec]) -> None:
    """Trains those of the given trials that have not ended, with the run's current resources.

    A trial of the same name but with another spec, as of an earlier winner, is replaced.
    """
    from lkd_tune.tuning.study.fixed_trials import FixedTrials

    waiting = {}
    settings = session.settings
    current = {"resources": settings.resources, "inference": settings.teacher.inference}
    for name, own in specs.items():
        spec = own.model_copy(update=current)
        folder = session.run.trial(name)
        if (folder / "spec.json").exists():
            record = session.run.read_trial(name)
            same = record.spec.digest() == spec.digest()
            if same and record.outcome is not None:
                continue
            if not same:
                shutil.rmtree(folder)
                add_tombstone(folder)
        waiting[name] = spec
    if waiting and not session.stop:
        session.run_trials(
            FixedTrials(session.run, waiting, session.common, session.fetch_trial_results), None
        )


def _write_confirmation(session: Session, names: list[str]) -> None:
    """Writes the scores of the other seeds that have ended."""
    metric = session.settings.score_name
    ended = {name: _ended_seeds(session, name) for name in names}
    runs = {name: [r for r in own if r.state == "complete"] for name, own in ended.items()}
    scores = {name: {r.spec.seed: r.score or 0.0 for r in done} for name, done in runs.items()}
    failed = {
        name: [r.spec.seed for r in own if r.state != "complete"] for name, own in ended.items()
    }
    tests = {
        name: [
            json.loads(file.read_text("utf-8"))[metric]
            for record in done
            if (file := TrialFolder(session.run.trial(record.name)).path / "test.json").exists()
        ]
        for name, done in runs.items()
    }
    confirmed = summarise_seeds(scores, tests, failed)
    content = {"metric": metric, "trials": [entry.model_dump() for entry in confirmed]}
    write_atomically(session.run.confirmation, json.dumps(content, indent=2))


def _ended_seeds(session: Session, name: str) -> list[TrialRecord]:
    confirm = session.settings.confirm
    assert confirm is not None
    names = [seed_name(name, i) for i in range(1, confirm.seeds + 1)]
    records = [
        session.run.read_trial(each)
        for each in names
        if (session.run.trial(each) / "spec.json").exists()
    ]
    return [record for record in records if record.outcome is not None]
