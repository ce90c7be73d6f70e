"""What the uploader decides: what it sends, keeps and gives up. No thread, no sleep: `flush` in the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

import pytest

from mcilib import limits
from mcilib.delivery._round import REQUEST_MAX_BATCHES
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Flushed, Uploader
from mcilib.errors import ConfigError, SpoolError
from mcilib.protocols import Outcome, Receipt, ReceiptStatus, Reply


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
    uploader = make(Script(always(Outcome.RETRY)), attempts=5)
    waits: list[float] = []
    monkeypatch.setattr("threading.Event.wait", lambda self, wait_s: waits.append(wait_s))
    uploader.flush()
    assert len(waits) == 4
    assert all(0 <= wait_s <= 0.2 * 2**n for n, wait_s in enumerate(waits))
    assert len(set(waits)) == 4


# --- receipts -----------------------------------------------------------------------------------------------


def test_a_batch_without_a_receipt_still_waits(make, spool, seal):
    ids = fill(spool, seal)
    uploader = make(
        Script(lambda batches: answer(batches, lambda b: ReceiptStatus.STORED if b.sequence != 2 else None))
    )
    result = uploader.flush()
    assert spool.waiting() == (ids[1],)
    assert result == Flushed(False, False, Outcome.RETRY, "the receiver gave no receipt for 1 of 3 batches")
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

    def __init__(self, spool: DirectorySpool, error: Exception) -> None:
        self.waiting, self.read, self.error = spool.waiting, spool.read, error

    def settle(self, *_: object) -> None:
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
    assert uploader._schedule.next_attempt_ns == clock.monotonic_ns() + 30 * 10**9


@pytest.mark.parametrize(
    "option", [{"interval_s": -1}, {"max_request_bytes": 0}, {"attempts": 0}, {"interval_s": float("nan")}]
)
def test_options_out_of_range_are_refused(spool, option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        Uploader(spool, Script(accept), **option)
