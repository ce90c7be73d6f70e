"""Properties of the capture side, for any events: how they fall into batches changes nothing about what is read,
and none is lost without being counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from batches import events_at
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import batches, recorder

from mcilib import KeyPress, Move, Press, Recorder, Scroll
from mcilib.events import Display, Event, Gap, Layout, event_count
from mcilib.format.batch import Batch
from mcilib.testing.fakes import ManualClock, MemorySpool, example_grant

MS = 1_000_000
AT = ManualClock().monotonic_ns()
GRANT = example_grant()


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Spares thousands of lines about mishaps that are meant to happen."""
    logger = logging.getLogger("mcilib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


_WAITS = st.sampled_from([0, 0, 1, 5, 20, 49, 50, 51, 300, 2_000])
"""Milliseconds to the next event."""
_SOME: st.SearchStrategy[Event] = st.one_of(
    st.builds(Move, st.just(0), st.integers(1, 3), st.just(1), st.sampled_from([None, None, True])),
    st.builds(Scroll, st.just(0), st.integers(1, 2), st.just(1), st.just(0), st.sampled_from([1, 1, -1])),
    st.builds(KeyPress, st.just(0), st.sampled_from(["tab", "ctrl+c", None])),
    st.builds(Press, st.just(0), st.integers(1, 2), st.just(1), st.just("left")),
    st.builds(Display, st.just(0), st.integers(0, 1), st.just(0), st.just(0), st.just(9), st.just(9)),
    st.builds(Layout, st.just(0), st.sampled_from(["us", "de"])),
    events_at(st.just(0)),
)
"""Events that often fold, and every other kind."""


@st.composite
def _histories(draw: st.DrawFn, breaks: bool = False) -> list[tuple[str, Any]]:
    """What happens, in order: ("event", event) in order of time on the grid of ticks and, with `breaks`,
    ("step", seconds) and ("sleep", seconds)."""
    t_ns = AT
    history: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(0, 40))):
        wait_ms = draw(_WAITS)
        t_ns += wait_ms * MS
        history.append(("wait", wait_ms / 1000))
        if breaks and draw(st.integers(0, 7)) == 0:
            what, seconds = draw(st.sampled_from([("step", -3600.0), ("step", 90.0), ("sleep", 1800.0)]))
            if what == "sleep":  # nobody works while the machine goes to sleep
                history.append(("wait", 3.0))
                t_ns += 3_000 * MS
            history.append((what, seconds))
        else:
            history.append(("event", replace(draw(_SOME), t_ns=t_ns)))
    return history


def _play(
    history: list[tuple[str, Any]], act: Callable[[Recorder, int], None], **options: Any
) -> tuple[list[Batch], Recorder]:
    """Plays it to a recorder. `act` is called after each event. The thread looks before a step of the clock, and
    at the first event after any break."""
    clock = ManualClock()
    subject, spool = recorder(grant=GRANT, clock=clock, started=False, **options)
    unseen = False  # a break
    for number, (what, value) in enumerate(history):
        if what == "wait":
            clock.advance(value)
        elif what == "event":
            subject.emit(value)
            act(subject, number)
            if unseen:
                subject._turn()
            unseen = False
        else:
            if what == "step":
                subject._turn()
            (clock.step_wall if what == "step" else clock.suspend)(value)
            unseen = True
    subject.commit()
    return batches(spool), subject


def _said(read: list[Batch]) -> list[tuple[int, Event]]:
    """Rows in sequence, with their wall times."""
    return [(one.metadata.anchor.to_wall_ns(row.t_ns), row) for one in read for row in one.events]


def _never(subject: Recorder, number: int) -> None:
    pass


def _always(subject: Recorder, number: int) -> None:
    subject._turn()


@settings(max_examples=200, deadline=None)
@given(
    _histories(),
    st.sampled_from([1, 2, 3, 10, 5_000]),
    st.sampled_from([1, 100, 400, 10**6]),
    st.sampled_from([0.001, 0.05, 0.3, 60]),
    st.sets(st.integers(0, 80)),
    st.sampled_from([1, 256]),
)
def test_where_batches_end_changes_nothing_about_the_rows(
    history, max_events, max_bytes, max_age_s, turns, quanta
):
    def sometimes(subject: Recorder, number: int) -> None:
        if number in turns:
            subject._turn()  # the thread looks now, and closes what is due

    whole, _ = _play(history, _never, max_age_s=10**6, quanta_per_px=quanta)
    split, _ = _play(
        history,
        sometimes,
        max_events=max_events,
        max_bytes=max_bytes,
        max_age_s=max_age_s,
        quanta_per_px=quanta,
    )
    assert _said(split) == _said(whole)
    assert all(one.events for one in split)
    assert max((len(one.events) for one in split), default=0) <= max_events
    assert sum(one.seen for one in split) <= sum(event_count(e) for what, e in history if what == "event")
    assert [one.header.sequence for one in split] == list(range(1, len(split) + 1))


