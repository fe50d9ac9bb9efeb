"""The group of a process that trains alone."""

import subprocess
import sys

PROGRAM = """
import atexit
import torch.distributed as dist
from lkd_tune.runtime.process_group import ensure_process_group
atexit.register(lambda: print("at last", dist.is_initialized()))
ensure_process_group()
print(dist.is_initialized())
"""


def test_a_process_leaves_its_group_when_it_ends():
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n")[:2] == ["True", "at last False"]
    assert "destroy_process_group" not in told.stderr
