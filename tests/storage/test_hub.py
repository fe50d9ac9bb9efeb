"""Reading from the hub where it can't be reached."""

import datasets
import pytest
from huggingface_hub import constants

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import load_split
from lkd_tune.models.loading import load_config
from lkd_tune.storage import hub
from tests.support.hub_server import Hub


def _online(monkeypatch, endpoint):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub, "_reached_at", None)
    monkeypatch.setattr(hub, "_failed_at", None)


TASK = TaskSettings(name="own", data="no/such", train="train", dev="dev")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_config("no/such"), "no/such can't be loaded .*`hf download no/such`"),
        (lambda: load_split(TASK, "dev"), "no/such  dev can't be loaded from the hub: it can't be"),
    ],
)
def test_without_a_network_the_hub_is_not_waited_for(monkeypatch, capfd, caplog, load, message):
    _online(monkeypatch, "http://127.0.0.1:9")  # where nothing answers

    def sleep(_):
        raise AssertionError("the hub's client waits before it tries again")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", sleep)
    with pytest.raises(SpecError, match=message) as error:
        load()
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_asked(monkeypatch):
    with Hub() as server:
        _online(monkeypatch, server.address)
        with hub.reading_hub():
            assert not constants.HF_HUB_OFFLINE
