"""Checks of the seams' promises, for other people's implementations and for ours.

Each takes a factory, so that it can begin with a fresh one, and raises `AssertionError` with the promise that
was broken. They use the real clock and take less than a few seconds.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from mcilib import limits
from mcilib.consent import SCOPES, Exemption, ExemptScope
from mcilib.delivery.control import PENDING, delete_request, exemption_request
from mcilib.errors import McilibError
from mcilib.events import Move
from mcilib.protocols import (
    EventSink,
    Fate,
    Outcome,
    ReceiptStatus,
    Resources,
    SealedBatch,
    Session,
    Source,
    Spool,
    Transport,
)
from mcilib.testing.fakes import ListSink, example_batch

_PATIENCE_S = 5.0
_AS_IT_IS = ("display", "layout", "focus")
"""Kinds that a source tells at its start too, without any input."""
_TICK_NS = 1_000_000
"""Systems stamp events in whole milliseconds, rounded down."""
_SESSION_START_S = 1.5
_TOLD_S = 5.0


def check_source(make: Callable[[], Source], drive: Callable[[Source], None]) -> None:
    """`drive` makes the system produce input of the source's kind: at least one event each time it is called."""
    source = make()
    scope = SCOPES.get(source.scope)
    assert scope is not None, f"scope {source.scope!r} is not in mcilib.consent.SCOPES"
    assert source.name, "a source has a name"
    before = set(threading.enumerate())
    stops_s: list[float] = []
    for life in ("first", "second"):
        sink = ListSink()
        source.start(sink)
        driven_ns = time.monotonic_ns()
        drive(source)
        _until(
            partial(_is_driven, sink, driven_ns), f"{life} start: no event within {_PATIENCE_S} s of input"
        )
        assert source.health().ok, f"{life} start: {source.health().problems}"
        began = time.monotonic()
        source.stop()
        stops_s.append(time.monotonic() - began)
        seen = len(sink.events)
        kinds = {event.kind for event in sink.events}
        assert kinds <= {*scope.kinds, "gap"}, f"kinds {kinds} are not all of scope {source.scope!r}"
        times = [event.t_ns for event in sink.events if event.kind != "gap"]
        assert times == sorted(times), "events are emitted in the order in which they were seen"
        drive(source)
        time.sleep(0.1)
        assert len(sink.events) == seen, "an event was emitted after stop returned"
        source.stop()
    _took("stop", stops_s, limits.SOURCE_STOP_TIMEOUT_S + 0.1)
    left = {thread for thread in threading.enumerate() if thread.is_alive()} - before
    assert not left, f"threads left after stop: {left}"


def check_session(make: Callable[[], Session], become: Callable[[Session, str | None], None]) -> None:
    """`become` makes the system lock the session, put another user's before it, or bring it back (None)."""
    session = make()
    before = set(threading.enumerate())
    starts_s: list[float] = []
    stops_s: list[float] = []
    for life in ("first", "second"):
        told: list[str | None] = []
        become(session, "locked")
        began = time.monotonic()
        session.start(partial(_note_away, session, told))
        starts_s.append(time.monotonic() - began)
        assert session.away == "locked", (
            f"{life} start: away is {session.away!r} when start returns, not 'locked'"
        )
        assert session.health().ok, f"{life} start: {session.health().problems}"
        for away in (None, "switched", "locked", None):
            become(session, away)
            _until(partial(_last_is, told, away), f"{life} start: on_change was not called for {away!r}")
            assert session.away == away, f"{life} start: away is {session.away!r}, not {away!r}"
        began = time.monotonic()
        session.stop()
        stops_s.append(time.monotonic() - began)
        calls = len(told)
        become(session, "locked")
        time.sleep(0.1)
        assert len(told) == calls, "on_change was called after stop returned"
        session.stop()
    _took("start", starts_s, _SESSION_START_S)
    _took("stop", stops_s, limits.BUS_STOP_TIMEOUT_S + 0.1)
    left = {thread for thread in threading.enumerate() if thread.is_alive()} - before
    assert not left, f"threads left after stop: {left}"


def _took(what: str, all_s: list[float], most_s: float) -> None:
    """The quicker one counts: a busy machine may stand still once."""
    assert min(all_s) <= most_s, f"{what} took {min(all_s):.2f} s"


def _note_away(session: Session, told: list[str | None]) -> None:
    told.append(session.away)


