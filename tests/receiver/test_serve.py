"""`serve` in processes of its own: where it listens, what it refuses, how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import date
from functools import partial
from urllib.parse import urlsplit

import pytest
import trustme
import urllib3
from cryptography.hazmat.primitives import serialization as s
from ports import free_port
from waiting import until

from mcilib.errors import ConfigError, StoreError
from mcilib.format.batch import read_header
from mcilib.receiver import FolderStore, serve

TYPE = "application/vnd.mcilib.batches"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="session")
def ca():
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(ca, tmp_path_factory):
    """Options of `serve` for TLS on this machine's names."""
    folder = tmp_path_factory.mktemp("tls")
    issued = ca.issue_cert("localhost", "127.0.0.1", "::1", "0.0.0.0")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}


def health(url: str, **options) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=10, **options) as pool:
        return pool.request("GET", url + "/v1/health")


def is_healthy(url: str) -> bool:
    with suppress(urllib3.exceptions.HTTPError):
        return health(url).status == 200
    return False


def loopback6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        pytest.param(
            "::1",
            "[::1]",
            marks=pytest.mark.skipif(not loopback6(), reason="this machine has no IPv6 loopback"),
        ),
    ],
)
def test_loopback_by_each_name(receiver, tmp_path, host, shown):
    running = receiver(tmp_path / "store", host=host)
    assert running.url == f"http://{shown}:{running.port}"
    assert running.port > 0
    answer = health(running.url)
    assert answer.status == 200
    assert "server" not in answer.headers
    assert "date" in answer.headers  # senders compute Retry-After against it


def test_it_listens_on_loopback_unless_told_otherwise(receiver, tmp_path):
    running = receiver(tmp_path / "store")
    assert urlsplit(running.url).hostname == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", running.port), timeout=5)


def test_ready_means_listening_and_nothing_else_is_printed(receiver, tmp_path, frame, post):
    running = receiver(tmp_path / "store")
    for _ in range(3):
        assert post(running.url, frame(1))[0] == 200
    post(running.url, b"garbage")
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        connection.recv(100)
    assert running.end()[:3] == (0, "", "")


def test_without_on_ready(tmp_path):
    port = free_port()
    script = f"from mcilib.receiver import serve; serve({str(tmp_path / 'store')!r}, port={port})"
    with subprocess.Popen([sys.executable, "-P", "-c", script]) as process:
        try:
            until(lambda: is_healthy(f"http://127.0.0.1:{port}"), 20)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_max_body_bytes_and_token_reach_the_application(receiver, tmp_path, frame, post, copies):
    running = receiver(tmp_path / "store", max_body_bytes=2_000, token=TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert post(running.url, frame(1))[0] == 401
    assert post(running.url, frame(1, size=2_000), bearer)[0] == 413
    assert post(running.url, frame(1), bearer)[0] == 200
    assert list(copies(tmp_path / "store")) == [f"{1:032x}"]


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_tls(receiver, tmp_path, ca, tls, host):
    running = receiver(tmp_path / "store", host=host, token=TOKEN, **tls)
    assert running.url == f"https://{host}:{running.port}"
    context = ssl.create_default_context()
    ca.configure_trust(context)
    for name in ("127.0.0.1", "localhost"):
        assert health(f"https://{name}:{running.port}", ssl_context=context).status == 200
    with pytest.raises(urllib3.exceptions.SSLError):
        health(f"https://127.0.0.1:{running.port}")  # its authority is unknown
    with pytest.raises(urllib3.exceptions.HTTPError):
        health(f"http://127.0.0.1:{running.port}")
    assert running.end()[:3] == (0, "", "")


def test_the_key_may_be_in_the_file_of_the_certificate(receiver, tmp_path, ca):
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    running = receiver(tmp_path / "store", tls_cert=str(tmp_path / "both.pem"))
    context = ssl.create_default_context()
    ca.configure_trust(context)
    assert health(running.url, ssl_context=context).status == 200


@pytest.mark.parametrize("case", ["missing", "garbage", "another key", "key only", "no key"])
def test_unusable_certificates(tmp_path, tls, case):
    other = tmp_path / "other.pem"
    options = dict(tls)
    if case == "missing":
        options["tls_cert"] = str(tmp_path / "nowhere.pem")
    elif case == "garbage":
        other.write_text("not PEM")
        options["tls_cert"] = str(other)
    elif case == "another key":
        trustme.CA().issue_cert("x").private_key_pem.write_to_path(other)
        options["tls_key"] = str(other)
    elif case == "key only":
        options["tls_cert"] = None
    else:
        options["tls_key"] = None
    with pytest.raises(ConfigError, match="TLS") as caught:
        serve(tmp_path / "store", port=0, **options)
    assert "certificate" in caught.value.problem + caught.value.next_step
    assert not (tmp_path / "store").exists()


@pytest.mark.needs("setsid")
def test_an_encrypted_key_is_refused_and_no_password_asked_for(tmp_path, tls):
    with open(tls["tls_key"], "rb") as file:
        key = s.load_pem_private_key(file.read(), None)
    locked = s.BestAvailableEncryption(b"secret")
    (tmp_path / "key.pem").write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked))
    script = (
        "import sys; from mcilib.errors import ConfigError; from mcilib.receiver import serve\n"
        "try: serve(sys.argv[1], port=0, tls_cert=sys.argv[2], tls_key=sys.argv[3])\n"
        "except ConfigError as error: print(error)"
    )
    command = ["setsid", "--ctty", "--wait", sys.executable, "-P", "-c", script]
    arguments = [str(tmp_path / "store"), tls["tls_cert"], str(tmp_path / "key.pem")]
    ours, terminal = os.openpty()
    try:
        done = subprocess.run(
            command + arguments, stdin=terminal, capture_output=True, text=True, timeout=20, check=True
        )
    finally:
        os.close(ours)
        os.close(terminal)
    assert "the key unencrypted" in done.stdout


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1"])
@pytest.mark.parametrize(
    ("token", "with_tls", "missing"),
    [
        (None, False, "missing: a token and TLS"),
        (TOKEN, False, "missing: TLS"),
        (None, True, "missing: a token"),
    ],
)
def test_another_address_needs_token_and_tls(tmp_path, tls, host, token, with_tls, missing):
    with pytest.raises(ConfigError, match="needs a token and TLS") as caught:
        serve(tmp_path / "store", host=host, port=0, token=token, **(tls if with_tls else {}))
    assert caught.value.problem.endswith(missing)


