"""What has its final name in a trial's folder is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.files.disk import FullDiskError
from lkd_tune.records.trial_folder import TrialFolder, append_measurement, read_measurements
from lkd_tune.records.trial_record import outcome_of
from tests.records.test_run import measured


def write_checkpoint(folder: TrialFolder, step: int, wall_s: float = 1.0) -> None:
    with folder.new_checkpoint(step, wall_s, 2 * wall_s) as draft:
        (draft / "state").write_text(str(step))


def names(folder: TrialFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_only_the_newest_checkpoint_stays(tmp_path):
    folder = TrialFolder(tmp_path)
    assert folder.read_checkpoint() is None
    for step in (5, 10, 20):
        write_checkpoint(folder, step, wall_s=step / 2)
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.wall_s, checkpoint.worker_s) == (20, 10.0, 20.0)
    assert (checkpoint.path / "state").read_text() == "20"
    assert names(folder) == ["checkpoint-20"]


def test_a_checkpoint_that_was_cut_off_is_none(tmp_path):
    folder = TrialFolder(tmp_path)
    write_checkpoint(folder, 5)

    def cut_off() -> None:
        with folder.new_checkpoint(10, 1.0, 1.0) as draft:
            (draft / "state").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == 5
    write_checkpoint(folder, 10)
    assert names(folder) == ["checkpoint-10"]


def test_of_two_checkpoints_the_later_by_step_counts(tmp_path):
    folder = TrialFolder(tmp_path)
    write_checkpoint(folder, 5)
    (tmp_path / "checkpoint-5").rename(tmp_path / "kept")
    write_checkpoint(folder, 10)
    (tmp_path / "kept").rename(tmp_path / "checkpoint-5")  # killed before it was removed
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == 10


def test_a_step_may_be_written_again(tmp_path):
    folder = TrialFolder(tmp_path)
    write_checkpoint(folder, 5)
    write_checkpoint(folder, 5)
    assert names(folder) == ["checkpoint-5"]


def test_all_is_removed_that_a_crash_leaves(tmp_path):
    folder = TrialFolder(tmp_path)
    write_checkpoint(folder, 5)
    for name in (".checkpoint-10", ".removed-checkpoint-2", ".student"):
        (tmp_path / name).mkdir()
    with folder.new_student() as draft:
        (draft / "student.json").write_text("{}")
    folder.remove_checkpoints()
    assert names(folder) == ["student"]


def test_an_outcome_has_the_resources_that_were_held(tmp_path):
    folder = TrialFolder(tmp_path)
    assert folder.read_outcome() is None
    outcome = outcome_of("failed", ResourceSettings(workers=2, cpus=4, gpus=1), 10.0, "why")
    folder.write_outcome(outcome, "trace")
    assert folder.read_outcome() == outcome
    assert (outcome.wall_s, outcome.gpu_s, outcome.cpu_s) == (10.0, 20.0, 80.0)
    assert (tmp_path / "error.txt").read_text() == "trace"


def test_a_checkpoint_has_its_name_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    folder = TrialFolder(tmp_path)
    write_checkpoint(folder, 5)
    flushed = []
    fsync = os.fsync

    def note(handle: int) -> None:
        there = {path.name for path in tmp_path.iterdir()}
        flushed.append((Path(os.readlink(f"/proc/self/fd/{handle}")).name, there))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_checkpoint(folder, 10)
    *contents, (last, there) = flushed
    assert {name for name, _ in contents} == {"state", "trial.json", ".checkpoint-10"}
    assert all("checkpoint-10" not in there for _, there in contents)
    # The new one's name is on the disk as well before the old one goes.
    assert last == tmp_path.name
    assert there == {"checkpoint-5", "checkpoint-10"}


def test_a_checkpoint_that_finds_no_room_leaves_what_there_was(small_disk):
    folder = TrialFolder(small_disk.path / "trial")
    folder.path.mkdir()
    write_checkpoint(folder, 5)
    small_disk.fill(free_kb=100)

    def write_too_much() -> None:
        with folder.new_checkpoint(10, 1.0, 1.0) as draft:
            (draft / "state").write_bytes(bytes(200_000))

    with pytest.raises(
        FullDiskError, match=r"no disk space for checkpoint-10: the disk of .* has 0.00"
    ):
        write_too_much()
    assert names(folder) == ["checkpoint-5"]
    write_checkpoint(folder, 10)  # a smaller one
    assert names(folder) == ["checkpoint-10"]


def test_where_it_was_started_is_read_though_the_line_before_was_cut_off(tmp_path):
    folder = TrialFolder(tmp_path)
    assert folder.read_last_start() is None
    folder.append_start({"workers": [{"node": "a"}]})
    (tmp_path / "workers.jsonl").open("a").write('{"workers": [{"no')
    folder.append_start({"workers": [{"node": "b"}]})
    assert folder.read_nodes() == {"b"}


def test_a_full_disk_is_reported_once(tmp_path):
    folder = TrialFolder(tmp_path)
    folder.write_full_disk("no room")
    assert folder.pop_full_disk() == "no room"
    assert folder.pop_full_disk() is None


def test_measurements_there_and_back(tmp_path):
    for step in (10, 20, 30):
        append_measurement(tmp_path, measured(step))
    assert read_measurements(tmp_path) == [measured(10), measured(20), measured(30)]
    assert [m.finished for m in read_measurements(tmp_path)] == [False, False, True]


def test_no_measurements_yet(tmp_path):
    assert read_measurements(tmp_path) == []


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_line_cut_off_is_left_out_and_replaced(tmp_path, kept):
    path = tmp_path / "measurements.jsonl"
    append_measurement(tmp_path, measured(10))
    append_measurement(tmp_path, measured(20))
    first, second, _ = path.read_text().split("\n")
    path.write_text(first + "\n" + second[:kept])
    assert read_measurements(tmp_path) == [measured(10)]
    append_measurement(tmp_path, measured(20, 0.7))
    assert read_measurements(tmp_path) == [measured(10), measured(20, 0.7)]


def test_the_very_first_line_cut_off(tmp_path):
    (tmp_path / "measurements.jsonl").write_text('{"step": 1')
    assert read_measurements(tmp_path) == []
    append_measurement(tmp_path, measured(10))
    assert read_measurements(tmp_path) == [measured(10)]


def test_of_a_step_measured_twice_the_later_counts(tmp_path):
    for step, score in ((10, 0.1), (20, 0.2), (10, 0.3)):
        append_measurement(tmp_path, measured(step, score))
    assert [(m.step, m.score) for m in read_measurements(tmp_path)] == [(10, 0.3), (20, 0.2)]
