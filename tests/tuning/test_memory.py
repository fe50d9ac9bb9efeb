"""Out of memory: smaller micro-batches, the same effective batch, the same results."""

from __future__ import annotations

import gc
import resource
import weakref

import pytest

from lkd_tune.cluster.nodes import NodeRequirements
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.batches import max_accumulation
from lkd_tune.records.run import RunFolder
from lkd_tune.runtime.oom import is_out_of_memory
from lkd_tune.tuning.execution.rank import Rank
from lkd_tune.tuning.tuner import run_search
from tests.support.families import make_classifier, make_csv
from tests.support.rays import own_ray
from tests.support.tiny import make_space

ROOM = 500 * 2**20
BATCH = 8192


def _give_little_memory() -> None:
    """Has each process refuse memory beyond some hundred MiB once its first training begins."""
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401  # what is loaded later would find no room either

    from lkd_tune.distillation.engine import Distillation

    train_until = Distillation._train_until

    def with_little_memory(self, until):
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
        return train_until(self, until)

    Distillation._train_until = with_little_memory


def _search(folder, hook):
    hooked = {"worker_process_setup_hook": hook} if hook else None
    with own_ray(1, runtime_env=hooked):
        space = make_space(
            folder,
            rows=256,
            train={"batch_size": BATCH, "steps": 2, "evaluations": 2},
            search={"trials": 1},
            student={"depth": 2},
            losses={"wr_triple": {"window": None}},
        )
        run = RunFolder(folder / "run")
        run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    return run, record


@pytest.mark.slow
def test_a_trial_out_of_memory_continues_with_smaller_micro_batches(tmp_path):
    run, record = _search(tmp_path / "little", _give_little_memory)
    assert record.outcome is not None
    assert record.outcome.state == "complete", record.outcome.error
    parts = int((run.trial(record.name) / "accumulation").read_text())
    assert parts >= 2
    _, expected = _search(tmp_path / "much", None)
    # As far as dropout, which falls otherwise on smaller micro-batches, lets them be equal.
    for term, value in expected.measurements[-1].losses.items():
        assert record.measurements[-1].losses[term] == pytest.approx(value, rel=0.05), term
    assert record.accumulation == parts


@pytest.mark.parametrize("failing", ["build_targets", "evaluate"])
def test_a_trial_that_failed_leaves_its_memory_to_the_next_try(tmp_path, monkeypatch, failing):
    from lkd_tune.distillation import engine

    built = []
    build_engine = engine.build_engine

    def build_and_note(*arguments, **options):
        found = build_engine(*arguments, **options)
        built.extend(weakref.ref(parameter) for parameter in found.module.parameters())
        return found

    def still_there():
        return sum(each.numel() for each in (ref() for ref in built) if each is not None)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(engine, "build_engine", build_and_note)
    data = make_csv(tmp_path)
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "own", "train": data, "dev": data},
            "teacher": make_classifier(tmp_path / "teacher", "bert"),
            "student": {"depth": 2},
            "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
            "train": {"steps": 2, "evaluations": 1},
        }
    )
    rank = Rank(1, 0, str(tmp_path), NodeRequirements(None, {}))

    def begin_and_advance():
        rank.begin(spec.to_json(), str(tmp_path), None, 1, [], str(tmp_path / "pace"))
        return rank.advance()

    with monkeypatch.context() as broken:
        broken.setattr(engine, failing, fail)
        with pytest.raises(MemoryError) as raised:
            begin_and_advance()
    assert still_there() > 0
    raised.value.__traceback__ = None  # as a trial does
    del raised
    gc.disable()
    try:
        rank.end()
        assert still_there() == 0
    finally:
        gc.enable()
    assert begin_and_advance().finished
    rank.end()


def test_what_is_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    )
    assert is_out_of_memory(RuntimeError("could not create a primitive"))  # oneDNN's
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("train", "most"),
    [
        ({"batch_size": 32}, 16),
        ({"batch_size": 32, "micro_batch_size": 4}, 4),
        ({"tokens_per_batch": 1024}, 32),
        ({"tokens_per_batch": 8}, 1),
    ],
)
def test_micro_batches_are_cut_down_to_single_examples(train, most):
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "own", "train": "a.csv", "dev": "a.csv", "max_length": 16},
            "teacher": "somewhere",
            "student": {"depth": 1},
            "layer_map": {"word": (0, 2), "layer": (0, 2)},
            "train": train,
            "resources": {"workers": 2},
        }
    )
    assert max_accumulation(spec) == most
