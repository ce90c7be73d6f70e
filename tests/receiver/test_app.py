"""What the receiver answers, over real sockets."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from urllib.parse import urlsplit

import pytest
from batches import with_header

import mcilib
from mcilib import limits
from mcilib.errors import ConfigError, StoreError
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver import FolderStore, create_app

TOKEN = "t0p-secret"
TYPE = "application/vnd.mcilib.batches"


def statuses(answer):
    return [(r["batch"], r["status"]) for r in answer["receipts"]]


def raw(url: str, text: bytes) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(text)
    return connection


def test_batches_are_stored_and_each_has_a_receipt_in_the_order_sent(url, post, frame, folder, copies):
    frames = [frame(n, sequence=n + 8) for n in (3, 1, 2)]
    status, answer = post(url, b"".join(frames))
    assert status == 200
    assert answer == {
        "receipts": [{"batch": f"{n:032x}", "status": "stored", "reason": ""} for n in (3, 1, 2)],
    }
    assert copies(folder) == {f"{n:032x}": data for n, data in zip((3, 1, 2), frames, strict=True)}
    [path] = (folder / "batches").rglob(f"*-{1:032x}.mcib")
    assert path.relative_to(folder).as_posix() == f"batches/2026-03-01/{'d' * 32}/{9:016}-{1:032x}.mcib"


def test_a_resend_is_a_duplicate_and_other_bytes_are_rejected(url, post, frame, folder, copies):
    first, other = frame(1, size=10), frame(1, size=10)
    assert statuses(post(url, first)[1]) == [(f"{1:032x}", "stored")]
    assert statuses(post(url, first + first)[1]) == [(f"{1:032x}", "duplicate")] * 2
    status, answer = post(url, other + frame(2))
    assert status == 200
    assert statuses(answer) == [(f"{1:032x}", "rejected"), (f"{2:032x}", "stored")]
    assert answer["receipts"][0]["reason"]
    assert copies(folder)[f"{1:032x}"] == first


def test_the_same_batch_at_once_is_stored_once(url, post, frame, folder, copies):
    data = frame(1, size=1000)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(url, data), range(16)))
    got = sorted(r["status"] for _, answer in answers for r in answer["receipts"])
    assert got == ["duplicate"] * 15 + ["stored"]
    assert copies(folder) == {f"{1:032x}": data}


@pytest.mark.parametrize("body", [b"", b"garbage", b"\0" * 100, b'{"batches": []}'])
def test_a_body_that_is_no_sequence_of_batches(url, post, body, folder, copies):
    status, answer = post(url, body)
    assert status == 400
    assert "not a sequence of batches" in answer["error"]
    assert copies(folder) == {}


def test_a_torn_batch_after_a_good_one_stores_nothing(url, post, frame, folder, copies):
    good, torn = frame(1), frame(2)
    for body in (good + torn[:-1], good + torn[:5], good + b"x", torn[:-1]):
        status, answer = post(url, body)
        assert (status, list(answer)) == (400, ["error"])
    assert copies(folder) == {}
    assert statuses(post(url, good + torn)[1]) == [(f"{1:032x}", "stored"), (f"{2:032x}", "stored")]


def test_a_whole_batch_that_cannot_be_read_is_rejected_by_itself(url, post, frame, folder, copies):
    """Its id cannot be known, so its receipt is known by its place."""
    damaged = bytearray(frame(2))
    damaged[-10] ^= 1
    huge = with_header(frame(3), sequence=10**16)
    status, answer = post(url, frame(1) + frame(9, version=2) + damaged + huge + frame(4))
    assert status == 200
    assert statuses(answer) == [
        (f"{1:032x}", "stored"),
        ("", "rejected"),
        ("", "rejected"),
        ("", "rejected"),
        (f"{4:032x}", "stored"),
    ]
    reasons = [r["reason"] for r in answer["receipts"]]
    assert "version 2" in reasons[1]
    assert "checksum" in reasons[2]
    assert "sequence" in reasons[3]
    assert sorted(copies(folder)) == [f"{1:032x}", f"{4:032x}"]


def test_health_needs_no_token(run_app, http, folder):
    class Clock:
        def monotonic_ns(self):
            return 0

        def wall_ns(self):
            return 1_234_567_890_123_456_789

        def suspended_ns(self):
            return 0

    store = FolderStore(folder, today=lambda: date(2026, 3, 1))
    url = run_app(create_app(store, token=TOKEN, clock=Clock()))
    answer = http.request("GET", url + "/v1/health")
    assert answer.status == 200
    assert answer.json() == {
        "service": "mcilib-receiver",
        "version": mcilib.__version__,
        "time_ns": 1_234_567_890_123_456_789,
    }


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer \xff", 401),
    ],
)
def test_token(run_app, http, frame, folder, copies, authorization, status):
    url = run_app(create_app(FolderStore(folder, today=lambda: date(2026, 3, 1)), token=TOKEN))
    headers = {"Content-Type": TYPE} | ({} if authorization is None else {"Authorization": authorization})
    answer = http.request("POST", url + "/v1/batches", body=frame(1), headers=headers)
    assert answer.status == status
    assert len(copies(folder)) == (1 if status == 200 else 0)
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in answer.data.decode()


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "t\xf6ken"])
def test_a_token_that_no_header_carries(folder, token):
    with pytest.raises(ConfigError, match="token"):
        create_app(FolderStore(folder, today=lambda: date(2026, 3, 1)), token=token)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "Application/VND.mcilib.batches; v=0"}, 200),
        ({"Content-Encoding": "identity"}, 200),
        ({"Content-Type": None}, 415),
        ({"Content-Type": "application/octet-stream"}, 415),
        ({"Content-Type": TYPE + "2"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_content_type(url, post, frame, folder, copies, headers, status):
    assert post(url, frame(1), headers)[0] == status
    assert len(copies(folder)) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/batches", 405), ("POST", "/v2/batches", 404)]
)
def test_errors_of_routing_are_json_too(url, http, method, path, status):
    answer = http.request(method, url + path)
    assert answer.status == status
    assert answer.json()["error"]
    if status == 405:
        assert answer.headers["Allow"] == "POST"


# --- size and time ------------------------------------------------------------------------------------------


@pytest.fixture
def small(run_app, folder):
    store = FolderStore(folder, today=lambda: date(2026, 3, 1))
    return run_app(create_app(store, token=None, max_body_bytes=5_000, body_timeout_s=1.0))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_up_to_the_limit_and_one_byte_more(small, post, frame, folder, copies, chunked):
    exact = frame(1, size=5_000 - len(frame(1, size=1)) + 1)
    assert len(exact) == 5_000
    over = exact + b"x"
    assert post(small, iter([over[:3_000], over[3_000:]]) if chunked else over) == (
        413,
        {"error": "The body is larger than 5000 bytes"},
    )
    assert copies(folder) == {}
    assert post(small, iter([exact[:3_000], exact[3_000:]]) if chunked else exact)[0] == 200
    assert copies(folder) == {f"{1:032x}": exact}


def test_too_large_is_said_while_the_body_is_still_coming(small):
    """By its length before any of it has come, and by counting when no length was given."""
    head = f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\n".encode()
    for text in (
        head + b"Content-Length: 99999999999999999999\r\n\r\n",
        head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1000\r\n"
        + b"x" * 0x1000
        + b"\r\n1000\r\n"
        + b"x" * 0x1000,
    ):
        with raw(small, text) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_on_reads_the_answer_and_the_connection_goes_on(small, frame):
    parts = urlsplit(small)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("POST", "/v1/batches", b"x" * 3_000_000, {"Content-Type": TYPE})
    with connection.getresponse() as answer:
        assert (answer.status, "larger" in json.load(answer)["error"]) == (413, True)
    connection.request("POST", "/v1/batches", frame(1), {"Content-Type": TYPE})
    with connection.getresponse() as answer:
        assert answer.status == 200
    connection.close()


def test_with_expect_the_refusal_comes_instead_of_the_body(small):
    head = (
        f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nExpect: 100-continue\r\n".encode()
    )
    with raw(small, head + b"Content-Length: 6000\r\n\r\n") as connection, connection.makefile("rb") as file:
        text = file.read()  # to its end: the connection has lost its place
    assert text.startswith(b"HTTP/1.1 413 ")
    with raw(small, head + b"Content-Length: 10\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")


def test_a_slow_body_is_ended(small, frame, folder, copies):
    data = frame(1)
    started = time.monotonic()
    with raw(small, begun(data) + data[:-1]) as connection, connection.makefile("rb") as file:
        text = file.read()
    assert text.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started > 0.9
    assert copies(folder) == {}


def test_a_slow_body_holds_up_nobody(url, post, http, frame, folder, copies):
    """It has two minutes; the others are not waited for that long."""
    data = frame(1)
    with raw(url, begun(data) + data[:-1]):
        assert post(url, frame(2))[0] == 200
        assert http.request("GET", url + "/v1/health").status == 200
    assert list(copies(folder)) == [f"{2:032x}"]


def begun(data):
    return f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {len(data)}\r\n\r\n".encode()


def test_a_client_that_goes_away_leaves_nothing(small, post, frame, folder, copies, caplog):
    data = frame(1)
    raw(small, begun(data) + data[:-1]).close()
    assert post(small, frame(2))[0] == 200
    assert list(copies(folder)) == [f"{2:032x}"]
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_too_many_batches(run_app, post, frame):
    store = Store(lambda header, data: Receipt(header.batch_id, ReceiptStatus.STORED))
    url = run_app(create_app(store, token=None))
    frames = [frame(n) for n in range(513)]
    assert post(url, b"".join(frames)) == (413, {"error": "More than 512 batches in one request"})
    assert len(post(url, b"".join(frames[:-1]))[1]["receipts"]) == 512


def test_an_answer_is_never_longer_than_senders_read(run_app, http, frame):
    store = Store(lambda header, data: Receipt(header.batch_id, ReceiptStatus.REJECTED, "x" * 100))
    url = run_app(create_app(store, token=None))
    body = b"".join(frame(n) for n in range(512))
    answer = http.request("POST", url + "/v1/batches", body=body, headers={"Content-Type": TYPE})
    assert len(answer.data) <= limits.RESPONSE_MAX_BYTES
    receipts = answer.json()["receipts"]
    assert [r["status"] for r in receipts] == ["rejected"] * 512
    assert [receipts[0]["reason"], receipts[-1]["reason"]] == ["x" * 100, ""]


# --- the store in trouble -----------------------------------------------------------------------------------


class Store:
    """Does what it is told, instead of storing."""

    def __init__(self, act):
        self.act = act

    def put(self, batches, /):
        return [self.act(header, data) for header, data in batches]

    def delete(self, deletion, /):
        raise NotImplementedError

    def expire(self, before, /):
        raise NotImplementedError


def raising(error):
    def act(header, data):
        raise error

    return Store(act)


def test_a_store_that_cannot_be_written_asks_to_come_back(run_app, http, frame, caplog):
    error = StoreError("The store /srv/private cannot be written: No space left on device", "Free space.")
    url = run_app(create_app(raising(error), token=None))
    for _ in range(3):
        answer = http.request("POST", url + "/v1/batches", body=frame(1), headers={"Content-Type": TYPE})
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "private" not in answer.data.decode()
        assert list(answer.json()) == ["error"]
    [record] = [r for r in caplog.records if r.name == "mcilib.receiver"]  # once a minute
    assert "No space left on device" in record.getMessage()


def test_the_unexpected_is_logged_and_not_told(run_app, http, frame, caplog):
    url = run_app(create_app(raising(RuntimeError("at /srv/private")), token=None))
    answer = http.request("POST", url + "/v1/batches", body=frame(1), headers={"Content-Type": TYPE})
    assert answer.status == 500
    assert list(answer.json()) == ["error"]
    assert "private" not in answer.data.decode()
    assert "Traceback" not in answer.data.decode()
    [record] = [r for r in caplog.records if r.name == "mcilib.receiver"]
    assert record.exc_info is not None
    assert http.request("GET", url + "/v1/health").status == 200


def test_a_slow_disk_holds_up_its_own_request_only(run_app, post, http, frame):
    go = threading.Event()

    def act(header, data):
        assert go.wait(20)  # longer than who asks waits
        return Receipt(header.batch_id, ReceiptStatus.STORED)

    url = run_app(create_app(Store(act), token=None))
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, url, frame(n)) for n in range(4)]
        assert http.request("GET", url + "/v1/health").status == 200
        assert not any(f.done() for f in waiting)
        go.set()
        assert [f.result()[0] for f in waiting] == [200] * 4


def test_the_store_sees_the_bytes_as_they_came(run_app, post, frame):
    seen = []

    def act(header, data):
        seen.append((header.batch_id, header.device, header.sequence, hashlib.sha256(data).hexdigest()))
        return Receipt(header.batch_id, ReceiptStatus.STORED)

    data = frame(7, device="e" * 32, sequence=6, size=200_000)
    assert post(run_app(create_app(Store(act), token=None)), data)[0] == 200
    assert seen == [(f"{7:032x}", "e" * 32, 6, hashlib.sha256(data).hexdigest())]
