"""The gate: one window of time for each kind, closed at once, opened from now on; the wall clock as it was seen."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mcilib.clock import ClockAnchor
from mcilib.consent import Exemption, ExemptionState, ExemptScope, Gate, Pause
from mcilib.consent.gate import ALWAYS_NS
from mcilib.consent.pause import Now
from mcilib.consent.state import ControlState, Withdrawal
from mcilib.events import Focus, Move
from mcilib.testing.fakes import example_grant

S = 1_000_000_000
NOON = int(datetime(2025, 6, 16, 12, 0, tzinfo=UTC).timestamp()) * S  # a Monday


def now(s: float, *, wall_s: float | None = None) -> Now:
    """So long after noon; `wall_s` is what the clock on the wall shows."""
    return Now(int(s * S), 0, NOON + int((s if wall_s is None else wall_s) * S), "b0")


def anchor(s: float, *, wall_s: float | None = None) -> ClockAnchor:
    moment = now(s, wall_s=wall_s)
    return ClockAnchor(moment.monotonic_ns, moment.wall_ns)


def exempt(until_s: float | None = None, **scope) -> ControlState:
    until_ns = None if until_s is None else NOON + int(until_s * S)
    return ControlState(exemptions=(Exemption("a" * 32, ExemptScope(**scope), "other", "", NOON, until_ns),))


def paused(at_s: float, for_s: float) -> ControlState:
    return ControlState(pause=Pause(now(at_s), int(for_s * S)))


@pytest.fixture
def gate():
    made = Gate(example_grant("pointer", "keys", "titles"), tz=UTC)
    made.apply(now(0))
    return made


def window(gate, kind="move", at_s=100.0):
    from_ns, until_ns = gate.windows(anchor(at_s)).get(kind, (0, 0))
    return max(from_ns / S, float("-inf")), until_ns / S


EVER = (-ALWAYS_NS / S, ALWAYS_NS / S)


def test_what_is_granted_is_admitted_at_any_time_and_nothing_else():
    gate = Gate(example_grant("pointer"))
    windows = gate.windows(anchor(0))
    assert set(windows) == {"move", "press", "release", "scroll", "display", "gap"}
    assert windows["move"] == (-ALWAYS_NS, ALWAYS_NS)
    assert gate.allows("pointer")
    assert not gate.allows("keys")


def test_a_pause_closes_at_once_and_what_was_told_before_is_taken_until_it_is_shut(gate):
    version = gate.version
    gate.apply(now(10), state=paused(10, 60))
    assert gate.version != version
    assert window(gate) == (EVER[0], 10)
    version = gate.version
    gate.shut()
    assert gate.version != version
    assert set(gate.windows(anchor(20))) == {"gap"}
    version = gate.version
    gate.shut()
    assert gate.version == version, "nothing has changed"


def test_what_opens_again_admits_nothing_of_before(gate):
    gate.apply(now(10), state=paused(10, 60))
    gate.apply(now(50))  # not over
    assert window(gate) == (EVER[0], 10)
    gate.apply(now(75))
    assert window(gate) == (75, EVER[1])


def test_what_was_told_before_the_first_look_is_taken_and_what_was_closed_from_the_start_is_not():
    gate = Gate(example_grant("pointer"))
    gate.apply(now(10), state=paused(10, 60))
    assert window(gate) == (EVER[0], 10)
    gate = Gate(example_grant("pointer"), exempt(hours=("12:00-13:00",)), tz=UTC)
    gate.apply(now(10))
    assert set(gate.windows(anchor(20))) == {"gap"}


def test_a_part_that_is_exempt_leaves_the_others_alone(gate):
    gate.apply(now(10), state=exempt(scopes=("keys",)))
    assert window(gate, "key_press") == (EVER[0], 10)
    assert window(gate, "layout") == (EVER[0], 10)
    assert window(gate, "move") == EVER
    assert not gate.allows("keys")
    gate.apply(now(20), state=ControlState())
    assert window(gate, "key_press") == (20, EVER[1])


def test_a_title_has_a_window_of_its_own(gate):
    title = [Focus(int(s * S), "app", "title") for s in (5, 15, 25)]
    gate.apply(now(10), state=exempt(scopes=("titles",)))
    assert window(gate, "focus") == EVER
    assert [gate.cut(event).title for event in title] == ["title", None, None]
    gate.shut()
    assert [gate.cut(event).title for event in title] == [None, None, None]
    gate.apply(now(20), state=ControlState())
    assert [gate.cut(event).title for event in title] == [None, None, "title"]
    assert gate.cut(title[0]) == replace(title[0], title=None)
    move = Move(0, 1, 2)
    assert gate.cut(move) is move


def test_programs_that_are_exempt_take_titles_with_them(gate):
    gate.apply(now(10), state=exempt(scopes=("apps",)))
    assert window(gate, "focus") == (EVER[0], 10)
    assert not gate.allows("titles")


def test_hours_close_by_the_clock_whether_somebody_looks_or_not(gate):
    gate.apply(now(0), state=exempt(hours=("12:05-12:10",)))
    assert window(gate, at_s=10) == (EVER[0], 300)
    assert window(gate, at_s=310) == (EVER[0], 300), "what lies before may still come"
    gate.apply(now(310))
    assert window(gate, at_s=320) == (EVER[0], 300)
    gate.apply(now(601))
    assert window(gate, at_s=620)[0] == 601
    assert window(gate, at_s=620)[1] == pytest.approx(86_400 + 300)


def test_hours_that_nobody_looked_at_are_over_all_the_same(gate):
    gate.apply(now(0), state=exempt(hours=("12:05-12:10",)))
    assert window(gate, at_s=1_000)[0] == 1_000


def test_a_grant_ends_by_the_clock(gate):
    ends = replace(gate.grant, expires_at=datetime.fromtimestamp(NOON // S + 60, UTC).isoformat())
    gate.apply(now(0), grant=ends)
    windows = gate.windows(anchor(10))
    assert windows["move"][1] == windows["gap"][1] == 60 * S
    assert gate.closed(NOON + 60 * S - 1) is None
    assert "expired" in gate.closed(NOON + 60 * S)
    assert window(gate, at_s=100) == (EVER[0], 60)
    assert gate.windows(anchor(100))["gap"][1] == 60 * S


def test_after_it_has_ended_no_clock_that_goes_back_admits_what_was_heard_since(gate):
    ends = replace(gate.grant, expires_at=datetime.fromtimestamp(NOON // S + 60, UTC).isoformat())
    gate.apply(now(0), grant=ends)
    from_ns, _ = gate.windows(anchor(100, wall_s=-3_600))["move"]  # set back by an hour
    assert from_ns == 100 * S


def test_between_two_looks_with_a_step_an_event_must_be_allowed_by_both(gate):
    gate.apply(now(0), state=exempt(until_s=60, scopes=("keys",)))
    gate.apply(now(61))
    assert window(gate, "key_press", at_s=62)[0] == 61
    windows = gate.windows(anchor(70, wall_s=10))  # it is in force again, nobody knows since when
    assert windows["key_press"][1] <= 62 * S
    assert windows["move"][0] == 70 * S  # where hours or ends count, nobody knows what was meanwhile


def test_a_step_takes_nothing_where_the_clock_has_no_say(gate):
    gate.apply(now(0), state=exempt(scopes=("keys",)))
    assert gate.windows(anchor(50, wall_s=-86_400 * 365))["move"] == (-ALWAYS_NS, ALWAYS_NS)
    assert gate.windows(anchor(60, wall_s=86_400 * 3_650))["move"] == (-ALWAYS_NS, ALWAYS_NS)


def test_closed_by_the_clock_after_a_step_means_closed_since_the_last_look(gate):
    gate.apply(now(40), state=exempt(hours=("14:00-15:00",)))
    gate.apply(now(50, wall_s=7_200))
    assert gate.windows(anchor(60, wall_s=7_210))["move"] == (-ALWAYS_NS, 40 * S)


def test_a_pause_after_a_step_takes_nothing_that_was_allowed_before_it(gate):
    gate.apply(now(40), state=ControlState())
    gate.apply(now(50, wall_s=3_600), state=paused(50, 60))
    assert window(gate) == (EVER[0], 50)


def test_an_anchor_of_before_opens_nothing_that_is_closed_now(gate):
    """Of events from before a sleep, after a look at how the clocks stand since."""
    gate.apply(now(0), state=exempt(hours=("14:00-15:00",)))
    gate.apply(now(50, wall_s=7_300))  # slept for two hours: it is ten past two
    from_ns, _ = gate.windows(anchor(50.001))["move"]  # as the clocks stood before
    assert from_ns == 50_001_000_000
    assert gate.windows(anchor(50.002, wall_s=7_300.002))["move"] == (from_ns, from_ns)


def test_what_was_in_force_until_now_sees_the_new_time_first(gate):
    """A grant that ended while the machine slept, and another one given after it."""
    ends = replace(gate.grant, expires_at=datetime.fromtimestamp(NOON // S + 60, UTC).isoformat())
    gate.apply(now(0), grant=ends)
    gate.apply(now(10, wall_s=3_600), grant=replace(ends, expires_at=None))
    assert window(gate)[0] == 10


def test_forgotten_is_what_was_before(gate):
    version = gate.version
    gate.apply(now(10), state=exempt(scopes=("keys",)))
    gate.restart(now(20))
    assert gate.version != version
    assert window(gate)[0] == 20
    assert window(gate, "key_press") == (0, 0)
    gate.apply(now(30), state=ControlState())
    assert window(gate, "key_press")[0] == 30


@pytest.mark.parametrize(
    ("state", "closed"),
    [
        (ControlState(), False),
        (paused(0, 60), False),
        (ControlState(asked="?"), False),
        (exempt(everything=True), False),
        (ControlState(withdrawal=Withdrawal("a" * 32, "d" * 32, 1, "")), True),
        (ControlState(withdrawal=Withdrawal("", "d" * 32, 1, "", 2)), False),
        (ControlState(unreadable="it is empty"), True),
    ],
)
def test_what_was_captured_with_consent_goes_unless_it_was_withdrawn_or_nobody_knows(gate, state, closed):
    gate.apply(now(0), state=state)
    assert (gate.closed(NOON) is not None) is closed


@pytest.mark.parametrize("state", [ExemptionState.DENIED, ExemptionState.EXPIRED, ExemptionState.WITHDRAWN])
def test_what_is_not_in_force_closes_nothing(gate, state):
    (exemption,) = exempt(everything=True).exemptions
    gate.apply(now(0), state=ControlState(exemptions=(replace(exemption, state=state),)))
    assert window(gate) == EVER


def test_local_time_is_that_of_the_zone():
    gate = Gate(example_grant("pointer"), exempt(hours=("14:00-15:00",)), tz=ZoneInfo("Europe/Berlin"))
    gate.apply(now(-60))  # noon in UTC is 14:00 in summer
    assert window(gate, at_s=-30)[1] == 0


def test_one_event(gate):
    assert gate.admits("move", 5, anchor(10))
    assert not gate.admits("scream", 5, anchor(10))
    gate.apply(now(10), state=paused(10, 60))
    assert gate.admits("move", 10 * S - 1, anchor(11))
    assert not gate.admits("move", 10 * S, anchor(11))


def test_a_reader_sees_a_change_as_a_whole(gate):
    """Two kinds of one scope never differ."""
    over = threading.Event()
    different = []

    def read() -> None:
        while not over.is_set():
            windows = gate.windows(anchor(0))
            if windows.get("move") != windows.get("press"):
                different.append(windows)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        gate.apply(now(n), state=paused(n, 60) if n % 2 else ControlState())
    over.set()
    reader.join()
    assert not different


def test_no_step_of_time_zones_is_overslept():
    """Berlin, the night of summer time: 02:30 does not exist, 03:30 comes an hour sooner."""
    berlin = ZoneInfo("Europe/Berlin")
    one = datetime(2025, 3, 30, 1, 0, tzinfo=berlin)
    start = int(one.timestamp()) * S
    gate = Gate(example_grant("pointer"), exempt(hours=("03:30-04:00",)), tz=berlin)
    gate.apply(Now(0, 0, start, "b0"))
    ends_ns = gate.windows(ClockAnchor(1, start + 1))["move"][1]
    assert ends_ns <= timedelta(hours=1.5).total_seconds() * S
