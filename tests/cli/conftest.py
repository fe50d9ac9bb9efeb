"""The command line, called in the process of the tests."""

import sys

import pytest

from lkd_tune.cli.main import main


@pytest.fixture
def called(monkeypatch, capsys):
    """Calls lkd-tune in this process; gives exit code, standard output and error."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["lkd-tune", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call
