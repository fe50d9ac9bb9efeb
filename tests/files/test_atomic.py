"""Files and folders that are written completely or not at all."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lkd_tune.files.atomic import (
    atomic_file,
    atomic_folder,
    remove_folder,
    write_atomically,
    write_once,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a" / "f.txt"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_of_those_who_write_at_once_one_counts(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for i in range(20):
            path, barrier = tmp_path / "latencies" / f"{i}.json", threading.Barrier(8)

            def write(mine, path=path, barrier=barrier):
                barrier.wait()
                return write_once(path, str(mine))

            contents = [*pool.map(write, range(8))]
            assert len({*contents}) == 1
            assert path.read_text() == contents[0]
    assert len([*(tmp_path / "latencies").iterdir()]) == 20
    assert write_once(tmp_path / "latencies" / "0.json", "late") != "late"


def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "array.npy"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.write("no bytes")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_the_old_one_when_it_is_complete(tmp_path):
    final = tmp_path / "student"
    for content in ("first", "second"):
        with atomic_folder(final) as folder:
            (folder / content).touch()
            assert [path.name for path in final.glob("*")] == ["first"] * (content == "second")
    with pytest.raises(FileNotFoundError), atomic_folder(final) as folder:
        (folder / "nowhere" / "third").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["student", "second"]
    remove_folder(final)
    remove_folder(final)  # there is none any more
    assert not [*tmp_path.iterdir()]
