"""What writes to a disk that is full, and what is told of that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lkd_tune.files.atomic import append_line, write_atomically
from lkd_tune.files.disk import FullDiskError, describe_full_disk, disk_space_for, is_full_disk
from lkd_tune.models.loading import load_tokenizer
from tests.support.tiny import make_teacher

WRITERS = {
    "text": lambda path, _: path.write_text("a" * 10**6),
    "whole text": lambda path, _: write_atomically(path, "a" * 10**6),
    "line": lambda path, _: append_line(path, "a" * 10**6),
    "array": lambda path, _: np.save(path, np.zeros(10**6)),
    "weights": lambda path, _: save_file({"a": torch.zeros(10**6)}, path),
    "tokenizer": lambda path, tokenizer: tokenizer.backend_tokenizer.save(str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_known_by_what_each_library_says(small_disk, tmp_path, name):
    tokenizer = load_tokenizer(str(make_teacher(tmp_path / "teacher")))
    small_disk.fill()

    def write() -> None:
        with disk_space_for("it", small_disk.path):
            WRITERS[name](small_disk.path / "written.npy", tokenizer)

    with pytest.raises(FullDiskError) as caught:
        write()
    assert str(caught.value).startswith(f"no disk space for it: the disk of {small_disk.path} on ")
    assert str(caught.value).endswith(" has 0.00 GB free")


def test_what_is_no_full_disk():
    assert not is_full_disk(FileNotFoundError(2, "No such file or directory"))
    assert not is_full_disk(RuntimeError("more GPUs were requested and none is free"))


def test_what_led_to_another_error_is_reported(tmp_path):
    error = RuntimeError("Traceback\nOSError: [Errno 28] No space left on device: '/a/b'\n")
    assert is_full_disk(error)
    told = describe_full_disk(error, tmp_path / "not" / "there")
    assert told.startswith("OSError: [Errno 28] No space left on device: '/a/b'; the disk of ")
    error.__cause__ = FullDiskError("no disk space for it")
    assert describe_full_disk(error, tmp_path) == "no disk space for it"


def test_a_line_that_a_full_disk_cut_off_is_replaced(small_disk):
    path = small_disk.path / "lines"
    append_line(path, "first")
    small_disk.fill()
    with pytest.raises(OSError, match="No space left on device"):
        append_line(path, "a" * 10**5)
    assert len(path.read_text()) > len("first\n")
    small_disk.empty()
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"
