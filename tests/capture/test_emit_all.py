"""Several events at once are taken as they would be one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from recording import recorder, rows, sizes
from waiting import until

from mcilib import Recorder
from mcilib.events import Event, KeyPress, Move, Scroll

_EVENTS: list[Event] = [
    Move(10_000_000, 1, 2),
    KeyPress(12_000_000, "letter"),
    Scroll(11_000_000, 1, 2, 0, 3, count=3),
    *(Move(20_000_000 + 9_000_000 * n, n, -n) for n in range(7)),
]


def one_by_one(made: Recorder, events: list[Event]) -> int:
    return sum(made.emit(event) for event in events)


def at_once(made: Recorder, events: list[Event]) -> int:
    return made.emit_all(events)


Emit = Callable[[Recorder, list[Event]], int]


def outcome(emit: Emit, **options: Any) -> tuple[object, ...]:
    made, spool = recorder(**options)
    taken = [emit(made, _EVENTS[:4]), emit(made, []), emit(made, _EVENTS[4:])]
    room = made.room
    made.stop()
    late = emit(made, _EVENTS)
    statistics = made.statistics()
    return taken, late, room >= 0, rows(spool), statistics.dropped, statistics.captured


@pytest.mark.parametrize("options", [{}, {"buffer_events": 1_000, "drain_mark": 2}])
def test_the_same_events_in_the_same_order(options):
    expected, got = outcome(one_by_one, **options), outcome(at_once, **options)
    assert got == expected
    assert got[0] == [4, 0, 6]
    assert got[1] == 0, "none by a recorder that has stopped"
    assert got[4] == {"not_running": 12}, "and each is counted, a scroll as its steps"


@pytest.mark.parametrize("buffer_events", range(1, 12))
def test_a_full_buffer_takes_what_fits_and_counts_the_rest(buffer_events):
    told = []
    for emit in (one_by_one, at_once):
        made, spool = recorder(started=False, buffer_events=buffer_events)
        made._taking = True
        taken = emit(made, _EVENTS)
        made._running = made._taking = False
        made.commit()
        told.append((taken, rows(spool), made.statistics().dropped))
    assert told[0] == told[1]
    assert told[1][0] == min(buffer_events, len(_EVENTS))


@pytest.mark.parametrize("emit", [one_by_one, at_once])
def test_what_is_held_is_excluded(emit):
    made, _spool = recorder()
    made.hold()
    assert emit(made, _EVENTS) == 0
    assert made.statistics().excluded == 12
    made.release()
    assert emit(made, _EVENTS) == 10
    made.stop()


@pytest.mark.parametrize("emit", [one_by_one, at_once])
@pytest.mark.parametrize("count", [1, 4])
def test_the_recorder_wakes_for_the_first_and_at_the_mark(emit, count):
    now_ns = time.monotonic_ns()
    events: list[Event] = [Move(now_ns + 9_000_000 * n, n, n) for n in range(4)]
    made, spool = recorder(max_age_s=0.05)
    assert emit(made, events[:count]) == count
    until(lambda: sum(sizes(spool)) > 0, what="its age ends the batch")
    made.stop()
    made, spool = recorder(drain_mark=4)
    emit(made, events[:1])
    until(lambda: made._armed and not made._buffer, what="it has taken the first and waits for more")
    emit(made, events)
    until(lambda: not made._buffer, what="it was woken at the mark")
    made.stop()
