"""`mcilib receive`, the real command."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import urllib3
from commands import Background, Receiver, Run, refused
from object_server import ObjectServer
from object_server import object_server as object_server
from ports import free_port
from waiting import until

from mcilib.format.batch import read_header
from mcilib.receiver import FolderStore
from mcilib.testing.fakes import example_batch

ROOT = Path(__file__).resolve().parents[2]
TYPE = "application/vnd.mcilib.batches"


def post(url: str, body: bytes, **headers: str) -> int:
    return urllib3.request(
        "POST", f"{url}/v1/batches", body=body, headers={"Content-Type": TYPE, **headers}
    ).status


# --- receive ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_when_told(
    number: int, here: Path, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", target.url)
    assert post(target.url, example_batch().data) == 200
    done = target.command.end(number)
    assert target.command.seconds < 15  # 20, were an idle connection waited for
    assert (done.returncode, done.stderr) == (0, "Stopped.\n")
    assert done.stdout == f"Receiving at {target.url} into {target.store}. Stop with Ctrl-C.\n"
    assert target.batches == 1


def test_port_and_host(here: Path, background: Callable[..., Background]) -> None:
    port = free_port()
    command = background("receive", "store", "--host", "localhost", "--port", str(port))
    assert f"Receiving at http://localhost:{port} into store." in command.line("Receiving")


def test_the_token_is_asked_for(here: Path, receiver: Callable[..., Receiver]) -> None:
    (here / "token").write_text("right\n")
    url = receiver("--token-file", "token").url
    assert post(url, example_batch().data) == 401
    assert post(url, example_batch().data, Authorization="Bearer right") == 200


def test_tls(here: Path, tls: dict[str, Path], receiver: Callable[..., Receiver]) -> None:
    url = receiver("--tls-cert", tls["cert"], "--tls-key", tls["key"]).url
    assert url.startswith("https://")
    with urllib3.PoolManager(ca_certs=str(tls["ca"])) as pool:
        assert pool.request("GET", f"{url}/v1/health").status == 200


def test_requests_of_one_device_are_limited(here: Path, receiver: Callable[..., Receiver]) -> None:
    url = receiver("--device-requests", "2").url
    data = example_batch().data
    assert [post(url, data) for _ in range(3)] == [200, 200, 429]


def test_days_that_are_over_go(here: Path, receiver: Callable[..., Receiver]) -> None:
    data = example_batch().data
    FolderStore("store", today=lambda: date(2020, 1, 1)).put([(read_header(data), data)])
    receiver("--retention-days", "30")
    until(lambda: not Path("store/batches/2020-01-01").exists())


def test_an_object_store(
    here: Path,
    object_server: ObjectServer,
    background: Callable[..., Background],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in object_server.environ.items():
        monkeypatch.setenv(name, value)
    store = f"s3://{object_server.bucket()}/prefix"
    line = background("receive", store, "--port", "0").line("Receiving")
    assert f" into {store}. Stop" in line
    url = line.split()[2]
    assert post(url, example_batch().data) == 200


def test_the_operators_token(here: Path, receiver: Callable[..., Receiver]) -> None:
    """Another one than the devices': it sees what participants ask for, and theirs does not."""
    (here / "devices").write_text("of-the-devices\n")
    (here / "operator").write_text("of-the-operator\n")

    def sees(url: str, token: str) -> int:
        return urllib3.request(
            "GET", f"{url}/v1/exemptions", headers={"Authorization": f"Bearer {token}"}
        ).status

    tokens = ["--token-file", "devices", "--operator-token-file", "operator"]
    url = receiver(*tokens).url
    assert (sees(url, "of-the-operator"), sees(url, "of-the-devices")) == (200, 401)
    assert post(url, example_batch().data, Authorization="Bearer of-the-operator") == 401


def test_the_file_and_flags_that_win(
    here: Path, tls: dict[str, Path], background: Callable[..., Background]
) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "token").write_text("of-the-file")
    data = example_batch().data
    FolderStore("store", today=lambda: date(2020, 1, 1)).put([(read_header(data), data)])
    (here / "conf" / "receiver.toml").write_text(
        '[receiver]\nhost = "localhost"\nport = 1\ntoken_file = "token"\nmax_body_bytes = 1024\n'
        "device_requests = 1\nretention_days = 30\n"
        f'tls_cert = "{tls["cert"]}"\ntls_key = "{tls["key"]}"\n'
    )
    command = background("receive", "store", "--config", "conf/receiver.toml", "--port", "0")
    url = command.line("Receiving").split()[2]
    until(lambda: not Path("store/batches/2020-01-01").exists())
    assert url.startswith("https://localhost:")
    headers = {"Content-Type": TYPE, "Authorization": "Bearer of-the-file"}
    with urllib3.PoolManager(ca_certs=str(tls["ca"])) as pool:
        assert pool.request("POST", f"{url}/v1/batches", body=data, headers=headers).status == 200
        assert pool.request("POST", f"{url}/v1/batches", body=data, headers=headers).status == 429
        assert pool.request("POST", f"{url}/v1/batches", body=b"x" * 1025, headers=headers).status == 413
        del headers["Authorization"]
        assert pool.request("POST", f"{url}/v1/batches", body=data, headers=headers).status == 401


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, "needs a token and TLS; missing: a token and TLS"),
        (["--host", "0.0.0.0", "--token-file", "token"], 2, "missing: TLS"),
        (["--host", "no.such.host.invalid"], 2, "'no.such.host.invalid'"),
        (["--token-file", "none"], 2, "The token file none cannot be read"),
        (["--tls-cert", "none.pem"], 2, "none.pem"),
        (["--retention-days", "0"], 2, "--retention-days must be a whole number from 1"),
        (["--device-requests", "0"], 2, "--device-requests must be a whole number from 1"),
    ],
)
def test_what_it_refuses(args: list[str], code: int, words: str, here: Path, mcilib: Run) -> None:
    (here / "token").write_text("t")
    refused(mcilib("receive", "store", "--port", "0", *args), code, words)


def test_a_port_that_is_taken(here: Path, mcilib: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(
            mcilib("receive", "store", "--port", str(taken.getsockname()[1])), 2, "is taken", "another port"
        )


def test_an_object_store_of_another_kind(here: Path, mcilib: Run) -> None:
    refused(mcilib("receive", "gs://bucket", "--port", "0"), 2, "gs://bucket", "s3://BUCKET/PREFIX")


def test_a_store_that_cannot_be_written(here: Path, mcilib: Run) -> None:
    (here / "store").write_text("")
    refused(mcilib("receive", "store", "--port", "0"), 6, "store")
