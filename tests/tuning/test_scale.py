"""The simulation of a large search runs; in a small search no slot waits long."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tuning" / "scale.py"


def test_the_simulation_ends_and_prints_its_figures(tmp_path):
    command = [sys.executable, str(SCRIPT), "--quick", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = re.findall(r"^ +4 +24 +([\d.]+)%", done.stdout, re.MULTILINE)
    assert float(row) > 95  # the driver has minutes for each of these decisions
    assert not [*tmp_path.iterdir()]
