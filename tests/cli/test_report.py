"""The commands around a run's page, as a user calls them."""

from __future__ import annotations

import socket

import pytest
import typer

from tests.support.run_folder import HandMade, full_run


def test_report_prints_where_the_page_is(called, tmp_path):
    run, other = full_run(tmp_path / "run"), full_run(tmp_path / "other")
    code, out, _ = called("report", run.path, "--compare", other.path)
    page = run.path / "report" / "report.html"
    assert (code, out.strip()) == (0, str(page))
    assert "Comparison of runs" in page.read_text("utf-8")


def test_open_opens_the_page(called, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(typer, "launch", lambda address: opened.append(address) or 0)
    run = full_run(tmp_path / "run")
    assert called("report", run.path, "--open")[0] == 0
    assert opened == [(run.path / "report" / "report.html").as_uri()]


@pytest.mark.parametrize("command", ["report", "watch", "ablate"])
def test_no_run(called, tmp_path, command):
    code, _, err = called(command, tmp_path / "nowhere")
    assert code == 2
    assert "is not a run folder: it has no manifest.json" in err
    assert not (tmp_path / "nowhere").exists()


def test_a_run_to_compare_with_is_none(called, tmp_path):
    code, _, err = called("report", full_run(tmp_path / "run").path, "--compare", tmp_path / "no")
    assert code == 2
    assert f"{tmp_path / 'no'}: is not a run folder" in err


def test_a_port_that_is_taken(called, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = called("watch", HandMade(tmp_path).run.path, "--port", port)
    assert code == 2
    assert f"--port: can't listen on {port}" in err


def test_nothing_to_ablate(called, tmp_path):
    made = HandMade(tmp_path)
    made.add("0000", None, "failed", error="no room")
    code, _, err = called("ablate", made.run.path)
    assert code == 2
    assert "has no complete trial" in err