def _last_is(told: list[str | None], away: str | None) -> bool:
    return bool(told) and told[-1] == away


def check_resources(make: Callable[[], Resources], plug: Callable[[Resources, bool], None]) -> None:
    """`plug` puts the machine, which has a battery, on mains (True) or takes it off."""
    resources = make()
    before = set(threading.enumerate())
    starts_s: list[float] = []
    stops_s: list[float] = []
    resources.refresh()
    for life in ("first", "second"):
        told: list[bool | None] = []
        plug(resources, False)
        began = time.monotonic()
        resources.start(partial(_note_mains, resources, told))
        starts_s.append(time.monotonic() - began)
        state = resources.state
        assert state.on_mains is False, f"{life} start: on_mains is {state.on_mains} when start returns"
        assert state.on_battery, f"{life} start: on_battery is not so when start returns"
        assert resources.health().ok, f"{life} start: {resources.health().problems}"
        for plugged in (True, False, True):
            calls = len(told)
            plug(resources, plugged)
            words = f"{life} start: on_change was not called within {_TOLD_S} s for on_mains={plugged}"
            _until(partial(_is_told, told, calls, plugged), words, _TOLD_S)
            assert resources.state.on_mains is plugged, f"{life} start: {resources.state}, not {plugged}"
        assert state.on_mains is False, "a state that was read has changed"
        resources.refresh()
        assert resources.state.on_mains, "refresh has forgotten what the system told"
        began = time.monotonic()
        resources.stop()
        stops_s.append(time.monotonic() - began)
        calls = len(told)
        plug(resources, False)
        resources.refresh()
        time.sleep(0.1)
        assert len(told) == calls, "on_change was called after stop returned"
        resources.stop()
    _took("start", starts_s, _SESSION_START_S)
    _took("stop", stops_s, limits.BUS_STOP_TIMEOUT_S + 0.1)
    left = {thread for thread in threading.enumerate() if thread.is_alive()} - before
    assert not left, f"threads left after stop: {left}"


def _note_mains(resources: Resources, told: list[bool | None]) -> None:
    told.append(resources.state.on_mains)


def _is_told(told: list[bool | None], calls: int, plugged: bool) -> bool:
    return len(told) > calls and told[-1] is plugged


def check_sink(make: Callable[[], EventSink]) -> None:
    """A sink takes events from several threads at once and says when it is full."""
    sink = make()
    assert sink.room > 0, "a fresh sink has room"
    refused: list[int] = []

    def emit() -> None:
        taken = sum(sink.emit(Move(time.monotonic_ns(), n, n)) for n in range(100))
        taken += sink.emit_all([Move(time.monotonic_ns(), n, n) for n in range(100, 200)])
        refused.append(200 - taken)

    threads = [threading.Thread(target=emit) for _ in range(4)]
    room = sink.room
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 4, "emit raised"
    assert sum(refused) <= max(0, 800 - room), "events were refused although there was room"
    assert sink.emit_all([]) == 0, "of no events none is taken"


def check_spool(make: Callable[[], Spool]) -> None:
    """Sequences, order, immutability and removal."""
    spool = make()
    first = spool.commit(lambda sequence: example_batch(sequence))

    def broken(sequence: int) -> SealedBatch:
        raise RuntimeError("sealing failed")

    try:
        spool.commit(broken)
    except (RuntimeError, McilibError):
        pass
    else:
        raise AssertionError("commit hides that sealing failed")
    second = spool.commit(lambda sequence: example_batch(sequence))
    assert second.sequence == first.sequence + 1, "a commit that failed used up a sequence"
    assert list(spool.waiting()) == [first.batch_id, second.batch_id], "waiting() lists the oldest first"
    again = spool.read(first.batch_id)
    assert again is not None, "a committed batch can be read"
    assert again.data == first.data, "what is read is what was committed, byte for byte"
    spool.settle("f" * 32, Fate.DELIVERED)
    spool.settle(first.batch_id, Fate.DELIVERED)
    spool.settle(second.batch_id, Fate.REJECTED)
    assert not spool.waiting(), "a settled batch no longer waits"
    assert spool.read(first.batch_id) is None, "a settled batch is gone"
    third = spool.commit(lambda sequence: example_batch(sequence))
    assert third.sequence == second.sequence + 1, "sequences are never reused"
    fourth = spool.commit(lambda sequence: example_batch(sequence))
    assert not spool.waiting(3600.0), "waiting() lists only batches that have waited for so long"
    spool.settle_all({"f" * 32: Fate.DELIVERED, fourth.batch_id: Fate.DELIVERED})
    assert list(spool.waiting()) == [third.batch_id], "settle_all settles those that it names, and no other"
    spool.settle_control("f" * 32)
    assert not spool.controls(), "a batch is no control record"


