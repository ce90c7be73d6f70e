"""The HTTP transport's way there: control records, tokens, client certificates, proxies, and its bound in time."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from nginx import Nginx
from ports import free_port as any_free_port

from mcilib.delivery.control import delete_request
from mcilib.delivery.http import HttpTransport
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import Outcome, ReceiptStatus, SealedBatch

BATCH = SealedBatch("a" * 32, 1, b"what-the-participant-did")
SECRET = "s3cret-t0ken"


def stored(request):
    """Receipts for whatever is asked."""
    if request.path.endswith("/v1/control"):
        receipts = [{"record": r["record"], "status": "stored"} for r in json.loads(request.body)["records"]]
    else:
        receipts = [{"batch": BATCH.batch_id, "status": "stored"}]
    return SimpleNamespace(status=200, body=json.dumps({"receipts": receipts}).encode(), headers={})


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


# --- control records, headers -------------------------------------------------------------------------------


def test_control_records_go_as_they_lie_on_disk(serve, transport):
    server = serve(stored)
    records = [delete_request("1" * 32, "2" * 32)(n) for n in (1, 2)]
    reply = transport(f"{server.url}/path").send_control(records)
    assert reply.outcome is Outcome.DELIVERED
    assert [r.status for r in reply.receipts.values()] == [ReceiptStatus.STORED] * 2
    assert list(reply.receipts) == [r.record_id for r in records]
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/path/v1/control")
    assert request.headers["Content-Type"] == "application/json"
    assert request.body == b'{"records":[' + records[0].data + b"," + records[1].data + b"]}"
    assert reply.bytes_sent == len(request.body)


def test_a_batch_receipt_is_none_for_a_record(serve, transport):
    record = delete_request("1" * 32, "2" * 32)(1)
    receipts = {"receipts": [{"batch": record.record_id, "status": "stored"}]}
    body = json.dumps(receipts).encode()
    server = serve(lambda _: SimpleNamespace(status=200, body=body, headers={}))
    reply = transport(server.url).send_control([record])
    assert (reply.outcome, reply.receipts) == (Outcome.NOT_OUR_SERVER, {})


@pytest.mark.parametrize("kind", ["batches", "control"])
def test_digest_and_idempotency_key(serve, transport, kind):
    server = serve(stored)
    sender = transport(server.url)
    if kind == "batches":
        send, ids = (lambda: sender.send([BATCH])), BATCH.batch_id
    else:
        record = delete_request("1" * 32, "2" * 32)(1)
        send, ids = (lambda: sender.send_control([record])), record.record_id
    send()
    send()
    for request in server.requests:
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        assert request.headers["Content-Digest"] == f"sha-256=:{digest}:"
        assert request.headers["Idempotency-Key"] == hashlib.sha256(ids.encode()).hexdigest()[:32]
    sender.send([SealedBatch("b" * 32, 2, BATCH.data)])
    assert server.requests[-1].headers["Idempotency-Key"] != server.requests[0].headers["Idempotency-Key"]


# --- token --------------------------------------------------------------------------------------------------


def test_token_file_is_read_again_for_each_request(serve, transport, tmp_path):
    server, path = serve(stored), tmp_path / "token"
    path.write_text(f"{SECRET}\nsecond line\n")
    sender = transport(server.url, token_file=path)
    sender.send([BATCH])
    path.write_text("other\r\n")
    sender.send([BATCH])
    assert [r.headers["Authorization"] for r in server.requests] == [f"Bearer {SECRET}", "Bearer other"]
    for broken in (b"", b"\xff", b"two words", b"x" * 20_000):
        path.write_bytes(broken)
        reply = sender.send([BATCH])
        assert (reply.outcome, reply.bytes_sent) == (Outcome.REFUSED, 0)
        assert "token cannot be read" in reply.detail
    path.unlink()
    assert sender.send([BATCH]).outcome is Outcome.REFUSED
    assert len(server.requests) == 2


def test_a_token_file_that_cannot_work_is_told_at_once(tmp_path):
    url = "https://collect.example.org"
    (tmp_path / "empty").write_text("\n")
    for name, problem in (("none", "cannot be read"), ("empty", "no token")):
        with pytest.raises(DeliveryError, match=problem):
            HttpTransport(url, token_file=tmp_path / name)
    with pytest.raises(ConfigError, match="both given"):
        HttpTransport(url, token="x", token_file=tmp_path / "empty")


# --- client certificates ------------------------------------------------------------------------------------


def write(cert, folder: Path, name: str) -> tuple[Path, Path]:
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    cert.private_key_pem.write_to_path(str(key))
    return chain, key


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """An nginx with TLS that asks for client certificates: (url, folder with the certificates)."""
    folder = tmp_path_factory.mktemp("gate")
    ca, clients, strangers = trustme.CA(), trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    clients.cert_pem.write_to_path(str(folder / "clients.pem"))
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    write(clients.issue_cert("device@example.org"), folder, "me")
    write(strangers.issue_cert("stranger@example.org"), folder, "stranger")
    answer = '{"receipts": [{"batch": "' + BATCH.batch_id + '", "status": "stored"}]}'
    port = any_free_port()
    http = f"""
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate server.pem; ssl_certificate_key server.pem;
        ssl_client_certificate clients.pem; ssl_verify_client on;
        location / {{ default_type application/json; return 200 '{answer}'; }}
    }}"""
    with Nginx(folder, http, port):
        yield f"https://localhost:{port}", folder


def test_a_device_shows_its_certificate(gate, transport):
    url, folder = gate
    options = {"ca_file": folder / "ca.pem", "client_cert": folder / "me.pem"}
    assert transport(url, client_key=folder / "me.key", **options).send([BATCH]).outcome is Outcome.DELIVERED
    both = folder / "both.pem"
    both.write_bytes((folder / "me.key").read_bytes() + (folder / "me.pem").read_bytes())
    options["client_cert"] = both
    assert transport(url, **options).send([BATCH]).outcome is Outcome.DELIVERED


def test_no_certificate_or_a_strangers_is_refused_and_not_about_the_batches(gate, transport):
    url, folder = gate
    ca = {"ca_file": folder / "ca.pem"}
    stranger = {"client_cert": folder / "stranger.pem", "client_key": folder / "stranger.key"}
    for options in ({}, stranger):
        reply = transport(url, **ca, **options).send([BATCH])
        assert reply.outcome is Outcome.REFUSED
        assert "asks for a client certificate" in reply.detail


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_ends_the_handshake_over_our_certificate_refuses(
    gate, serve, transport, authority, version
):
    """In TLS 1.3 it says so when the request is under way already; the connection may break before it is read."""
    _, folder = gate
    context = authority.issue("localhost")
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    url = f"https://localhost:{serve(stored, context).port}"
    ours = {"client_cert": folder / "me.pem", "client_key": folder / "me.key"}
    large = SealedBatch(BATCH.batch_id, 1, bytes(1024 * 1024))
    for _ in range(5):
        reply = transport(url, ca_file=authority.ca_file, **ours).send([large])
        assert reply.outcome is Outcome.REFUSED
        assert "unknown ca" in reply.detail


def test_client_certificates_that_cannot_work_are_told_at_once(gate, tmp_path):
    url, folder = gate
    with pytest.raises(DeliveryError, match="cannot be read"):
        HttpTransport(url, client_cert=tmp_path / "none")
    with pytest.raises(DeliveryError, match="no certificate with its key"):
        HttpTransport(url, client_cert=folder / "me.pem")
    with pytest.raises(ConfigError, match="without client_cert"):
        HttpTransport(url, client_key=folder / "me.key")
    with pytest.raises(ConfigError, match="client_cert is for an https endpoint"):
        HttpTransport("http://localhost", client_cert=folder / "me.pem")


def test_a_key_with_a_password_asks_nobody(gate, tmp_path):
    url, folder = gate
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", str(folder / "me.key")]
    subprocess.run([*command, "-out", str(locked)], check=True)
    code = "import sys; from mcilib.delivery.http import HttpTransport as H; H(*sys.argv[1:2], client_cert=sys.argv[2], client_key=sys.argv[3])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, url, str(folder / "me.pem"), str(locked)],
        stdin=subprocess.PIPE, capture_output=True, text=True, timeout=20, start_new_session=True,
    )  # fmt: skip
    assert "the key has a password" in done.stderr


# --- proxies ------------------------------------------------------------------------------------------------


class ConnectProxy:
    """Makes tunnels to a port of this machine, whatever name it is asked for."""

    def __init__(self, target: int, status: str = "200 OK") -> None:
        self.heads: list[str] = []
        self._clients: list[socket.socket] = []
        self._target, self._status = target, status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hang_up(self) -> None:
        for client in self._clients:
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._tunnel(client)

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                client.close()
                return
            head += piece
        self.heads.append(head.decode())
        self._clients.append(client)
        client.sendall(f"HTTP/1.1 {self._status}\r\nContent-Length: 0\r\n\r\n".encode())
        if not self._status.startswith("200"):
            client.close()
            return
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def behind(serve, authority):
    """`behind(status)`: (proxy, url of a server that only the proxy can find, CA file)."""
    made = []

    def make(status: str = "200 OK"):
        server = serve(stored, authority.issue("collect.test"))
        made.append(ConnectProxy(server.port, status))
        return made[-1], "https://collect.test:8443", authority.ca_file

    yield make
    for proxy in made:
        proxy.close()


def test_an_explicit_proxy_tunnels_and_gets_the_credentials(behind, transport):
    proxy, url, ca_file = behind()
    sender = transport(url, ca_file=ca_file, proxy=f"http://me:pa%20ss@127.0.0.1:{proxy.port}", token=SECRET)
    for _ in range(2):
        assert sender.send([BATCH]).outcome is Outcome.DELIVERED
    (head,) = proxy.heads  # one connection
    assert head.startswith("CONNECT collect.test:8443 HTTP/1.")
    assert base64.b64encode(b"me:pa ss").decode() in head
    assert SECRET not in head


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_environments_proxy(behind, transport, monkeypatch, name):
    proxy, url, ca_file = behind()
    monkeypatch.setenv(name, f"127.0.0.1:{proxy.port}")
    assert transport(url, ca_file=ca_file).send([BATCH]).outcome is Outcome.DELIVERED
    monkeypatch.setenv("NO_PROXY", "other.test,.collect.test,collect.test:8443")
    assert "name of collect.test" in transport(url, ca_file=ca_file).send([BATCH]).detail
    monkeypatch.delenv("NO_PROXY")
    assert "name of collect.test" in transport(url, ca_file=ca_file, proxy="").send([BATCH]).detail
    assert len(proxy.heads) == 1


def test_loopback_is_never_proxied_by_the_environment(serve, authority, transport, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    server = serve(stored, authority.issue("localhost"))
    reply = transport(f"https://localhost:{server.port}", ca_file=authority.ca_file).send([BATCH])
    assert reply.outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("status", "outcome", "words"),
    [
        ("407 Proxy Authentication Required", Outcome.REFUSED, "asks for credentials (407)"),
        ("403 Forbidden", Outcome.REFUSED, "makes no way to collect.test:8443 (403)"),
        ("400 Bad Request", Outcome.RETRY, "makes no way"),
        ("410 Gone", Outcome.RETRY, "makes no way"),
        ("502 Bad Gateway", Outcome.RETRY, "(502)"),
    ],
)
def test_what_a_proxy_says_is_not_about_the_batches(behind, transport, status, outcome, words):
    proxy, url, ca_file = behind(status)
    reply = transport(url, ca_file=ca_file, proxy=f"http://me:{SECRET}@127.0.0.1:{proxy.port}").send([BATCH])
    assert (reply.outcome, reply.bytes_sent) == (outcome, 0)
    assert words in reply.detail
    assert SECRET not in reply.detail


def test_a_proxy_that_is_not_there_is_named(transport, free_port, monkeypatch):
    url = "https://collect.test"
    reply = transport(url, proxy=f"http://me:{SECRET}@127.0.0.1:{free_port}").send([BATCH])
    assert reply.outcome is Outcome.RETRY
    assert reply.detail == f"connection refused by the proxy 127.0.0.1:{free_port}"
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://{SECRET}@127.0.0.1:1")
    reply = transport(url).send([BATCH])
    assert (reply.outcome, reply.detail) == (Outcome.REFUSED, "The proxy is not an http address")


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://h:1",
        f"http://:{SECRET}@",
        "http://h:99999",
        "http://h/path",
        "http://[",
        "http://a b",
        "http://h%0a",
    ],
)
def test_a_proxy_that_cannot_work_is_told_at_once(proxy):
    with pytest.raises(ConfigError, match="not an http address") as caught:
        HttpTransport("https://collect.test", proxy=proxy)
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="for an https endpoint"):
        HttpTransport("http://localhost", proxy="http://h:1")


def test_a_password_may_have_any_letters(behind, transport):
    proxy, url, ca_file = behind()
    sender = transport(url, ca_file=ca_file, proxy=f"http://me:p\u20ac%C3%A9@127.0.0.1:{proxy.port}")
    assert sender.send([BATCH]).outcome is Outcome.DELIVERED
    assert base64.b64encode("me:p\u20ac\u00e9".encode()).decode() in proxy.heads[0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "{} did not answer within 0.3 s"),
        (b"", "{} closed the connection before it had answered"),
        (b"SSH-2.0-OpenSSH\r\n", "{} did not answer in HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nX: ", "{} did not answer within 0.3 s"),
    ],
)
def test_a_proxy_that_makes_no_tunnel_is_named(raw_serve, transport, said, words):
    def talk(connection) -> None:
        connection.sendall(said or b"")
        if said is None or b"200" in said:
            connection.recv(1)  # until the client goes away

    proxy = raw_serve(talk)
    timeout_s = 0.3 if "0.3 s" in words else 20.0
    reply = transport("https://collect.test", proxy=proxy.url, timeout_s=timeout_s).send([BATCH])
    assert (reply.outcome, reply.bytes_sent) == (Outcome.RETRY, 0)
    assert reply.detail == words.format(f"the proxy 127.0.0.1:{proxy.port}")


def test_a_tunnel_that_ended_between_requests_is_made_anew(behind, transport):
    """The time of the request before does not count for the new one."""
    proxy, url, ca_file = behind()
    sender = transport(url, ca_file=ca_file, proxy=f"http://127.0.0.1:{proxy.port}", timeout_s=1.5)
    assert sender.send([BATCH]).outcome is Outcome.DELIVERED
    proxy.hang_up()
    time.sleep(1.6)  # longer than timeout_s
    assert sender.send([BATCH]).outcome is Outcome.DELIVERED
    assert len(proxy.heads) == 2


# --- a bound in time ----------------------------------------------------------------------------------------


ENDLESS_S = 30.0
"""Each of these would go on for longer than this; a machine that is busy takes less."""


def drip(piece: bytes, every_s: float = 0.2):
    def talk(connection) -> None:
        for at in range(10_000):
            connection.sendall(piece[at % len(piece) :][:1] if len(piece) < 60 else piece)
            time.sleep(every_s)

    return talk


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n"],
)
def test_an_answer_that_never_ends_takes_no_longer_than_timeout_s(raw_serve, transport, piece):
    server = raw_serve(drip(piece))
    begin_s = time.monotonic()
    reply = transport(server.url, timeout_s=1.0).send([BATCH])
    assert 0.9 < time.monotonic() - begin_s < ENDLESS_S
    assert reply.outcome is Outcome.RETRY
    assert "did not answer within 1 s" in reply.detail


def test_a_body_that_never_ends_takes_no_longer_than_timeout_s(raw_serve, transport):
    def talk(connection) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        drip(b"{", 0.2)(connection)

    begin_s = time.monotonic()
    reply = transport(raw_serve(talk).url, timeout_s=1.0).send([BATCH])
    assert 0.9 < time.monotonic() - begin_s < ENDLESS_S
    assert reply.outcome is Outcome.RETRY


def test_a_server_that_takes_the_body_a_little_at_a_time_is_left(transport):
    """Each send makes progress, so that no timeout of a single one would ever come."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def sip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            while connection.recv(16_384):
                time.sleep(0.2)

    threading.Thread(target=sip, daemon=True).start()
    big = SealedBatch("a" * 32, 1, bytes(8 * 1024 * 1024))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    begin_s = time.monotonic()
    reply = transport(url, timeout_s=1.0).send([big])
    assert time.monotonic() - begin_s < ENDLESS_S
    assert reply.outcome is Outcome.RETRY
    listener.close()


