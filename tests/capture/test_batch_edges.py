"""Where one batch ends and the next begins, on a clock that stands still until it is moved and on the real one."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from costs import thread_cost
from recording import batches, recorder, rows, sizes
from waiting import until

from mcilib import Move, Press, Scroll, limits
from mcilib.clock import SystemClock
from mcilib.events import Display, Event, Focus, Gap, KeyPress, Layout
from mcilib.format.batch import Batch, Coverage
from mcilib.testing.fakes import ManualClock, example_grant

MS = 1_000_000
S = 1_000_000_000
AT = ManualClock().monotonic_ns()


def _wall(batch: Batch, event: Event) -> int:
    return batch.metadata.anchor.to_wall_ns(event.t_ns)


# --- count and bytes ----------------------------------------------------------------------------------------


def test_a_full_batch_ends_when_the_next_row_comes():
    subject, spool = recorder(max_events=3, clock=ManualClock(), started=False)
    for n in range(3):
        subject.emit(Move(AT + n * MS, n, 0))
    subject._turn()
    assert not spool.waiting()
    subject.emit(Move(AT + 3 * MS, 3, 0))
    subject._turn()
    assert sizes(spool) == [3]
    subject.commit()
    assert [row.x for row in rows(spool)] == [0, 1, 2, 3]


def test_a_batch_ends_at_its_bytes():
    subject, spool = recorder(max_bytes=2_000, started=False)
    for n in range(30):
        subject.emit(KeyPress(AT + n * MS, f"ctrl+{n:084}"))  # 89 bytes and 16 for the row
    subject.commit()
    assert sizes(spool) == [19, 11]


def test_no_edge_by_count_cuts_a_scroll_row_or_forgets_the_pointer():
    """The row still grows when the batch is full; the next batch knows where the pointer is."""
    subject, spool = recorder(max_events=1)
    subject.emit(Scroll(AT, 5, 5, 0, 1))
    subject.emit(Scroll(AT + 20 * MS, 5, 5, 0, 1))
    subject.emit(Move(AT + 30 * MS, 5, 5))
    subject.emit(Scroll(AT + 40 * MS, 5, 5, 0, 1))
    subject.emit(KeyPress(AT + 45 * MS, "tab"))
    subject.emit(Move(AT + 46 * MS, 5, 5))
    subject.emit(Move(AT + 47 * MS, 6, 5))
    subject.stop()
    assert [(row.kind, getattr(row, "count", 0)) for row in rows(spool)] == [
        ("scroll", 3), ("key_press", 0), ("move", 0),
    ]  # fmt: skip
    assert [batch.metadata.coverage.coalesced for batch in batches(spool)] == [1, 1, 0]
    assert subject.statistics().coalesced == 2
    assert subject.statistics().captured == {"scroll": 3, "key_press": 1, "move": 3}


# --- age ----------------------------------------------------------------------------------------------------


def test_a_batch_that_is_due_waits_for_its_growing_scroll_row():
    clock = ManualClock()
    subject, spool = recorder(max_age_s=60, clock=clock, started=False)
    subject.emit(Move(AT, 5, 5))
    subject._turn()
    assert subject._patience_s() == 60
    clock.advance(59.98)
    subject.emit(Scroll(clock.monotonic_ns(), 5, 5, 0, 1))
    clock.advance(0.03)  # past its age
    subject._turn()
    assert not spool.waiting()
    assert subject._patience_s() == pytest.approx(0.02, abs=1e-6)  # one look, when the row can grow no more
    clock.advance(0.02)
    subject.emit(Scroll(clock.monotonic_ns(), 5, 5, 0, 1))  # at the last moment
    subject._turn()
    assert not spool.waiting()
    clock.advance(0.001)
    subject._turn()
    assert rows(spool) == [Move(AT, 5, 5), Scroll(AT + 59_980 * MS, 5, 5, 0, 2, 2)]


@pytest.mark.parametrize("ahead_s", [-10, 0.051, 1, 10**6])
def test_only_a_row_that_can_grow_now_is_waited_for(ahead_s):
    """A source whose clock is an hour ahead does not keep a batch for an hour."""
    clock = ManualClock()
    subject, spool = recorder(max_age_s=60, clock=clock, started=False)
    subject.emit(Scroll(AT + int((60 + ahead_s) * S), 5, 5, 0, 1))
    subject._turn()
    clock.advance(60)
    subject._turn()
    assert sizes(spool) == [1]


def test_the_age_counts_from_the_first_event_not_from_when_it_is_read():
    clock = ManualClock()
    subject, _ = recorder(max_age_s=60, clock=clock, started=False)
    subject.emit(Move(AT - 40 * S, 1, 1))
    subject._turn()
    assert subject._patience_s() == 20


def test_a_look_at_the_statistics_delays_no_full_batch():
    """It takes events out of the buffer, which must not leave a batch waiting until the next one is due."""
    subject, spool = recorder(max_events=1, clock=ManualClock())
    subject.emit(Move(AT, 1, 1))
    until(lambda: not subject._buffer and subject._armed)
    subject.emit(Move(AT + MS, 2, 2))
    subject.statistics()
    until(spool.waiting, timeout_s=5)
    subject.stop()
    assert sizes(spool) == [1, 1]


@pytest.mark.alone
def test_a_wheel_turned_past_the_age_is_one_row_in_real_time():
    subject, spool = recorder(max_age_s=0.1)
    subject.emit(Move(time.monotonic_ns(), 5, 5))
    started_ns = time.monotonic_ns()
    until(lambda: time.monotonic_ns() - started_ns >= 80 * MS)
    first_ns = time.monotonic_ns()
    for _ in range(4):
        subject.emit(Scroll(time.monotonic_ns(), 5, 5, 0, 1))
        time.sleep(0.01)
    assert time.monotonic_ns() - started_ns > 110 * MS  # it was due while the wheel turned
    if time.monotonic_ns() - first_ns < limits.SCROLL_MERGE_NS:
        assert not spool.waiting()
    until(spool.waiting)
    subject.stop()
    steps = [row for row in rows(spool) if isinstance(row, Scroll)]
    assert sum(step.count for step in steps) == 4
    assert all(b.t_ns - a.t_ns >= 49 * MS for a, b in pairwise(steps))
    assert sizes(spool) == [1 + len(steps)]


def test_a_due_batch_costs_one_more_wake_up_for_its_scroll_row():
    subject, spool = recorder(max_age_s=0.2)
    until(lambda: thread_cost(subject.threads()).threads)
    subject.emit(Scroll(time.monotonic_ns(), 5, 5, 0, 1))
    time.sleep(0.17)
    subject.emit(Scroll(time.monotonic_ns(), 5, 5, 0, 1))
    before = thread_cost(subject.threads()).wakeups
    until(spool.waiting)
    after = thread_cost(subject.threads()).wakeups
    subject.stop()
    assert before is not None
    assert after is not None
    assert after - before <= 3  # due, grown, and one for the lock of the one who looks


# --- flush and stop -----------------------------------------------------------------------------------------


def test_a_flush_ends_a_scroll_row_at_once():
    subject, spool = recorder()
    subject.emit(Scroll(AT, 5, 5, 0, 1))
    subject.commit()
    subject.emit(Scroll(AT + MS, 5, 5, 0, 1))
    subject.emit(Move(AT + 2 * MS, 5, 5))
    subject.stop()
    assert rows(spool) == [Scroll(AT, 5, 5, 0, 1), Scroll(AT + MS, 5, 5, 0, 1)]
    assert batches(spool)[1].metadata.coverage.coalesced == 1


# --- displays and layout ------------------------------------------------------------------------------------


def _display(at_ns: int, number: int = 0, width: int = 1280) -> Display:
    return Display(at_ns, number, 0, 0, width, 800)


@pytest.mark.parametrize(
    "change", [_display(AT + 5 * MS), Layout(AT + 5 * MS, "de")], ids=["display", "layout"]
)
def test_a_change_begins_the_next_batch(change):
    subject, spool = recorder()
    events: list[Event] = [Move(AT, 1, 1), change, Move(AT + 6 * MS, 2, 2)]
    for event in events:
        subject.emit(event)
    subject.stop()
    assert [list(batch.events) for batch in batches(spool)] == [events[:1], events[1:]]


def test_what_is_told_at_the_start_and_changes_in_a_row_share_a_batch():
    subject, spool = recorder()
    events: list[Event] = [
        _display(AT), _display(AT + MS, 1), Layout(AT + 2 * MS, "us"), Move(AT + 3 * MS, 1, 1),
        Layout(AT + 4 * MS, "de"), _display(AT + 5 * MS), Display(AT + 6 * MS, 1, 0, 0, 0, 0), Press(AT + 7 * MS, 1, 1, "left"),
    ]  # fmt: skip
    for event in events:
        subject.emit(event)
    subject.stop()
    assert [list(batch.events) for batch in batches(spool)] == [events[:4], events[4:]]


def test_a_change_after_nothing_but_a_gap_needs_no_batch_of_its_own():
    subject, spool = recorder()
    for event in (Gap(AT, 5 * S, "pointer"), _display(AT + MS), Move(AT + 2 * MS, 1, 1)):
        subject.emit(event)
    subject.stop()
    assert sizes(spool) == [3]


def test_a_change_that_is_not_one_ends_no_batch():
    subject, spool = recorder(grant=example_grant("keys"))
    for event in (
        KeyPress(AT, "tab"),
        Display(AT, 0, 0, 0, -5, 5),
        Layout(AT, "x" * 200),
        KeyPress(AT + MS, "tab"),
    ):
        subject.emit(event)
    subject.stop()
    assert sizes(spool) == [2]


def test_a_change_that_the_grant_does_not_cover_is_excluded():
    pointer, keys = (recorder(grant=example_grant(scope)) for scope in ("pointer", "keys"))
    for subject, _ in (pointer, keys):
        for event in (_display(AT), Layout(AT, "us"), Focus(AT, "editor", "secret"), Gap(AT, 1, "pointer")):
            subject.emit(event)
        subject.stop()
        assert subject.statistics().excluded == 2
    assert [row.kind for row in rows(pointer[1])] == ["display", "gap"]
    assert [row.kind for row in rows(keys[1])] == ["layout", "gap"]


def test_an_excluded_change_ends_no_batch():
    subject, spool = recorder(grant=example_grant("pointer"))
    for event in (Move(AT, 1, 1), Layout(AT + MS, "de"), Move(AT + 2 * MS, 2, 2)):
        subject.emit(event)
    subject.stop()
    assert sizes(spool) == [2]


# --- the wall clock and sleep -------------------------------------------------------------------------------


def test_a_wall_step_ends_a_scroll_row_and_keeps_the_pointer():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    subject.emit(Scroll(AT, 5, 5, 0, 1))
    subject._turn()
    clock.step_wall(-3600)
    subject.emit(Scroll(AT + MS, 5, 5, 0, 1))
    subject.emit(Move(AT + 2 * MS, 5, 5))
    subject.commit()
    assert [row.count for row in rows(spool)] == [1, 1]
    first, second = batches(spool)
    assert _wall(first, first.events[0]) - _wall(second, second.events[0]) == 3600 * S - MS
    assert second.metadata.coverage.coalesced == 1


def test_a_small_step_is_no_edge():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    for n in range(4):
        subject.emit(Move(clock.monotonic_ns(), n, n))
        subject._turn()
        clock.step_wall((0.5, -1, 1, 0)[n])
        clock.suspend((0.2, 0, 0.3, 0)[n])
        clock.advance(0.01)
    subject.commit()
    assert sizes(spool) == [4]


def test_a_sleep_is_a_gap_at_the_beginning_of_the_next_batch():
    """What came before it keeps its own time, though it is read only afterwards."""
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    for n in range(3):
        subject.emit(Move(clock.monotonic_ns(), n, 0))
        clock.advance(0.1)
        if n == 0:
            subject._turn()
    slept_at_ns, slept_wall_ns = clock.monotonic_ns(), clock.wall_ns()
    clock.advance(0.4)
    clock.suspend(8 * 3600)
    clock.advance(0.4)
    for n in range(3, 6):
        subject.emit(Move(clock.monotonic_ns(), n, 0))
        clock.advance(0.1)
    subject.commit()
    before, after = batches(spool)
    assert [row.x for row in before.events] == [0, 1, 2]
    assert after.events[0] == Gap(slept_at_ns + 800 * MS, 8 * 3600 * S, "suspend")
    assert [row.x for row in after.events[1:]] == [3, 4, 5]
    assert _wall(before, before.events[2]) == slept_wall_ns - 100 * MS
    assert _wall(after, after.events[1]) == slept_wall_ns + (8 * 3600 * S + 800 * MS)
    statistics = subject.statistics()
    assert (statistics.gap_count, statistics.gap_s) == (1, 8 * 3600)


def test_a_sleep_with_no_batch_open_is_told_too():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    subject.emit(Move(clock.monotonic_ns(), 1, 1))
    subject.commit()
    clock.suspend(60)
    subject._turn()  # nothing came: nothing is noticed, nothing is written
    assert subject._batcher.open is None
    assert subject._patience_s() is None
    clock.advance(5)
    subject.emit(Move(clock.monotonic_ns(), 2, 2))
    subject.commit()
    assert [row.kind for row in rows(spool)] == ["move", "gap", "move"]
    subject.emit(Move(clock.monotonic_ns(), 3, 3))
    subject.commit()
    assert [row.kind for row in rows(spool)] == ["move", "gap", "move", "move"]  # told once


def test_all_that_was_read_after_a_sleep_may_be_from_before_it():
    """The batch that was not open yet has the anchor of the time before."""
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    subject.emit(Move(clock.monotonic_ns(), 1, 1))
    wall_ns = clock.wall_ns()
    clock.advance(1)
    clock.suspend(3600)
    subject.commit()
    before, gap = batches(spool)
    assert _wall(before, before.events[0]) == wall_ns
    assert gap.events == (Gap(AT + S, 3600 * S, "suspend"),)


def test_times_that_are_none_do_not_mislead_about_a_sleep():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    subject.emit(Move(AT, 1, 1))
    subject.emit(Move("now", 2, 2))  # type: ignore[arg-type]
    subject.emit(object())  # type: ignore[arg-type]
    subject.emit(Move(2**62, 3, 3))  # a clock that is centuries ahead
    clock.suspend(3600)
    clock.advance(10)
    subject.emit(Move(clock.monotonic_ns(), 4, 4))
    subject.commit()
    assert subject.statistics().dropped == {"invalid": 2}
    assert subject.statistics().gap_s == 3600
    assert sorted(row.x for row in rows(spool) if isinstance(row, Move)) == [1, 3, 4]
    assert [row.t_ns for row in rows(spool) if isinstance(row, Gap)] == [AT + 10 * S]


def test_a_sleep_in_a_run_with_its_own_thread():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, drain_mark=1)
    for n in range(2):
        subject.emit(Move(clock.monotonic_ns(), n, 0))
        until(lambda: not subject._buffer)
        clock.suspend(7.5)
        clock.advance(1)
    subject.stop()
    assert [[row.kind for row in batch.events] for batch in batches(spool)] == [["move"], ["gap", "move"]]
    assert rows(spool)[1].duration_ns == 7_500 * MS


def test_the_machines_own_clock_tells_time_asleep():
    """Here it never sleeps while a test runs: the figure stands still, and is the one that Linux gives."""
    clock = SystemClock()
    first = clock.suspended_ns()
    time.sleep(0.05)
    assert abs(clock.suspended_ns() - first) < 10 * MS
    real_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert abs(clock.suspended_ns() - real_ns) < 10 * MS


def test_where_the_system_cannot_tell_nothing_is_asleep(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert SystemClock().suspended_ns() == 0


# --- the phase of the clock ---------------------------------------------------------------------------------


def test_a_run_keeps_to_the_phase_of_its_first_batch_with_moves():
    """Times that sit on the edge between two ticks of the anchor cost nothing: they are moved off it, once."""
    clock = ManualClock(monotonic_ns=AT + 123_456)
    subject, spool = recorder(clock=clock, started=False)
    x = 0
    for n_batch in range(3):
        if n_batch == 0:
            subject.emit(KeyPress(clock.monotonic_ns(), "tab"))  # says nothing about the pointer's rate
            subject.commit()
        clock.advance(1.000_333)
        for n in range(50):
            x += 1
            noise_ns = (90_000, -90_000, 0)[n % 3] + (0, 200_000, -200_000)[n_batch]
            at_ns = AT + (n_batch * 2000 + 8 * n) * MS + 623_456 + noise_ns
            subject.emit(Move(at_ns, x, x))
        subject.commit()
    found = batches(spool)
    assert {batch.metadata.anchor.monotonic_ns % MS for batch in found[1:]} == {
        623_456 - (2 * 90_000 - 90_000 * 2)
    }
    for batch in found[1:]:
        assert {b.t_ns - a.t_ns for a, b in pairwise(batch.events)} == {8 * MS}
        assert (
            batch.metadata.anchor.wall_ns - batch.metadata.anchor.monotonic_ns
            == clock.wall_ns() - clock.monotonic_ns()
        )


# --- nothing pointless --------------------------------------------------------------------------------------


def test_a_batch_without_rows_is_not_written_and_its_counts_go_with_the_next():
    subject, spool = recorder(grant=example_grant("pointer"), max_age_s=0.05)
    subject.emit(Move(time.monotonic_ns(), 5, 5))
    until(spool.waiting)
    subject.emit(Move(time.monotonic_ns(), 5, 5))
    subject.emit(KeyPress(time.monotonic_ns(), "tab"))
    subject.emit(Move(time.monotonic_ns(), float("nan"), 5))
    until(lambda: not subject._buffer and subject._batcher.open is None)
    subject.commit()
    assert len(spool.waiting()) == 1
    subject.emit(Move(time.monotonic_ns(), 5, 5))
    subject.emit(Move(time.monotonic_ns(), 6, 6))
    subject.stop()
    assert [batch.metadata.coverage for batch in batches(spool)] == [
        Coverage(), Coverage(coalesced=2, excluded=1, dropped={"invalid": 1}),
    ]  # fmt: skip
    statistics = subject.statistics()
    assert (statistics.captured, statistics.coalesced) == ({"move": 4}, 2)
    assert (statistics.excluded, statistics.dropped) == (1, {"invalid": 1})


def test_quanta_reach_the_batch():
    subject, spool = recorder(quanta_per_px=256)
    subject.emit(Move(AT, 1.25, 2.00390625))
    subject.emit(Move(AT + MS, 1.25, 2.0078125))
    subject.stop()
    assert rows(spool) == [Move(AT, 1.25, 2.00390625), Move(AT + MS, 1.25, 2.0078125)]
    assert batches(spool)[0].metadata.quanta_per_px == 256
