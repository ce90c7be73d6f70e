"""Every row of the outcome table against real servers: what becomes of the file, when the next upload comes, what is
counted. Errors of the system are real ones too."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from random import Random
from types import SimpleNamespace

import pytest
import trustme
import urllib3
from nginx import Nginx
from ports import free_ports

from mcilib.delivery import http as http_module
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.retry import OUTCOME_TABLE, outcome_of_error
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import Outcome
from mcilib.testing.fakes import example_batch

INTERVAL_S = 3_600
BACK_OFF_S = (0.0, 5_400.0)
REFUSED_S = (7_200.0, 14_400.0)
NEXT_S = {
    Outcome.DELIVERED: (INTERVAL_S, INTERVAL_S),
    Outcome.BAD_BATCH: (INTERVAL_S, INTERVAL_S),
    Outcome.REFUSED: REFUSED_S,
    Outcome.RETRY: BACK_OFF_S,
    Outcome.NOT_OUR_SERVER: BACK_OFF_S,
    Outcome.GONE: None,
}
ROWS = {
    Outcome.BAD_BATCH: (400, 413, 415, 422),
    Outcome.REFUSED: (401, 403, 404, 405, 407),
    Outcome.GONE: (410,),
    Outcome.RETRY: (408, 409, 425, 429, 500, 502, 503, 504, 507, 402, 406, 418, 451),
    Outcome.NOT_OUR_SERVER: (200, 201, 204, 301, 302, 304, 307, 308),
}
STATUSES = [(status, outcome) for outcome, statuses in ROWS.items() for status in statuses]
CERTIFICATES = [  # what is wrong with it, the error that tells, its words
    ("another name", "SSLCertVerificationError", "not trusted (Hostname mismatch"),
    ("an unknown authority", "SSLCertVerificationError", "not trusted ("),
    ("expired", "SSLCertVerificationError", "not trusted (certificate has expired"),
    ("another name, found by urllib3", "CertificateError", ""),
]


def sent(request) -> list[str]:
    """The ids in a body: each batch of these tests begins with its own."""
    return re.findall("[0-9a-f]{32}", request.body.decode("latin-1"))


def says(status: int, body: bytes):
    return lambda _: SimpleNamespace(status=status, body=body, headers={})


def receipts(status: str | None, reason: str = ""):
    def answer(request):
        entries = [{"batch": i, "status": status, "reason": reason} for i in sent(request)] if status else []
        other = [{"batch": "f" * 32, "status": "stored"}]
        return SimpleNamespace(
            status=200, body=json.dumps({"receipts": entries or other}).encode(), headers={}
        )

    return answer


class Latest(Random):
    """Each draw is the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


class After:
    """One upload of two batches, and what came of it."""

    def __init__(self, spool: DirectorySpool, url: str, clock, **options) -> None:
        transport = HttpTransport(url, **{"timeout_s": 3.0, **options})
        uploader = Uploader(
            spool, transport, attempts=1, interval_s=INTERVAL_S, clock=clock, random=Random(7)
        )
        self.result = uploader.flush()
        transport.close()
        self.next_s = uploader._schedule.wait_s(clock.monotonic_ns())
        self.outcome = self.result.outcome
        self.told = [problem.message for problem in uploader.health().problems]
        now = spool.statistics()
        self.counters = {cause: n for cause, n in now.lost.items() if n}
        if now.delivered_batches:
            self.counters["delivered"] = now.delivered_batches
        self.files = {name: len(list((spool.path / name).iterdir())) for name in ("ready", "bad")}
        self.upload = uploader.statistics()
        assert self.upload.last_outcome == (self.outcome.value if self.outcome else "")
        assert uploader.health().ok is not bool(self.told)
        assert now.committed_batches == now.delivered_batches + now.waiting_batches + sum(now.lost.values())
        assert now.waiting_batches == self.files["ready"]

    def is_(self, outcome: Outcome, *, kept: int = 2, bad: int = 0, **counters: int) -> None:
        assert self.outcome is outcome, self.result
        assert self.files == {"ready": kept, "bad": bad}
        assert self.counters == counters
        bounds = NEXT_S[outcome]
        assert (self.next_s is None) == (bounds is None)
        if bounds is not None and self.next_s is not None:
            assert bounds[0] <= self.next_s <= bounds[1]