def test_a_connection_is_kept_though_its_answer_had_little_time_left(raw_serve, serve, transport):
    server = serve(stored)
    sender = transport(server.url, timeout_s=2.0)
    for _ in range(3):
        assert sender.send([BATCH]).outcome is Outcome.DELIVERED
    assert server.connections == 1


# --- truststore ---------------------------------------------------------------------------------------------


def test_truststore_takes_the_systems_store(serve, authority, transport, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    server = serve(stored, authority.issue("localhost"))
    url = f"https://localhost:{server.port}"
    sender = transport(url, truststore=True)
    assert type(sender._tls).__module__.startswith("truststore")
    assert sender.send([BATCH]).outcome is Outcome.DELIVERED
    wrong = serve(stored, authority.issue("other.test"))
    assert (
        transport(f"https://localhost:{wrong.port}", truststore=True).send([BATCH]).outcome is Outcome.REFUSED
    )


def test_truststore_where_it_cannot_be(monkeypatch, authority):
    with pytest.raises(ConfigError, match="both given"):
        HttpTransport("https://collect.test", truststore=True, ca_file=authority.ca_file)
    monkeypatch.setitem(sys.modules, "truststore", None)
    with pytest.raises(ConfigError, match="not installed"):
        HttpTransport("https://collect.test", truststore=True)
