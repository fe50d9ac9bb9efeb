"""Object stores by their own protocol: what is written, read, and told when it can't be."""

from __future__ import annotations

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.uri import is_uri
from lkd_tune.jobs.client import JobServer
from lkd_tune.storage.fetch import (
    local_file,
    local_model,
    open_run,
    read_run,
    send_files,
    send_model,
)
from lkd_tune.storage.object_store import StorageError, Store
from tests.support.object_store import KEYS, gs_server, s3_server
from tests.support.run_folder import full_run

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket():
    with s3_server() as address:
        yield address


@pytest.fixture(params=["s3", "gs"])
def any_bucket(request, tmp_path_factory):
    google = request.param == "gs"
    with gs_server(tmp_path_factory.mktemp("gs")) if google else s3_server() as address:
        yield address


def test_addresses():
    assert is_uri("s3://bucket/runs")
    assert is_uri("gs://bucket")
    assert not any(map(is_uri, ("runs/first", "/runs", "bert-base-cased", "http://x", "s3:x")))


def test_objects(any_bucket, tmp_path):
    store = Store(f"{any_bucket}/runs/first/")
    assert store.list() == {}
    assert store.read("a/b.txt") is None
    store.write("a/b.txt", b"small")
    large = bytes(range(256)) * 80_000  # several parts
    (tmp_path / "large").write_bytes(large)
    with (tmp_path / "large").open("rb") as file:
        store.upload("large", file)
    assert {name: size for name, (size, _) in store.list().items()} == {
        "a/b.txt": 5,
        "large": len(large),
    }
    assert [*store.list("a")] == ["a/b.txt"]
    store.download("large", tmp_path / "again" / "large")
    assert (tmp_path / "again" / "large").read_bytes() == large
    with pytest.raises(FileNotFoundError):
        store.download("none", tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "large"]
    store.remove_folder("a")
    store.remove("large")
    store.remove("large")
    assert store.list() == {}


def test_a_bucket_that_is_not_there_is_reported(any_bucket):
    store = Store(f"{any_bucket}-not/runs/first")
    for call in (store.list, store.check_writable, lambda: read_run(store.address)):
        with pytest.raises(StorageError, match=r"there is no bucket ..://lkd-.*-not; create"):
            call()
    for address in ("s3://", "s3:///runs"):
        with pytest.raises(StorageError, match="has no bucket; write s3://BUCKET/RUN"):
            Store(address)


SECRET = "Planted/Secret"


@pytest.mark.parametrize(
    "address",
    [
        f"s3://KEY:{SECRET}@bucket/run",
        f"s3://{SECRET.lower()}@bucket/run",
        f"s3://KEY:{SECRET}",
        f"s3://bucket/run?secret_key={SECRET}&access_key=KEY",
        f"gs://bucket?token={SECRET}",
        "s3://two words/run",
        "s3://bucket%20x/run",
        "s3://-bucket/run",
    ],
)
def test_addresses_with_more_than_a_place_are_refused_and_not_repeated(address, tmp_path):
    run = full_run(tmp_path / "run")
    for call in (Store, open_run, read_run, local_model, local_file, submit):
        with pytest.raises(StorageError, match=r"^..://…: is not of the form ..://BUCKET/") as told:
            call(address)
        assert "secret" not in str(told.value).lower()
    with pytest.raises(SpecError, match=r"student\.init.choice.1: is not of") as told:
        load_space(run.space, [f"student.init={{choice: [teacher, '{address}']}}"])
    with pytest.raises(SpecError, match=r"--set teacher: is not of the form"):
        load_space(run.space, [f"teacher={address}"])


def submit(run: str) -> None:
    """Submits a search; that is refused before a server is asked."""
    JobServer.submit(object.__new__(JobServer), run=run, spaces={})


@pytest.mark.parametrize("name", ["a..b", "b", "Bucket_1", "bucket."])
def test_what_a_client_refuses_is_reported_too(bucket, name):
    with pytest.raises(StorageError, match="s3://"):
        Store(f"s3://{name}/run").list()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation", "lack the rights to list, read"),
        ("AWS Error UNKNOWN (HTTP status 403) during PutObject", "lack the rights to list, read"),
        (
            "AWS Error INVALID_ACCESS_KEY_ID during PutObject",
            "finds no credentials, or none that it accepts",
        ),
        ("google::cloud::Status(PERMISSION_DENIED: …)", "lack the rights to list, read"),
        ("AWS Error NETWORK_CONNECTION … Could not connect", "can't be reached (AWS_ENDPOINT_URL"),
    ],
)
def test_refusals_are_reported(bucket, said, told):
    assert told in str(Store(bucket)._error(said))


def test_missing_credentials_are_reported(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in KEYS:
        monkeypatch.delenv(name)
    refused = Store(bucket)._error("AWS Error ACCESS_DENIED during HeadObject operation")
    assert "no credentials are found for it; set AWS_ACCESS_KEY_ID" in str(refused)


def test_a_run_is_read_from_a_copy_that_is_kept_up_to_date(bucket, tmp_path):
    made, home = full_run(tmp_path / "made"), f"{bucket}/runs/first"
    with pytest.raises(SpecError, match=r"is not a run: it has no manifest\.json"):
        read_run(home)
    files = [path for path in made.path.rglob("*") if path.is_file()]
    send_files(type(made)(made.path, home), files)
    run = read_run(home)
    assert run.where == home
    assert run.read_trials() == made.read_trials()
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert not [*run.path.rglob("*.safetensors")]
    assert len([*read_run(home, students=True).path.rglob("*.safetensors")]) == len(weights)
    Store(home).remove_folder("trials/0001")
    left = {record.name for record in read_run(home).read_trials()}
    assert {record.name for record in made.read_trials()} - left == {"0001"}


def test_models_and_files_are_fetched(bucket, tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "weights"):
        (tmp_path / "model" / name).write_text(f'"{name}"')
    address = f"{bucket}/teacher"
    send_model(tmp_path / "model", address)
    folder = local_model(address)
    assert local_model(folder) == folder
    assert local_model("bert-base-cased") == "bert-base-cased"
    assert local_file(f"{address}/weights").read_text() == '"weights"'
    with pytest.raises(SpecError, match=r"s3://.*/none is not a model: it has no"):
        local_model(f"{bucket}/none")
    with pytest.raises(SpecError, match="there is no such object"):
        local_file(f"{address}/none.json")
