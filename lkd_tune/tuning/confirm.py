"""The end of a search: the best with other seeds and on the labels alone, scores on test."""

from __future__ import annotations

import json
import shutil

from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.tombstones import add_tombstone
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.run import RunFolder
from lkd_tune.records.seed_stats import summarise_seeds
from lkd_tune.records.student_file import read_student
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import LABELS_ALONE, TrialRecord
from lkd_tune.tuning.best_students import add_test_metrics
from lkd_tune.tuning.session import Session


def confirm_best(session: Session, best: list[str]) -> None:
    """Trains the best trials that were drawn with other seeds.

    Args:
        session: The search.
        best: Names of the best trials, best first.
    """
    confirm = session.settings.confirm
    if confirm is None:
        return
    names = best[: confirm.top]
    # All at once, so that no device waits between two of them.
    specs = {
        seed: spec
        for name in names
        for seed, spec in _other_seeds(session.run.read_trial(name), confirm.seeds).items()
    }
    phase = f"training the best {len(names)} with {confirm.seeds} other seeds"
    train_fixed_trials(session, specs, phase)
    _write_confirmation(session, names)


def compare_with_labels_alone(session: Session) -> None:
    """Trains the winner's student on the labels alone, as a further trial of the run.

    The trial has a number and is ranked, kept and confirmed like the others. It is not in the
    study: its settings may not be in the space, and it is not one of `search.trials`. The
    manifest's `baseline` is its name.

    With several objectives it may change which student is recommended. Then the new one is
    compared as well.
    """
    run = session.run
    if not session.settings.search.baseline:
        return
    if session.settings.task.train is None:
        session.view.note("without task.train there are no labels to train a student on alone")
        return
    compared: set[str] = set()
    while not session.stop:
        winner = run.read_trial(rank_run(run).names[0])
        digest = winner.spec.on_labels_alone().digest()
        if digest in compared:
            return
        compared.add(digest)
        name = _find_comparison(run, winner) or _begin_comparison(run, winner)
        update_manifest(run, baseline=name)
        _drop_unfinished(run, but=name)
        comparison, confirm = run.read_trial(name), session.settings.confirm
        specs = {name: comparison.spec} if comparison.outcome is None else {}
        if confirm is not None and comparison.state in ("running", "complete"):
            specs |= _other_seeds(comparison, confirm.seeds)
        train_fixed_trials(session, specs, "training the winner's student on the labels alone")
        if confirm is not None:
            _write_confirmation(session, [name])


def _find_comparison(run: RunFolder, winner: TrialRecord) -> str | None:
    """Returns the trial that trains or trained the winner's student on the labels alone, if any.

    This is the winner itself if it needs no teacher. A drawn trial that was stopped early, or that
    the time budget interrupted, is no comparison.
    """
    if not winner.spec.losses.needs_teacher:
        return winner.name
    digest = winner.spec.on_labels_alone().digest()
    found = [
        record
        for record in run.read_trials()
        if record.is_numbered
        and not record.spec.losses.needs_teacher
        and record.spec.on_labels_alone().digest() == digest
        and not (record.is_drawn and record.state in ("running", "stopped"))
    ]
    found.sort(key=lambda record: (record.state != "complete", record.name))
    return found[0].name if found else None


def _begin_comparison(run: RunFolder, winner: TrialRecord) -> str:
    """Makes the folder of a trial that trains the winner's student on the labels alone."""
    from lkd_tune.tuning.study.journal import next_number  # loads Optuna

    name = f"{next_number(run):04d}"
    folder = TrialFolder(run.trial(name))
    folder.write_origin(LABELS_ALONE)  # first: a folder with a spec is complete
    folder.write_spec(winner.spec.on_labels_alone())
    return name


def _drop_unfinished(run: RunFolder, *, but: str) -> None:
    """Removes comparisons with earlier winners that were interrupted."""
    for name in run.read_comparisons():
        folder = TrialFolder(run.trial(name))
        if name != but and folder.read_outcome() is None:
            shutil.rmtree(folder.path)
            add_tombstone(folder.path)


def score_on_test(session: Session, best: str) -> None:
    """Scores the winner and what it is compared with on test, unless that is done.

    A student that is not kept is left out.
    """
    from lkd_tune.tuning.preparation.jobs import score_model
    from lkd_tune.tuning.preparation.worker import PreparationWorker

    run, settings = session.run, session.settings
    if settings.task.test is None:
        return
    waiting = []
    for name in dict.fromkeys([best, run.read_manifest().get("baseline", best)]):
        student = read_student(run.student(name))
        metrics = TrialFolder(run.trial(name)).read_test_metrics()
        if student is None:
            continue
        if metrics is None:
            waiting.append(name)
        elif student.get("test_metrics") is None:
            add_test_metrics(run, name, metrics)
    if not waiting:
        return
    session.view.phase("scoring the winner on test")
    with PreparationWorker(session) as worker:
        for name in waiting:
            scores = worker.run(
                "test",
                score_model,
                session.student_location(name),
                settings.task.model_dump_json(),
                session.cache,
                session.cwd,
                ("test",),
            )
            if scores is None:
                return
            add_test_metrics(run, name, scores["test"])


def seed_name(name: str, number: int) -> str:
    """Returns the name of a trial with the `number`-th seed after its own."""
    return f"{name}-seed{number}"


def _other_seeds(record: TrialRecord, seeds: int) -> dict[str, TrialSpec]:
    """Returns a trial's configuration with the seeds after its own, by the names of the trials."""
    return {
        seed_name(record.name, i): record.spec.model_copy(update={"seed": record.spec.seed + i})
        for i in range(1, seeds + 1)
    }


def train_fixed_trials(session: Session, specs: dict[str, TrialSpec], phase: str) -> None:
    """Trains those of the given trials that have not ended, with the run's current resources.

    A trial of the same name but with another spec, as of an earlier winner, is replaced.

    Args:
        session: The search.
        specs: The trials by name.
        phase: What is printed if any has to be trained.
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
        session.view.phase(phase, trainings=len(waiting))
        session.run_trials(
            FixedTrials(session.run, waiting, session.common, session.fetch_trial_results), None
        )


def _write_confirmation(session: Session, names: list[str]) -> None:
    """Writes the scores of the other seeds that have ended.

    Args:
        session: The search.
        names: Trials that were confirmed; those of earlier sessions are kept.
    """
    metric = session.settings.score_name
    earlier = [entry["trial"] for entry in session.run.read_confirmation()]
    ended = {name: _ended_seeds(session, name) for name in dict.fromkeys([*earlier, *names])}
    runs = {name: [r for r in own if r.state == "complete"] for name, own in ended.items()}
    scores = {name: {r.spec.seed: r.score or 0.0 for r in done} for name, done in runs.items()}
    failed = {
        name: [r.spec.seed for r in own if r.state != "complete"] for name, own in ended.items()
    }
    tests = {
        name: [
            metrics[metric]
            for record in done
            if (metrics := TrialFolder(session.run.trial(record.name)).read_test_metrics())
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