def test_an_empty_token_is_no_token(tmp_path, tls):
    with pytest.raises(ConfigError, match="token is empty"):
        serve(tmp_path / "store", host="0.0.0.0", port=0, token="", **tls)


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} .* is taken") as caught:
            serve(tmp_path / "store", port=port)
    assert "choose another port" in caught.value.next_step


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"port": 65_536}, "not a port"),
        ({"port": -1}, "not a port"),
        ({"host": "no.such.host.invalid"}, "unknown"),
        ({"host": "192.0.2.1", "token": TOKEN}, "Cannot listen"),
    ],
)
def test_addresses_that_cannot_be(tmp_path, tls, options, problem):
    with pytest.raises(ConfigError, match=problem):
        serve(tmp_path / "store", **{"port": 0, **options, **tls})


def test_a_store_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        serve(tmp_path / "file", port=0)


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_without_the_extra(tmp_path, missing):
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from mcilib.errors import ConfigError\n"
        "from mcilib.receiver import FolderStore, serve\n"
        "try: serve(sys.argv[1])\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, tmp_path / "s"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert missing in done.stdout
    assert "pip install 'mcilib[receiver]'" in done.stdout


@pytest.mark.parametrize("first", ["mcilib.receiver", "mcilib.receiver.serve", "mcilib.receiver.app"])
def test_module_and_function_of_one_name(first):
    script = (
        f"import {first}, sys\n"
        "from mcilib.receiver.serve import serve as one\n"
        "from mcilib.receiver import create_app, serve as two\n"
        "assert one is two and callable(one) and callable(create_app)"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, mcilib.receiver; assert not {'starlette', 'uvicorn', 'asyncio'} & set(sys.modules)",
        ],
        check=True,
    )


# --- slow senders, old days, other stores -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"POST /v1/batches HTTP/1.1\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\nGET /v1",  # the second head of a connection
    ],
)
def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(receiver, tmp_path, text):
    """Drop by drop, too: the time does not begin again with each byte."""
    running = receiver(tmp_path / "store", head_timeout_s=0.6)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(text)
        received = b""
        try:
            while time.monotonic() - started < 30:
                connection.settimeout(0.1)
                try:
                    data = connection.recv(10_000)
                except TimeoutError:
                    if text:
                        connection.sendall(b"x")
                    continue
                if not data:
                    break
                received += data
        except ConnectionError:
            pass
    assert 0.4 < time.monotonic() - started < 30
    assert received.count(b"200 OK") == text.count(b"\r\n\r\n")


