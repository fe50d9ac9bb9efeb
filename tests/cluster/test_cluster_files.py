"""The files in cluster/, each read by what will read it in the field."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.autoscaler._private.util import prepare_config, validate_config

from lkd_tune import __version__
from lkd_tune.records.run import RunFolder
from tests.support.tiny import make_space
from tests.system.driver import wait_until
from tests.system.test_nodes import nodes_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
TOOLS = Path(sysconfig.get_path("scripts"))
SLURM = FOLDER / "slurm.sbatch"


def check(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_ray_up_takes_the_file(name):
    config = yaml.safe_load((FOLDER / name).read_text())
    validate_config(prepare_config(config))
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert types["gpu"]["min_workers"] == 0
    assert types["gpu"]["resources"]["GPU"] > 0
    assert config["provider"]["use_internal_ips"]
    assert "spot" in str(types["gpu"]["node_config"]).lower()
    assert f"lkd-tune:{__version__}" in config["docker"]["image"]
    # The token comes from this machine, and the image has it asked for.
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    for command in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE" not in command
    # The image's user is not root, to whom a new file system belongs.
    assert any("chown 1000:1000 /shared/runs" in each for each in config["initialization_commands"])
    # `ray up` opens SSH to the world for nodes that name no group of their own.
    if name == "aws.yaml":
        assert all(node["node_config"]["SecurityGroupIds"] for node in types.values())
    else:
        for node in types.values():
            assert all("accessConfigs" not in n for n in node["node_config"]["networkInterfaces"])
        scheduling = types["gpu"]["node_config"]["scheduling"]
        assert scheduling == {"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE"}


def manifests(name: str) -> list[dict]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kubernetes_takes_the_pods_and_claims(name):
    ray_object, claim = manifests(name)
    kubernetes_validate.validate(claim, "1.31", strict=True)
    spec = ray_object["spec"]
    spec = spec.get("rayClusterSpec", spec)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod"},
            "spec": group["template"]["spec"],
        }
        kubernetes_validate.validate(pod, "1.31", strict=True)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["enableInTreeAutoscaling"]
    (gpu,) = spec["workerGroupSpecs"]
    assert gpu["minReplicas"] == 0
    assert "nvidia.com/gpu" in str(gpu["template"])


def kuberay_problems(manifest: dict) -> list[str]:
    """Returns what KubeRay's schema does not take, keys that it does not know among it."""
    crds = ROOT / "tests" / "support" / "kuberay_crds.yaml"
    schema = yaml.safe_load(crds.read_text())[manifest["kind"]]
    found = Draft202012Validator(_closed(schema)).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def _closed(schema):
    """Returns a schema that refuses unknown keys, as the API server does for `kubectl apply`."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_takes_the_file(name):
    assert kuberay_problems(manifests(name)[0]) == []


CLUSTER = ("spec", "rayClusterSpec")


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "backofLimit"), 3, "spec: Additional properties are not allowed"),
        (("spec", "backoffLimit"), "3", "spec.backoffLimit: '3' is not of type 'integer'"),
        ((*CLUSTER, "autoscalerOption"), {}, "rayClusterSpec: Additional properties"),
        ((*CLUSTER, "autoscalerOptions", "idleTimeout"), 60, "autoscalerOptions: Additional"),
        ((*CLUSTER, "authOptions", "mode"), "tokens", "'tokens' is not one of"),
        ((*CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus"), 0, "0 is not of type 'string'"),
        ((*CLUSTER, "headGroupSpec", "servicetype"), "ClusterIP", "headGroupSpec: Additional"),
        ((*CLUSTER, "workerGroupSpecs", 0, "maxReplica"), 8, "workerGroupSpecs.0: Additional"),
        ((*CLUSTER, "workerGroupSpecs", 0, "groupName"), None, "None is not of type 'string'"),
        (("apiVersion",), "ray.io/v1alpha1", "is not one of ['ray.io/v1']"),
    ],
)
def test_a_slip_in_kuberay_s_part_is_seen(path, value, problem):
    manifest = manifests("rayjob.yaml")[0]
    block = manifest
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    (found,) = kuberay_problems(manifest)
    assert problem in found


def test_what_kuberay_needs_is_missed():
    manifest = manifests("raycluster.yaml")[0]
    del manifest["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    del manifest["spec"]["headGroupSpec"]["template"]
    assert sorted(kuberay_problems(manifest)) == [
        "spec.headGroupSpec: 'template' is a required property",
        "spec.workerGroupSpecs.0: 'maxReplicas' is a required property",
    ]


def test_the_slurm_script_is_sound():
    check("bash", "-n", SLURM)
    check(TOOLS / "shellcheck", SLURM)


def test_the_image_s_file_is_sound():
    check(TOOLS / "hadolint", FOLDER / "Dockerfile")
    for source in re.findall(r"^COPY (.*) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE):
        assert all((ROOT / each).exists() for each in source.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_open_and_nothing_secret(path):
    text = path.read_text()
    assert not re.search(r"0\.0\.0\.0|\[?::\]?/0|LoadBalancer|NodePort|hostNetwork", text)
    assert not re.search(r"dashboard-host=(?!127\.0\.0\.1)", text)
    assert "RAY_AUTH_MODE=disabled" not in text
    assert not re.search(
        r"AKIA|BEGIN .*PRIVATE KEY|(token|password|secret|key)\w*[:=] *[\"']?\w{16,}", text, re.I
    )


def test_ray_asks_for_a_token_in_the_image_and_on_slurm():
    image = (FOLDER / "Dockerfile").read_text()
    assert re.search(r"^ENV .*\bRAY_AUTH_MODE=token\b", image, re.MULTILINE)
    script = SLURM.read_text()
    exported = script.index("export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=")
    assert exported < script.index("ray start")


STUB = """#!{python}
import os, sys
# What Slurm would start on another machine is started here.
arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    arguments.pop(0)
os.execvp(arguments[0], arguments)
"""


@pytest.fixture
def slurm(tmp_path):
    """Starts the script as Slurm would, where a job has two nodes; gives its process."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    ray = f"#!/bin/sh\nexec {sys.executable} -c 'from ray.scripts.scripts import main; main()' "
    scontrol = f"""#!/bin/sh
if [ "$1" = requeue ]; then echo "$2" >>{tmp_path}/requeued; else printf 'first\\nsecond\\n'; fi
"""
    texts = {
        "srun": STUB.format(python=sys.executable),
        "scontrol": scontrol,
        "hostname": "#!/bin/sh\necho 127.0.0.1\n",
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "ray": ray + '"$@"\n',
        "lkd-tune": f'#!/bin/sh\nexec {sys.executable} -m lkd_tune.cli "$@"\n',
    }
    for name, text in texts.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod((stubs / name).stat().st_mode | stat.S_IXUSR)
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SPACE": str(tmp_path / "space.yaml"),
        "RUN": str(tmp_path / "runs" / "first"),
        "SLURM_JOB_NODELIST": "[first,second]",
        "SLURM_CPUS_PER_TASK": "1",
    }
    started = []

    def start(job: int) -> subprocess.Popen[str]:
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(
                ["bash", SLURM, "--set", "search.baseline=false"],
                env=env | {"SLURM_JOB_ID": str(job)},
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.mark.slow
def test_a_slurm_job_searches_on_two_nodes_is_stopped_requeued_and_continues(tmp_path, slurm):
    make_space(
        tmp_path,
        resources={"workers": 2, "cpus": 1},
        train={"steps": 1000, "evaluations": 6},
        search={"trials": 1, "scheduler": "none"},
        student={"depth": 1},
    )
    run, log = RunFolder(tmp_path / "runs" / "first"), tmp_path / "log"
    job = slurm(os.getpid())
    wait_until(lambda: bool([*run.path.glob("trials/*/checkpoint-*")]), job)
    job.terminate()  # as Slurm does two minutes before the time is up
    assert job.wait(120) == 130, log.read_text()
    assert (tmp_path / "requeued").read_text() == f"{os.getpid()}\n"
    assert run.read_trial("0000").state == "running"
    assert slurm(os.getpid() + 1).wait(400) == 0, log.read_text()
    # One CPU each, so that two workers take two nodes.
    *_, workers = nodes_of(run, "0000")
    assert len(set(workers)) == 2
    assert run.read_trial("0000").state == "complete"
    assert len((tmp_path / "requeued").read_text().split()) == 1
    assert not list(run.path.glob(".token*"))


@pytest.mark.slow
def test_a_slurm_job_that_is_stopped_before_its_search_is_requeued(tmp_path, slurm):
    make_space(tmp_path)
    log = tmp_path / "log"
    job = slurm(os.getpid() + 2)
    wait_until(lambda: "head: first" in log.read_text(), job)
    job.terminate()
    assert job.wait(120) == 143, log.read_text()
    assert (tmp_path / "requeued").read_text() == f"{os.getpid() + 2}\n"
    run = tmp_path / "runs" / "first"
    assert not (run / "manifest.json").exists()
    assert not [*run.glob(".token*")]
