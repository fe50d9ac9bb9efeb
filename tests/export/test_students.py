import shutil
import subprocess

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.export.students import export_students
from tests.support.run_folder import HandMade, full_run


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*"))
            if path.is_file()}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return full_run(tmp_path / "run")


def test_students_are_copied_best_first(run, tmp_path):
    to = tmp_path / "out" / "students"
    (run.student("0003") / "model.safetensors").chmod(0o600)
    assert export_students(run, 2, to) == [to / "1", to / "2"]
    assert sorted(path.name for path in to.iterdir()) == ["1", "2"]
    for place, name in (("1", "0003"), ("2", "0000")):
        copied, added = files_in(to / place), {"README.md", "SHA256SUMS"}
        assert files_in(run.student(name)) == {
            name: text for name, text in copied.items() if name not in added
        }
        assert added < set(copied)
    sums = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(sums, cwd=to / "1", check=False).returncode == 0
    assert (to / "1").stat().st_mode & 0o777 == 0o755
    assert (to / "1" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_an_empty_folder_may_be_there(run, tmp_path):
    (tmp_path / "to").mkdir()
    assert len(export_students(run, 1, tmp_path / "to")) == 1


def test_a_used_folder_is_left_alone(run, tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine").write_text("x")
    with pytest.raises(SpecError, match=r"--to: .*to is not empty; name a new folder"):
        export_students(run, 1, tmp_path / "to")
    assert files_in(tmp_path / "to") == {"mine": "x"}


def test_more_than_are_kept(run, tmp_path):
    with pytest.raises(
        SpecError, match=r"--top: 3 students requested, but the run keeps 2 .*use --top 2"
    ):
        export_students(run, 3, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_nothing_kept_yet(tmp_path):
    made = HandMade(tmp_path / "run")
    made.add("0000", 0.5, None)
    with pytest.raises(SpecError, match="has no student yet"):
        export_students(made.run, 1, tmp_path / "to")


def test_a_copy_that_fails_leaves_no_half(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(OSError, match="no disk space for student 1"):
        export_students(run, 1, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_student_that_makes_way_meanwhile(run, tmp_path, monkeypatch):
    copy = shutil.copytree

    def remove_then_copy(source, *args, **options):
        shutil.rmtree(source)
        return copy(source, *args, **options)

    monkeypatch.setattr(shutil, "copytree", remove_then_copy)
    with pytest.raises(SpecError, match="student 0003 was just replaced by a better one"):
        export_students(run, 1, tmp_path / "to")
