"""The object-store transport: against a real S3-compatible server, and against servers that answer what one may."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace

import pytest
from object_server import ObjectServer, object_server  # noqa: F401  (a fixture)
from waiting import until

from mcilib import Reader, __version__
from mcilib.delivery.objectstore import ObjectStoreTransport, S3Credentials
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import ControlRecord, Outcome, ReceiptStatus, SealedBatch
from mcilib.testing.conformance import check_transport
from mcilib.testing.fakes import example_batch

pytest.importorskip("obstore")

SECRET, TOKEN, PAYLOAD = "s3cret-key", "t0ken-of-a-session", b"what-the-participant-did"
KEYS = S3Credentials("AKEXAMPLE", SECRET)


def batch(sequence: int = 1) -> SealedBatch:
    return SealedBatch(uuid.uuid4().hex, sequence, PAYLOAD * sequence)


def to(url: str, where: str = "s3://bucket/pre/fix", **options) -> ObjectStoreTransport:
    return ObjectStoreTransport(where, endpoint=url, **{"credentials": KEYS, "timeout_s": 5.0, **options})


class Answer:
    def __init__(self, status=200, body=b"", headers=None):
        self.status, self.body, self.headers = status, body, headers or {"ETag": '"0"'}


def refusal(status: int, code: str = "") -> Answer:
    """As S3 answers, with what must not be repeated to anybody."""
    body = f"<Error><Code>{code}</Code><StringToSign>{SECRET}</StringToSign></Error>" if code else ""
    return Answer(status, body.encode(), {})


# --- a real server ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(object_server):  # noqa: F811
    """One for all, since the first object of each takes a second; tests have a prefix each."""
    return object_server.bucket()


@pytest.fixture
def prefix() -> str:
    return f"lab/{uuid.uuid4().hex}"


@pytest.fixture
def make(object_server, bucket, prefix):  # noqa: F811
    return lambda where=None, **options: to(object_server.url, where or f"s3://{bucket}/{prefix}", **options)


@pytest.fixture
def objects(object_server, bucket, prefix):  # noqa: F811
    """What is there below the prefix, now."""
    return lambda: _objects(object_server.store(bucket, prefix))


def _objects(store) -> dict[str, bytes]:
    import obstore

    keys = [each["path"] for page in obstore.list(store) for each in page]
    return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


def test_it_keeps_the_promise_of_a_transport(make):
    check_transport(make)


def test_an_object_for_each_batch_and_record(make, objects):
    batches, asked = [batch(n) for n in range(1, 20)], ControlRecord(uuid.uuid4().hex, 1, b"{}")
    transport = make()
    reply = transport.send(batches)
    assert (reply.outcome, reply.bytes_sent) == (Outcome.DELIVERED, sum(len(b.data) for b in batches))
    assert {r.status for r in reply.receipts.values()} == {ReceiptStatus.STORED}
    assert transport.send_control([asked]).receipts[asked.record_id].status is ReceiptStatus.STORED
    assert transport.send_control([asked]).receipts[asked.record_id].status is ReceiptStatus.DUPLICATE
    assert objects() == {
        f"control/{asked.record_id}.json": b"{}",
        **{f"batches/{b.batch_id}.mcib": b.data for b in batches},
    }


def test_a_resend_is_no_second_object_and_other_bytes_are_rejected(make, objects):
    sent = batch()
    assert make().send([sent]).receipts[sent.batch_id].status is ReceiptStatus.STORED
    assert make().send([replace(sent, sequence=9)]).receipts[sent.batch_id].status is ReceiptStatus.DUPLICATE
    receipt = make().send([replace(sent, data=b"other")]).receipts[sent.batch_id]
    assert receipt.status is ReceiptStatus.REJECTED
    assert receipt.reason == "this id lies there already with other bytes"
    assert objects() == {f"batches/{sent.batch_id}.mcib": sent.data}


def test_racing_senders_store_it_once(make):
    sent, replies = batch(), []
    start = threading.Barrier(6)

    def send(transport):
        start.wait()
        replies.append(transport.send([sent]))

    threads = [threading.Thread(target=send, args=(make(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [r.receipts[sent.batch_id].status for r in replies if r.receipts]
    assert statuses.count(ReceiptStatus.STORED) == 1
    assert set(statuses) == {ReceiptStatus.STORED, ReceiptStatus.DUPLICATE}


def test_a_bucket_that_does_not_exist_is_refused(make):
    reply = make("s3://no-such-bucket").send([batch()])
    assert (reply.outcome, reply.receipts) == (Outcome.REFUSED, {})
    assert "the bucket no-such-bucket at 127.0.0.1:" in reply.detail
    assert "(40" in reply.detail, "404, or 403 where it tells nobody"


def test_whether_it_can_be_written_is_tried_without_a_batch(make, objects):
    for _ in range(2):
        reply = make().send([])
        assert (reply.outcome, reply.receipts) == (Outcome.DELIVERED, {})
    assert objects() == {"writable": b""}
    assert make("s3://no-such-bucket").send([]).outcome is Outcome.REFUSED


def test_spool_to_bucket_to_reader(tmp_path, make, objects):
    with DirectorySpool(tmp_path / "spool") as spool:
        ids = [spool.commit(example_batch).batch_id for _ in range(3)]
        assert Uploader(spool, make()).flush(20.0).delivered
        assert not spool.waiting()
    for key, data in objects().items():
        (tmp_path / "copy" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / key).write_bytes(data)
    assert sorted(header.batch_id for header in Reader(tmp_path / "copy").headers()) == sorted(ids)


@pytest.mark.slow
def test_a_server_that_is_killed_is_retried():
    """A server of its own, since it is killed in the midst of a send."""
    import obstore

    server = ObjectServer()
    try:
        bucket = server.bucket()
        transport, batches = to(server.url, f"s3://{bucket}"), [batch(n % 9 + 1) for n in range(3000)]
        replies: list = []
        sender = threading.Thread(target=lambda: replies.append(transport.send(batches)))
        sender.start()
        store = server.store(bucket)
        until(lambda: len(next(iter(obstore.list(store)), [])) > 0, what="the first objects")
        server.close()
        sender.join(30)
        [midway] = replies
        stored = [r for r in midway.receipts.values() if r.status is ReceiptStatus.STORED]
        assert 0 < len(stored) < len(batches), "some have their receipt, the others have none"
        after = transport.send(batches[:5])
        assert (after.outcome, after.receipts) == (Outcome.RETRY, {})
        assert after.detail.endswith("cannot be reached")
    finally:
        server.close()


# --- whatever a server may answer ---------------------------------------------------------------------------

ANSWERS = [
    (refusal(301), Outcome.REFUSED, "is in another region"),
    (Answer(302, b"", {"Location": "https://example.org"}), Outcome.REFUSED, "refused the object (302)"),
    (refusal(400, "ExpiredToken"), Outcome.REFUSED, "refused the object (400 ExpiredToken)"),
    (refusal(400, "RequestTimeout"), Outcome.RETRY, "refused the object (400 RequestTimeout)"),
    (refusal(400, "IncompleteBody"), Outcome.RETRY, "refused the object (400 IncompleteBody)"),
    (refusal(401), Outcome.REFUSED, "does not accept the credentials (401)"),
    (refusal(403, "AccessDenied"), Outcome.REFUSED, "does not allow these credentials to write (403 AccessDenied)"),
    (refusal(404, "NoSuchBucket"), Outcome.REFUSED, "does not exist (404 NoSuchBucket)"),
    (refusal(405), Outcome.REFUSED, "refused the object (405)"),
    (refusal(410), Outcome.RETRY, "refused the object (410)"),
    (refusal(429), Outcome.RETRY, "refused the object (429)"),
    (refusal(500, "InternalError"), Outcome.RETRY, "is busy or broken (500 InternalError)"),
    (refusal(501, "NotImplemented"), Outcome.REFUSED,
     "cannot create without overwriting (If-None-Match) (501 NotImplemented)"),
    (refusal(503, "SlowDown"), Outcome.RETRY, "is busy or broken (503 SlowDown)"),
    (Answer(200, b"<html>sign in</html>", {"Content-Type": "text/html"}), Outcome.NOT_OUR_SERVER,
     "answered like a web page, not like an object store"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "outcome", "words"), ANSWERS, ids=[words for _, _, words in ANSWERS])
def test_each_answer_has_its_outcome(serve, answer, outcome, words):
    server = serve(lambda request: answer)
    reply = to(server.url).send([batch(n) for n in range(1, 40)])
    assert (reply.outcome, reply.receipts) == (outcome, {})
    assert reply.detail == f"the bucket bucket at 127.0.0.1:{server.port} {words}"
    assert SECRET not in repr(reply)
    assert len(server.requests) <= 8, "what refuses one refuses all: no more than are under way"


@pytest.mark.parametrize("answer", [refusal(413), refusal(400, "EntityTooLarge")])
def test_one_that_is_too_large_is_rejected_and_the_others_go(serve, answer):
    small, large = batch(1), batch(1000)
    server = serve(lambda request: answer if len(request.body) > 1000 else Answer())
    reply = to(server.url).send([large, small])
    assert reply.outcome is Outcome.DELIVERED
    assert reply.receipts[large.batch_id].status is ReceiptStatus.REJECTED
    assert "it is too large" in reply.receipts[large.batch_id].reason
    assert reply.receipts[small.batch_id].status is ReceiptStatus.STORED


def test_credentials_that_may_only_write_get_a_duplicate(serve):
    server = serve(lambda request: refusal(412) if request.method == "PUT" else refusal(403, "AccessDenied"))
    sent = batch()
    assert to(server.url).send([sent]).receipts[sent.batch_id].status is ReceiptStatus.DUPLICATE


@pytest.mark.parametrize("status", [404, 500])
def test_one_that_is_there_and_cannot_be_compared_is_retried(serve, status):
    server = serve(lambda request: refusal(409) if request.method == "PUT" else refusal(status))
    reply = to(server.url).send([batch()])
    assert (reply.outcome, reply.receipts) == (Outcome.RETRY, {})


@pytest.mark.parametrize("bad", ["../../other", "", "A" * 32, "writable"])
def test_an_id_that_is_none_becomes_no_key(serve, bad):
    server = serve(lambda request: Answer())
    good = batch()
    reply = to(server.url).send([SealedBatch(bad, 1, b"x"), good])
    assert reply.receipts[bad].status is ReceiptStatus.REJECTED
    assert reply.receipts[good.batch_id].status is ReceiptStatus.STORED
    assert ([len(request.body) for request in server.requests], reply.bytes_sent) == ([24], 24)


def test_what_goes_over_the_wire(serve):
    server = serve(lambda request: Answer())
    sent = batch(3)
    reply = to(server.url, credentials=replace(KEYS, session_token=TOKEN), region="eu-central-1").send([sent])
    [request] = server.requests
    assert (request.method, request.path) == ("PUT", f"/bucket/pre/fix/batches/{sent.batch_id}.mcib")
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["if-none-match"] == "*"
    assert headers["x-amz-security-token"] == TOKEN
    assert headers["user-agent"] == f"mcilib/{__version__}"
    assert "AKEXAMPLE/" in headers["authorization"]
    assert "/eu-central-1/s3/" in headers["authorization"]
    assert SECRET not in str(request.headers)
    assert (request.body, reply.bytes_sent) == (sent.data, len(sent.data))


@pytest.mark.parametrize(
    ("url", "path"), [("s3://bucket", "/bucket/writable"), ("s3://bucket/a/b/", "/bucket/a/b/writable")]
)
def test_the_prefix(serve, url, path):
    server = serve(lambda request: Answer())
    assert to(server.url, url).endpoint == url.rstrip("/")
    to(server.url, url).send([])
    assert server.requests[0].path == path


def test_nothing_comes_from_the_environment(serve, monkeypatch):
    other = serve(lambda request: Answer())
    for name, value in {
        "AWS_ENDPOINT_URL": other.url, "AWS_ENDPOINT_URL_S3": other.url, "AWS_ENDPOINT": other.url,
        "AWS_ACCESS_KEY_ID": "AMBIENT", "AWS_SECRET_ACCESS_KEY": "ambient", "AWS_SESSION_TOKEN": "ambient",
        "AWS_REGION": "ambient-1", "AWS_DEFAULT_REGION": "ambient-1", "AWS_SKIP_SIGNATURE": "true",
        "AWS_CONDITIONAL_PUT": "disabled", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_BUCKET": "ambient",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server = serve(lambda request: Answer())
    assert to(server.url).send([batch()]).outcome is Outcome.DELIVERED
    [request] = server.requests
    assert not other.requests
    assert "ambient" not in f"{request.path} {request.headers}".lower()
    assert request.path.startswith("/bucket/pre/fix/batches/")
    assert "Credential=AKEXAMPLE/" in str(request.headers)
    assert "If-None-Match".lower() in {name.lower() for name in request.headers}


# --- credentials --------------------------------------------------------------------------------------------


def test_credentials_may_change_while_it_runs(serve):
    server = serve(lambda request: Answer())
    current = KEYS
    transport = to(server.url, credentials=lambda: current)
    transport.send([batch()])
    current = replace(KEYS, access_key_id="AKNEW")
    transport.send([batch()])
    used = [dict(request.headers) for request in server.requests]
    assert "Credential=AKEXAMPLE/" in str(used[0])
    assert "Credential=AKNEW/" in str(used[1])


def test_connections_are_kept_until_close(serve):
    server = serve(lambda request: Answer())
    transport = to(server.url)
    for _ in range(20):
        transport.send([batch()])
        time.sleep(0.01)  # obstore takes a connection back a moment after the answer
    before = server.connections
    assert before < 20
    transport.close()
    transport.close()
    assert transport.send([batch()]).outcome is Outcome.DELIVERED
    assert server.connections > before


def test_credentials_that_cannot_be_read_are_refused_in_words(serve):
    def broken() -> S3Credentials:
        raise OSError(SECRET)

    server = serve(lambda request: Answer())
    reply = to(server.url, credentials=broken).send([batch()])
    assert (reply.outcome, reply.detail) == (Outcome.REFUSED, "the credentials cannot be used (OSError)")
    assert not server.requests


def test_secrets_are_in_no_repr():
    keys = replace(KEYS, session_token=TOKEN)
    for text in (repr(keys), repr(to("https://s3.example.org", credentials=keys))):
        assert SECRET not in text
        assert TOKEN not in text


# --- time, and no server ------------------------------------------------------------------------------------


def test_nobody_there(free_port):
    reply = to(f"http://127.0.0.1:{free_port}").send([batch()])
    assert (reply.outcome, reply.receipts, reply.bytes_sent) == (Outcome.RETRY, {}, 0)
    assert reply.detail == f"the bucket bucket at 127.0.0.1:{free_port} cannot be reached"


def test_a_black_hole_takes_one_timeout_however_much_waits():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        reply = to(url, timeout_s=1.0).send([batch() for _ in range(100)])
        assert 1.0 <= time.monotonic() - began < 10  # thirteen, were each waited for: eight go at once
    assert (reply.outcome, reply.receipts) == (Outcome.RETRY, {})
    assert reply.detail.endswith("did not answer in time")


def test_a_slow_server_gets_what_fits_into_the_time(serve):
    def slow(request) -> Answer:
        time.sleep(0.5)
        return Answer()

    batches = [batch() for _ in range(200)]
    began = time.monotonic()
    reply = to(serve(slow).url, timeout_s=2.0).send(batches)
    assert time.monotonic() - began < 12  # 12.5, were all sent
    assert reply.outcome is Outcome.DELIVERED
    assert 8 <= len(reply.receipts) < 100
    assert reply.detail.endswith("did not take everything in time")


def test_a_connection_that_breaks(raw_serve):
    server = raw_serve(lambda connection: None)
    reply = to(server.url).send([batch()])
    assert (reply.outcome, reply.receipts) == (Outcome.RETRY, {})
    assert reply.bytes_sent == len(PAYLOAD)
    assert reply.detail.endswith("broke off before it had answered")


def test_a_certificate_must_be_trusted(serve, authority, tmp_path):
    server = serve(lambda request: Answer(), tls=authority.issue("127.0.0.1"))
    assert to(server.url, ca_file=authority.ca_file).send([batch()]).outcome is Outcome.DELIVERED
    reply = to(server.url).send([batch()])
    assert reply.outcome is Outcome.REFUSED
    assert reply.detail.endswith("has a certificate that is not trusted")
    other = serve(lambda request: Answer(), tls=authority.issue("example.org"))
    assert to(other.url, ca_file=authority.ca_file).send([batch()]).outcome is Outcome.REFUSED


def test_the_interpreter_ends_though_a_send_is_under_way():
    code = """