def check_control(make: Callable[[], Spool]) -> None:
    """Of a spool that holds control records (`commit_control`) and can be purged."""
    spool: Any = make()
    ask = delete_request("a" * 32, "d" * 32)
    first, second = spool.commit_control(ask), spool.commit_control(delete_request("b" * 32, "d" * 32))
    assert second.sequence == first.sequence + 1, "control records have sequences of their own, from 1"
    batches = [spool.commit(lambda sequence: example_batch(sequence)) for _ in range(3)]
    assert list(spool.controls()) == [first, second], "controls() gives them byte for byte, the oldest first"
    gone = spool.purge([batches[1].batch_id, "f" * 32])
    assert gone == 1, f"purge removed one of those that it was given, and says {gone}"
    assert list(spool.waiting()) == [batches[0].batch_id, batches[2].batch_id], (
        "purge removes what it is given"
    )
    assert spool.purge() == 2, "purge says how many batches it removed"
    assert not spool.waiting(), "purge removes all batches"
    assert list(spool.controls()) == [first, second], "purge leaves the control records"
    spool.settle_control(first.record_id)
    assert list(spool.controls()) == [second], "a settled control record is gone, and no other"


def check_transport(make: Callable[[], Transport]) -> None:
    """Against a receiver that accepts: a receipt for each batch and each control record, a resend is a duplicate, no
    request for an exemption is decided by the way there, close is harmless."""
    transport = make()
    batches = [example_batch(1), example_batch(2)]
    reply = transport.send(batches)
    assert reply.outcome is Outcome.DELIVERED, f"not delivered: {reply}"
    statuses = {batch_id: receipt.status for batch_id, receipt in reply.receipts.items()}
    assert statuses == {batch.batch_id: ReceiptStatus.STORED for batch in batches}, f"receipts: {statuses}"
    again = transport.send(batches[:1]).receipts[batches[0].batch_id].status
    assert again is ReceiptStatus.DUPLICATE, f"a resend gets {again}"
    records = [delete_request(f"{n:032x}", "d" * 32)(n) for n in (1, 2)]
    reply = transport.send_control(records)
    assert reply.outcome is Outcome.DELIVERED, f"control records are not delivered: {reply}"
    for record in records:
        receipt = reply.receipts.get(record.record_id)
        assert receipt is not None, "a control record got no receipt"
        assert receipt.status is not ReceiptStatus.REJECTED, (
            f"a control record was rejected: {receipt.reason}"
        )
    again = transport.send_control(records[:1]).receipts[records[0].record_id].status
    assert again is ReceiptStatus.DUPLICATE, f"a control record sent again gets {again}"
    scope = ExemptScope(scopes=("keys",))
    ask = exemption_request(f"{3:032x}", "d" * 32, Exemption(uuid.uuid4().hex, scope, "medical", "", 0))(3)
    for _ in range(2):
        receipt = transport.send_control([ask]).receipts[ask.record_id]
        assert receipt.status is not ReceiptStatus.REJECTED, f"an exemption was rejected: {receipt.reason}"
        assert receipt.decision in ("", PENDING), "an exemption was decided though nobody decided it"
    assert not transport.send_control([]).receipts, "receipts for no control record"
    transport.close()
    transport.close()
    after = transport.send([example_batch(3)])
    assert after.outcome is Outcome.DELIVERED, "a closed transport opens again when it is used"
    transport.close()


def _is_driven(sink: ListSink, driven_ns: int) -> bool:
    """Whether there is an event of the input, beside what was told at the start."""
    return any(event.kind not in _AS_IT_IS or event.t_ns >= driven_ns - _TICK_NS for event in sink.events)


def _until(done: Callable[[], bool], message: str, patience_s: float | None = None) -> None:
    deadline = time.monotonic() + (_PATIENCE_S if patience_s is None else patience_s)
    while not done():
        assert time.monotonic() < deadline, message
        time.sleep(0.01)
