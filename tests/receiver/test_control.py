"""Control records, digests and rate limits, over real sockets on a real folder."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from datetime import date
from typing import Any

import pytest

from mcilib.errors import ConfigError, StoreError
from mcilib.receiver import FolderStore, control, create_app
from mcilib.receiver.rate import DEVICES_MAX, DeviceRate

TYPE = "application/vnd.mcilib.batches"
P, D, R = "1" * 32, "d" * 32, "c" * 32


@pytest.fixture
def ask(http):
    """`ask(url, record, ...)` -> status and JSON."""

    def send(url: str, *records: Any, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        body = json.dumps({"records": records}).encode() if body is None else body
        headers = {"Content-Type": "application/json", **headers}
        answer = http.request("POST", url + "/v1/control", body=body, headers=headers)
        return answer.status, answer.json()

    return send


def wish(record: str = R, **fields: Any) -> dict[str, Any]:
    return {"record": record, "kind": "delete", "participant": P, "device": D, **fields}


# --- deletion -----------------------------------------------------------------------------------------------


def test_deletion_is_carried_out_and_confirmed(url, ask, post, frame, copies, folder):
    frames = [frame(n, participant=P) for n in range(3)]
    post(url, b"".join(frames))
    assert ask(url, wish(batches=[f"{1:032x}"])) == (
        200,
        {"receipts": [{"record": R, "status": "stored", "reason": ""}]},
    )
    assert sorted(copies(folder)) == [f"{0:032x}", f"{2:032x}"]
    again = wish(batches=[f"{1:032x}"])
    status, answer = ask(url, again, wish("b" * 32))
    assert [(r["record"], r["status"]) for r in answer["receipts"]] == [
        (R, "duplicate"),
        ("b" * 32, "stored"),
    ]
    assert copies(folder) == {}
    status, answer = post(url, b"".join(frames))
    assert status == 200
    assert [(r["status"], r["reason"]) for r in answer["receipts"]] == [("rejected", "deleted")] * 3


@pytest.mark.parametrize(
    ("record", "record_id", "reason"),
    [
        (wish(kind="later"), R, "does not know"),
        ({"record": R}, R, "does not know"),
        (wish(participant="x"), R, "participant"),
        (wish(participant="../" * 8), R, "participant"),
        (wish(device=None), R, "device"),
        (wish(batches=None), R, "list of ids"),
        (wish(batches="all"), R, "list of ids"),
        (wish(batches=[1]), R, "list of ids"),
        (wish(batches=["A" * 32]), R, "list of ids"),
        (wish(batches=[f"{n:032x}" for n in range(control.BATCHES_PER_RECORD + 1)]), R, "more than"),
        (wish("../../x"), "", "record id"),
        ("text", "", "record id"),
        (None, "", "record id"),
    ],
)
def test_records_that_are_refused_leave_everything(
    url, ask, post, frame, copies, folder, record, record_id, reason
):
    post(url, frame(1, participant=P))
    status, answer = ask(url, record, wish("b" * 32, participant="9" * 32))
    assert status == 200
    first, second = answer["receipts"]
    assert (first["record"], first["status"]) == (record_id, "rejected")
    assert reason in first["reason"]
    assert second == {"record": "b" * 32, "status": "stored", "reason": ""}
    assert list(copies(folder)) == [f"{1:032x}"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"records": {}}', 400),
        (b'{"records": []}', 400),
        (b"[" * 100_000, 400),
        (b'{"records": "\xff"}', 400),
        (json.dumps({"records": [wish()] * (control.RECORDS_PER_REQUEST + 1)}).encode(), 413),
        (b" " * (control.RECORDS_PER_REQUEST * 16 * 1024 + 1), 413),
    ],
)
def test_bodies_that_are_refused(url, ask, body, status):
    assert ask(url, body=body)[0] == status


def test_token_and_type(run_app, ask, folder):
    url = run_app(create_app(FolderStore(folder, today=lambda: date(2026, 3, 1)), token="t"))
    assert ask(url, wish())[0] == 401
    assert ask(url, wish(), Authorization="Bearer t")[0] == 200
    assert ask(url, wish(), **{"Authorization": "Bearer t", "Content-Type": "text/plain"})[0] == 415


class Slow:
    """A store whose deletions last until they are let go."""

    def __init__(self) -> None:
        self.go, self.runs = threading.Event(), 0

    def delete(self, deletion):
        self.runs += 1
        while not self.go.wait(0.02):
            yield
        return 7


def test_a_deletion_that_takes_longer_goes_on_and_is_confirmed_later(run_app, ask, http, monkeypatch):
    monkeypatch.setattr("mcilib.receiver.app.CONTROL_BUDGET_S", 0.2)
    store = Slow()
    url = run_app(create_app(store, token=None))  # type: ignore[arg-type]
    body = json.dumps({"records": [wish()]}).encode()
    for _ in range(2):
        answer = http.request(
            "POST", url + "/v1/control", body=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
    store.go.set()
    monkeypatch.setattr("mcilib.receiver.app.CONTROL_BUDGET_S", 9.0)
    assert ask(url, wish())[1]["receipts"][0]["status"] == "stored"
    assert store.runs == 1


def test_a_store_in_trouble_confirms_nothing(run_app, ask):
    class Broken:
        def delete(self, deletion):
            raise StoreError("The store /srv/private is broken", "Mend it.")
            yield

    status, answer = ask(run_app(create_app(Broken(), token=None)), wish())  # type: ignore[arg-type]
    assert status == 503
    assert "private" not in answer["error"]


# --- Content-Digest -----------------------------------------------------------------------------------------


def digest(data: bytes, name: str = "sha-256") -> str:
    value = base64.b64encode(hashlib.new(name.replace("-", ""), data).digest()).decode()
    return f"{name}=:{value}:"


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (lambda data: digest(data), 200),
        (lambda data: digest(data, "sha-512"), 200),
        (lambda data: "md5=:AAAA:, " + digest(data) + ";x=1", 200),
        (lambda data: "unixsum=:AAAA:", 200),
        (lambda data: digest(data + b"x"), 503),
        (lambda data: digest(data) + ", " + digest(b"", "sha-512"), 503),
        (lambda data: "sha-256=" + hashlib.sha256(data).hexdigest(), 400),
        (lambda data: "sha-256=:%%%:", 400),
        (lambda data: "sha-256", 400),
    ],
)
def test_content_digest(url, post, ask, frame, copies, folder, field, status):
    data = frame(1)
    assert post(url, data, {"Content-Digest": field(data)})[0] == status
    assert len(copies(folder)) == (1 if status == 200 else 0)
    body = json.dumps({"records": [wish()]}).encode()
    assert ask(url, body=body, **{"Content-Digest": field(body)})[0] == status


# --- rate ---------------------------------------------------------------------------------------------------


class Clock:
    now_ns = 0

    def monotonic_ns(self):
        return self.now_ns

    def wall_ns(self):
        return 0

    def suspended_ns(self):
        return 0


def test_one_device_is_held_back_and_no_other(run_app, http, post, ask, frame, copies, folder):
    clock = Clock()
    store = FolderStore(folder, today=lambda: date(2026, 3, 1))
    url = run_app(create_app(store, token=None, device_requests=2, clock=clock))
    assert post(url, frame(1) + frame(2))[0] == 200  # one request of this device
    assert ask(url, wish())[0] == 200  # and this is one too
    refused = http.request(
        "POST", url + "/v1/batches", body=frame(3) + frame(4, device="5" * 32), headers={"Content-Type": TYPE}
    )
    assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
    assert sorted(copies(folder)) == [f"{1:032x}", f"{2:032x}"]
    assert ask(url, wish())[0] == 429
    assert [post(url, frame(4, device="5" * 32))[0] for _ in range(3)] == [200, 200, 429]
    clock.now_ns += 29_900_000_000
    assert post(url, frame(3))[0] == 429
    clock.now_ns += 200_000_000
    assert [post(url, frame(3))[0] for _ in range(2)] == [200, 429]


def test_how_requests_come_back_and_devices_are_forgotten():
    rate = DeviceRate(60, 60.0)
    assert [rate.wait_s({D}, 0.0) for _ in range(61)] == [0.0] * 60 + [1.0]
    assert rate.wait_s({D, P}, 0.25) == pytest.approx(0.75)
    assert [rate.wait_s({P}, 0.25) for _ in range(61)] == [0.0] * 60 + [1.0], (
        "nothing was taken from the other"
    )
    assert [rate.wait_s({D}, 1000.0) for _ in range(61)] == [0.0] * 60 + [1.0], (
        "never more than were at first"
    )
    for n in range(DEVICES_MAX):
        rate.wait_s({str(n)}, 1000.0)
    assert rate.wait_s({D}, 1000.0) == 0.0, "forgotten"
    assert rate.wait_s(set(), 0.0) == 0.0


def test_no_requests_at_all_is_no_limit(folder):
    with pytest.raises(ConfigError, match="0 requests"):
        create_app(FolderStore(folder, today=lambda: date(2026, 3, 1)), token=None, device_requests=0)
