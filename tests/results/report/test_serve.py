"""A page that is served while its run changes."""

import signal
import subprocess
import sys
import time
import urllib.request

from tests.support.run_folder import HandMade


def read(address):
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode()


def test_the_page_follows_the_run(tmp_path):
    made = HandMade(tmp_path / "run")
    made.add("0000", 0.41)
    command = [sys.executable, "-m", "lkd_tune.cli", "watch", str(made.run.path), "--port", "0",
               "--every", "1"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            page = read(address)
            assert "0.410" in page
            assert 'http-equiv="refresh" content="1"' in page
            # As where a store can't be reached for a moment.
            made.run.manifest.rename(tmp_path / "aside")
            assert "not up to date: " in process.stdout.readline()
            assert "0.410" in read(address)
            (tmp_path / "aside").rename(made.run.manifest)
            made.add("0001", 0.62)
            until = time.monotonic() + 60
            while "0.620" not in read(address):
                assert time.monotonic() < until
                time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
    assert code == 0
    assert "http-equiv" not in (made.run.report / "report.html").read_text("utf-8")
