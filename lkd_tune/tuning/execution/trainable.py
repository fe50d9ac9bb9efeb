"""A distillation as Ray Tune runs it: one actor for many trials, one `step` for a measurement."""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from lkd_tune.cluster.nodes import NodeRequirements, UnfitNodeError, unfit_node_error
from lkd_tune.cluster.ray import trial_bundles
from lkd_tune.config.errors import SpecError
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import remove_folder, write_atomically
from lkd_tune.files.disk import describe_full_disk, is_full_disk
from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.pareto import violations
from lkd_tune.records.run import RunFolder
from lkd_tune.records.student_file import describe_student, read_student
from lkd_tune.records.trial_folder import (
    Checkpoint,
    TrialFolder,
    append_measurement,
    read_measurements,
)
from lkd_tune.records.trial_record import LABELS_ALONE, Ending, Outcome, outcome_of
from lkd_tune.runtime.oom import gpu_is_lost, is_out_of_memory
from lkd_tune.storage.object_store import StorageError
from lkd_tune.tuning.execution.oom import halve_micro_batches, record_start
from lkd_tune.tuning.execution.worker_group import LostWorkerError, WorkerGroup
from lkd_tune.tuning.mirror.node_storage import node_storage_of


class DistillationTrainable(tune.Trainable):
    """Runs one trial after the other; the process, its threads and its process group are kept.

    The state of a trial is in its folder only. If it is started again in another actor, on another
    node or in another session, it resumes from its last checkpoint. It then reports its last
    measurement again, because the scheduler may not have received it.

    A trial that runs out of memory resumes from its last checkpoint with micro-batches of half the
    size, down to single examples; its effective batch size stays the same. In the same way it
    resumes without training examples that no student can learn from, if they may be skipped. If a
    disk is full, it pauses and reports that to the driver, which ends the search until there is
    space.

    If another task scores the trial (`evaluate_on`), the student is written after its training and
    fine-tuned on that task; the fine-tuned model is not kept. All this is a single `step`: early
    stopping compares measurements of the training only, and after the last of them there is nothing
    to decide. If the fine-tuning is interrupted, it starts again from the student.

    Other errors in a distillation (a loss that is not finite, data that do not fit) would happen
    again, so the trial fails and the actor continues with the next one. Only the loss of a process
    is raised, so that Tune starts the trial again elsewhere.

    The config has `run`, `remote_uri`, `session`, `cache`, `cwd`, `versions` and `limits`, which
    are the same for all trials of a session, and `name`, `spec` and `origin`.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Returns one bundle for each worker; all on one node if the run is on an object store."""
        resources = TrialSpec.model_validate_json(config["spec"]).resources
        strategy = "PACK" if config.get("remote_uri") is None else "STRICT_PACK"
        return trial_bundles(resources, strategy)

    def setup(self, config: dict[str, Any]) -> None:
        """Called once for each actor, with the config of its first trial."""
        self._group: WorkerGroup | None = None
        self._set_trial(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called with the config of each further trial."""
        self._set_trial(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Returns the trial's next measurement.

        Raises:
            LostWorkerError: If a process of the worker group is lost.
            StorageError: If the run's object store can't be reached from this node for an hour.
            UnfitNodeError: If a worker's node is not fit.
        """
        while True:
            if self._group is None:
                resources = self._spec.resources
                self._group = WorkerGroup(
                    resources, self._cwd, self._record_rank_failure, self._requirements
                )
            self._refuse_if_replaced()
            try:
                return self._next_result()
            except (LostWorkerError, StorageError, UnfitNodeError):
                raise
            except Exception as error:
                if is_full_disk(error):
                    return self._pause_for_full_disk(error)
                halved = is_out_of_memory(error) and halve_micro_batches(
                    self._folder, self._current_spec
                )
                if not (halved or self._may_skip_examples(error)):
                    return self._fail(error)
                self._restart_next_step(error)

    def cleanup(self) -> None:
        """Called when the actor is not needed anymore."""
        if self._group is not None:
            self._group.disband()
            self._group = None

    def _set_trial(self, config: dict[str, Any]) -> None:
        """Makes a trial the current one; starts it in `step`, whose errors Tune reports."""
        self._name, self._session = config["name"], config["session"]
        self._node_storage = node_storage_of(config)
        self._requirements = NodeRequirements(
            None if self._node_storage else config["run"], config.get("versions", {})
        )
        self._run = self._node_storage.run if self._node_storage else RunFolder(Path(config["run"]))
        self._folder = TrialFolder(self._run.trial(self._name))
        self._spec = TrialSpec.model_validate_json(config["spec"])
        self._cache, self._cwd = config["cache"], config["cwd"]
        self._limits = config["limits"]
        self._is_drawn = self._name.isdigit() and config.get("origin") != LABELS_ALONE
        self._size: ModelSize | None = None
        self._trial_started: float | None = None
        self._current_spec = self._spec  # or its fine-tuning
        self._is_trial_built = False
        self._spent_earlier = 0.0, 0.0

    def _next_result(self) -> dict[str, Any]:
        assert self._group is not None
        if not self._is_trial_built:
            self._is_trial_built = True
            if (result := self._start_trial()) is not None:
                return result
        measurement: Measurement = self._group.run("advance")
        self._refuse_if_replaced()
        if not math.isfinite(measurement.score):
            metric = self._spec.task.metric
            raise ArithmeticError(f"{metric} is {measurement.score} at step {measurement.step}")
        append_measurement(self._folder.path, measurement)
        if measurement.finished:
            return self._finish(measurement)
        with self._folder.new_checkpoint(measurement.step, *self._spent) as folder:
            self._group.run("save_checkpoint", str(folder))
        return self._result(measurement, "running")

    def _start_trial(self) -> dict[str, Any] | None:
        """Starts or resumes the trial; returns a result if it does not have to train for that."""
        assert self._group is not None
        if self._node_storage is not None:
            self._node_storage.pull()
        measurements = {m.step: m for m in read_measurements(self._folder.path)}
        outcome, self._size = self._folder.read_outcome(), self._folder.read_size()
        if outcome is not None:  # it has ended, but was not reported
            last = measurements[max(measurements)] if measurements else None
            return self._result(last, outcome.state, outcome)
        record_start(self._folder, self._spec, self._group.workers, self._session)
        checkpoint = self._folder.read_checkpoint()
        trained = read_student(self._folder.student) if self._spec.evaluate_on else None
        if self._trial_started is None:
            self._trial_started = time.monotonic()
            if trained is not None:
                worker_s = trained["cpu_s"] / self._spec.resources.cpus
                self._spent_earlier = trained["wall_s"], worker_s
            elif checkpoint is not None:
                self._spent_earlier = checkpoint.wall_s, checkpoint.worker_s
        if trained is not None:
            return self._finish_by_fine_tuning(measurements[max(measurements)])
        skipped = [bad.example for bad in self._folder.read_bad_examples()]
        self._build(self._spec, checkpoint, skipped)
        if checkpoint is not None:
            return self._result(measurements[checkpoint.step], "running")
        if self._size is None:
            self._size = self._group.run("measure_size", str(self._run.latencies))
            self._folder.write_size(self._size)
        return self._refuse_above_limits() if self._name.isdigit() else None

    def _build(
        self,
        spec: TrialSpec,
        checkpoint: Checkpoint | None = None,
        skipped: Sequence[int] = (),
    ) -> None:
        """Builds a distillation, from a checkpoint if there is one."""
        assert self._group is not None
        self._current_spec = spec
        self._group.run(
            "begin",
            spec.to_json(),
            self._cache,
            str(checkpoint.path) if checkpoint else None,
            self._folder.read_accumulation(),
            [*skipped],
            str(self._folder.progress),
        )

    def _refuse_above_limits(self) -> dict[str, Any] | None:
        """Returns the end of a trial whose student exceeds a limit, before it trains; else None."""
        assert self._group is not None
        above = [name for name, by in violations(self._limits, self._size).items() if by > 0]
        if not above:
            return None
        reason = ", ".join(
            f"{name} {getattr(self._size, name):.3g} is above {self._limits[name]:g}"
            for name in above
        )
        outcome = self._outcome("refused", reason)
        self._folder.write_outcome(outcome)
        self._group.run("end")
        return self._result(None, "refused", outcome)

    def _finish(self, last: Measurement) -> dict[str, Any]:
        """Writes the results of a trial that has reached its last step."""
        assert self._group is not None
        if self._spec.evaluate_on is not None:
            self._write_student(last)
            return self._finish_by_fine_tuning(last)
        # The search chooses among drawn trials, so of those only the winner is scored on test.
        if not self._is_drawn and self._spec.task.test is not None:
            metrics = self._group.run("evaluate", "test")
            self._folder.write_test_metrics(metrics)
        if self._name.isdigit():
            self._write_student(last)
        return self._complete(last)

    def _finish_by_fine_tuning(self, last: Measurement) -> dict[str, Any]:
        """Fine-tunes the student on `evaluate_on` to score it, and ends the trial."""
        assert self._group is not None
        fine_tuned = self._folder.read_fine_tuned()
        if fine_tuned is None:
            self._folder.remove_checkpoints()  # the student replaces them
            self._build(self._spec.fine_tuning(str(self._folder.student)))
            fine_tuned = self._group.run("advance")
            self._refuse_if_replaced()
            if not math.isfinite(fine_tuned.score):
                raise ArithmeticError(f"{self._spec.score_name} is {fine_tuned.score}")
            self._folder.write_fine_tuned(fine_tuned)
        if self._name.isdigit():
            self._write_student_file(self._folder.student, last, fine_tuned)
        result = self._complete(last)
        if not self._name.isdigit():
            remove_folder(self._folder.student)
        return result

    def _complete(self, last: Measurement) -> dict[str, Any]:
        """Writes that the trial is complete, and returns its last result."""
        assert self._group is not None
        outcome = self._outcome("complete")
        self._folder.write_outcome(outcome)
        self._folder.remove_checkpoints()
        self._group.run("end")
        return self._result(last, "complete", outcome)

    def _write_student(self, last: Measurement) -> None:
        assert self._group is not None
        with self._folder.new_student() as folder:
            self._group.run("save_student", str(folder))
            self._write_student_file(folder, last)

    def _write_student_file(
        self, folder: Path, last: Measurement, fine_tuned: Measurement | None = None
    ) -> None:
        outcome = self._outcome("complete")
        facts = describe_student(self._name, self._spec, last, outcome, self._size, fine_tuned)
        write_atomically(folder / "student.json", facts)

    def _may_skip_examples(self, error: BaseException) -> bool:
        """Records the bad examples that an error names; returns whether the trial may skip them."""
        from lkd_tune.distillation.bad_examples import BadExamplesError

        # Examples of the fine-tuning belong to another task.
        if not isinstance(error, BadExamplesError) or self._current_spec is not self._spec:
            return False
        self._folder.add_bad_examples(error.examples)
        return error.may_skip

    def _restart_next_step(self, error: BaseException) -> None:
        """Makes the next step resume from the last checkpoint, if there is one."""
        error.__traceback__ = None  # its frames hold tensors
        self._is_trial_built = False
        if self._spec.resources.workers > 1:
            self.cleanup()  # the ranks are out of step
        else:
            assert self._group is not None
            self._group.run("end")

    def _pause_for_full_disk(self, error: Exception) -> dict[str, Any]:
        """Pauses the trial; the result says which disk is full."""
        message = describe_full_disk(error, self._run.path)
        self._restart_next_step(error)
        return {**self._result(None, "paused"), "full_disk": message}

    def _fail(self, error: Exception) -> dict[str, Any]:
        """Records a failure and prepares the actor for the next trial, or exits."""
        outcome = self._write_failure(error)
        if gpu_is_lost():
            # Every call in this process would fail. Tune starts another one, which finds that this
            # trial has ended.
            os._exit(1)
        error.__traceback__ = None  # its frames hold tensors
        assert self._group is not None
        if self._spec.resources.workers > 1:
            self.cleanup()  # the ranks are out of step
        else:
            self._group.run("end")
        return self._result(None, "failed", outcome)

    def _record_rank_failure(self, error: BaseException) -> None:
        """Records an error of another rank while this one is stuck; then the process exits.

        If the trial may skip the examples that caused it, Tune starts the trial again.
        """
        if is_full_disk(error):
            self._folder.write_full_disk(describe_full_disk(error, self._run.path))
        elif not self._may_skip_examples(error):
            self._write_failure(error)

    def _write_failure(self, error: BaseException) -> Outcome:
        from lkd_tune.distillation.bad_examples import BadExamplesError, DivergedError

        # Bad examples are not caused by the settings, so the sampler must not learn from them.
        diverged = isinstance(error, DivergedError) and not isinstance(error, BadExamplesError)
        outcome = self._outcome("failed", _one_line(error)).model_copy(
            update={"diverged": diverged}
        )
        self._folder.write_outcome(outcome, "".join(traceback.format_exception(error)))
        self._folder.remove_checkpoints()
        if self._node_storage is not None:
            self._node_storage.push()
        return outcome

    def _outcome(self, state: Ending, reason: str | None = None) -> Outcome:
        wall_s, worker_s = self._spent
        return outcome_of(state, self._spec.resources, wall_s, reason, worker_s=worker_s)

    @property
    def _spent(self) -> tuple[float, float]:
        """Seconds of this trial, and these seconds times its workers."""
        now = 0.0 if self._trial_started is None else time.monotonic() - self._trial_started
        wall_s, worker_s = self._spent_earlier
        return wall_s + now, worker_s + now * self._spec.resources.workers

    def _result(
        self, measurement: Measurement | None, state: str, outcome: Outcome | None = None
    ) -> dict[str, Any]:
        wall_s, worker_s = self._spent
        if self._node_storage is not None:
            self._node_storage.push()
        result: dict[str, Any] = {
            "state": state,
            "is_remote": self._node_storage is not None and self._node_storage.is_remote,
            "done": state != "running",
            "wall_s": outcome.wall_s if outcome else wall_s,
            "worker_s": worker_s,
            "error": outcome.error if outcome else None,
        }
        if self._size is not None:
            result["size"] = self._size.model_dump_json()
        if measurement is not None:
            result |= {"step": measurement.step, "measurement": measurement.model_dump_json()}
            scored = self._folder.read_fine_tuned() if self._spec.evaluate_on else measurement
            if scored is not None:
                result["score"] = scored.score
        return result

    def _refuse_if_replaced(self) -> None:
        """Exits if another driver has resumed the run, which then runs this trial elsewhere."""
        source = self._node_storage or self._run
        try:
            session = source.read_manifest().get("session")
        except StorageError:
            raise  # not caused by this node
        except SpecError as error:  # the file system is not mounted anymore
            raise unfit_node_error(str(error)) from None
        if session != self._session:
            os._exit(1)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