@pytest.fixture
def upload(spool, seal, clock):
    spool.commit(seal())
    spool.commit(seal())
    return lambda url, **options: After(spool, url, clock, **options)


def test_no_row_is_without_a_case():
    tried = {status for status, _ in STATUSES}
    named = {status for rule in OUTCOME_TABLE for status in rule.statuses}
    hundreds = {status // 100 for status in tried - named}
    errors = {error for _, error, _ in CERTIFICATES}
    for rule in OUTCOME_TABLE:
        assert set(rule.statuses) <= tried, rule.answer
        assert set(rule.hundreds) <= hundreds, rule.answer
        assert set(rule.errors) <= errors, rule.answer
    of_a_hundred = {hundred for rule in OUTCOME_TABLE for hundred in rule.hundreds}
    assert hundreds - of_a_hundred == {4}  # "any other status"
    rest = [rule.answer for rule in OUTCOME_TABLE if not (rule.statuses or rule.hundreds or rule.errors)]
    assert rest == [
        "any other status",
        "no connection, reset, time-out, no HTTP",
    ]  # `test_no_answer`, and what follows


@pytest.mark.parametrize(("status", "outcome"), STATUSES)
def test_statuses(serve, upload, status, outcome):
    body = b"" if status in (204, 304) else b"<html>Welcome to our hotel</html>"
    after = upload(serve(says(status, body)).url)
    if outcome is Outcome.BAD_BATCH:
        after.is_(outcome, kept=0, bad=2, rejected=2)
    else:
        after.is_(outcome)
    assert bool(after.told) is (outcome in (Outcome.REFUSED, Outcome.GONE, Outcome.NOT_OUR_SERVER))


@pytest.mark.parametrize(
    ("status", "reason", "kept", "bad", "counters"),
    [
        ("stored", "", 0, 0, {"delivered": 2}),
        ("duplicate", "", 0, 0, {"delivered": 2}),
        ("rejected", "checksum", 0, 2, {"rejected": 2}),
        ("rejected", "deleted", 0, 0, {"purged": 2}),
    ],
)
def test_receipts(serve, upload, status, reason, kept, bad, counters):
    after = upload(serve(receipts(status, reason)).url)
    after.is_(Outcome.DELIVERED, kept=kept, bad=bad, **counters)
    assert after.told == []
    assert after.upload.delivered_batches == counters.get("delivered", 0)
    assert after.upload.duplicate_batches == (2 if status == "duplicate" else 0)


@pytest.mark.parametrize("answer", [says(400, b""), receipts("rejected", "checksum")])
def test_the_third_in_a_row_that_is_refused_as_bad_is_kept(serve, spool, seal, upload, answer):
    spool.commit(seal())
    after = upload(serve(answer).url)
    after.is_(Outcome.REFUSED, kept=1, bad=2, rejected=2)
    assert "3 batches in a row were refused as bad" in after.told[0]


def test_the_bad_one_among_good_ones_is_found(serve, spool, seal, upload):
    poison = spool.commit(seal()).batch_id
    spool.commit(seal())

    def answer(request):
        return (says(422, b"") if poison in sent(request) else receipts("stored"))(request)

    upload(serve(answer).url).is_(Outcome.DELIVERED, kept=0, bad=1, delivered=3, rejected=1)


def test_receipts_for_others_are_none(serve, upload):
    upload(serve(receipts(None)).url).is_(Outcome.NOT_OUR_SERVER)


def test_a_batch_without_a_receipt_is_kept(serve, upload):
    def first(request):
        entries = [{"batch": sent(request)[0], "status": "stored"}]
        return SimpleNamespace(status=200, body=json.dumps({"receipts": entries}).encode(), headers={})

    upload(serve(first).url).is_(Outcome.RETRY, kept=1, delivered=1)


@pytest.mark.parametrize("status", [200, 302, 401, 418, 429, 503])
@pytest.mark.parametrize("ahead_h", [None, -7, 7])
def test_retry_after_is_a_minimum_in_both_forms_whatever_the_clocks_say(serve, upload, status, ahead_h):
    """Of a date only the difference to the server's own Date counts."""
    server_s = time.time() + 3_600 * (ahead_h or 0)
    asked = "20000" if ahead_h is None else formatdate(server_s + 20_000, usegmt=True)

    def answer(request):
        reply = receipts("stored")(request) if status == 200 else says(status, b"")(request)
        reply.headers = {"Retry-After": asked}
        return reply

    with serve_date(formatdate(server_s, usegmt=True)):
        after = upload(serve(answer).url)
    assert after.outcome is {200: Outcome.DELIVERED, 302: Outcome.NOT_OUR_SERVER, 401: Outcome.REFUSED}.get(
        status, Outcome.RETRY
    )
    assert after.next_s is not None
    assert 20_000 <= after.next_s <= 20_000 + INTERVAL_S
    assert after.files["ready"] == (0 if status == 200 else 2)


@contextlib.contextmanager
def serve_date(text: str):
    """The servers' clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseHTTPRequestHandler, "date_time_string", lambda *_: text)
        yield


def test_back_off_grows_with_each_failure_and_the_third_is_told(serve, spool, seal, clock):
    spool.commit(seal())
    server = serve(says(503, b""))
    transport = HttpTransport(server.url)
    uploader = Uploader(spool, transport, attempts=1, interval_s=INTERVAL_S, clock=clock, random=Latest())
    for most_s, healthy in ((5_400, True), (10_800, True), (14_400, False), (14_400, False)):
        assert uploader.flush().outcome is Outcome.RETRY
        assert uploader._schedule.wait_s(clock.monotonic_ns()) == most_s
        assert uploader.health().ok is healthy
    assert "(4 uploads in a row)" in uploader.health().problems[0].message
    transport.close()
    assert len(server.requests) == 4
    assert len(spool.waiting()) == 1


# --- no answer ----------------------------------------------------------------------------------------------


def reset(connection) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(connection) -> None:
    connection.recv(1)


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (reset, "closed the connection"),
        (lambda connection: None, "closed the connection"),
        (
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
            "closed the",
        ),
        (silent, "did not answer within 0.3 s"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9\r\n"), "did not answer in HTTP"),
    ],
)
def test_no_answer(raw_serve, upload, talk, words):
    after = upload(raw_serve(talk).url, timeout_s=0.3 if "0.3 s" in words else 20.0)
    after.is_(Outcome.RETRY)
    assert words in after.result.detail


def test_nobody_listens(upload, free_port):
    after = upload(f"http://127.0.0.1:{free_port}")
    after.is_(Outcome.RETRY)
    assert "connection refused" in after.result.detail


def test_no_network(upload):
    """What most devices without one see: no name is found."""
    upload("https://nowhere.invalid").is_(Outcome.RETRY)


@pytest.mark.parametrize(("wrong", "error", "words"), CERTIFICATES)
def test_certificates(front, serve, upload, authority, monkeypatch, wrong, error, words):
    seen: list[type] = []

    def judge(error: BaseException) -> Outcome:
        seen.append(type(error))
        return outcome_of_error(error)

    monkeypatch.setattr(http_module, "outcome_of_error", judge)
    ports, trusted = front
    if wrong == "expired":
        after = upload(f"https://localhost:{ports['expired']}", **trusted)
    elif wrong == "an unknown authority":
        after = upload(f"https://localhost:{ports['port']}/collect", ca_file=authority.ca_file)
    elif wrong == "another name":
        server = serve(receipts("stored"), authority.issue("other.test"))
        after = upload(f"https://localhost:{server.port}", ca_file=authority.ca_file)
    else:  # it looks for itself where OpenSSL cannot
        pool = partial(urllib3.HTTPSConnectionPool, assert_hostname="other.test")
        monkeypatch.setattr(urllib3, "HTTPSConnectionPool", pool)
        after = upload(f"https://localhost:{ports['port']}/collect", **trusted)
    assert error in [cls.__name__ for cls in seen[0].__mro__]
    after.is_(Outcome.REFUSED)
    assert words in after.result.detail
    assert len(after.told) == 1


def test_the_systems_authorities_do_not_know_ours(front, upload):
    ports, _ = front
    upload(f"https://localhost:{ports['port']}/collect").is_(Outcome.REFUSED)


# --- nginx with TLS in front --------------------------------------------------------------------------------


SERVE = """
import sys
from mcilib.receiver import serve
serve(store=sys.argv[1], port=0, token=None, on_ready=lambda url: print(url, flush=True))
"""
EXAMPLE_BYTES = len(example_batch(1).data)


@contextlib.contextmanager
def receiver(store):
    """Its address."""
    command = [sys.executable, "-P", "-c", SERVE, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """(ports and folder, options): an nginx with TLS before a receiver, whose other paths fail in its own ways."""
    folder = tmp_path_factory.mktemp("front")
    ca, clients, strangers = trustme.CA(), trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    clients.cert_pem.write_to_path(str(folder / "clients.pem"))
    old = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for name, cert in (
        ("server", ca.issue_cert("localhost")),
        ("old", ca.issue_cert("localhost", not_after=old)),
        ("me", clients.issue_cert("device@example.org")),
        ("stranger", strangers.issue_cert("stranger@example.org")),
    ):
        cert.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    port, expired, mutual, dead = free_ports(4)
    with receiver(folder / "store") as url, socket.create_server(("127.0.0.1", 0)) as black_hole:
        http = f"""
        limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
        ssl_certificate server.pem; ssl_certificate_key server.pem;
        server {{
            listen 127.0.0.1:{port} ssl;
            location /collect/ {{ proxy_pass {url}/; }}
            location /narrow/ {{ client_max_body_size {EXAMPLE_BYTES * 3 // 2}; proxy_pass {url}/; }}
            location /small/ {{ client_max_body_size 100; proxy_pass {url}/; }}
            location /limited/ {{ limit_req zone=one; limit_req_status 429; proxy_pass {url}/; }}
            location /wrong/ {{ proxy_pass {url}/nothing/here/; }}
            location /dead/ {{ proxy_pass http://127.0.0.1:{dead}; }}
            location /down/ {{ return 503; }}
            location /slow/ {{ proxy_read_timeout 200ms; proxy_pass http://127.0.0.1:{black_hole.getsockname()[1]}; }}
            location /portal/ {{ default_type text/html; return 200 "<html>Welcome</html>"; }}
            location /moved/ {{ return 302 https://portal.test/; }}
            location /cut/ {{ return 444; }}
        }}
        server {{
            listen 127.0.0.1:{mutual} ssl;
            ssl_client_certificate clients.pem; ssl_verify_client on;
            location / {{ proxy_pass {url}/; }}
        }}
        server {{
            listen 127.0.0.1:{expired} ssl;
            ssl_certificate old.pem; ssl_certificate_key old.pem;
        }}"""
        with Nginx(folder, http, port):
            ports = {"port": port, "expired": expired, "mutual": mutual, "folder": folder}
            yield ports, {"ca_file": folder / "ca.pem"}


@pytest.fixture
def through(front, spool, clock):
    """`through(path, server)`: one upload of two real batches through the nginx."""
    ports, options = front
    sealed = [spool.commit(example_batch) for _ in range(2)]

    def upload(path: str, server: str = "port", **more) -> After:
        after = After(spool, f"https://localhost:{ports[server]}/{path}", clock, **options, **more)
        stored = [file.read_bytes() for file in (ports["folder"] / "store").rglob("*") if file.is_file()]
        arrived = sum(stored.count(batch.data) for batch in sealed)
        assert arrived == after.counters.get("delivered", 0)  # once each, or not at all
        return after

    return upload


@pytest.mark.parametrize(
    ("path", "outcome", "words"),
    [
        ("wrong", Outcome.REFUSED, "404"),
        ("dead", Outcome.RETRY, "502"),
        ("down", Outcome.RETRY, "503"),
        ("slow", Outcome.RETRY, "504"),
        ("portal", Outcome.NOT_OUR_SERVER, "web page"),
        ("moved", Outcome.NOT_OUR_SERVER, "302"),
        ("cut", Outcome.RETRY, "closed the connection"),
    ],
)
def test_behind_nginx(through, path, outcome, words):
    after = through(path)
    after.is_(outcome)
    assert words in after.result.detail


def test_through_nginx_to_a_receiver(through):
    through("collect").is_(Outcome.DELIVERED, kept=0, delivered=2)


def test_nginx_takes_one_batch_and_not_two(through):
    after = through("narrow")
    after.is_(Outcome.DELIVERED, kept=0, delivered=2)
    assert after.upload.requests == 3


def test_nginx_takes_no_batch(through):
    through("small").is_(Outcome.BAD_BATCH, kept=0, bad=2, rejected=2)


def test_nginx_limits_the_rate(through, spool):
    through("limited").is_(Outcome.DELIVERED, kept=0, delivered=2)
    spool.commit(example_batch)
    after = through("limited")
    after.is_(Outcome.RETRY, kept=1, delivered=2)
    assert "429" in after.result.detail


@pytest.mark.parametrize("shown", [None, "stranger.pem"])
def test_nginx_asks_for_a_client_certificate(front, through, shown):
    """Its answer is 400, which must not cost a batch."""
    folder = front[0]["folder"]
    after = through("", "mutual", client_cert=folder / shown if shown else None)
    after.is_(Outcome.REFUSED)
    assert "client certificate" in after.told[0]
    through("", "mutual", client_cert=folder / "me.pem").is_(Outcome.DELIVERED, kept=0, delivered=2)


# --- the disk -----------------------------------------------------------------------------------------------


def test_a_disk_that_became_read_only_loses_nothing_and_is_told(small_disk, seal, clock, serve):
    place = small_disk(options="size=8m")
    with DirectorySpool(place / "spool", min_free_bytes=0) as spool:
        for _ in range(2):
            spool.commit(seal())
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        server = serve(receipts("stored"))
        after = After(spool, server.url, clock)
        assert after.outcome is Outcome.RETRY
        assert after.files["ready"] == 2
        assert after.counters == {}
        assert "read-only" in " ".join(after.told).lower()
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        After(spool, server.url, clock).is_(Outcome.DELIVERED, kept=0, delivered=2)


@pytest.mark.parametrize("reserve", [True, False])
@pytest.mark.parametrize(
    ("status", "bad", "counter"), [("stored", 0, "delivered"), ("rejected", 2, "rejected")]
)
def test_a_full_disk_while_settling(small_disk, seal, clock, serve, status, bad, counter, reserve):
    """What is delivered makes room. What is refused goes in the room that is kept for the counters, or waits."""
    place = small_disk(options="size=1m")
    server = serve(receipts(status, "checksum"))
    with DirectorySpool(place / "spool", min_free_bytes=0) as spool:
        for _ in range(2):
            spool.commit(seal())
        if not reserve:
            (spool.path / "reserve").unlink()
        with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert os.statvfs(place).f_bavail == 0
        after = After(spool, server.url, clock)
        if status == "rejected" and not reserve:
            after.is_(Outcome.RETRY)
            assert "disk is full" in after.told[0]
            (place / "filler").unlink()
            after = After(spool, server.url, clock)
        after.is_(Outcome.DELIVERED, kept=0, bad=bad, **{counter: 2})
        assert after.told == []
