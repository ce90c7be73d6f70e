"""What `--endpoint` may name beside a receiver: a folder (`file:///`) and an object store (`s3://`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from commands import Run, refused
from object_server import ObjectServer, object_server  # noqa: F401  (a fixture)

from mcilib.cli._endpoint import ask_endpoint, make_transport
from mcilib.config import Settings
from mcilib.delivery.folder import FolderTransport
from mcilib.delivery.objectstore import ObjectStoreTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import ConfigError, DeliveryError, McilibError
from mcilib.protocols import Outcome
from mcilib.testing.fakes import example_batch, example_grant

KEYS = {"AWS_ACCESS_KEY_ID": "AKEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret-key"}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def state(here: Path) -> Path:
    """A state folder with a grant, in which three batches wait."""
    grant = example_grant()
    (here / "state").mkdir(mode=0o700)
    grant.save(here / "state")
    with DirectorySpool(here / "state" / "spool") as spool:
        for _ in range(3):
            spool.commit(lambda sequence: example_batch(sequence, grant=grant))
    return here / "state"


def settings(endpoint: str, **upload) -> Settings:
    return Settings().override({"upload.endpoint": endpoint, **{f"upload.{k}": v for k, v in upload.items()}})


def exported(mcilib: Run, folder: Path) -> str:
    done = mcilib("export", folder)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_to_a_folder_and_back(mcilib: Run, here: Path, state: Path):
    """The way without a network: spool, folder, another machine, rows."""
    folder = here / "a stick"
    endpoint = folder.as_uri()
    drain = ("run", "--drain", "--state", state, "--endpoint", endpoint)
    refused(mcilib(*drain), 5, "3 batches still on this device", "is not there (removed, or its disk")
    folder.mkdir()
    done = mcilib(*drain)
    assert (done.returncode, "Delivered 3 batches." in done.stdout) == (0, True), done
    folder.rename(here / "carried")
    assert "Exported 3 rows from 3 batches" in exported(mcilib, here / "carried")


def test_to_a_bucket_and_back(mcilib: Run, here: Path, state: Path, object_server: ObjectServer):  # noqa: F811
    import obstore

    bucket = object_server.bucket()
    environ = {**os.environ, **object_server.environ}
    drain = ("run", "--drain", "--state", state, "--endpoint", f"s3://{bucket}/lab")
    refused(mcilib(*drain), 5, "There are no keys for the object store", "AWS_SECRET_ACCESS_KEY")
    done = mcilib(*drain, env=environ)
    assert (done.returncode, "Delivered 3 batches." in done.stdout) == (0, True), done
    store = object_server.store(bucket)
    for each in [each for page in obstore.list(store) for each in page]:
        (here / "copy" / each["path"]).parent.mkdir(parents=True, exist_ok=True)
        (here / "copy" / each["path"]).write_bytes(obstore.get(store, each["path"]).bytes())
    assert "Exported 3 rows from 3 batches" in exported(mcilib, here / "copy")


def test_doctor_tries_whether_it_can_be_written(mcilib: Run, here: Path):
    (here / "there").mkdir()
    done = mcilib("doctor", "--endpoint", (here / "there").as_uri())
    assert f"{(here / 'there').as_uri()} can be written" in done.stdout
    assert "offset" not in done.stdout, "a folder has no clock"
    done = mcilib("doctor", "--endpoint", (here / "gone").as_uri())
    assert "is not there (removed, or its disk not plugged in)" in done.stdout


def test_what_is_asked_of_a_folder(tmp_path: Path):
    (tmp_path / "ä b").mkdir()
    transport = make_transport(settings((tmp_path / "ä b").as_uri()))
    assert isinstance(transport, FolderTransport)
    assert transport.path == tmp_path / "ä b"
    assert ask_endpoint(transport).outcome is Outcome.DELIVERED
    local = make_transport(settings(f"file://localhost{tmp_path}"))
    assert isinstance(local, FolderTransport)
    assert local.path == tmp_path
    assert ask_endpoint(make_transport(settings("file:///no/such"))).outcome is Outcome.RETRY


@pytest.mark.parametrize(
    ("endpoint", "upload", "error", "words"),
    [
        ("file:relative", {}, DeliveryError, "not a folder of this machine"),
        ("file://host/share", {}, DeliveryError, "not a folder of this machine"),
        ("file:///a?b", {}, DeliveryError, "not a folder of this machine"),
        ("file:///a", {"token_file": Path("token")}, ConfigError, "takes no token"),
        ("file:///a", {"ca_file": Path("ca.pem")}, ConfigError, "needs no certificates"),
        ("s3://bucket", {"token_file": Path("token")}, ConfigError, "takes no token"),
        *(
            (endpoint, {key: value}, ConfigError, words)
            for endpoint in ("file:///a", "s3://bucket")
            for key, value, words in (
                ("client_cert", Path("me.pem"), "takes no client certificate"),
                ("client_key", Path("me.key"), "takes no client certificate"),
                ("proxy", "http://p:1", "takes no proxy"),
            )
        ),
        ("s3://bucket", {"ca_file": Path("/no/ca.pem")}, DeliveryError, "cannot be read"),
        ("s3://", {}, DeliveryError, "names no bucket"),
    ],
)
def test_what_cannot_work_is_told_at_once(monkeypatch, endpoint, upload, error: type[McilibError], words):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=words):
        make_transport(settings(endpoint, **upload))


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_both_keys_are_needed(monkeypatch, missing):
    for name, value in KEYS.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(DeliveryError, match="no keys"):
        make_transport(settings("s3://bucket"))


@pytest.mark.parametrize(
    ("environ", "address", "region"),
    [
        ({}, "https://s3.us-east-1.amazonaws.com", "us-east-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ({"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "x"}, "https://s3.eu-west-2.amazonaws.com", "eu-west-2"),
        ({"AWS_ENDPOINT_URL": "https://s3.example.org"}, "https://s3.example.org", "us-east-1"),
        ({"AWS_ENDPOINT_URL": "https://a.org", "AWS_ENDPOINT_URL_S3": "https://b.org"}, "https://b.org", "us-east-1"),
    ],
)  # fmt: skip
def test_what_the_environment_says(monkeypatch, environ, address, region):
    for name, value in {**KEYS, "AWS_SESSION_TOKEN": "t0ken", **environ}.items():
        monkeypatch.setenv(name, value)
    made: dict[str, Any] = {}
    real = ObjectStoreTransport.__init__

    def noted(self, url, **options):
        made.update(options, url=url)
        real(self, url, **options)

    monkeypatch.setattr(ObjectStoreTransport, "__init__", noted)
    transport = make_transport(settings("s3://bucket/lab", timeout_s=3.0))
    assert isinstance(transport, ObjectStoreTransport)
    assert (transport._address, made["region"], made["timeout_s"]) == (address, region, 3.0)
    credentials = made["credentials"]
    assert (credentials.access_key_id, credentials.secret_access_key) == tuple(KEYS.values())
    assert credentials.session_token == "t0ken"