def test_a_body_may_take_longer_than_a_head(receiver, tmp_path, frame, copies):
    data = frame(1, size=1000)
    running = receiver(tmp_path / "store", head_timeout_s=1.0)
    with half_sent(running.url, data) as connection:
        time.sleep(1.3)
        connection.sendall(data[len(data) // 2 :])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert list(copies(tmp_path / "store")) == [f"{1:032x}"]


def test_days_that_are_over_go_at_the_start_and_daily(tmp_path, frame, monkeypatch):
    """Two days pass in a second: a thread of its own looks whether a new one has begun."""
    module = sys.modules["mcilib.receiver.serve"]
    today = [date(2026, 3, 10)]
    monkeypatch.setattr(module, "_today", lambda: today[0])
    monkeypatch.setattr(module, "EXPIRY_LOOK_S", 0.02)
    for day in range(1, 11):
        data = frame(day)
        FolderStore(tmp_path, today=partial(date, 2026, 3, day)).put([(read_header(data), data)])
    store = FolderStore(tmp_path, today=module._today)

    def days() -> list[str]:
        return sorted(path.name[-2:] for path in (tmp_path / "batches").iterdir())

    with module._expiring(store, 3):
        until(lambda: days() == ["07", "08", "09", "10"])
        today[0] = date(2026, 3, 11)
        until(lambda: days() == ["08", "09", "10"])
    assert "mcilib-retention" not in {thread.name for thread in threading.enumerate()}


def test_retention_days_reach_the_store(receiver, tmp_path, frame):
    data = frame(1)
    FolderStore(tmp_path, today=lambda: date(2020, 1, 1)).put([(read_header(data), data)])
    running = receiver(tmp_path, retention_days=30)
    until(lambda: list((tmp_path / "batches").iterdir()) == [])
    assert running.end()[:3] == (0, "", "")


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_retention_days_that_are_none(tmp_path, days):
    with pytest.raises(ConfigError, match=f"kept for {days} days"):
        serve(tmp_path / "store", port=0, retention_days=days)


def test_two_receivers_on_one_bucket(receiver, object_server, frame, post, monkeypatch):
    for name, value in object_server.environ.items():
        monkeypatch.setenv(name, value)
    store = f"s3://{object_server.bucket()}/prefix"
    urls = [receiver(store).url, receiver(store).url]
    data = [frame(n) for n in range(5)]
    assert [r["status"] for r in post(urls[0], b"".join(data))[1]["receipts"]] == ["stored"] * 5
    assert [r["status"] for r in post(urls[1], b"".join(data))[1]["receipts"]] == ["duplicate"] * 5


def test_an_answer_is_not_held_back_for_an_acknowledgement(receiver, tmp_path):
    """Without TCP_NODELAY its second part waits 40 ms for the client's delayed acknowledgement."""
    running = receiver(tmp_path / "store")
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    times = []
    for _ in range(20):
        started = time.monotonic()
        connection.request("GET", "/v1/health")
        connection.getresponse().read()
        times.append(time.monotonic() - started)
    connection.close()
    assert min(times[10:]) < 0.03  # each would wait, once the client delays


ENDS_S = 10.0
"""Twenty, were an idle connection or a request waited for; 2 is the promise, which a busy machine cannot be held to."""


# --- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_idle_it_ends_at_once(receiver, tmp_path, number):
    running = receiver(tmp_path / "store")
    parts = urlsplit(running.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    connection.request("GET", "/v1/health")
    connection.getresponse().read()  # and kept open
    code, out, err, seconds = running.end(number)
    connection.close()
    assert (code, out, err) == (0, "", "")
    assert seconds < ENDS_S


def half_sent(url: str, data: bytes) -> socket.socket:
    """A request that is under way when this returns: the receiver has asked for the rest of it."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=20)
    head = (
        f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {len(data)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    connection.sendall(head.encode())
    told = b""
    while not told.endswith(b"\r\n\r\n"):
        told += connection.recv(1)
    assert told.startswith(b"HTTP/1.1 100 ")
    connection.sendall(data[: len(data) // 2])
    return connection


def test_a_request_under_way_is_finished(receiver, tmp_path, frame, copies):
    data = frame(1, size=10_000)
    running = receiver(tmp_path / "store", grace_s=30)
    with half_sent(running.url, data) as connection:
        running.process.send_signal(signal.SIGTERM)
        until(lambda: not is_healthy(running.url))
        connection.sendall(data[len(data) // 2 :])
        code, out, err, seconds = running.end()
        with connection.makefile("rb") as file:
            answer = file.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"stored"' in answer
    assert (code, out, err) == (0, "", "")
    assert seconds < ENDS_S
    assert copies(tmp_path / "store") == {f"{1:032x}": data}


def test_a_request_that_does_not_come_to_its_end_does_not_hold_it_up(receiver, tmp_path, frame, copies):
    running = receiver(tmp_path / "store")
    with half_sent(running.url, frame(1, size=10_000)):
        code, out, err, seconds = running.end()
    assert (code, out, err) == (0, "", "")
    assert seconds < ENDS_S
    assert copies(tmp_path / "store") == {}


def test_it_can_start_again_at_once_on_the_same_port(receiver, tmp_path, frame, post, copies):
    first = receiver(tmp_path / "store")
    assert post(first.url, frame(1))[0] == 200
    port = first.port
    first.end()
    second = receiver(tmp_path / "store", port=port)
    assert second.url == f"http://127.0.0.1:{port}"
    assert post(second.url, frame(2))[0] == 200
    assert len(copies(tmp_path / "store")) == 2
