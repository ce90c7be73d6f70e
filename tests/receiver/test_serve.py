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
from urllib.parse import urlsplit

import pytest
import trustme
import urllib3
from cryptography.hazmat.primitives import serialization as s

from mcilib.errors import ConfigError, StoreError
from mcilib.receiver import serve

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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = f"from mcilib.receiver import serve; serve({str(tmp_path / 'store')!r}, port={port})"
    with subprocess.Popen([sys.executable, "-P", "-c", script]) as process:
        for _ in range(200):
            try:
                assert health(f"http://127.0.0.1:{port}").status == 200
                break
            except urllib3.exceptions.HTTPError:
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0


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
    assert seconds < 2


def half_sent(url: str, data: bytes) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=5)
    head = (
        f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data[: len(data) // 2])
    return connection


def test_a_request_under_way_is_finished(receiver, tmp_path, frame, copies):
    data = frame(1, size=10_000)
    running = receiver(tmp_path / "store")
    with half_sent(running.url, data) as connection:
        time.sleep(0.1)
        rest = threading.Timer(0.5, connection.sendall, [data[len(data) // 2 :]])
        rest.start()
        code, out, err, seconds = running.end()
        rest.join()
        with connection.makefile("rb") as file:
            answer = file.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"stored"' in answer
    assert (code, out, err) == (0, "", "")
    assert 0.4 < seconds < 2
    assert copies(tmp_path / "store") == {f"{1:032x}": data}


def test_a_request_that_does_not_come_to_its_end_does_not_hold_it_up(receiver, tmp_path, frame, copies):
    running = receiver(tmp_path / "store")
    with half_sent(running.url, frame(1, size=10_000)):
        time.sleep(0.1)
        code, out, err, seconds = running.end()
    assert (code, out, err) == (0, "", "")
    assert seconds < 2
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
