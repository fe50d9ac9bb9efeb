"""What is found wrong with an environment, and that a good one passes."""

import os
import subprocess
import sys
from importlib import metadata

import pytest
import typer

from lkd_tune.cli import doctor


def _doctor(folder, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lkd_tune.cli", "doctor", "--run-dir", str(folder / "runs")],
        capture_output=True, text=True, timeout=500, check=False, cwd=folder,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_this_environment_is_fit(tmp_path):
    done = _doctor(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {
        line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if line[0] != " "
    }
    for check in ("packages", "compiler", "DeepSpeed", "GPU", "Ray", "cache", "runs"):
        assert states[check] in ("ok", "warn"), done.stdout


def test_what_is_missing_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_path", lambda: str(tmp_path))
    found = doctor.check_compiler()
    assert (found.state, found.found) == ("fail", "g++ and ninja not found")
    assert "apt-get install g++" in found.remedy


def test_packages_that_are_too_old_or_missing(monkeypatch):
    wanted = ["torch>=99", "no-such-package>=1", "pytest>=1; extra == 'dev'", "ray[tune]>=2"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    found = doctor.check_packages()
    assert found.state == "fail"
    assert f"torch is {metadata.version('torch')}, needed is >=99" in found.found
    assert "no-such-package is missing" in found.found
    assert "pytest" not in found.found
    assert "ray" not in found.found


def test_a_folder_that_can_t_be_written_to(tmp_path):
    (tmp_path / "file").write_text("x")
    found = doctor.check_folder(tmp_path / "file" / "cache", "LKD_TUNE_CACHE")
    assert found.state == "fail"
    assert "LKD_TUNE_CACHE" in found.remedy
    assert doctor.check_folder(tmp_path / "new" / "runs", "--run-dir").state in ("ok", "warn")
    assert not (tmp_path / "new").exists()


def test_each_finding_is_printed_before_the_next_check_begins(monkeypatch, capsys):
    printed = []

    def check(state):
        printed.append(capsys.readouterr().out)
        return doctor.Finding(state, f"is {state}", "" if state == "ok" else "mend it")

    checks = {state: lambda state=state: check(state) for state in ("ok", "fail", "warn")}
    monkeypatch.setattr(doctor, "checks_of", lambda run_dir: checks)
    with pytest.raises(typer.Exit):
        doctor.doctor()
    assert printed == ["", "ok    ok    is ok\n", "fail  fail  is fail\n            -> mend it\n"]
    assert capsys.readouterr().out.startswith("warn  warn  is warn\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", None),
        ("raise ValueError('no token')", "ValueError: no token"),
        ("import time; time.sleep(60)", "no answer within 3 seconds"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_errors_of_a_clean_process(code, expected):
    assert doctor._error_of(code, seconds=3 if "sleep" in code else 60) == expected
