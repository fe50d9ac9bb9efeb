"""Limits of control groups, as files of the kernel's tell them."""

from __future__ import annotations

import psutil
import pytest

from lkd_tune.runtime.host_memory import host_memory

GIB = 2**30
LINES = {"v2": "0::/pod/worker\n", "v1": "5:cpu,cpuacct:/pod\n4:memory:/pod/worker\n"}
NAMES = {
    "v2": ("", "memory.max", "memory.current"),
    "v1": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("group", ["pod/worker", "pod", ""], ids=["own", "above", "root"])
def test_the_limit_of_any_group_around_counts(tmp_path, version, group):
    own, (below, limit, taken) = tmp_path / "own", NAMES[version]
    own.write_text(LINES[version])
    (tmp_path / below / group).mkdir(parents=True, exist_ok=True)
    (tmp_path / below / group / limit).write_text(f"{GIB}\n")
    (tmp_path / below / group / taken).write_text(f"{GIB // 4}\n")
    total, free = host_memory(own, tmp_path)
    assert total == GIB
    assert free <= 3 * GIB // 4


@pytest.mark.parametrize("text", ["max", str(2**63 - 4096)], ids=["v2", "v1"])
def test_no_limit_is_the_machine_s(tmp_path, text):
    own = tmp_path / "own"
    own.write_text(LINES["v2"])
    (tmp_path / "memory.max").write_text(text)
    (tmp_path / "memory.current").write_text("0")
    for there in (own, tmp_path / "nothing"):
        assert host_memory(there, tmp_path)[0] == psutil.virtual_memory().total
