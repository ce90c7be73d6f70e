"""Server times on the monotonic clock: the same clock or not, and the turn of its 32 bits."""

from __future__ import annotations

import pytest

from mcilib.sources._x11 import ServerClock

MS = 1_000_000
TURN_MS = 2**32


@pytest.mark.parametrize("now_ms", [5_000_000, TURN_MS - 1, TURN_MS, TURN_MS + 3, 7 * TURN_MS + 12])
@pytest.mark.parametrize("late_ms", [0, 1, 250, 100_000])
def test_event_times_around_the_turn(now_ms, late_ms):
    clock = ServerClock(lambda: now_ms * MS + 999_999)
    clock.compare(now_ms % TURN_MS)
    assert clock.shared
    clock.stamp((now_ms - late_ms) % TURN_MS)
    assert clock.event_ns() == (now_ms - late_ms) * MS


@pytest.mark.parametrize("offset_ms", [2_000, -2_000, 10**8, 2**31])
def test_a_server_of_another_machine_is_not_believed(offset_ms):
    now_ns = 123_456_789 * MS
    clock = ServerClock(lambda: now_ns)
    clock.compare((123_456_789 + offset_ms) % TURN_MS)
    assert not clock.shared
    clock.stamp((123_456_789 + offset_ms) % TURN_MS)
    assert clock.event_ns() == now_ns


def test_a_time_from_the_future_is_not_believed():
    now_ns = 123_456_789 * MS
    clock = ServerClock(lambda: now_ns)
    clock.compare(123_456_789)
    clock.stamp(123_456_789 + 5_000)
    assert clock.event_ns() == now_ns


def test_without_a_server_it_is_now():
    assert ServerClock(lambda: 77).event_ns() == 77