import sys, threading
from mcilib import ObjectStoreTransport, S3Credentials
from mcilib.protocols import SealedBatch
transport = ObjectStoreTransport("s3://bucket", endpoint=sys.argv[1], credentials=S3Credentials("a", "b"), timeout_s=60)
batches = [SealedBatch(f"{n:032x}", n, b"x") for n in range(20)]
threading.Thread(target=transport.send, args=(batches,), daemon=True).start()
sys.stdin.read(1)
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-c", code, url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            held = [listener.accept() for _ in range(8)]
            _, said = process.communicate(b"x", timeout=20)
            assert (process.returncode, said) == (0, b"")
            for connection, _ in held:
                connection.close()


# --- the constructor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("bucket", {}, "names no bucket"),
        ("https://bucket", {}, "names no bucket"),
        ("s3://", {}, "names no bucket"),
        ("s3:///prefix", {}, "names no bucket"),
        (f"s3://key:{SECRET}@bucket", {}, "names no bucket"),
        ("s3://bucket/a//b", {}, "no plain path"),
        ("s3://bucket/../b", {}, "no plain path"),
        ("s3://bucket/a?b", {}, "no plain path"),
        ("s3://bucket", {"endpoint": "s3.example.org"}, "not an https address"),
        ("s3://bucket", {"endpoint": "ftp://s3.example.org"}, "not an https address"),
        ("s3://bucket", {"endpoint": "https://"}, "not an https address"),
        ("s3://bucket", {"endpoint": "https://example.org:port"}, "not an https address"),
        ("s3://bucket", {"endpoint": f"https://a:{SECRET}@example.org"}, "not an https address"),
        ("s3://bucket", {"endpoint": "https://example.org?a"}, "query or fragment"),
        ("s3://bucket", {"endpoint": "http://s3.example.org"}, "plain HTTP on another machine"),
        ("s3://bucket", {"ca_file": "/nonexistent.pem"}, "cannot be read"),
        ("s3://bucket", {"ca_file": "/etc/hostname"}, "no certificate in PEM form"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_work_is_told_at_once(url, options, problem):
    with pytest.raises(DeliveryError, match=problem) as caught:
        ObjectStoreTransport(url, credentials=KEYS, **options)
    assert SECRET not in str(caught.value)


def test_a_timeout_must_be_above_zero():
    with pytest.raises(ConfigError, match="timeout_s is 0"):
        to("https://s3.example.org", timeout_s=0)


def test_without_obstore_it_says_what_to_install(tmp_path):
    (tmp_path / "obstore.py").write_text("raise ModuleNotFoundError('No module named obstore')")
    code = """
from mcilib import ObjectStoreTransport
from mcilib.errors import ConfigError
try:
    ObjectStoreTransport("s3://bucket", credentials=None)
except ConfigError as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert "pip install 'mcilib[s3]'" in done.stdout, done.stderr


def test_aws_is_where_a_region_is_when_no_address_is_given(serve):
    """Its name is looked up through a proxy that the environment names: nothing leaves this machine."""
    asked: list[str] = []

    def proxy(request) -> Answer:
        asked.append(request.path)
        return Answer(502)

    code = """
from mcilib import ObjectStoreTransport, S3Credentials
keys = S3Credentials("a", "b")
print(ObjectStoreTransport("s3://bucket", credentials=keys, region="eu-north-1", timeout_s=5).send([]).detail)
"""
    environ = {**os.environ, "HTTPS_PROXY": serve(proxy).url}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert "the bucket bucket at s3.eu-north-1.amazonaws.com" in done.stdout, done.stderr
