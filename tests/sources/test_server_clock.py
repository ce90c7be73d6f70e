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


class Other:
    """A server with a clock of its own: so far ahead of ours (ms), and faster by so many ms in a second."""

    def __init__(self, ahead_ms: int, drift: float = 0.0) -> None:
        self.now_ns = 123_456_789 * MS
        self.ahead_ms, self.drift, self.began_ns = ahead_ms, drift, self.now_ns

    def ms(self, at_ns: int) -> int:
        run_ms = (at_ns - self.began_ns) / MS * (1 + self.drift / 1000)
        return int(self.began_ns // MS + self.ahead_ms + run_ms) % TURN_MS


OFFSETS = [
    2_000,
    -2_000,
    10**8,
    2**31,
    -123_456_789,
    TURN_MS - 123_456_789 - 30_000,
]  # the last turns after 30 s


@pytest.mark.parametrize("ahead_ms", OFFSETS)
@pytest.mark.parametrize("drift", [0.0, 0.05, -0.05], ids=["even", "fast", "slow"])
def test_a_server_with_another_clock_is_followed_within_two_milliseconds(ahead_ms, drift):
    """Ten minutes of input, read late at 250 ms, against a clock that is far off and drifts by 50 ppm."""
    other = Other(ahead_ms, drift)
    clock = ServerClock(lambda: other.now_ns)
    clock.compare(other.ms(other.now_ns))
    assert not clock.shared
    worst = 0.0
    for _ in range(2_400):
        happened = [other.now_ns + n * 25 * MS for n in range(10)]
        other.now_ns += 250 * MS
        read_ns = other.now_ns
        clock.hear(other.ms(happened[-1]), happened[-1])  # one of many that came just before a read
        told = clock.times([other.ms(at) for at in happened], read_ns)
        worst = max([worst, *(abs(t - at) / MS for t, at in zip(told, happened, strict=True))])
    assert worst <= 2, f"{worst} ms"


def test_a_time_from_the_future_is_not_believed():
    now_ns = 123_456_789 * MS
    clock = ServerClock(lambda: now_ns)
    clock.compare(123_456_789)
    clock.stamp(123_456_789 + 5_000)
    assert clock.event_ns() == now_ns


def test_without_a_server_it_is_now():
    assert ServerClock(lambda: 77).event_ns() == 77


def test_a_time_that_is_given_is_told_until_the_next_and_never_runs_back():
    now_ns = 1_000
    clock = ServerClock(lambda: now_ns)
    clock.stamp_ns(None, "win32")
    assert (clock.event_ns(), clock.clock) == (1_000, "")
    for given_ns, told_ns in ((1_500, 1_500), (1_400, 1_500), (None, 1_500), (1_700, 1_700)):
        clock.stamp_ns(given_ns, "win32")
        assert (clock.event_ns(), clock.clock) == (told_ns, "win32")
    now_ns = 2_000
    clock.stamp_ns(None, "win32")
    assert clock.event_ns() == 2_000
