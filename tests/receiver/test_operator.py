"""Requests for exemptions over HTTP: what devices send and hear, what the operator sees and decides, who may what."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from mcilib import limits
from mcilib.consent import Exemption, ExemptScope
from mcilib.delivery._answers import receipts_of
from mcilib.delivery.control import exemption_request, exemption_withdrawal
from mcilib.errors import ConfigError, StoreError
from mcilib.receiver import FolderStore, create_app
from mcilib.receiver.app import ANSWERS_MAX_BYTES
from mcilib.receiver.control import RECORDS_PER_REQUEST

P, D = "1" * 32, "d" * 32
T = 1_750_000_000_000_000_000
S = 1_000_000_000
DEVICES, OPERATOR = "of-the-devices", "of-the-operator"


class Clock:
    now_ns = T

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def suspended_ns(self) -> int:
        return 0


def store_in(folder: Any) -> FolderStore:
    return FolderStore(folder, today=lambda: date(2026, 3, 1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(run_app, folder, clock) -> str:
    app = create_app(
        store_in(folder), token=DEVICES, operator_token=OPERATOR, device_requests=1000, clock=clock
    )
    return str(run_app(app))


@pytest.fixture
def call(http) -> Callable[..., tuple[int, Any]]:
    """`call(method, url, body, token)` -> status and JSON."""

    def send(
        method: str, url: str, content: Any = None, token: str | None = OPERATOR, **headers: str
    ) -> tuple[int, Any]:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        body = None
        if content is not None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            headers.setdefault("Content-Type", "application/json")
        answer = http.request(method, url, body=body, headers=headers)
        return answer.status, answer.json()

    return send


def request(n: int = 1, **fields: Any) -> dict[str, Any]:
    """A record as a device makes it."""
    given = {"scope": ExemptScope(apps=("keepassxc",)), "reason_class": "personal", "note": "mine", **fields}
    exemption = Exemption(f"{n:032x}", requested_ns=T - 5, **given)
    made: dict[str, Any] = json.loads(exemption_request(P, D, exemption)(1).data)
    return made


def back(n: int = 1) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(exemption_withdrawal(P, D, f"{n:032x}")(1).data)
    return made


@pytest.fixture
def ask(call, url) -> Callable[..., list[dict[str, Any]]]:
    """Receipts for records."""

    def send(*records: dict[str, Any]) -> list[dict[str, Any]]:
        status, answer = call("POST", f"{url}/v1/control", {"records": list(records)}, DEVICES)
        assert status == 200, answer
        receipts: list[dict[str, Any]] = answer["receipts"]
        return receipts

    return send


# --- devices ------------------------------------------------------------------------------------------------


def test_from_the_request_to_the_receipt_with_the_decision(call, url, ask, clock):
    pending = {"reason": "", "decision": "pending", "decided_ns": None, "answer": ""}
    assert ask(request()) == [{"record": f"{1:032x}", "status": "stored", **pending}]
    assert ask(request()) == [{"record": f"{1:032x}", "status": "duplicate", **pending}]
    clock.now_ns += S
    status, decided = call("POST", f"{url}/v1/exemptions/{1:032x}", {"decision": "approved", "note": "Yes."})
    assert (status, decided["state"], decided["answer"]) == (200, "approved", "Yes.")
    told = {"decision": "approved", "decided_ns": T + S, "answer": "Yes."}
    assert ask(request()) == [{"record": f"{1:032x}", "status": "duplicate", "reason": "", **told}]


def test_what_is_taken_back_in_the_same_request_is_told_so_at_once(ask):
    receipts = ask(request(), back())
    assert [(r["status"], r.get("decision")) for r in receipts] == [("stored", "withdrawn"), ("stored", None)]
    assert [r["status"] for r in ask(back())] == ["duplicate"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**request(), "participant": "../" * 8}, "participant"),
        ({**request(), "device": 7}, "device"),
        ({**request(), "exemption": "all"}, "nothing of the exemption"),
        ({**request(), "exemption": {**request()["exemption"], "note": "\x1b[2J"}}, "cannot be shown"),
        ({**request(), "exemption": {**request()["exemption"], "scope": {"apps": []}}}, "of nothing"),
        ({**back(), "exemption": "../../etc"}, "exemption is not"),
    ],
)
def test_requests_that_are_none_are_refused_in_words(ask, call, url, record, reason):
    first, second = ask(record, request(2))
    assert first["status"] == "rejected"
    assert reason in first["reason"]
    assert "decision" not in first
    assert second["status"] == "stored"
    assert len(call("GET", f"{url}/v1/exemptions")[1]["exemptions"]) == 1


def test_deletion_of_all_takes_requests_with_it(ask, call, url):
    ask(request())
    ask({"record": "c" * 32, "kind": "delete", "participant": P, "device": D})
    assert call("GET", f"{url}/v1/exemptions") == (200, {"exemptions": [], "next": None})
    (receipt,) = ask(request())
    assert (receipt["status"], receipt["reason"]) == ("rejected", "deleted")


def test_many_long_answers_come_in_parts_that_a_device_can_read(ask, call, url, http):
    note = '"\n' * (limits.EXEMPTION_NOTE_MAX_BYTES // 2)
    records = [request(n) for n in range(RECORDS_PER_REQUEST)]
    ask(*records)
    for record in records:
        status, _ = call(
            "POST", f"{url}/v1/exemptions/{record['record']}", {"decision": "denied", "note": note}
        )
        assert status == 200
    left = records
    rounds = 0
    while left:
        rounds += 1
        answer = http.request(
            "POST",
            f"{url}/v1/control",
            body=json.dumps({"records": left}).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {DEVICES}"},
        )
        assert len(answer.data) <= limits.RESPONSE_MAX_BYTES
        receipts = receipts_of(answer.data, [r["record"] for r in left], "record")
        assert receipts is not None
        for record in left:
            assert receipts[record["record"]].answer in ("", note)
        told = {name for name, receipt in receipts.items() if receipt.decision == "denied"}
        assert told
        left = [record for record in left if record["record"] not in told]
    assert rounds == -(-RECORDS_PER_REQUEST // (ANSWERS_MAX_BYTES // len(json.dumps(note))))


def test_a_store_that_keeps_no_requests_knows_no_such_records(run_app, call):
    class Batches:
        def put(self, batches):
            return []

        def delete(self, deletion):
            yield
            return 0

        def expire(self, before):
            yield
            return 0

    url = run_app(create_app(Batches(), token=None))
    for record in (request(), back()):
        (receipt,) = call("POST", f"{url}/v1/control", {"records": [record]}, None)[1]["receipts"]
        assert (receipt["status"], "does not know" in receipt["reason"]) == ("rejected", True)
    with pytest.raises(ConfigError, match="keeps no requests"):
        create_app(Batches(), token=None, operator_token="x")


# --- the operator -------------------------------------------------------------------------------------------


def test_an_operator_sees_all_that_is_needed(ask, call, url, clock):
    clock.now_ns = T + 3
    ask(request(until_ns=T + 60 * S, note="eins\nzwei"))
    (seen,) = call("GET", f"{url}/v1/exemptions")[1]["exemptions"]
    assert seen == {
        "exemption": f"{1:032x}",
        "participant": P,
        "device": D,
        "scope": {"apps": ["keepassxc"]},
        "reason_class": "personal",
        "note": "eins\nzwei",
        "requested_ns": T - 5,
        "until_ns": T + 60 * S,
        "received_ns": T + 3,
        "state": "pending",
        "decided_ns": None,
        "answer": "",
        "withdrawn_ns": None,
    }
    clock.now_ns = T + 60 * S
    assert call("GET", f"{url}/v1/exemptions")[1]["exemptions"][0]["state"] == "expired"


def test_pages_and_states(ask, call, url):
    ask(*[request(n) for n in range(10)])
    for n, decision in ((3, "approved"), (4, "denied"), (8, "denied")):
        call("POST", f"{url}/v1/exemptions/{n:032x}", {"decision": decision})
    ask(back(9))

    def pages(query: str) -> list[list[int]]:
        found, after = [], ""
        while True:
            status, answer = call("GET", f"{url}/v1/exemptions?limit=3{query}{after}")
            assert status == 200
            found.append([int(one["exemption"], 16) for one in answer["exemptions"]])
            if answer["next"] is None:
                return found
            after = f"&after={answer['next']}"

    assert pages("") == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert pages("&state=denied") == [[4, 8]]
    assert pages("&state=pending") == [[0, 1, 2], [5, 6, 7], []]
    assert pages("&state=withdrawn") == [[9]]
    assert pages("&state=expired") == [[]]


def test_a_page_looks_at_so_many_and_says_where_it_ended(ask, call, url, monkeypatch):
    monkeypatch.setattr("mcilib.receiver.operator._LOOKS", 4)
    ask(*[request(n) for n in range(6)])
    status, answer = call("GET", f"{url}/v1/exemptions?state=denied")
    assert (status, answer) == (200, {"exemptions": [], "next": f"{3:032x}"})
    assert call("GET", f"{url}/v1/exemptions?state=denied&after={3:032x}")[1]["next"] is None


@pytest.mark.parametrize(
    "query",
    ["state=open", "limit=0", "limit=1001", "limit=x", "limit=²", "limit=" + "9" * 5000, "after=../x"],
)
def test_queries_that_are_none(call, url, query):
    status, answer = call("GET", f"{url}/v1/exemptions?{query}")
    assert status == 400
    assert answer["error"]


def test_one_decision_and_no_second(ask, call, url):
    ask(request(), request(2), back(2), request(3, until_ns=T))
    place = f"{url}/v1/exemptions/{1:032x}"
    assert call("POST", place, {"decision": "denied", "note": "No."})[0] == 200
    assert call("POST", place, {"decision": "denied"})[0] == 200
    status, answer = call("POST", place, {"decision": "approved"})
    assert (status, "denied already" in answer["error"]) == (409, True)
    status, answer = call("POST", f"{url}/v1/exemptions/{2:032x}", {"decision": "approved"})
    assert (status, "taken it back" in answer["error"]) == (409, True)
    status, answer = call("POST", f"{url}/v1/exemptions/{3:032x}", {"decision": "approved"})
    assert (status, "ended" in answer["error"]) == (409, True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"[" * 10_000, 400),
        (b'{"decision": ["approved"]}', 400),
        (b'{"decision": "pending"}', 400),
        (b'{"decision": "approved", "note": 7}', 400),
        (b'{"decision": "approved", "note": "\\u001b[2J"}', 400),
        (json.dumps({"decision": "approved", "note": "x" * 2_001}).encode(), 400),
        (b" " * (limits.CONTROL_MAX_BYTES + 1), 413),
    ],
)
def test_bodies_that_decide_nothing(ask, call, url, body, status):
    ask(request())
    assert call("POST", f"{url}/v1/exemptions/{1:032x}", body)[0] == status
    assert ask(request())[0]["decision"] == "pending"


@pytest.mark.parametrize("name", [f"{2:032x}", "x", "..%2F..%2Fetc", "A" * 32])
def test_a_request_that_is_not_there(call, url, name):
    assert call("POST", f"{url}/v1/exemptions/{name}", {"decision": "approved"})[0] == 404


def test_a_page_of_a_browser_cannot_decide(ask, call, url):
    """A form sends no JSON."""
    ask(request())
    body = b'{"decision": "approved"}'
    answer = call("POST", f"{url}/v1/exemptions/{1:032x}", body, OPERATOR, **{"Content-Type": "text/plain"})
    assert answer[0] == 415


# --- who may what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [DEVICES, None, "", "other"])
def test_only_the_operators_token_sees_and_decides(ask, call, url, token):
    ask(request())
    assert call("GET", f"{url}/v1/exemptions", None, token)[0] == 401
    assert call("POST", f"{url}/v1/exemptions/{1:032x}", {"decision": "approved"}, token)[0] == 401
    assert ask(request())[0]["decision"] == "pending"


def test_the_operators_token_sends_nothing(call, url, frame, http):
    assert call("POST", f"{url}/v1/control", {"records": [request()]}, OPERATOR)[0] == 401
    answer = http.request(
        "POST",
        f"{url}/v1/batches",
        body=frame(1),
        headers={
            "Content-Type": "application/vnd.mcilib.batches",
            "Authorization": f"Bearer {OPERATOR}",
        },
    )
    assert answer.status == 401


@pytest.mark.parametrize("token", [None, DEVICES])
def test_without_an_operators_token_nobody_sees_or_decides(run_app, call, folder, token):
    url = run_app(create_app(store_in(folder), token=token))
    call("POST", f"{url}/v1/control", {"records": [request()]}, token)
    for given in (None, DEVICES, "", "None"):
        assert call("GET", f"{url}/v1/exemptions", None, given)[0] == 404
        assert call("POST", f"{url}/v1/exemptions/{1:032x}", {"decision": "approved"}, given)[0] == 404


@pytest.mark.parametrize("operator_token", ["", "two words", "ünicode", "same"])
def test_tokens_that_cannot_be(folder, operator_token):
    with pytest.raises(ConfigError):
        create_app(store_in(folder), token="same", operator_token=operator_token)


def test_a_store_in_trouble_decides_nothing_and_tells_no_path(run_app, call):
    class Broken(FolderStore):
        def __init__(self) -> None:
            pass

        def asked(self, after=""):
            raise StoreError("The store /srv/private is broken", "Mend it.")

        def decide(self, *args):
            raise StoreError("The store /srv/private is broken", "Mend it.")

    url = run_app(create_app(Broken(), token=None, operator_token=OPERATOR))
    for method, path, body in (
        ("GET", "/v1/exemptions", None),
        ("POST", f"/v1/exemptions/{1:032x}", {"decision": "denied"}),
    ):
        status, answer = call(method, url + path, body)
        assert (status, "private" in answer["error"]) == (503, False)
