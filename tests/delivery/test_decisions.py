"""Requests that an operator decides, seen from the device: what stays, what is asked again and when, what is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from object_server import object_server as object_server

from mcilib.consent import Exemption, ExemptScope
from mcilib.delivery.control import delete_request, exemption_request, exemption_withdrawal
from mcilib.delivery.folder import FolderTransport
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.objectstore import ObjectStoreTransport, S3Credentials
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Flushed, Uploader
from mcilib.errors import SpoolError
from mcilib.protocols import Outcome, Receipt, ReceiptStatus, Reply
from mcilib.testing.fakes import FakeTransport

P, D = "1" * 32, "d" * 32
HOUR_S = 3_600.0


def ask(spool: Any) -> str:
    """The id of a new request that waits in the spool."""
    scope = ExemptScope(scopes=("keys",))
    made = exemption_request(P, D, Exemption(uuid.uuid4().hex, scope, "medical", "", requested_ns=5))
    record_id: str = spool.commit_control(made).record_id
    return record_id


class Told:
    """The callbacks: keep what they are told, and that the record is still there then."""

    def __init__(self, spool: Any) -> None:
        self.spool = spool
        self.decisions: list[tuple[str, str]] = []
        self.carried_out: list[str] = []
        self.fails: Exception | None = None

    def on_decision(self, record_id: str, receipt: Receipt) -> None:
        self._told(record_id)
        self.decisions.append((record_id, receipt.decision))

    def on_carried_out(self, record_id: str) -> None:
        self._told(record_id)
        self.carried_out.append(record_id)

    def _told(self, record_id: str) -> None:
        assert record_id in waiting(self.spool), "told only after it had left the spool"
        if self.fails is not None:
            raise self.fails


def waiting(spool: Any) -> list[str]:
    return [record.record_id for record in spool.controls()]


@pytest.fixture
def told(spool):
    return Told(spool)


@pytest.fixture
def make(spool, clock, told):
    def uploader(transport: Any, **options: Any) -> Uploader:
        given = {"clock": clock, "random": Random(1), "attempts": 1, "interval_s": HOUR_S, **options}
        return Uploader(
            spool, transport, on_decision=told.on_decision, on_carried_out=told.on_carried_out, **given
        )

    return uploader


def one_round(uploader: Uploader) -> Any:
    """As the schedule makes it. (The thread is tested below; here time stands still.)"""
    from mcilib.delivery._round import Round

    return uploader._round(Round(threading.Event()))


class Replies:
    """A transport that answers control records as it is told."""

    def __init__(self, answer: Callable[[str], Receipt], outcome: Outcome = Outcome.DELIVERED) -> None:
        self.answer, self.outcome = answer, outcome

    def send_control(self, records, /) -> Reply:
        return Reply(self.outcome, {r.record_id: self.answer(r.record_id) for r in records}, detail="well")

    def send(self, batches, /) -> Reply:
        return Reply(
            Outcome.DELIVERED, {b.batch_id: Receipt(b.batch_id, ReceiptStatus.STORED) for b in batches}
        )

    def close(self) -> None:
        pass


# --- pending ------------------------------------------------------------------------------------------------


def test_a_request_that_is_not_decided_stays_and_is_no_problem(make, spool, seal, told):
    record_id, batch_id = ask(spool), spool.commit(seal()).batch_id
    uploader = make(FakeTransport())
    assert uploader.flush() == Flushed(True, True, Outcome.DELIVERED, "")
    assert waiting(spool) == [record_id]
    assert batch_id not in spool.waiting()
    assert uploader.health().ok
    assert told.decisions == []
    assert uploader.statistics().last_outcome == "delivered"


def test_it_is_asked_about_once_in_an_interval_and_by_each_flush(make, spool, seal, clock):
    record_id = ask(spool)
    transport = FakeTransport()
    uploader = make(transport)
    one_round(uploader)
    clock.advance(HOUR_S / 2)
    batch_id = spool.commit(seal()).batch_id
    one_round(uploader)  # something else woke it: the network came back, the host asked for haste
    assert transport.requests == [[record_id], [batch_id]]
    uploader.flush()
    assert transport.requests == [[record_id], [batch_id], [record_id]]
    clock.advance(HOUR_S - 1)
    assert one_round(uploader).outcome is None, "no request was made"
    clock.advance(1)
    one_round(uploader)
    assert transport.requests[3:] == [[record_id]]


def test_a_flush_that_reaches_nobody_says_so(make, spool):
    ask(spool)
    result = make(FakeTransport([Outcome.RETRY])).flush()
    assert (result.settled, result.delivered, result.outcome) == (False, False, Outcome.RETRY)


def test_a_plan_of_nothing_holds_it_back(make, spool):
    from mcilib.protocols import Allowed, SendPlan

    record_id, transport = ask(spool), FakeTransport()
    make(transport, plan=lambda: SendPlan(Allowed.NOTHING, "no network")).flush()
    assert transport.requests == []
    make(transport, plan=lambda: SendPlan(Allowed.CONTROL, "low battery")).flush()
    assert transport.requests == [[record_id]]


# --- decided ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approved", "denied"])
def test_a_decision_is_told_once_and_then_the_record_goes(make, spool, told, decision):
    record_id, transport = ask(spool), FakeTransport()
    uploader = make(transport)
    uploader.flush()
    transport.decisions[record_id] = decision
    assert uploader.flush() == Flushed(True, True, Outcome.DELIVERED, "")
    assert told.decisions == [(record_id, decision)]
    assert waiting(spool) == []
    uploader.flush()
    assert len(transport.requests) == 2


def test_time_and_words_are_told_too(make, spool):
    record_id, got = ask(spool), []
    answer = Receipt(record_id, ReceiptStatus.DUPLICATE, "", "denied", 77, "Because.")
    Uploader(spool, Replies(lambda _: answer), on_decision=lambda *args: got.append(args)).flush()
    assert got == [(record_id, answer)]


@pytest.mark.parametrize("decision", ["withdrawn", "expired", ""])
def test_where_nothing_is_left_to_decide_the_record_goes_untold(make, spool, told, decision):
    """Empty: of a way on which nobody decides."""
    ask(spool)
    make(Replies(lambda name: Receipt(name, ReceiptStatus.STORED, decision=decision))).flush()
    assert waiting(spool) == []
    assert told.decisions == []


@pytest.mark.parametrize("decision", ["maybe", "Approved", "decided"])
def test_a_decision_that_is_not_known_here_is_waited_out(make, spool, told, decision):
    record_id = ask(spool)
    make(Replies(lambda name: Receipt(name, ReceiptStatus.STORED, decision=decision))).flush()
    assert (waiting(spool), told.decisions) == ([record_id], [])


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.DELIVERED])
def test_only_an_answer_of_the_receiver_decides(make, spool, told, outcome):
    record_id = ask(spool)
    answer = Replies(lambda name: Receipt(name, ReceiptStatus.STORED, decision="denied"), outcome)
    make(answer).flush()
    assert (waiting(spool), told.decisions, told.carried_out) == ([record_id], [], [])


def test_a_refused_request_is_told_by_health_and_decides_nothing(make, spool, seal, told):
    """As a receiver does from before there were exemptions."""
    record_id, batch_id = ask(spool), spool.commit(seal()).batch_id
    why = "this receiver does not know records of that kind"
    refused = Receipt("", ReceiptStatus.REJECTED, why, "denied")
    uploader = make(Replies(lambda _: refused))
    assert not uploader.flush().delivered
    assert (waiting(spool), told.decisions) == ([record_id], [])
    assert why in uploader.health().problems[0].message
    assert batch_id not in spool.waiting(), "data goes on"


def test_a_request_of_somebody_who_was_deleted_goes(make, spool, told):
    ask(spool)
    spool.commit_control(exemption_withdrawal(P, D, "e" * 32))
    uploader = make(Replies(lambda name: Receipt(name, ReceiptStatus.REJECTED, "deleted")))
    assert uploader.flush().delivered
    assert (waiting(spool), told.decisions) == ([], [])
    assert uploader.health().ok


def test_a_deletion_is_told_as_carried_out_and_never_as_decided(make, spool, told):
    record_id = spool.commit_control(delete_request(P, D)).record_id
    spool.commit_control(exemption_withdrawal(P, D, "e" * 32))
    make(Replies(lambda name: Receipt(name, ReceiptStatus.STORED, decision="pending"))).flush()
    assert (told.carried_out, told.decisions, waiting(spool)) == ([record_id], [], [])


def test_a_deletion_that_is_refused_is_not_carried_out(make, spool, told):
    record_id = spool.commit_control(delete_request(P, D)).record_id
    make(Replies(lambda name: Receipt(name, ReceiptStatus.REJECTED, "deleted"))).flush()
    assert (told.carried_out, waiting(spool)) == ([], [record_id])


@pytest.mark.parametrize("error", [SpoolError("The disk is full", "Free space."), KeyError("secret note")])
def test_a_callback_that_raises_keeps_the_record_and_is_seen_in_health(make, spool, seal, told, clock, error):
    deleted, asked = spool.commit_control(delete_request(P, D)).record_id, ask(spool)
    batch_id, transport = spool.commit(seal()).batch_id, FakeTransport()
    transport.decisions[asked] = "approved"
    told.fails = error
    uploader = make(transport)
    result = uploader.flush()
    assert (result.settled, result.delivered) == (False, False)
    assert waiting(spool) == [deleted, asked]
    assert batch_id not in spool.waiting(), "data goes on"
    (problem,) = uploader.health().problems
    assert ("The disk is full" if isinstance(error, SpoolError) else "KeyError") in problem.message
    assert "secret" not in problem.message
    told.fails = None
    one_round(uploader)
    assert waiting(spool) == [deleted, asked], "asked again after an interval, not before"
    clock.advance(HOUR_S)
    one_round(uploader)
    assert (told.carried_out, told.decisions) == ([deleted], [(asked, "approved")])
    assert waiting(spool) == []
    assert uploader.health().ok


# --- ways on which nobody decides ---------------------------------------------------------------------------


def test_a_folder_decides_nothing(make, spool, told, tmp_path):
    record_id = ask(spool)
    (tmp_path / "stick").mkdir()
    transport = FolderTransport(tmp_path / "stick")
    planted = {"record": record_id, "status": "stored", "decision": "denied"}
    (tmp_path / "stick" / "receipts.json").write_text(json.dumps({"receipts": [planted]}))
    assert make(transport).flush().delivered
    assert (told.decisions, waiting(spool)) == ([], [])
    assert list((tmp_path / "stick" / "control").rglob("*.json"))


def test_an_object_store_decides_nothing(make, spool, told, object_server):
    ask(spool)
    bucket = object_server.bucket()
    transport = ObjectStoreTransport(
        f"s3://{bucket}/x",
        credentials=S3Credentials("any", "any"),
        endpoint=object_server.url,
    )
    assert make(transport).flush().delivered
    transport.close()
    assert (told.decisions, waiting(spool)) == ([], [])


@pytest.mark.parametrize("status", [200, 201, 302, 401, 404, 503])
def test_what_is_not_our_receiver_decides_nothing(make, spool, told, serve, status):
    """A portal that knows all but the ids: those are random, and its answer is no answer to our request."""
    from types import SimpleNamespace

    record_id = ask(spool)
    entry = {"record": "f" * 32, "status": "stored", "decision": "denied"}
    body = json.dumps({"receipts": [entry]}).encode()
    if status != 200:
        body = body.replace(b"f" * 32, record_id.encode())  # the right id under a status that is no answer
    server = serve(lambda request: SimpleNamespace(status=status, body=body, headers={}))
    transport = HttpTransport(server.url, timeout_s=5)
    result = make(transport).flush()
    transport.close()
    if status == 201:  # any 2xx with a receipt for the id is an answer (upload protocol)
        assert told.decisions == [(record_id, "denied")]
        return
    assert (told.decisions, waiting(spool)) == ([], [record_id])
    assert not result.delivered


# --- the thread ---------------------------------------------------------------------------------------------


def test_the_schedule_goes_on_for_a_request_alone_with_one_wake_up_an_interval(spool):
    """Nothing else waits. Each sleep ends by the schedule: as many sleeps as requests."""
    record_id, transport, got = ask(spool), FakeTransport(), []
    decided = threading.Event()

    def on_decision(name: str, receipt: Receipt) -> None:
        got.append((name, receipt.decision))
        decided.set()

    uploader = Uploader(spool, transport, interval_s=0.05, random=Random(1), on_decision=on_decision)
    sleeps = 0
    really = uploader._wake.wait

    def counting(timeout: float | None = None) -> bool:
        nonlocal sleeps
        sleeps += 1
        return really(timeout)

    uploader._wake.wait = counting  # type: ignore[method-assign]
    uploader.start()
    try:
        end_s = time.monotonic() + 10
        while len(transport.requests) < 5 and time.monotonic() < end_s:
            time.sleep(0.01)
        assert transport.requests[:5] == [[record_id]] * 5
        assert sleeps <= len(transport.requests) + 2, "it woke without a reason"
        assert uploader.statistics().next_attempt_s is not None
        transport.decisions[record_id] = "denied"
        assert decided.wait(10)
        assert got == [(record_id, "denied")]
    finally:
        uploader.stop()


# --- crashes ------------------------------------------------------------------------------------------------

DIES = """
import json, os, signal, sys
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.testing.fakes import FakeTransport

