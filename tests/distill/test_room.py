"""The memory a process may have, which in a container is not the machine's."""

from __future__ import annotations

import psutil
import pytest

from lkd_tune.distill.room import host_memory

GIB = 2**30
TOTAL = psutil.virtual_memory().total


@pytest.fixture
def groups(tmp_path):
    """Writes control groups, and which of them this process is in."""

    def write(own: str, **limits: str) -> int:
        (tmp_path / "own").write_text(own)
        for name, limit in limits.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{limit}\n")
        return host_memory(tmp_path / "own", tmp_path / "groups")

    return write


@pytest.mark.parametrize(
    ("own", "limits", "memory"),
    [
        ("0::/\n", {"memory.max": GIB}, GIB),  # a container
        ("0::/\n", {"memory.max": "max"}, TOTAL),
        ("0::/\n", {"memory.max": 2**62}, TOTAL),
        # A batch job: the smallest of those it is in.
        ("0::/slurm/job_1/step\n", {"slurm/job_1/memory.max": GIB, "memory.max": 2 * GIB}, GIB),
        # Version 1; within a container the path may be the one outside.
        (
            "3:cpu:/a\n2:memory:/docker/1\n0::/\n",
            {"memory/memory.limit_in_bytes": GIB, "cpu/memory.limit_in_bytes": 1},
            GIB,
        ),
        ("", {}, TOTAL),
    ],
)
def test_the_smallest_limit_counts(groups, own, limits, memory):
    assert groups(own, **{name: str(limit) for name, limit in limits.items()}) == memory


def test_this_process_has_memory():
    assert 0 < host_memory() <= TOTAL
