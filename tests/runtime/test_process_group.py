"""The group of a process that trains alone."""

import subprocess
import sys

import torch.distributed as dist

from lkd_tune.distillation.engine import Distillation
from lkd_tune.runtime.process_group import leave_process_group
from tests.distillation.test_engine import _spec

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


def test_a_process_that_left_its_group_trains_in_another(tmp_path):
    steps = []
    for _ in range(2):
        with Distillation(_spec(tmp_path)) as distillation:
            steps.append(next(distillation).step)
        leave_process_group()
        assert not dist.is_initialized()
    assert steps[0] == steps[1] > 0
