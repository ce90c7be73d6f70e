"""The HTTP transport against real servers: what it sends, what it understands, what it says when it fails."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import time
import uuid
from email.utils import formatdate

import pytest

from mcilib import __version__, limits
from mcilib.delivery.http import HttpTransport
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import Outcome, ReceiptStatus, SealedBatch

SECRET = "s3cret-t0ken"
PAYLOAD = b"what-the-participant-did"


def batch(sequence: int = 1) -> SealedBatch:
    return SealedBatch(uuid.uuid4().hex, sequence, PAYLOAD * sequence)


class Answer:
    def __init__(self, status=200, body=b"", headers=None):
        self.status, self.body, self.headers = status, body, headers or {}


def receipts(*entries, **headers) -> Answer:
    return Answer(200, json.dumps({"receipts": list(entries)}).encode(), headers)


def stored(batch_id: str, status: str = "stored", reason: str = "") -> dict[str, str]:
    return {"batch": batch_id, "status": status, "reason": reason}


# --- the constructor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("", "not an https address"),
        ("collect.example.org", "not an https address"),
        ("ftp://example.org", "not an https address"),
        ("file:///etc/passwd", "not an https address"),
        ("https://", "not an https address"),
        ("https:///path", "not an https address"),
        ("http://example.org", "plain HTTP to another machine"),
        ("http://192.168.1.1", "plain HTTP to another machine"),
        ("http://127.0.0.1.example.org", "plain HTTP to another machine"),
        ("http://0.0.0.0:8750", "plain HTTP to another machine"),
        ("http://2130706433", "plain HTTP to another machine"),
        (f"https://user:{SECRET}@example.org", "user name or password"),
        (f"https://{SECRET}@example.org", "user name or password"),
        ("https://example.org/?a=b", "query or fragment"),
        ("https://example.org/#a", "query or fragment"),
        ("https://example.org:99999", "not an address"),
        ("https://example.org:port", "not an address"),
        ("https://[::1", "not an address"),
        ("https://a..b", "not an address"),
        (f"https://{'a' * 64}.org", "not an address"),
        ("https://exa mple.org", "characters"),
        ("https://example.org\r\nX: y", "characters"),
        ("https://m\u00fcller.example", "characters"),
    ],
)
def test_an_address_that_cannot_work_is_refused_at_once(endpoint, problem):
    with pytest.raises(DeliveryError, match=problem) as caught:
        HttpTransport(endpoint)
    assert SECRET not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)) == caught.value


@pytest.mark.parametrize(
    ("endpoint", "same"),
    [
        ("https://example.org", "https://example.org:443"),
        ("https://Example.org/", "https://example.org:443"),
        ("https://example.org:8443/a/b/", "https://example.org:8443/a/b"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://127.9.9.9", "http://127.9.9.9:80"),
        ("http://[::1]:8750", "http://[::1]:8750"),
        ("http://[::ffff:127.0.0.1]:8750", "http://[::ffff:127.0.0.1]:8750"),
    ],
)
def test_addresses_that_work(endpoint, same):
    assert HttpTransport(endpoint).endpoint == same
    assert repr(HttpTransport(endpoint, token=SECRET)) == f"HttpTransport({same!r})"


def test_a_ca_file_that_cannot_be_used_is_refused_at_once(tmp_path):
    with pytest.raises(DeliveryError, match=r"cannot be read \(No such file"):
        HttpTransport("https://example.org", ca_file=tmp_path / "none")
    with pytest.raises(DeliveryError, match="cannot be read"):
        HttpTransport("https://example.org", ca_file=tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DeliveryError, match="no certificate"):
        HttpTransport("https://example.org", ca_file=tmp_path / "text")
    (tmp_path / "empty").write_text("")
    with pytest.raises(DeliveryError, match="no certificate"):
        HttpTransport("https://example.org", ca_file=tmp_path / "empty")


@pytest.mark.parametrize("token", ["", "  ", "two words", f"{SECRET}\r\nX-Evil: 1", "t\u00f6ken"])
def test_a_token_that_no_header_can_carry_is_refused_without_repeating_it(token):
    with pytest.raises(DeliveryError) as caught:
        HttpTransport("https://example.org", token=token)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout_s):
    with pytest.raises(ConfigError, match="timeout_s"):
        HttpTransport("https://example.org", timeout_s=timeout_s)


def test_urllib3_is_imported_when_first_used():
    script = (
        "import sys; from mcilib.delivery.http import HttpTransport; HttpTransport('https://example.org').close();"
        "print('urllib3' in sys.modules, 'ssl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- a request that goes well -------------------------------------------------------------------------------


def test_the_request_is_as_the_protocol_says(serve, transport):
    one, two = batch(1), batch(2)
    server = serve(lambda request: receipts(stored(one.batch_id), stored(two.batch_id, "duplicate")))
    reply = transport(server.url + "/base/", token=SECRET).send([one, two])
    assert reply.outcome is Outcome.DELIVERED
    assert {i: r.status for i, r in reply.receipts.items()} == {
        one.batch_id: ReceiptStatus.STORED,
        two.batch_id: ReceiptStatus.DUPLICATE,
    }
    assert reply.bytes_sent == 3 * len(PAYLOAD)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/base/v1/batches")
    assert request.body == one.data + two.data
    assert request.headers["Content-Type"] == "application/vnd.mcilib.batches"
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert request.headers["User-Agent"] == f"mcilib/{__version__}"
    assert request.headers["Accept-Encoding"] == "identity"


def test_without_a_token_there_is_no_authorization(serve, transport):
    server = serve(lambda request: receipts())
    transport(server.url).send([batch()])
    assert "Authorization" not in server.requests[0].headers


def test_a_callable_token_is_asked_for_each_request(serve, transport):
    server = serve(lambda request: receipts())
    tokens = iter(["first", " second\n"])
    sender = transport(server.url, token=lambda: next(tokens))
    sender.send([batch()])
    sender.send([batch()])
    assert [r.headers["Authorization"] for r in server.requests] == ["Bearer first", "Bearer second"]


def broken_token() -> str:
    raise OSError(f"cannot open {SECRET}")


@pytest.mark.parametrize("token", [broken_token, lambda: f"{SECRET}\nX: y", lambda: "", lambda: None])
def test_a_token_that_cannot_be_had_is_a_refusal_and_nothing_is_sent(serve, transport, token):
    server = serve(lambda request: receipts())
    reply = transport(server.url, token=token).send([batch()])
    assert reply.outcome is Outcome.REFUSED
    assert reply.detail.startswith("the token cannot be read")
    assert SECRET not in repr(reply)
    assert server.connections == 0
    assert reply.bytes_sent == 0


def test_one_connection_is_kept_and_close_ends_it(serve, transport):
    server = serve(lambda request: receipts())
    sender = transport(server.url)
    for _ in range(3):
        sender.send([batch()])
    assert server.connections == 1
    sender.close()
    sender.close()
    sender.send([batch()])
    assert server.connections == 2


def test_a_connection_that_was_idle_for_long_is_not_used_again(serve, transport, monkeypatch):
    server = serve(lambda request: receipts())
    sender = transport(server.url)
    sender.send([batch()])
    monkeypatch.setattr("mcilib.delivery.http._IDLE_S", -1.0)
    sender.send([batch()])
    assert server.connections == 2


# --- answers that are not receipts --------------------------------------------------------------------------

SENT = batch()
GOOD = stored(SENT.batch_id)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome to the hotel</html>",
        b"{}",
        b"[]",
        b"null",
        b'"receipts"',
        b'{"receipts": {}}',
        b'{"receipts": []}',
        b'{"receipts": [null, 1, "x", [], {}]}',
        json.dumps({"receipts": [stored("f" * 32)]}).encode(),
        json.dumps({"receipts": [{**GOOD, "status": "lost"}]}).encode(),
        json.dumps({"receipts": [{**GOOD, "status": None}]}).encode(),
        json.dumps({"receipts": [{**GOOD, "status": ["stored"]}]}).encode(),
        json.dumps({"receipts": [{**GOOD, "batch": 7}]}).encode(),
        json.dumps({"receipts": [{**GOOD, "batch": [SENT.batch_id]}]}).encode(),
        json.dumps({"receipts": [{**GOOD, "reason": {}}]}).encode(),
        json.dumps({"receipts": [{"status": "stored"}]}).encode(),
        json.dumps({"receipts": [GOOD, {**GOOD, "status": "rejected"}]}).encode(),
        json.dumps({"receipts": [GOOD]}).encode()[:-1],
        json.dumps({"receipts": [GOOD]}).encode() + b"<",
        b"[" * 60_000,
        b"1" * 60_000,
        b"\xff\xfe",
    ],
)
def test_a_200_without_a_receipt_is_not_our_server(serve, transport, body):
    server = serve(lambda request: Answer(200, body))
    reply = transport(server.url).send([SENT])
    assert reply.outcome is Outcome.NOT_OUR_SERVER
    assert reply.receipts == {}
    assert reply.detail == f"127.0.0.1:{server.port} answered like a web page, not like an mcilib receiver"


def test_receipts_that_do_not_count_leave_the_others(serve, transport):
    one, two, three = batch(), batch(), batch()
    server = serve(
        lambda request: receipts(
            stored("e" * 32),
            {"batch": two.batch_id},
            stored(three.batch_id, "rejected", "no\r\n such \x1b[31m"),
        )
    )
    reply = transport(server.url).send([one, two, three])
    assert reply.outcome is Outcome.DELIVERED
    assert list(reply.receipts) == [three.batch_id]
    assert reply.receipts[three.batch_id].status is ReceiptStatus.REJECTED
    assert reply.receipts[three.batch_id].reason == "no such [31m"


def test_a_compressed_answer_is_not_unpacked(serve, transport):
    import gzip

    body = gzip.compress(json.dumps({"receipts": [GOOD]}).encode())
    server = serve(lambda request: Answer(200, body, {"Content-Encoding": "gzip"}))
    assert transport(server.url).send([SENT]).outcome is Outcome.NOT_OUR_SERVER


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_are_not_followed(serve, transport, status):
    trap = serve(lambda request: receipts(GOOD))
    server = serve(lambda request: Answer(status, b"", {"Location": f"{trap.url}/v1/batches"}))
    reply = transport(server.url, token=SECRET).send([SENT])
    assert reply.outcome is Outcome.NOT_OUR_SERVER
    assert reply.receipts == {}
    assert trap.requests == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "outcome", "detail"),
    [
        (204, Outcome.NOT_OUR_SERVER, "{} answered like a web page, not like an mcilib receiver"),
        (400, Outcome.BAD_BATCH, "{} answered 400 Bad Request"),
        (401, Outcome.REFUSED, "{} does not accept the token (401)"),
        (403, Outcome.REFUSED, "{} does not allow this device to send (403)"),
        (404, Outcome.REFUSED, "{} has no mcilib receiver at this address (404)"),
        (405, Outcome.REFUSED, "{} has no mcilib receiver at this address (405)"),
        (407, Outcome.REFUSED, "{} is behind a proxy that asks for credentials (407)"),
        (408, Outcome.RETRY, "{} answered 408 Request Timeout"),
        (410, Outcome.GONE, "{} says that the programme has ended (410)"),
        (413, Outcome.BAD_BATCH, "{} says that the request is too large (413)"),
        (429, Outcome.RETRY, "{} answered 429 Too Many Requests"),
        (499, Outcome.RETRY, "{} answered 499"),
        (500, Outcome.RETRY, "{} answered 500 Internal Server Error"),
        (503, Outcome.RETRY, "{} answered 503 Service Unavailable"),
    ],
)
def test_statuses_and_their_words(serve, transport, status, outcome, detail):
    # Even receipts do not count with such a status.
    body = b"" if status == 204 else json.dumps({"receipts": [GOOD]}).encode()
    server = serve(lambda request: Answer(status, body))
    reply = transport(server.url).send([SENT])
    assert reply.outcome is outcome
    assert reply.receipts == {}
    assert reply.detail == detail.format(f"127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "999999999"}, 86_400),
        ({"Retry-After": formatdate(1_000_090, usegmt=True), "Date": formatdate(1_000_000, usegmt=True)}, 90),
        ({}, 0),
    ],
)
def test_retry_after_reaches_the_reply(raw_serve, transport, headers, seconds):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = f"HTTP/1.1 503 Busy\r\n{lines}Content-Length: 0\r\n\r\n".encode()

    def talk(connection) -> None:
        connection.sendall(answer)

    assert transport(raw_serve(talk).url).send([SENT]).retry_after_s == seconds


# --- servers that misbehave ---------------------------------------------------------------------------------


def test_of_a_huge_body_only_the_cap_is_read(raw_serve, transport):
    sent = []

    def talk(connection) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            sent.append(connection.send(b" " * 65_536))

    reply = transport(raw_serve(talk).url).send([SENT])
    assert reply.outcome is Outcome.NOT_OUR_SERVER
    time.sleep(0.1)
    assert sum(sent) < 32 * 1024 * 1024  # what fits into socket buffers, and no more


def test_receipts_for_as_many_batches_as_a_request_holds_can_be_read(serve, transport):
    from mcilib.delivery._round import REQUEST_MAX_BATCHES

    batches = [batch() for _ in range(REQUEST_MAX_BATCHES)]
    server = serve(lambda request: receipts(*(stored(b.batch_id, "duplicate", "x" * 20) for b in batches)))
    assert len(transport(server.url).send(batches).receipts) == len(batches)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"", "{} closed the connection before it had answered"),
        (OK + b"Content-Length: 500\r\n\r\n{", "{} closed the connection before it had answered"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n50\r\n{",
            "{} closed the connection before it had answered",
        ),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "{} did not answer in HTTP (BadStatusLine)"),
        (b"HTTP/1.1 abc\r\n\r\n", "{} did not answer in HTTP (BadStatusLine)"),
        (OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "{} did not answer in HTTP (LineTooLong)"),
    ],
)
def test_a_broken_answer_is_tried_again_later(raw_serve, transport, answer, detail):
    def talk(connection) -> None:
        connection.sendall(answer)

    server = raw_serve(talk)
    reply = transport(server.url).send([SENT])
    assert reply.outcome is Outcome.RETRY
    assert reply.detail == detail.format(f"127.0.0.1:{server.port}")
    assert reply.bytes_sent == len(SENT.data)


@pytest.mark.parametrize("begin", [b"", OK + b"Content-Length: 50\r\n\r\n"])
def test_a_server_that_hangs_costs_the_timeout(raw_serve, transport, begin):
    def talk(connection) -> None:
        connection.sendall(begin)
        connection.recv(1)  # until the client goes away

    server = raw_serve(talk)
    begin_s = time.monotonic()
    reply = transport(server.url, timeout_s=0.3).send([SENT])
    assert 0.25 < time.monotonic() - begin_s < 30
    assert reply.outcome is Outcome.RETRY
    assert reply.detail == f"127.0.0.1:{server.port} did not answer within 0.3 s"


def test_a_body_that_trickles_does_not_go_on_for_ever(raw_serve, transport):
    def talk(connection) -> None:
        connection.sendall(OK + b"Content-Length: 50000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)

    begin_s = time.monotonic()
    reply = transport(raw_serve(talk).url, timeout_s=0.3).send([SENT])
    assert time.monotonic() - begin_s < 30  # a thousand, if it could
    assert reply.outcome is Outcome.RETRY


def test_after_trouble_the_same_transport_works_again(raw_serve, serve, transport):
    answers = iter([b"", OK + b"Content-Length: 9\r\n\r\n", None])

    def talk(connection) -> None:
        answer = next(answers)
        body = json.dumps({"receipts": [GOOD]}).encode()
        whole = OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        connection.sendall(whole if answer is None else answer)

    sender = transport(raw_serve(talk).url)
    outcomes = [sender.send([SENT]).outcome for _ in range(3)]
    assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.DELIVERED]


def test_nobody_listens(transport, free_port):
    reply = transport(f"http://127.0.0.1:{free_port}").send([SENT])
    assert reply.outcome is Outcome.RETRY
    assert reply.detail == f"connection refused by 127.0.0.1:{free_port}"
    assert reply.bytes_sent == 0


def test_a_name_that_does_not_exist(transport):
    reply = transport("https://receiver.invalid").send([SENT])
    assert reply.outcome is Outcome.RETRY
    assert reply.detail == "the name of receiver.invalid:443 cannot be found"
    assert reply.bytes_sent == 0


# --- TLS ----------------------------------------------------------------------------------------------------


def test_a_trusted_certificate(serve, transport, authority):
    server = serve(lambda request: receipts(GOOD), tls=authority.issue("127.0.0.1"))
    reply = transport(server.url, ca_file=authority.ca_file).send([SENT])
    assert reply.outcome is Outcome.DELIVERED


def test_an_unknown_authority(serve, transport, authority):
    server = serve(lambda request: receipts(GOOD), tls=authority.issue("127.0.0.1"))
    reply = transport(server.url).send([SENT])  # ca_file left out: not trusted
    assert reply.outcome is Outcome.REFUSED
    assert reply.detail.startswith(f"the certificate of 127.0.0.1:{server.port} is not trusted (")
    assert server.requests == []
    assert reply.bytes_sent == 0


def test_a_certificate_for_another_host(serve, transport, authority):
    server = serve(lambda request: receipts(GOOD), tls=authority.issue("elsewhere.example"))
    reply = transport(server.url, ca_file=authority.ca_file).send([SENT])
    assert reply.outcome is Outcome.REFUSED
    assert "127.0.0.1" in reply.detail
    assert "mismatch" in reply.detail
    assert server.requests == []


def test_a_server_without_tls_behind_https(serve, transport):
    server = serve(lambda request: receipts(GOOD))
    reply = transport(f"https://127.0.0.1:{server.port}").send([SENT])
    assert reply.outcome is Outcome.RETRY
    assert reply.detail.startswith(f"no secure connection to 127.0.0.1:{server.port} (")
    assert server.requests == []


# --- who is there -------------------------------------------------------------------------------------------


def health(**fields) -> Answer:
    told = {"service": "mcilib-receiver", "version": "9.9", "time_ns": time.time_ns(), **fields}
    return Answer(200, json.dumps(told).encode())


def test_check_tells_the_version_and_the_clock(serve, transport):
    server = serve(lambda request: health(time_ns=time.time_ns() + 90_000_000_000))
    found = transport(server.url + "/base", token=SECRET).check()
    assert found.outcome is Outcome.DELIVERED
    assert found.version == "9.9"
    assert found.detail == f"mcilib receiver 9.9 at 127.0.0.1:{server.port}"
    assert found.clock_offset_s == pytest.approx(90, abs=0.5)
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/base/v1/health")
    assert server.requests[0].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("time_ns", [None, "now", True, 1.5])
def test_check_without_a_clock(serve, transport, time_ns):
    server = serve(lambda request: health(time_ns=time_ns))
    found = transport(server.url).check()
    assert (found.outcome, found.clock_offset_s) == (Outcome.DELIVERED, None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"service": "other"}', b"[]"])
def test_check_of_something_else(serve, transport, body):
    server = serve(lambda request: Answer(200, body))
    found = transport(server.url).check()
    assert found.outcome is Outcome.NOT_OUR_SERVER
    assert "not like an mcilib receiver" in found.detail


def test_check_of_nobody_and_of_a_refusal(serve, transport, free_port):
    assert transport(f"http://127.0.0.1:{free_port}").check().outcome is Outcome.RETRY
    server = serve(lambda request: Answer(401))
    assert transport(server.url).check().outcome is Outcome.REFUSED


# --- secrets ------------------------------------------------------------------------------------------------


def test_no_token_and_no_payload_in_replies_or_logs(
    serve, raw_serve, transport, free_port, caplog, authority
):
    caplog.set_level(logging.DEBUG)

    def talk(connection) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nbroken header\r\n\r\n")

    urls = [
        serve(lambda request: Answer(401, request.body)).url,
        serve(lambda request: Answer(200, request.body + SECRET.encode())).url,
        serve(lambda request: receipts(GOOD), tls=authority.issue("127.0.0.1")).url,
        raw_serve(lambda connection: None).url,
        raw_serve(talk).url,
        f"http://127.0.0.1:{free_port}",
    ]
    said = []
    for url in urls:
        sender = transport(url, token=SECRET)
        said += [repr(sender), repr(sender.send([SENT])), repr(sender.check())]
    everything = caplog.text + "".join(said)
    assert SECRET not in everything
    assert PAYLOAD.decode() not in everything


def test_the_response_limit_is_the_one_in_limits(serve, transport, monkeypatch):
    monkeypatch.setattr(limits, "RESPONSE_MAX_BYTES", 50)
    server = serve(lambda request: receipts(GOOD))
    assert transport(server.url).send([SENT]).outcome is Outcome.NOT_OUR_SERVER