folder, log, dies_in = sys.argv[1:]
transport = FakeTransport()

def told(what, record_id):
    with open(log, "a") as file:
        file.write(f"{what} {record_id}\\n")
        file.flush()
        os.fsync(file.fileno())
    if dies_in == what:
        os.kill(os.getpid(), signal.SIGKILL)

with DirectorySpool(folder) as spool:
    for record in spool.controls():
        transport.decisions[record.record_id] = "approved"
    result = Uploader(
        spool, transport,
        on_decision=lambda record_id, receipt: told(receipt.decision, record_id),
        on_carried_out=lambda record_id: told("carried", record_id),
    ).flush()
    assert result.delivered, result
"""


@pytest.mark.parametrize("dies_in", ["approved", "carried"])
def test_killed_between_the_callback_and_the_end_of_the_record_it_is_told_again(tmp_path, dies_in):
    folder, log = tmp_path / "spool", tmp_path / "log"
    with DirectorySpool(folder) as spool:
        record_id = (
            ask(spool) if dies_in == "approved" else spool.commit_control(delete_request(P, D)).record_id
        )

    def run(dies: str) -> int:
        return subprocess.run([sys.executable, "-P", "-c", DIES, folder, log, dies], timeout=60).returncode

    assert run(dies_in) == -signal.SIGKILL
    with DirectorySpool(folder) as spool:
        assert waiting(spool) == [record_id], "it stays until what it told is safe"
    assert run("nowhere") == 0
    assert log.read_text().splitlines() == [f"{dies_in} {record_id}"] * 2
    with DirectorySpool(folder) as spool:
        assert waiting(spool) == []
    assert os.path.exists(folder)
