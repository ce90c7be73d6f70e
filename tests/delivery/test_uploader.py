"""What the uploader decides: what it sends, keeps and gives up. No thread, no sleep: `flush` in the caller."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from mcilib import limits
from mcilib.delivery._round import REQUEST_MAX_BATCHES, Round
from mcilib.delivery.control import delete_request
from mcilib.delivery.retry import Schedule
from mcilib.delivery.schedule import ScheduleFile
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Flushed, Uploader
from mcilib.errors import ConfigError, SpoolError
from mcilib.protocols import Allowed, Outcome, Receipt, ReceiptStatus, Reply, SendPlan


def accept(batches) -> Reply:
    return answer(batches, lambda batch: ReceiptStatus.STORED)


def answer(batches, status_of: Callable) -> Reply:
    receipts = {
        batch.batch_id: Receipt(batch.batch_id, status_of(batch), "because")
        for batch in batches
        if status_of(batch) is not None
    }
    return Reply(Outcome.DELIVERED, receipts, detail="well", bytes_sent=sum(len(b.data) for b in batches))


def always(outcome: Outcome, **fields) -> Callable[[list], Reply]:
    return lambda batches: Reply(outcome, detail=f"it was {outcome.value}", **fields)


class Script:
    """A transport that does what a test says, and remembers what it was given."""

    def __init__(self, *replies: Callable) -> None:
        self.replies = list(replies)
        self.sent: list[list[int]] = []
        self.records = 0

    def send_control(self, records, /) -> Reply:
        self.records += len(records)
        receipts = {r.record_id: Receipt(r.record_id, ReceiptStatus.STORED) for r in records}
        return Reply(Outcome.DELIVERED, receipts)

    def send(self, batches, /) -> Reply:
        self.sent.append([batch.sequence for batch in batches])
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        result: Reply = reply(batches)
        return result

    def close(self) -> None:
        raise AssertionError("whoever made the transport closes it")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(limits, "ATTEMPT_WAIT_FIRST_S", 0.0)


@pytest.fixture
def make(spool, clock):
    def uploader(transport, **options) -> Uploader:
        return Uploader(spool, transport, **{"clock": clock, "random": Random(1), "attempts": 1, **options})

    return uploader


def fill(spool, seal, count: int = 3, size_bytes: int = 100) -> list[str]:
    return [spool.commit(seal(size_bytes)).batch_id for _ in range(count)]


# --- all is well --------------------------------------------------------------------------------------------


def test_all_that_waits_goes_in_one_request_oldest_first(make, spool, seal):
    fill(spool, seal)
    transport = Script(accept)
    uploader = make(transport)
    assert uploader.flush() == Flushed(True, True, Outcome.DELIVERED, "")
    assert transport.sent == [[1, 2, 3]]
    assert spool.waiting() == ()
    assert spool.statistics().delivered_batches == 3
    now = uploader.statistics()
    assert (now.requests, now.bytes_sent, now.delivered_batches, now.duplicate_batches) == (1, 300, 3, 0)
    assert (now.last_outcome, now.last_detail, now.next_attempt_s) == ("delivered", "well", None)
    assert uploader.health().ok


def test_nothing_waits_nothing_is_sent(make):
    transport = Script(accept)
    assert make(transport).flush() == Flushed(True, True)
    assert transport.sent == []


def test_a_duplicate_is_delivered_too(make, spool, seal):
    fill(spool, seal, 2)
    uploader = make(Script(lambda batches: answer(batches, lambda b: ReceiptStatus.DUPLICATE)))
    assert uploader.flush().delivered
    assert (uploader.statistics().delivered_batches, uploader.statistics().duplicate_batches) == (2, 2)
    assert spool.statistics().delivered_batches == 2


def test_the_same_bytes_are_sent_again(make, spool, seal):
    fill(spool, seal, 1)
    seen = []

    def remember(batches) -> Reply:
        seen.append(list(batches))
        return Reply(Outcome.RETRY)

    make(Script(remember), attempts=3).flush()
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


# --- packing ------------------------------------------------------------------------------------------------


def test_max_request_bytes_parts_the_requests(make, spool, seal):
    fill(spool, seal, 5, size_bytes=100)
    transport = Script(accept)
    make(transport, max_request_bytes=250).flush()
    assert transport.sent == [[1, 2], [3, 4], [5]]


def test_a_batch_beyond_the_limit_goes_alone(make, spool, seal):
    for size_bytes in (100, 900, 100):
        fill(spool, seal, 1, size_bytes)
    transport = Script(accept)
    make(transport, max_request_bytes=250).flush()
    assert transport.sent == [[1], [2], [3]]


def test_no_more_batches_than_an_answer_can_name(make, spool, seal):
    fill(spool, seal, REQUEST_MAX_BATCHES + 1, size_bytes=1)
    transport = Script(accept)
    make(transport).flush()
    assert [len(request) for request in transport.sent] == [REQUEST_MAX_BATCHES, 1]


def test_a_damaged_batch_does_not_block_the_others(make, spool, seal):
    fill(spool, seal)
    next((spool.path / "ready").glob("0000000000000002-*")).write_bytes(b"")
    transport = Script(accept)
    result = make(transport).flush()
    assert transport.sent == [[1, 3]]
    assert (result.settled, result.delivered) == (True, False)
    assert "lost on this device" in result.detail


# --- attempts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_attempts_bound_the_tries_of_one_request(make, spool, seal, attempts):
    fill(spool, seal)
    transport = Script(always(Outcome.RETRY))
    uploader = make(transport, attempts=attempts)
    assert uploader.flush() == Flushed(False, False, Outcome.RETRY, "it was retry")
    assert transport.sent == [[1, 2, 3]] * attempts
    assert uploader.statistics().requests == attempts
    assert len(spool.waiting()) == 3


def test_a_second_attempt_may_succeed(make, spool, seal):
    fill(spool, seal)
    assert make(Script(always(Outcome.RETRY), accept), attempts=2).flush().delivered


@pytest.mark.parametrize("outcome", [Outcome.NOT_OUR_SERVER, Outcome.REFUSED, Outcome.GONE])
def test_what_a_second_attempt_cannot_mend_is_tried_once(make, spool, seal, outcome):
    fill(spool, seal)
    transport = Script(always(outcome))
    result = make(transport, attempts=3, max_request_bytes=100).flush()
    assert result == Flushed(False, False, outcome, f"it was {outcome.value}")
    assert transport.sent == [[1]]
    assert len(spool.waiting()) == 3


def test_a_server_that_asks_for_time_is_not_tried_again_in_the_same_breath(make, spool, seal):
    fill(spool, seal)
    transport = Script(always(Outcome.RETRY, retry_after_s=1.0))
    make(transport, attempts=3).flush()
    assert len(transport.sent) == 1


def test_attempts_wait_at_random_up_to_a_bound(make, spool, seal, monkeypatch):
    monkeypatch.setattr(limits, "ATTEMPT_WAIT_FIRST_S", 0.2)
    fill(spool, seal)
    uploader = make(Script(always(Outcome.RETRY)), attempts=4)
    waits: list[float] = []
    monkeypatch.setattr("threading.Event.wait", lambda self, wait_s: waits.append(wait_s))
    uploader.flush()
    assert len(waits) == 3
    assert all(0 <= wait_s <= 0.2 * 2**n for n, wait_s in enumerate(waits))
    assert len(set(waits)) == 3


def test_the_retry_budget_bounds_the_attempts_of_many_flushes(make, spool, seal):
    fill(spool, seal, 1)
    transport = Script(always(Outcome.RETRY))
    uploader = make(transport, attempts=3)
    for _ in range(11):
        uploader.flush()
    assert len(transport.sent) == 11 + 4  # 3 at once, and one for each ten requests


def test_more_attempts_only_in_a_flush_or_after_a_delivery_in_the_same_upload(make, spool, seal):
    fill(spool, seal, 3)
    busy, transport = always(Outcome.RETRY), Script(always(Outcome.RETRY))
    uploader = make(transport, attempts=3, max_request_bytes=100)
    uploader._round(Round(threading.Event()))  # as the schedule does
    assert transport.sent == [[1]]
    transport.sent, transport.replies = [], [accept, busy, accept]
    uploader._round(Round(threading.Event()))
    assert transport.sent == [[1], [2], [2], [3]]


# --- receipts -----------------------------------------------------------------------------------------------


def test_a_batch_without_a_receipt_still_waits(make, spool, seal):
    ids = fill(spool, seal)
    uploader = make(
        Script(lambda batches: answer(batches, lambda b: ReceiptStatus.STORED if b.sequence != 2 else None))
    )
    result = uploader.flush()
    assert spool.waiting() == (ids[1],)
    assert result == Flushed(
        False, False, Outcome.RETRY, "the receiver gave no receipt for 1 of 3 batches: well"
    )
    assert uploader._schedule.failures == 1


def test_a_receipt_says_rejected_beside_others_that_are_stored(make, spool, seal):
    fill(spool, seal, 9)
    status = {True: ReceiptStatus.REJECTED, False: ReceiptStatus.STORED}
    result = make(Script(lambda batches: answer(batches, lambda b: status[b.sequence < 9]))).flush()
    assert spool.waiting() == ()
    assert spool.statistics().lost["rejected"] == 8
    assert (result.settled, result.delivered) == (True, False)


def test_rejecting_receipts_alone_point_to_the_set_up(make, spool, seal):
    fill(spool, seal, 9)
    uploader = make(Script(lambda batches: answer(batches, lambda b: ReceiptStatus.REJECTED)))
    assert uploader.flush().outcome is Outcome.REFUSED
    assert spool.statistics().lost["rejected"] == limits.REJECTS_IN_A_ROW - 1


# --- bad batches --------------------------------------------------------------------------------------------


def refuses(*bad: int) -> Callable:
    def reply(batches) -> Reply:
        if any(batch.sequence in bad for batch in batches):
            return Reply(Outcome.BAD_BATCH, detail="400")
        return accept(batches)

    return reply


@pytest.mark.parametrize("bad", [1, 4, 7])
def test_one_bad_batch_among_many_is_found_and_given_up_alone(make, spool, seal, bad, conserves):
    ids = fill(spool, seal, 7)
    transport = Script(refuses(bad))
    uploader = make(transport)
    result = uploader.flush()
    assert spool.waiting() == ()
    assert spool.statistics().delivered_batches == 6
    assert spool.statistics().lost["rejected"] == 1
    assert [file.name[17:49] for file in (spool.path / "bad").iterdir()] == [ids[bad - 1]]
    assert (result.settled, result.delivered) == (True, False)
    assert len(transport.sent) <= 7
    assert uploader.health().ok
    assert conserves(spool)


def test_three_in_a_row_are_no_bad_batches(make, spool, seal):
    fill(spool, seal, 20)
    uploader = make(Script(always(Outcome.BAD_BATCH)))
    result = uploader.flush()
    assert result.outcome is Outcome.REFUSED
    assert "3 batches in a row were refused as bad" in result.detail
    assert spool.statistics().lost["rejected"] == limits.REJECTS_IN_A_ROW - 1
    assert len(spool.waiting()) == 20 - limits.REJECTS_IN_A_ROW + 1
    (problem,) = uploader.health().problems
    assert "refused as bad" in problem.message
    for _ in range(3):  # nor later, as long as none is taken
        uploader.flush()
    assert spool.statistics().lost["rejected"] == limits.REJECTS_IN_A_ROW - 1


def test_in_a_row_counts_over_uploads_and_ends_with_one_that_is_taken(make, spool, seal):
    transport = Script(always(Outcome.BAD_BATCH))
    uploader = make(transport)
    for taken in (False, False, True, False, False):
        transport.replies = [accept if taken else always(Outcome.BAD_BATCH)]
        fill(spool, seal, 1)
        assert uploader.flush().settled
    transport.replies = [always(Outcome.BAD_BATCH)]
    fill(spool, seal, 1)
    assert uploader.flush().outcome is Outcome.REFUSED
    assert spool.statistics().lost["rejected"] == 4


def test_a_bad_batch_at_the_head_blocks_nobody_even_as_the_third_in_a_row(
    make, spool, seal, conserves, clock
):
    fill(spool, seal, 2)
    transport = Script(always(Outcome.BAD_BATCH))
    uploader = make(transport)
    uploader.flush()
    fill(spool, seal, 40)
    transport.replies = [refuses(3, 4)]
    result = uploader.flush()
    assert spool.statistics().delivered_batches == 38
    assert len(spool.waiting()) == 2  # one more look at them, now that it cannot be the set-up
    assert not result.settled
    clock.advance(60)
    assert uploader.flush().settled
    assert spool.statistics().lost["rejected"] == 4
    assert conserves(spool)


def test_a_rejection_that_the_disk_could_not_count_is_not_one_in_a_row(spool, seal, clock):
    fill(spool, seal, 1)
    stuck = StuckSpool(spool, SpoolError("The disk is full", "Make room."))
    uploader = Uploader(stuck, Script(always(Outcome.BAD_BATCH)), clock=clock)  # type: ignore[arg-type]
    for _ in range(4):
        assert uploader.flush().outcome is Outcome.RETRY
    stuck.settle_all = spool.settle_all  # type: ignore[method-assign]
    assert uploader.flush().settled
    assert spool.statistics().lost["rejected"] == 1


def test_bad_with_a_time_to_come_back_is_bad_for_now(make, spool, seal):
    fill(spool, seal, 2)
    transport = Script(always(Outcome.BAD_BATCH, retry_after_s=60.0))
    uploader = make(transport)
    assert uploader.flush().outcome is Outcome.RETRY
    assert transport.sent == [[1, 2]]
    assert len(spool.waiting()) == 2
    assert "asks to wait" in uploader.flush().detail


# --- may it be sent -----------------------------------------------------------------------------------------


def test_may_send_is_asked_before_each_attempt_and_keeps_everything(make, spool, seal):
    fill(spool, seal, 3)
    reasons = iter([None, None, "the grant expired", "the grant expired"])
    transport = Script(always(Outcome.RETRY))
    uploader = make(transport, attempts=5, may_send=lambda: next(reasons))
    assert uploader.flush() == Flushed(False, False, Outcome.RETRY, "the grant expired")
    assert len(transport.sent) == 2
    (problem,) = uploader.health().problems
    assert problem.message == "Nothing is sent: the grant expired"
    assert uploader.flush() == Flushed(False, False, None, "the grant expired")
    assert len(spool.waiting()) == 3


def test_may_send_stops_in_the_middle(make, spool, seal):
    ids = fill(spool, seal, 3)
    reasons = iter([None, "paused"])
    result = make(Script(accept), max_request_bytes=100, may_send=lambda: next(reasons)).flush()
    assert spool.waiting() == tuple(ids[1:])
    assert (result.settled, result.delivered, result.detail) == (False, False, "paused")


def test_when_it_cannot_be_told_nothing_is_sent(make, spool, seal):
    def broken() -> str | None:
        raise RuntimeError("private")

    fill(spool, seal)
    transport = Script(accept)
    result = make(transport, may_send=broken).flush()
    assert transport.sent == []
    assert result.detail == "whether sending is allowed cannot be told (RuntimeError)"


# --- trouble ------------------------------------------------------------------------------------------------


def test_gone_ends_all_sending(make, spool, seal, clock):
    fill(spool, seal)
    transport = Script(always(Outcome.GONE))
    uploader = make(transport)
    uploader.flush()
    clock.advance(10**6)
    assert uploader.flush() == Flushed(False, False, Outcome.GONE, "it was gone")
    assert len(transport.sent) == 1
    assert uploader.statistics().next_attempt_s is None
    (problem,) = uploader.health().problems
    assert "nothing more is sent" in problem.next_step


def test_retry_after_holds_for_a_flush_too(make, spool, seal, clock):
    fill(spool, seal)
    transport = Script(always(Outcome.RETRY, retry_after_s=60.0), accept)
    uploader = make(transport)
    uploader.flush()
    clock.advance(59)
    assert uploader.flush() == Flushed(False, False, Outcome.RETRY, "the receiver asks to wait 1 s more")
    assert len(transport.sent) == 1
    clock.advance(1)
    assert uploader.flush().delivered


def test_retry_after_with_receipts_ends_the_round(make, spool, seal, clock):
    fill(spool, seal, 2)

    def slow_down(batches) -> Reply:
        reply = accept(batches)
        return Reply(reply.outcome, reply.receipts, retry_after_s=60.0)

    transport = Script(slow_down)
    result = make(transport, max_request_bytes=100).flush()
    assert transport.sent == [[1]]
    assert (result.settled, result.delivered) == (False, False)


def test_our_own_back_off_does_not_hold_up_a_flush(make, spool, seal):
    fill(spool, seal)
    uploader = make(Script(always(Outcome.RETRY), always(Outcome.REFUSED), accept))
    assert uploader.flush().outcome is Outcome.RETRY
    assert uploader.flush().outcome is Outcome.REFUSED
    assert uploader.flush().delivered
    assert uploader.health().ok


def test_once_busy_is_no_problem_and_thrice_is(make, spool, seal):
    fill(spool, seal)
    uploader = make(Script(always(Outcome.RETRY)))
    for ok in (True, True, False):
        uploader.flush()
        assert uploader.health().ok is ok
    (problem,) = uploader.health().problems
    assert problem.message == "Nothing is delivered: it was retry (3 uploads in a row)"
    assert "Everything is kept" in problem.next_step


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.NOT_OUR_SERVER])
def test_a_refusal_is_told_once_until_it_works_again(make, spool, seal, caplog, outcome):
    caplog.set_level(logging.DEBUG, "mcilib")
    fill(spool, seal)
    transport = Script(always(outcome))
    uploader = make(transport)
    for _ in range(3):
        uploader.flush()
        assert len(uploader.health().problems) == 1
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mcilib", "WARNING")
    assert f"it was {outcome.value}" in record.getMessage()
    transport.replies = [accept]
    uploader.flush()
    transport.replies = [always(outcome)]
    fill(spool, seal)
    uploader.flush()
    assert len(caplog.records) == 2


def test_a_transport_that_raises_is_a_failure_and_tells_no_secret(make, spool, seal):
    def broken(batches) -> Reply:
        raise RuntimeError("private")

    fill(spool, seal)
    result = make(Script(broken)).flush()
    assert result == Flushed(False, False, Outcome.RETRY, "the transport failed (RuntimeError)")


class StuckSpool:
    """A spool on a disk that has just gone, or one that breaks its promise."""

    def __init__(self, spool: DirectorySpool, error: Exception, *, silent: bool = False) -> None:
        self.read, self.controls, self.error = spool.read, spool.controls, error
        self.waiting = self.settle_all if silent else spool.waiting

    def settle_all(self, *_: object) -> Any:
        raise self.error


def test_a_spool_that_cannot_settle_is_told_and_not_sent_to_for_ever(spool, seal, clock):
    ids = fill(spool, seal)
    transport = Script(accept)
    stuck = StuckSpool(spool, SpoolError("The disk has gone", "Bring it back."))
    uploader = Uploader(stuck, transport, max_request_bytes=100, clock=clock)  # type: ignore[arg-type]
    result = uploader.flush()
    assert result == Flushed(False, False, Outcome.RETRY, "The disk has gone")
    assert transport.sent == [[1]]
    assert spool.waiting() == tuple(ids)
    (problem,) = uploader.health().problems
    assert (problem.part, problem.next_step) == ("spool", "Bring it back.")


def test_a_spool_that_breaks_its_promise_does_not_end_the_uploader(spool, seal, clock):
    fill(spool, seal)
    stuck = StuckSpool(spool, KeyError("x"))
    result = Uploader(stuck, Script(accept), clock=clock).flush()  # type: ignore[arg-type]
    assert result.detail == "the spool failed (KeyError)"


def test_a_flush_never_raises_whatever_the_spool_does(spool, seal, clock):
    stuck = StuckSpool(spool, KeyError("private"), silent=True)
    uploader = Uploader(stuck, Script(accept), clock=clock)  # type: ignore[arg-type]
    assert uploader.flush() == Flushed(False, False, None, "the spool failed (KeyError)")
    uploader.start()
    try:
        assert uploader.flush(1).detail == "the spool failed (KeyError)"
        assert uploader.threads()[0].is_alive()
        assert uploader.statistics().requests == 0
    finally:
        uploader.stop()


def test_no_request_begins_after_the_timeout(make, spool, seal, clock):
    fill(spool, seal, 3)

    def slow(batches) -> Reply:
        clock.advance(3)
        return accept(batches)

    transport = Script(slow)
    result = make(transport, max_request_bytes=100).flush(timeout_s=5)
    assert transport.sent == [[1], [2]]
    assert result == Flushed(False, False, Outcome.DELIVERED, "not all was sent within 5 s")


def test_the_clock_and_the_random_are_the_ones_given(spool, seal, clock):
    class Half(Random):
        def uniform(self, a: float, b: float) -> float:
            return (a + b) / 2

    fill(spool, seal)
    uploader = Uploader(spool, Script(always(Outcome.RETRY)), attempts=1, clock=clock, random=Half())
    uploader.flush()
    assert uploader._schedule.next_attempt_ns == clock.monotonic_ns() + 2_700 * 10**9


# --- held, planned, remembered ------------------------------------------------------------------------------


def test_hold_s_is_how_long_a_batch_rests_here_also_for_a_flush(tmp_path, seal, clock):
    with DirectorySpool(tmp_path / "s", clock=clock) as spool:
        fill(spool, seal, 1)
        clock.advance(50)
        fill(spool, seal, 1)
        transport = Script(accept)
        uploader = Uploader(spool, transport, hold_s=60, clock=clock)
        result = uploader.flush()
        assert (transport.sent, result.settled) == ([], False)
        assert "hold_s" in result.detail
        clock.advance(10)
        uploader.flush()
        assert transport.sent == [[1]]
        clock.advance(50)
        assert uploader.flush().delivered


def test_the_plan_is_asked_in_mid_drain_and_control_records_go_where_it_allows(make, spool, seal):
    fill(spool, seal, 3)
    spool.commit_control(delete_request("1" * 32, "2" * 32))
    plans = [SendPlan(), SendPlan(), SendPlan(Allowed.CONTROL, "the battery is low")]
    transport = Script(accept)
    result = make(transport, max_request_bytes=100, plan=lambda: plans.pop(0)).flush()
    assert transport.sent == [[1]]
    assert transport.records == 1
    assert (result.settled, result.detail) == (False, "the battery is low")


@pytest.mark.parametrize(("allowed", "records"), [(Allowed.CONTROL, 1), (Allowed.NOTHING, 0)])
def test_a_plan_without_data(make, spool, seal, allowed, records):
    fill(spool, seal)
    spool.commit_control(delete_request("1" * 32, "2" * 32))
    transport = Script(accept)
    result = make(transport, plan=lambda: SendPlan(allowed, "on a metered link")).flush()
    assert (transport.sent, transport.records) == ([], records)
    assert result.detail == "on a metered link"
    assert len(spool.waiting()) == 3


def test_no_consent_keeps_data_and_lets_control_records_go(make, spool, seal):
    fill(spool, seal)
    spool.commit_control(delete_request("1" * 32, "2" * 32))
    transport = Script(accept)
    make(transport, may_send=lambda: "withdrawn").flush()
    assert (transport.sent, transport.records, spool.controls()) == ([], 1, ())


def test_fallback_age_s_sends_what_the_plan_would_keep_for_ever(tmp_path, seal, clock):
    with DirectorySpool(tmp_path / "s", clock=clock) as spool:
        fill(spool, seal, 1)
        clock.advance(100)
        fill(spool, seal, 1)
        transport = Script(accept)
        options = {"plan": lambda: SendPlan(Allowed.NOTHING, "metered"), "clock": clock}
        Uploader(spool, transport, fallback_age_s=101, **options).flush()
        assert transport.sent == []
        Uploader(spool, transport, fallback_age_s=100, **options).flush()
        assert transport.sent == [[1]]
        Uploader(spool, transport, fallback_age_s=0, may_send=lambda: "no", **options).flush()
        assert transport.sent == [[1]]  # consent has no age


@pytest.mark.parametrize(("per_hour", "sent"), [(None, [[1, 2, 3]]), (250, [[1, 2]]), (50, [[1]]), (0, [])])
def test_bytes_per_hour(make, spool, seal, clock, per_hour, sent):
    fill(spool, seal, 3)
    transport = Script(accept)
    uploader = make(transport, plan=lambda: SendPlan(bytes_per_hour=per_hour))
    result = uploader.flush()
    assert transport.sent == sent
    assert result.delivered is (per_hour is None)
    if not result.delivered:
        assert "bytes for this hour" in result.detail
        clock.advance(3_601)
        uploader.flush()
        assert len(transport.sent) == 2 * len(sent)


def test_a_plan_that_fails_sends_nothing(make, spool, seal):
    def broken() -> SendPlan:
        raise RuntimeError("private")

    fill(spool, seal)
    transport = Script(accept)
    assert make(transport, plan=broken).flush().detail == "the plan cannot be told (RuntimeError)"
    assert transport.sent == []


def test_deleted_at_the_receiver_is_no_bad_batch(make, spool, seal, conserves):
    fill(spool, seal, 5)

    def deleted(batches) -> Reply:
        receipts = {b.batch_id: Receipt(b.batch_id, ReceiptStatus.REJECTED, "deleted") for b in batches}
        return Reply(Outcome.DELIVERED, receipts)

    result = make(Script(deleted)).flush()
    assert (result.settled, result.outcome) == (True, Outcome.DELIVERED)
    lost = spool.statistics().lost
    assert (lost["purged"], lost["rejected"]) == (5, 0)
    assert not list((spool.path / "bad").iterdir())
    assert conserves(spool)


def test_what_the_server_said_survives_a_restart(spool, seal, clock, tmp_path):
    fill(spool, seal)
    remembered = {"schedule_file": ScheduleFile(tmp_path / "schedule.json"), "clock": clock}
    Uploader(spool, Script(always(Outcome.RETRY, retry_after_s=60.0)), endpoint="a", **remembered).flush()
    transport = Script(accept)
    clock.advance(20)
    result = Uploader(spool, transport, endpoint="a", **remembered).flush()
    assert result.detail == "the receiver asks to wait 40 s more"
    assert transport.sent == []
    assert Uploader(spool, transport, endpoint="b", **remembered).flush().delivered


def test_reconsider_brings_the_next_upload_forward_only_after_trouble(make, spool, seal, clock):
    fill(spool, seal)
    uploader = make(Script(always(Outcome.REFUSED)), interval_s=60)
    uploader.reconsider()
    assert uploader._schedule == Schedule()
    uploader.flush()
    before_ns = uploader._schedule.next_attempt_ns
    uploader.reconsider()
    assert uploader._schedule.next_attempt_ns < before_ns
    assert uploader._schedule.wait_s(clock.monotonic_ns()) <= 60


def test_faults_that_take_turns_are_told_once_each(make, spool, seal, caplog):
    fill(spool, seal)
    portal, refused = always(Outcome.NOT_OUR_SERVER), always(Outcome.REFUSED)
    uploader = make(Script(portal, refused, portal, refused, portal))
    for _ in range(5):
        uploader.flush()
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "option",
    [
        {"interval_s": -1},
        {"max_request_bytes": 0},
        {"attempts": 0},
        {"interval_s": float("nan")},
        {"hold_s": -1},
        {"hold_s": 8 * 86_400},
        {"fallback_age_s": -1},
    ],
)
def test_options_out_of_range_are_refused(spool, option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        Uploader(spool, Script(accept), **option)
