"""A distillation as Ray Tune runs it: one actor for many trials, one `step` per measurement."""

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
from lkd_tune.files.disk import explain, is_full_disk
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
from lkd_tune.records.trial_record import Ending, Outcome, outcome_of
from lkd_tune.runtime.oom import gpu_is_lost, is_out_of_memory
from lkd_tune.storage.object_store import StorageError
from lkd_tune.tuning.execution.oom import cut_micro_batches, note_start
from lkd_tune.tuning.execution.worker_group import Gang, LostWorkerError
from lkd_tune.tuning.mirror.node_storage import node_copy


class DistillationTrainable(tune.Trainable):
    """Runs one trial after the other; the process, its threads and its process group stay.

    Where a trial stands is read from its folder and nowhere else: started again in another
    actor, on another node or in another session, it goes on from its last checkpoint. Its last
    measurement is then reported again, since the scheduler may not have judged it.

    A trial that runs out of memory goes on from its last checkpoint with micro-batches of half the
    size, down to single examples; its effective batch stays the same. In the same way it goes on
    without training examples that no student can learn from, if they are to be skipped. One that
    finds no room on a disk pauses, and tells the driver, who ends the search until there is some.

    Where another task scores the trial (`evaluate_on`), its student is written when it is trained,
    fine-tuned on that task, and the fine-tuned model dropped. All of that is one `step`: whether
    to stop a trial is decided by measurements of one kind, those of its own training, and after
    the last of them there is nothing left to decide. A trial cut off in its fine-tuning begins
    that anew, from the student.

    What else goes wrong in a distillation (a loss that is not finite, data that do not fit)
    would go wrong again, so the trial ends as failed and the actor goes on to the next.
    Only the loss of a process is raised, for Tune to start the trial again elsewhere.

    The config holds `run`, `remote_uri`, `session`, `cache`, `cwd`, `limits`, the same for all
    trials of a session, and `name` and `spec`. With `pause_at` the trial pauses where so many
    halvings of its steps are left, to go on in a later call of Tune.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Returns one bundle for each worker; all on one node where nodes share no folder."""
        resources = TrialSpec.model_validate_json(config["spec"]).resources
        strategy = "PACK" if config.get("remote_uri") is None else "STRICT_PACK"
        return trial_bundles(resources, strategy)

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
            StorageError: If the run's home can't be reached from this node, for an hour.
            UnfitNodeError: If a worker's node does not have what trials need.
        """
        while True:
            if self._gang is None:
                resources = self._spec.resources
                self._gang = Gang(resources, self._cwd, self._note_failure, self._requirements)
            self._refuse_if_replaced()
            try:
                return self._next_result()
            except (LostWorkerError, StorageError, UnfitNodeError):
                raise
            except Exception as error:
                if is_full_disk(error):
                    return self._wait_for_room(error)
                cut = is_out_of_memory(error) and cut_micro_batches(self._folder, self._now)
                if not (cut or self._leaves_out(error)):
                    return self._fail(error)
                self._begin_again(error)

    def cleanup(self) -> None:
        """Called when the actor is not needed any more."""
        if self._gang is not None:
            self._gang.disband()
            self._gang = None

    def _take(self, config: dict[str, Any]) -> None:
        """Makes a trial the current one; the rest waits for `step`, whose errors are told."""
        self._name, self._session = config["name"], config["session"]
        self._copy = node_copy(config)
        self._requirements = NodeRequirements(
            None if self._copy else config["run"], config.get("versions", {})
        )
        self._run = self._copy.run if self._copy else RunFolder(Path(config["run"]))
        self._folder = TrialFolder(self._run.trial(self._name))
        self._spec = TrialSpec.model_validate_json(config["spec"])
        self._cache, self._cwd = config["cache"], config["cwd"]
        self._limits, self._pause_at = config["limits"], config.get("pause_at", 0)
        self._size: ModelSize | None = None
        self._began: float | None = None
        self._now = self._spec  # what is trained now: the student, or a copy that is fine-tuned
        self._ready = False
        self._spent_before = 0.0, 0.0

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
        with self._folder.new_checkpoint(measurement.step, *self._spent) as folder:
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
        note_start(self._folder, self._spec, self._gang.workers, self._session)
        checkpoint = self._folder.read_checkpoint()
        trained = read_student(self._folder.student) if self._spec.evaluate_on else None
        if self._began is None:
            self._began = time.monotonic()
            if trained is not None:
                worker_s = trained["cpu_s"] / self._spec.resources.cpus
                self._spent_before = trained["wall_s"], worker_s
            elif checkpoint is not None:
                self._spent_before = checkpoint.wall_s, checkpoint.worker_s
        if trained is not None:
            return self._finish_by_fine_tuning(measurements[max(measurements)])
        skipped = [bad.example for bad in self._folder.read_bad_examples()]
        self._start(self._spec, checkpoint, skipped)
        if checkpoint is not None:
            return self._go_on_or_pause(measurements[checkpoint.step])
        if self._size is None:
            self._size = self._gang.run("measure_size", str(self._run.latencies))
            self._folder.write_size(self._size)
        return self._refuse_if_above_a_limit() if self._name.isdigit() else None

    def _start(
        self,
        spec: TrialSpec,
        checkpoint: Checkpoint | None = None,
        skipped: Sequence[int] = (),
    ) -> None:
        """Builds a distillation, from where a checkpoint left it, without some examples."""
        assert self._gang is not None
        self._now = spec
        self._gang.run(
            "begin",
            spec.to_json(),
            self._cache,
            str(checkpoint.path) if checkpoint else None,
            self._folder.read_accumulation(),
            [*skipped],
            str(self._folder.progress),
        )

    def _refuse_if_above_a_limit(self) -> dict[str, Any] | None:
        """Ends a trial whose student is too slow, before it trains."""
        assert self._gang is not None
        above = [name for name, by in violations(self._limits, self._size).items() if by > 0]
        if not above:
            return None
        reason = ", ".join(
            f"{name} {getattr(self._size, name):.3g} is above {self._limits[name]:g}"
            for name in above
        )
        outcome = self._outcome("refused", reason)
        self._folder.write_outcome(outcome)
        self._gang.run("end")
        return self._result(None, "refused", outcome)

    def _finish(self, last: Measurement) -> dict[str, Any]:
        """Writes what a finished trial leaves."""
        assert self._gang is not None
        if self._spec.evaluate_on is not None:
            self._write_student(last)
            return self._finish_by_fine_tuning(last)
        if self._name.isdigit():
            self._write_student(last)
        elif self._spec.task.test is not None:
            # Made to compare with: its numbers count, not its student.
            metrics = self._gang.run("evaluate", "test")
            self._folder.write_test_metrics(metrics)
        return self._complete(last)

    def _finish_by_fine_tuning(self, last: Measurement) -> dict[str, Any]:
        """Scores the trial's student on `evaluate_on`; the fine-tuned copy is not kept."""
        assert self._gang is not None
        fine_tuned = self._folder.read_fine_tuned()
        if fine_tuned is None:
            self._folder.remove_checkpoints()  # the student takes their place
            self._start(self._spec.fine_tuning(str(self._folder.student)))
            fine_tuned = self._gang.run("advance")
            self._refuse_if_replaced()
            if not math.isfinite(fine_tuned.score):
                raise ArithmeticError(f"{self._spec.score_name} is {fine_tuned.score}")
            self._folder.write_fine_tuned(fine_tuned)
        if self._name.isdigit():
            self._describe(self._folder.student, last, fine_tuned)
        result = self._complete(last)
        if not self._name.isdigit():
            remove_folder(self._folder.student)
        return result

    def _complete(self, last: Measurement) -> dict[str, Any]:
        """Writes and returns that the trial is complete."""
        assert self._gang is not None
        outcome = self._outcome("complete")
        self._folder.write_outcome(outcome)
        self._folder.remove_checkpoints()
        self._gang.run("end")
        return self._result(last, "complete", outcome)

    def _write_student(self, last: Measurement) -> None:
        assert self._gang is not None
        with self._folder.new_student() as folder:
            self._gang.run("save_student", str(folder))
            self._describe(folder, last)

    def _describe(
        self, folder: Path, last: Measurement, fine_tuned: Measurement | None = None
    ) -> None:
        outcome = self._outcome("complete")
        facts = describe_student(self._name, self._spec, last, outcome, self._size, fine_tuned)
        write_atomically(folder / "student.json", facts)

    def _leaves_out(self, error: BaseException) -> bool:
        """Notes the bad examples that an error names; returns whether the trial may skip them."""
        from lkd_tune.distillation.bad_examples import BadExamplesError

        # Those of a fine-tuning are of another task.
        if not isinstance(error, BadExamplesError) or self._now is not self._spec:
            return False
        self._folder.add_bad_examples(error.examples)
        return error.may_skip

    def _begin_again(self, error: BaseException) -> None:
        """Makes the next step go on from the last checkpoint, if there is one."""
        error.__traceback__ = None  # its frames hold the tensors that there is no room for
        self._ready = False
        if self._spec.resources.workers > 1:
            self.cleanup()  # the ranks are out of step
        else:
            assert self._gang is not None
            self._gang.run("end")

    def _wait_for_room(self, error: Exception) -> dict[str, Any]:
        """Returns that the trial pauses, and which disk has no room."""
        told = explain(error, self._run.path)
        self._begin_again(error)
        return {**self._result(None, "paused"), "full_disk": told}

    def _fail(self, error: Exception) -> dict[str, Any]:
        """Records a failure and makes the actor fit for the next trial, or ends it."""
        outcome = self._write_failure(error)
        if gpu_is_lost():
            # Every later call in this process would fail; Tune starts another, which finds that
            # this trial has ended.
            os._exit(1)
        error.__traceback__ = None  # its frames hold the tensors of the failed distillation
        assert self._gang is not None
        if self._spec.resources.workers > 1:
            # The ranks are out of step.
            self.cleanup()
        else:
            self._gang.run("end")
        return self._result(None, "failed", outcome)

    def _note_failure(self, error: BaseException) -> None:
        """Notes what another rank raised while this one can't get away; the process ends next.

        If the trial may go on without some examples, Tune starts it again.
        """
        if is_full_disk(error):
            self._folder.write_full_disk(explain(error, self._run.path))
        elif not self._leaves_out(error):
            self._write_failure(error)

    def _write_failure(self, error: BaseException) -> Outcome:
        from lkd_tune.distillation.bad_examples import BadExamplesError, DivergedError

        # Bad examples are no fault of the settings: the sampler has nothing to learn from them.
        diverged = isinstance(error, DivergedError) and not isinstance(error, BadExamplesError)
        outcome = self._outcome("failed", _one_line(error)).model_copy(
            update={"diverged": diverged}
        )
        self._folder.write_outcome(outcome, "".join(traceback.format_exception(error)))
        self._folder.remove_checkpoints()
        if self._copy is not None:
            self._copy.push()
        return outcome

    def _outcome(self, state: Ending, reason: str | None = None) -> Outcome:
        wall_s, worker_s = self._spent
        return outcome_of(state, self._spec.resources, wall_s, reason, worker_s=worker_s)

    @property
    def _spent(self) -> tuple[float, float]:
        """Seconds of this trial, and these times the workers it had."""
        here = 0.0 if self._began is None else time.monotonic() - self._began
        wall_s, worker_s = self._spent_before
        return wall_s + here, worker_s + here * self._spec.resources.workers

    def _result(
        self, measurement: Measurement | None, state: str, outcome: Outcome | None = None
    ) -> dict[str, Any]:
        wall_s, worker_s = self._spent
        if self._copy is not None:
            self._copy.push()
        result: dict[str, Any] = {
            "state": state,
            "apart": self._copy is not None and self._copy.apart,
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
        """Ends this process if the run was resumed by another driver, which has this trial now."""
        seen = self._copy or self._run
        try:
            session = seen.read_manifest().get("session")
        except StorageError:
            raise  # no fault of this node
        except SpecError as error:  # what the node mounted is gone
            raise unfit_node_error(str(error)) from None
        if session != self._session:
            os._exit(1)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