@settings(max_examples=150, deadline=None)
@given(_histories(breaks=True), st.integers(1, 6), st.integers(0, 80))
def test_what_is_written_at_any_time_is_a_prefix_of_what_will_be(history, max_events, cut):
    """Also across steps of the wall clock, back too, and sleeps: sequence is the order, whatever time it says."""
    whole, _ = _play(history, _always, max_events=max_events)
    so_far, _ = _play(history[:cut], _always, max_events=max_events)
    # All but the batch that was still open at the cut stays as it is, and of that all but a scroll that grew.
    before = max(0, len(so_far) - 1)
    assert [(one.metadata, one.events) for one in so_far[:before]] == [
        (one.metadata, one.events) for one in whole[:before]
    ]
    rows = [row for _, row in _said(so_far)][:-1]
    assert rows == [row for _, row in _said(whole)][: len(rows)]
    times = [row.t_ns for _, row in _said(whole)]
    assert times == sorted(times)  # neither touches monotonic time


@settings(max_examples=150, deadline=None)
@given(_histories(breaks=True))
def test_every_batch_has_one_true_anchor_and_every_sleep_is_told_once(history):
    """The wall time of each row is that of the clock when it happened."""
    wall: dict[Event, int] = {}
    clock = ManualClock()
    for what, value in history:
        if what == "event":
            wall[value] = clock.wall_ns()
        else:
            {"wait": clock.advance, "step": clock.step_wall, "sleep": clock.suspend}[what](value)
    whole, _ = _play(history, _never)
    events = [value for what, value in history if what == "event"]
    sleeps = [row for _, row in _said(whole) if isinstance(row, Gap) and row not in events]
    last = max((n for n, (what, _) in enumerate(history) if what == "event"), default=0)
    noticed = history[:last]
    told = sum(row.duration_ns for row in sleeps) // (1_800 * 10**9)
    assert noticed.count(("sleep", 1800.0)) <= told <= history.count(("sleep", 1800.0))
    assert {row.source for row in sleeps} <= {"suspend"}
    for wall_ns, row in _said(whole):
        if isinstance(row, KeyPress) and events.count(row) == 1:
            assert wall_ns == wall[row]


_MISHAPS = st.sampled_from(["ok", "ok", "ok", "ok", "full", "late", "junk", "commit", "broken", "lost"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(_SOME, _MISHAPS), max_size=60),
    st.integers(1, 5),
    st.sampled_from([("pointer", "keys"), ("pointer",), ("keys",)]),
)
def test_every_event_is_a_row_or_counted_once(happens, max_events, scopes):
    class Broken(MemorySpool):
        broken = False

        def commit(self, seal, /):
            if self.broken:
                raise RuntimeError("a bug of somebody's spool")
            return super().commit(seal)

    spool, clock = Broken(), ManualClock()
    subject, _ = recorder(
        spool, example_grant(*scopes), clock=clock, max_events=max_events, buffer_events=8, started=False
    )
    emitted = 0
    for n, (event, mishap) in enumerate(happens):
        event = replace(event, t_ns=AT + n * MS)
        if mishap == "late":
            subject._running = False
        elif mishap == "junk":
            event = Move(2**70, 1, 1)
        elif mishap == "lost":
            spool.fail_next = 1
        elif mishap == "broken":
            spool.broken = True
        emitted += event_count(event)
        subject.emit(event)
        if mishap in ("commit", "lost", "broken"):
            subject.commit()
        elif mishap != "full":
            subject._turn()
        spool.broken, subject._running = False, True
    spool.fail_next = 0
    subject._give_up(0)  # as a stop with a spool that takes nothing would
    last = Press(AT + 10**9, 9, 9, "left") if "pointer" in scopes else KeyPress(AT + 10**9, "tab")
    subject.commit()
    subject.emit(last)
    subject.commit()
    read = batches(spool)
    statistics = subject.statistics()
    assert sum(one.seen for one in read) == emitted + 1
    assert sum(one.metadata.coverage.coalesced for one in read) <= statistics.coalesced
    assert sum(one.metadata.coverage.excluded for one in read) == statistics.excluded
    dropped: dict[str, int] = {}
    for one in read:
        for cause, count in one.metadata.coverage.dropped.items():
            dropped[cause] = dropped.get(cause, 0) + count
    assert dropped == statistics.dropped
    lost = sum(statistics.dropped.get(cause, 0) for cause in ("spool", "unsealable"))
    seen = sum(statistics.captured.values()) + statistics.excluded + sum(statistics.dropped.values()) - lost
    assert seen == emitted + 1
    assert statistics.open_events == 0
