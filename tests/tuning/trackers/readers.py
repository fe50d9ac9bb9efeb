"""Functions that read what trackers logged, without the code that wrote it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32768


@dataclass
class Logged:
    """A trial: all that was ever logged of it, twice if it was logged twice."""

    params: dict[str, Any] = field(default_factory=dict)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    state: str | None = None

    def steps(self, name: str = "train_s") -> list[int]:
        return [step for step, _ in self.series.get(name, [])]


def read_tensorboard(run: Path) -> dict[str, Logged]:
    """Returns the trials by the names of their folders, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {}
    for folder in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        series = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
        contents = {
            name.rpartition("/")[2]: HParamsPluginData.FromString(content)
            for name, content in events.summary_metadata.items()
            for content in [content.plugin_data.content]
            if name.startswith("_hparams_/")
        }
        values = contents["session_start_info"].session_start_info.hparams
        params = {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}
        ended = "session_end_info" in contents
        found[folder.name] = Logged(params, series, "ended" if ended else "running")
    return found


def read_mlflow(uri: str, experiment: str) -> dict[str, Logged]:
    """Returns the trials by the names of their runs, by MLflow's client; no name may be twice."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(experiment)
    found: dict[str, Logged] = {}
    for run in client.search_runs([known.experiment_id]):
        name, tags = run.info.run_name, run.data.tags
        assert name not in found
        series = {
            key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        state = f"{run.info.status} {tags['state']}"
        found[name] = Logged({**run.data.params, "role": tags["role"]}, series, state)
    return found


def read_wandb(run: Path) -> dict[str, Logged]:
    """Returns the trials by their names, from what lies there to be sent.

    As a server would have it: the files of one id one after the other.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Logged] = {}
    names: dict[str, str] = {}
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        current = Logged()
        for content in _records(path.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("run"):
                names.setdefault(record.run.run_id, record.run.display_name)
                assert names[record.run.run_id] == record.run.display_name
                current = found.setdefault(record.run.display_name, Logged())
                current.params |= {"role": record.run.job_type, "group": record.run.run_group}
                current.params |= {
                    item.key: json.loads(item.value_json) for item in record.run.config.update
                }
            elif record.HasField("config"):
                current.params |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.config.update
                }
            elif record.HasField("history"):
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                for key, value in row.items():
                    if not key.startswith("_"):
                        current.series.setdefault(key, []).append((row["_step"], value))
            elif record.HasField("summary"):
                for item in record.summary.update:
                    if (item.key or item.nested_key[0]) == "state":
                        current.state = json.loads(item.value_json)
    assert len({*names.values()}) == len(names)
    return found


def _records(content: bytes) -> Iterator[bytes]:
    """Gives the records of LevelDB's log format: parts of blocks, after a head of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""
