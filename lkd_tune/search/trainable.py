"""A distillation as Ray Tune runs it: one actor for many trials, one `step` per measurement."""

from __future__ import annotations

import math
import os
import time
import traceback
from pathlib import Path
from typing import Any

from ray import tune

from lkd_tune.search.gang import Gang, LostWorkerError
from lkd_tune.search.node_copy import node_copy
from lkd_tune.search.trial_folder import TrialFolder, describe_student, outcome_of
from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.objectives import excesses
from lkd_tune.spec.run import (
    Outcome,
    RunFolder,
    append_measurement,
    read_measurements,
    write_atomically,
)
from lkd_tune.spec.size import ModelSize
from lkd_tune.spec.trial import TrialSpec
from lkd_tune.storage import StorageError


class DistillationTrainable(tune.Trainable):
    """Runs one trial after the other; the process, its threads and its process group stay.

    Where a trial stands is read from its folder and nowhere else: started again in another
    actor, on another node or in another session, it goes on from its last checkpoint. Its last
    measurement is then reported again, since the scheduler may not have judged it.

    A trial that runs out of memory goes on from its last checkpoint with micro-batches of half the
    size, down to single examples; its effective batch stays the same.

    What else goes wrong in a distillation (a loss that is not finite, data that do not fit)
    would go wrong again, so the trial ends as failed and the actor goes on to the next.
    Only the loss of a process is raised, for Tune to start the trial again elsewhere.

    The config holds `run`, `home`, `session`, `cache`, `cwd` and `limits`, the same for all trials
    of a session, and `name` and `spec`. With `pause_at` the trial pauses where so many
    halvings of its steps are left, to go on in a later call of Tune.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Returns one bundle for each worker; all on one node where nodes share no folder."""
        resources = TrialSpec.model_validate_json(config["spec"]).resources
        bundle = {"CPU": resources.cpus}
        if resources.gpus:
            bundle["GPU"] = resources.gpus
        strategy = "PACK" if config.get("home") is None else "STRICT_PACK"
        return tune.PlacementGroupFactory([bundle] * resources.workers, strategy=strategy)

    def setup(self, config: dict[str, Any]) -> None:
        """Called once for each actor, with the first trial's config."""
        self._gang: Gang | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called with each further trial's config."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Returns the trial's next measurement.

        Raises:
            LostWorkerError: If a process of the gang is gone.
            StorageError: If the run's home can't be reached from this node.
        """
        self._refuse_if_replaced()
        while True:
            if self._gang is None:
                self._gang = Gang(self._spec.resources, self._cwd, self._write_failure)
            try:
                return self._next_result()
            except (LostWorkerError, StorageError):
                raise
            except Exception as error:
                if not (is_out_of_memory(error) and self._cut_micro_batches(error)):
                    return self._fail(error)

    def cleanup(self) -> None:
        """Called when the actor is not needed any more."""
        if self._gang is not None:
            self._gang.disband()
            self._gang = None

    def _take(self, config: dict[str, Any]) -> None:
        """Makes a trial the current one; the rest waits for `step`, whose errors are told."""
        self._name, self._session = config["name"], config["session"]
        self._copy = node_copy(config)
        self._run = self._copy.run if self._copy else RunFolder(Path(config["run"]))
        self._folder = TrialFolder(self._run.trial(self._name))
        self._spec_text = config["spec"]
        self._spec = TrialSpec.model_validate_json(config["spec"])
        self._cache, self._cwd = config["cache"], config["cwd"]
        self._limits, self._pause_at = config["limits"], config.get("pause_at", 0)
        self._size: ModelSize | None = None
        self._began: float | None = None
        self._ready = False
        self._wall_s_before = 0.0

    def _next_result(self) -> dict[str, Any]:
        assert self._gang is not None
        if not self._ready:
            self._ready = True
            if (told := self._begin()) is not None:
                return told
        measurement: Measurement = self._gang.run("advance")
        self._refuse_if_replaced()
        if not math.isfinite(measurement.score):
            metric = self._spec.task.metric
            raise ArithmeticError(f"{metric} is {measurement.score} at step {measurement.step}")
        append_measurement(self._folder.path, measurement)
        if measurement.finished:
            return self._finish(measurement)
        with self._folder.new_checkpoint(measurement.step, self._wall_s) as folder:
            self._gang.run("save_checkpoint", str(folder))
        return self._go_on_or_pause(measurement)

    def _go_on_or_pause(self, measurement: Measurement) -> dict[str, Any]:
        assert self._gang is not None
        if measurement.halvings > self._pause_at or self._pause_at == 0:
            return self._result(measurement, "running")
        self._gang.run("end")
        return self._result(measurement, "paused")

    def _begin(self) -> dict[str, Any] | None:
        """Starts or goes on with the trial; returns a result that it has already."""
        assert self._gang is not None
        if self._copy is not None:
            self._copy.pull()
        measurements = {m.step: m for m in read_measurements(self._folder.path)}
        outcome, self._size = self._folder.read_outcome(), self._folder.read_size()
        if outcome is not None:  # it ended, but nobody was told
            last = measurements[max(measurements)] if measurements else None
            return self._result(last, outcome.state, outcome)
        self._folder.note_workers(self._gang.workers)
        checkpoint = self._folder.read_checkpoint()
        if self._began is None:
            self._began = time.monotonic()
            self._wall_s_before = checkpoint.wall_s if checkpoint else 0.0
        self._gang.run(
            "begin",
            self._spec_text,
            self._cache,
            str(checkpoint.path) if checkpoint else None,
            self._folder.read_accumulation(),
        )
        if checkpoint is not None:
            return self._go_on_or_pause(measurements[checkpoint.step])
        if self._size is None:
            self._size = self._gang.run("measure_size", str(self._run.latencies))
            self._folder.write_size(self._size)
        return self._refuse_if_above_a_limit() if self._name.isdigit() else None

    def _refuse_if_above_a_limit(self) -> dict[str, Any] | None:
        """Ends a trial whose student is too slow, before it trains."""
        assert self._gang is not None
        above = [name for name, by in excesses(self._limits, self._size).items() if by > 0]
        if not above:
            return None
        reason = ", ".join(
            f"{name} {getattr(self._size, name):.3g} is above {self._limits[name]:g}"
            for name in above
        )
        outcome = outcome_of("refused", self._spec.resources, self._wall_s, reason)
        self._folder.write_outcome(outcome)
        self._gang.run("end")
        return self._result(None, "refused", outcome)

    def _finish(self, last: Measurement) -> dict[str, Any]:
        """Writes what a finished trial leaves."""
        assert self._gang is not None
        if not self._name.isdigit():
            # Made to compare with: its numbers count, not its student.
            if self._spec.task.test is not None:
                metrics = self._gang.run("evaluate", "test")
                self._folder.write_test_metrics(metrics)
            outcome = outcome_of("complete", self._spec.resources, self._wall_s)
        else:
            with self._folder.new_student() as folder:
                self._gang.run("save_student", str(folder))
                outcome = outcome_of("complete", self._spec.resources, self._wall_s)
                facts = describe_student(self._name, self._spec, last, outcome, self._size)
                write_atomically(folder / "student.json", facts)
        self._folder.write_outcome(outcome)
        self._folder.remove_checkpoints()
        self._gang.run("end")
        return self._result(last, "complete", outcome)

    def _cut_micro_batches(self, error: Exception) -> bool:
        """Has the trial begin again with micro-batches of half the size; not if that can't be."""
        from lkd_tune.distill.batches import most_accumulation

        parts = self._folder.read_accumulation()
        if parts >= most_accumulation(self._spec):
            return False
        self._folder.write_accumulation(2 * parts)
        error.__traceback__ = None  # its frames hold the tensors that there is no room for
        self._ready = False
        if self._spec.resources.workers > 1:
            self.cleanup()  # the ranks are out of step
        else:
            assert self._gang is not None
            self._gang.run("end")
        return True

    def _fail(self, error: Exception) -> dict[str, Any]:
        """Records a failure and makes the actor fit for the next trial, or ends it."""
        trace = "".join(traceback.format_exception(error))
        outcome = self._write_failure(trace, _one_line(error))
        error.__traceback__ = None  # its frames hold the tensors of the failed distillation
        assert self._gang is not None
        if self._spec.resources.workers > 1:
            # The ranks are out of step.
            self.cleanup()
        else:
            self._gang.run("end")
        if _gpu_is_lost():
            # Every later call in this process would fail; Tune starts another, which finds that
            # this trial has ended.
            os._exit(1)
        return self._result(None, "failed", outcome)

    def _write_failure(self, trace: str, reason: str | None = None) -> Outcome:
        reason = reason or trace.strip().splitlines()[-1]
        outcome = outcome_of("failed", self._spec.resources, self._wall_s, reason)
        self._folder.write_outcome(outcome, trace)
        self._folder.remove_checkpoints()
        if self._copy is not None:
            self._copy.push()
        return outcome

    @property
    def _wall_s(self) -> float:
        began = time.monotonic() if self._began is None else self._began
        return self._wall_s_before + time.monotonic() - began

    def _result(
        self, measurement: Measurement | None, state: str, outcome: Outcome | None = None
    ) -> dict[str, Any]:
        if self._copy is not None:
            self._copy.push()
        result: dict[str, Any] = {
            "state": state,
            "apart": self._copy is not None and self._copy.apart,
            "done": state != "running",
            "wall_s": outcome.wall_s if outcome else self._wall_s,
            "error": outcome.error if outcome else None,
        }
        if self._size is not None:
            result["size"] = self._size.model_dump_json()
        if measurement is not None:
            result |= {
                "step": measurement.step,
                "score": measurement.score,
                "measurement": measurement.model_dump_json(),
            }
        return result

    def _refuse_if_replaced(self) -> None:
        """Ends this process if the run was resumed by another driver, which has this trial now."""
        seen = self._copy or self._run
        if seen.read_manifest().get("session") != self._session:
            os._exit(1)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short, on a GPU or on the host."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not loaded here
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _gpu_is_lost() -> bool:
    """Whether the GPU answers no more, as after an illegal access (not after a mere lack)."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
