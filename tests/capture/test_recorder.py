"""The recorder: what is emitted is committed, excluded or counted, whatever happens."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from costs import cost_at_rest, thread_cost
from recording import batches, recorder, sizes
from waiting import until

from mcilib import Gap, KeyPress, Move, Scroll, limits
from mcilib.format.batch import Coverage
from mcilib.testing.conformance import check_sink
from mcilib.testing.fakes import ManualClock, MemorySpool, example_grant


def test_sink_promise():
    def make():
        return recorder(buffer_events=500, started=False)[0]  # the buffer must fill

    check_sink(make)


def test_events_are_committed_when_asked_in_order():
    clock = ManualClock()
    subject, spool = recorder(clock=clock)
    events = [Move(clock.monotonic_ns() + n * limits.TICK_NS, n, 2 * n) for n in range(100)]
    assert all(subject.emit(event) for event in events)
    assert subject.commit()
    subject.stop()
    [batch] = batches(spool)
    assert list(batch.events) == events
    assert subject.statistics().captured == {"move": 100}
    assert subject.statistics().open_events == 0
    assert batch.metadata.clocks == {"pointer": "trace"}


def test_a_batch_closes_at_its_age():
    subject, spool = recorder(max_age_s=0.2)
    subject.emit(Move(0, 1, 1))
    until(spool.waiting, what="a batch without a flush")
    subject.stop()
    assert len(batches(spool)) == 1


def test_the_age_counts_from_the_first_event_also_after_a_commit():
    subject, spool = recorder(max_age_s=0.3)
    for n in range(3):
        subject.emit(Move(subject._clock.monotonic_ns(), n, 1))
        subject.commit()
    subject.emit(Move(subject._clock.monotonic_ns(), 3, 3))
    until(lambda: len(spool.waiting()) == 4, timeout_s=20)
    subject.stop()


def test_a_batch_closes_at_its_rows():
    subject, spool = recorder(max_events=10)
    for n in range(25):
        subject.emit(Move(n * 10**9, n, n))
    subject.stop()
    assert sizes(spool) == [10, 10, 5]


def test_many_events_wake_the_recorder_before_the_batch_is_due():
    subject, _ = recorder(drain_mark=100)
    for n in range(100):
        subject.emit(Move(n, n, n))
    until(lambda: not subject._buffer)
    subject.stop()


def test_a_full_buffer_drops_and_counts_and_says_so_in_the_next_batch():
    subject, spool = recorder(buffer_events=10, started=False)
    taken = [subject.emit(Scroll(n, 0, 0, 0, 1, 2)) for n in range(12)]
    assert taken == [True] * 10 + [False] * 2
    assert subject.room == 0
    assert subject.statistics().dropped == {"buffer_full": 4}
    assert subject.room == 10
    subject.commit()
    assert batches(spool)[0].metadata.coverage == Coverage(dropped={"buffer_full": 4})
    subject.emit(Move(0, 9, 9))
    subject.commit()
    assert batches(spool)[1].metadata.coverage == Coverage()


def test_what_the_grant_does_not_cover_is_excluded():
    subject, spool = recorder(grant=example_grant("pointer"))
    subject.emit(KeyPress(0, "letter"))
    subject.emit(Move(0, 1, 1))
    subject.emit(Gap(0, 5 * 10**9, "keyboard"))
    subject.stop()
    [batch] = batches(spool)
    assert [event.kind for event in batch.events] == ["move", "gap"]
    assert batch.metadata.coverage.excluded == 1
    statistics = subject.statistics()
    assert (statistics.excluded, statistics.gap_count, statistics.gap_s) == (1, 1, 5.0)


def test_nothing_is_captured_or_committed_after_the_grant_has_expired():
    from datetime import UTC, datetime

    clock = ManualClock(wall_ns=int(datetime.now(UTC).timestamp() * 1e9))
    subject, spool = recorder(grant=example_grant(expires_in=timedelta(minutes=10)), clock=clock)
    subject.emit(Move(clock.monotonic_ns(), 1, 1))
    subject.commit()
    subject.emit(Move(clock.monotonic_ns(), 2, 2))
    subject.statistics()  # the second one is in the open batch now
    clock.advance(601)
    subject.emit(Move(clock.monotonic_ns(), 3, 3))
    subject.stop()
    assert [[event.x for event in batch.events] for batch in batches(spool)] == [[1]]
    assert subject.statistics().excluded == 2
    assert subject.statistics().captured == {"move": 1}


@pytest.mark.parametrize("step_s", [-3600.0, 7 * 86_400.0, 2.0])
def test_a_wall_clock_step_closes_the_batch(step_s):
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    first_wall = clock.wall_ns()
    subject.emit(Move(clock.monotonic_ns(), 1, 1))
    subject.statistics()
    clock.step_wall(step_s)
    clock.advance(1)
    subject.emit(Move(clock.monotonic_ns(), 2, 2))
    subject.commit()
    first, second = batches(spool)
    assert first.metadata.anchor.to_wall_ns(first.events[0].t_ns) == first_wall
    assert second.metadata.anchor.to_wall_ns(second.events[0].t_ns) == first_wall + int((step_s + 1) * 1e9)


def test_a_spool_that_cannot_be_written_keeps_batches_in_memory():
    subject, spool = recorder(started=False)
    spool.fail_next = 3
    subject.emit(Move(0, 1, 1))
    assert not subject.commit()
    subject.emit(Move(1, 2, 2))
    assert not subject.commit()
    assert [p.part for p in subject.health().problems] == ["spool"]
    assert subject.statistics().open_events == 2
    assert not subject.commit()
    assert subject.commit()
    assert subject.health().ok
    assert [batch.events[0].x for batch in batches(spool)] == [1, 2]
    assert [batch.header.sequence for batch in batches(spool)] == [1, 2]


def test_beyond_memory_the_oldest_is_lost_and_counted(monkeypatch):
    monkeypatch.setattr(limits, "MEMORY_MAX_EVENTS", 10)
    subject, spool = recorder(max_events=2, started=False)
    spool.fail_next = 10**6
    for n in range(16):
        subject.emit(Move(n, n, n))
    assert not subject.commit()
    assert subject.statistics().dropped == {"spool": 6}
    assert subject.statistics().open_events == 10
    spool.fail_next = 0
    subject.commit()
    kept = batches(spool)
    assert [event.x for batch in kept for event in batch.events] == list(range(6, 16))
    assert sum(batch.metadata.coverage.dropped.get("spool", 0) for batch in kept) == 6


def test_many_small_commits_that_fail_lose_nothing():
    subject, spool = recorder(started=False)
    spool.fail_next = 20
    for n in range(100):
        subject.emit(Move(n, n, n))
        if n % 5 == 0:
            assert not subject.commit()
    assert subject.commit()
    assert subject.statistics().dropped == {}
    assert [event.x for batch in batches(spool) for event in batch.events] == list(range(100))


def test_what_the_spool_does_not_take_at_the_end_is_counted():
    subject, spool = recorder()
    spool.fail_next = 10**6
    subject.emit(Move(0, 1, 1))
    subject.stop()
    assert subject.statistics().dropped == {"spool": 1}
    assert subject.statistics().open_events == 0


NO_NUMBER: Any = None


@pytest.mark.parametrize(
    "junk",
    [Move(NO_NUMBER, 1, 1), Move(Any, 1, 1), object(), None, Scroll(10**18, 0, 0, 0, 1, NO_NUMBER)],  # type: ignore[arg-type]
)
def test_what_is_no_event_is_counted_and_harms_nothing(junk):
    subject, spool = recorder()
    subject.emit(junk)
    subject.emit(Move(subject._clock.monotonic_ns(), 5, 5))
    until(lambda: not subject._buffer)
    assert subject.threads()[0].is_alive()
    subject.emit(junk)
    subject.stop()
    assert [event.x for batch in batches(spool) for event in batch.events] == [5]
    assert subject.statistics().dropped == {"invalid": 2}
    assert batches(spool)[0].metadata.coverage.dropped == {"invalid": 2}


def test_invalid_events_alone_are_told_with_the_next_batch():
    subject, spool = recorder(started=False)
    subject.emit(Move(0, float("nan"), 1))
    subject.commit()
    subject.emit(Move(1, float("nan"), 1))
    subject.emit(Move(1, 1, 1))
    subject.commit()
    subject.emit(Move(2, 2, 2))
    subject.commit()
    assert [batch.metadata.coverage.dropped for batch in batches(spool)] == [{"invalid": 2}, {}]
    assert subject.statistics().dropped == {"invalid": 2}


def test_a_failed_spool_is_tried_again_by_itself(monkeypatch):
    monkeypatch.setattr(limits, "SPOOL_RETRY_S", 0.1)
    subject, spool = recorder()
    spool.fail_next = 2
    subject.emit(Move(0, 1, 1))
    subject.commit()
    until(spool.waiting)
    subject.stop()


def test_events_after_stop_are_refused_and_counted():
    subject, _ = recorder()
    subject.stop()
    assert not subject.emit(Move(0, 1, 1))
    assert subject.statistics().dropped == {"not_running": 1}
    assert not subject.threads()[0].is_alive()


def test_a_drop_of_what_is_no_event_raises_nothing():
    subject, _ = recorder()
    subject.stop()
    for junk in (object(), Scroll(0, 1, 1, 0, 1, NO_NUMBER), Scroll(0, 1, 1, 0, 1, -5)):
        assert not subject.emit(junk)  # type: ignore[arg-type]
    assert subject.statistics().dropped == {"not_running": 1, "invalid": 2}


def test_a_gap_that_cannot_be_is_not_counted_as_one():
    subject, _ = recorder()
    subject.emit(Gap(0, -5, "pointer"))
    subject.stop()
    statistics = subject.statistics()
    assert (statistics.gap_count, statistics.gap_s, statistics.dropped) == (0, 0, {"invalid": 1})


def test_it_can_be_started_again():
    subject, spool = recorder(started=False)
    for n in range(2):
        subject.start()
        assert subject.emit(Move(n, 7, 7))  # a new run does not lean on the one before
        subject.stop()
    assert [event.x for batch in batches(spool) for event in batch.events] == [7, 7]


def test_an_event_that_the_format_cannot_hold_is_counted():
    subject, spool = recorder(started=False)
    subject.emit(Move(0, float("nan"), 1))
    subject.emit(Move(1, 1, 1))
    subject.commit()
    assert subject.statistics().dropped == {"invalid": 1}
    assert subject.statistics().captured == {"move": 1}
    assert batches(spool)[0].metadata.coverage.dropped == {"invalid": 1}


def test_a_batch_that_cannot_be_sealed_is_counted_and_the_next_one_goes_on():
    class Broken(MemorySpool):
        broken = True

        def commit(self, seal, /):
            if self.broken:
                raise RuntimeError("a bug of somebody's spool")
            return super().commit(seal)

    spool = Broken()
    subject, _ = recorder(spool)
    subject.emit(Move(0, 1, 1))
    assert not subject.commit()
    assert not subject.health().ok
    spool.broken = False
    subject.emit(Move(0, 2, 2))
    subject.stop()
    assert [batch.events[0].x for batch in batches(spool)] == [2]
    assert batches(spool)[0].metadata.coverage.dropped == {"unsealable": 1}


def test_idle_after_a_commit_means_no_wake_up():
    subject, spool = recorder(max_age_s=0.1)
    subject.emit(Move(subject._clock.monotonic_ns(), 1, 1))
    until(spool.waiting)
    before = cost_at_rest(subject.threads())
    threading.Event().wait(1.5)
    assert thread_cost(subject.threads()).wakeups == before.wakeups
    subject.stop()


def test_every_event_of_many_threads_is_committed_once():
    subject, spool = recorder(max_events=777, drain_mark=50)

    def emit(lane: int) -> None:
        for n in range(5_000):
            while not subject.emit(Move(n * limits.TICK_NS, lane, n)):
                pass

    threads = [threading.Thread(target=emit, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        subject.statistics()
        subject.commit()
    for thread in threads:
        thread.join()
    subject.stop(5)
    seen = [(event.x, event.y) for batch in batches(spool) for event in batch.events]
    assert sorted(seen) == [(lane, n) for lane in range(4) for n in range(5_000)]


# --- the pulse ----------------------------------------------------------------------------------------------


def test_input_gives_a_pulse_now_and_then() -> None:
    clock, told = ManualClock(), list[str]()
    made, _ = recorder(
        started=False, clock=clock, on_pulse=lambda: told.append("pulse"), on_due=lambda: told.append("due")
    )
    move = Move(clock.monotonic_ns(), 1, 2)
    for advance_s, events, count in (
        (0, 1, 1), (limits.PULSE_LIGHT_S - 0.01, 1, 1), (0.01, 1, 2), (5, 1, 3), (5, 0, 3), (0.01, 1, 4),
        (limits.PULSE_SAMPLE_S, limits.PULSE_EVENTS - 1, 4), (0, 1, 5), (0.1, limits.PULSE_EVENTS, 5), (0.15, 1, 6),
    ):  # fmt: skip
        clock.advance(advance_s)
        made.emit_all([move] * events)
        assert told == ["pulse"] * count
    clock.advance(limits.PULSE_SAMPLE_S)
    for _ in range(limits.PULSE_EVENTS):
        made.emit(move)
    assert told == ["pulse"] * 7


def test_time_alone_is_told_without_input() -> None:
    waits, told = [0.01], list[str]()
    made, _ = recorder(
        due_s=lambda: waits.pop() if waits else None,
        on_pulse=lambda: told.append("pulse"),
        on_due=lambda: told.append("due"),
    )
    until(lambda: told)
    made.stop()
    assert told == ["due"]
