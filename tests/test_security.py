"""What SECURITY.md promises."""

from __future__ import annotations

import ast
import functools
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils.cpp_extension import get_default_build_root

import lkd_tune
from lkd_tune.config.errors import SpecError
from lkd_tune.config.source import parse_source
from lkd_tune.jobs.client import JobServer
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.runtime.process_group import ensure_process_group, leave_process_group
from tests.support.job_server import job_server
from tests.support.tiny import LABELS, make_space, make_teacher

SECRETS = {
    "HF_TOKEN": "hf_PlantedSecretOfTheHub",
    "AWS_SECRET_ACCESS_KEY": "PlantedSecretOfAws",
    "WANDB_API_KEY": "PlantedSecretOfATrackerWhichHasFortyLetters",
    "MLFLOW_TRACKING_TOKEN": "PlantedSecretOfAnother",
}
SOURCES = sorted(Path(lkd_tune.__file__).parent.rglob("*.py"))

# A search as a user starts one; while it runs, a trial's process says who listens where.
DRIVER = """
import json, os, sys
from pathlib import Path
import psutil
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.tuner import run_search
from lkd_tune.results.report.page import write_report
from lkd_tune.records.run import RunFolder
from lkd_tune.config.read_space import load_space

def listening():
    own = psutil.Process()
    seen = []
    for process in [own, *own.children(recursive=True)]:
        try:
            sockets = process.net_connections(kind="inet")
            name = process.name()
        except psutil.NoSuchProcess:
            continue  # Ray's helpers come and go
        listens = [each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN]
        seen.append([name, [ip.removeprefix("::ffff:") for ip in listens]])
    return seen

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    seen = []
    told = SearchCallback.on_trial_result
    def spy(self, *arguments, **info):
        import ray
        session = ray._private.worker._global_node.get_session_dir_path()
        seen.append([session, os.environ.get("RAY_AUTH_MODE"), listening()])
        told(self, *arguments, **info)
    SearchCallback.on_trial_result = spy
    run = RunFolder(folder / "run")
    run_search(load_space(folder / "space.yaml"), run)
    write_report(run)
    (folder / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a run and all it left, made with secrets in the environment."""
    folder = tmp_path_factory.mktemp("searched")
    make_space(
        folder,
        losses=LABELS,
        student={"depth": 1},
        layer_map="skip",
        train={"steps": 4, "evaluations": 2, "lr": {"choice": [1e-3, 1e30]}},
        search={"trials": 2, "scheduler": "none"},
        resources={"workers": 2, "cpus": 1},
        trackers=["tensorboard", {"mlflow": {"uri": f"sqlite:///{folder}/mlflow.db"}}, "wandb"],
    )
    (folder / "driver.py").write_text(DRIVER)
    root = Path(__file__).parents[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= SECRETS | {"PYTHONPATH": str(root), "HOME": str(folder / "home")}
    environment["WANDB_MODE"] = "offline"
    environment["LKD_TUNE_CACHE"] = str(folder / "cache")
    # What DeepSpeed has compiled lies in the home, too, and takes a minute to be made again.
    built = Path(get_default_build_root())
    built.mkdir(parents=True, exist_ok=True)
    (folder / "home" / ".cache").mkdir(parents=True)
    (folder / "home" / ".cache" / "torch_extensions").symlink_to(built)
    done = subprocess.run(
        [sys.executable, str(folder / "driver.py"), str(folder)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.mark.slow
def test_ray_asks_for_a_token_that_others_can_not_read(searched):
    modes = {mode for _, mode, _ in json.loads((searched / "seen.json").read_text())}
    assert modes == {"token"}
    token = searched / "home" / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.slow
def test_nothing_listens_beyond_loopback(searched):
    seen = json.loads((searched / "seen.json").read_text())
    assert seen
    for *_, processes in seen:
        listening = {name.partition(".")[0]: addresses for name, addresses in processes}
        assert listening.keys() >= {"gcs_server", "raylet", "ray::DistillationTrainable"}
        assert listening["gcs_server"]
        assert {ip for _, addresses in processes for ip in addresses} == {"127.0.0.1"}


@pytest.mark.slow
def test_secrets_are_in_nothing_that_is_written(searched):
    sessions = {Path(path) for path, *_ in json.loads((searched / "seen.json").read_text())}
    files = [file for root in (searched, *sessions) for file in root.rglob("*") if file.is_file()]
    assert {
        "manifest.json", "study.journal", "report.html", "error.txt", "printed.txt", "mlflow.db"
    } <= {file.name for file in files}  # fmt: skip
    for logged in ("tensorboard/0000/events.out*", "wandb/offline-run-*/run-*.wandb"):
        assert [*(searched / "run").glob(logged)]
    for file in files:
        content = file.read_bytes()
        for name, secret in SECRETS.items():
            assert secret.encode() not in content, (name, file)


def test_a_job_is_sent_no_secret(tmp_path, monkeypatch):
    """All that reaches the job server is looked at: the package, the files, the request itself."""
    secrets = SECRETS | {"RAY_AUTH_TOKEN": "f" * 64}
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back by pytest
    space = make_space(tmp_path / "home")
    with job_server() as server:
        client = JobServer(server.address)
        client.submit(run=f"{tmp_path}/run", spaces={"": space}, ship=True, cache=str(tmp_path))
    sent = b"\n".join(server.received)
    for part in (b"job.json", b"train.csv", b"lkd_tune/jobs/client.py", b"RAY_JOB_STOP_SIGNAL"):
        assert part in sent
    assert not [name for name, secret in secrets.items() if secret.encode() in sent]
    variables = json.loads(server.received[-1])["runtime_env"]["env_vars"]
    assert not variables.keys() & secrets.keys()


def test_a_lone_rank_listens_nowhere_else():
    def listening():
        found = psutil.Process().net_connections(kind="inet")
        return {each.laddr for each in found if each.status == psutil.CONN_LISTEN}

    leave_process_group()
    before = listening()  # as of a Ray that other tests share
    ensure_process_group()
    try:
        assert {address.ip for address in listening() - before} <= {"127.0.0.1"}
    finally:
        leave_process_group()


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickled_weights_are_refused_unrun(tmp_path):
    folder, mark = make_teacher(tmp_path / "model"), tmp_path / "mark"
    (folder / "model.safetensors").unlink()
    torch.save({"bert.pooler.dense.bias": Evil(mark)}, folder / "pytorch_model.bin")
    with pytest.raises((SpecError, pickle.UnpicklingError)):
        load_model(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_model_that_brings_code_is_refused_unrun(tmp_path, load):
    folder, mark = make_teacher(tmp_path / "model"), tmp_path / "mark"
    code = "own.Own"
    autos = dict.fromkeys(["AutoConfig", "AutoModelForSequenceClassification"], code)
    for name, own in (
        ("config.json", {"auto_map": autos, "model_type": "own"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [code, code]}}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | own))
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    if load == load_model:
        with pytest.raises(SpecError, match="can't be loaded"):
            load(str(folder))
    else:
        load(str(folder))  # it has files beside its code, which will do
    assert not mark.exists()


def test_a_space_file_makes_no_objects(tmp_path):
    mark = tmp_path / "mark"
    text = f"task: !!python/object/apply:os.system ['touch {mark}']\nteacher: t\n"
    with pytest.raises(SpecError, match=r"mine\.yaml:1"):
        parse_source(text, "mine.yaml")
    assert not mark.exists()


@functools.cache
def _all_calls():
    return [*_calls()]


def _calls():
    """Gives each call in the package: its file and line, its name, and its named arguments."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                named = {each.arg: ast.unparse(each.value) for each in node.keywords}
                yield f"{path.name}:{node.lineno}", ast.unparse(node.func), named


def test_no_shell_no_pickle_and_no_code_of_others():
    refused = ("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "pickle.load")
    for place, name, named in _all_calls():
        assert name not in refused, place
        assert not name.startswith(("pickle.", "cloudpickle.", "dill.")), place
        assert named.get("shell", "False") == "False", place
        assert named.get("trust_remote_code", "False") == "False", place
        assert named.get("allow_pickle", "False") == "False", place
        if name == "torch.load":
            assert named.get("weights_only") == "True", place
        if name in ("yaml.load", "yaml.compose"):
            assert named["Loader"] == "_Loader", place  # of SafeLoader's kind


def test_pages_escape_by_default():
    environments = [named for _, name, named in _all_calls() if name == "Environment"]
    assert environments
    assert {named.get("autoescape") for named in environments} == {"True"}
