"""Nothing near a program that is exempt, or while nobody knows which is in use; everything else."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.batching import Batcher
from mcilib.clock import ClockAnchor
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate
from mcilib.consent.focus import EDGE_NS, FocusGuard
from mcilib.consent.pause import Now
from mcilib.events import Display, Event, Focus, Gap, KeyPress, Layout, Move
from mcilib.guarding import Guarding
from mcilib.testing.fakes import ManualClock, example_grant

MS = 1_000_000
S = 1000 * MS
SECRET = (ExemptScope(apps=("keepass*",)),)
TOLD_NS = int(limits.FOCUS_TOLD_S * 1e9)
LONG_AFTER = 10**6 * S


def key(t_ns: int) -> KeyPress:
    return KeyPress(t_ns, "letter")


def sift(
    guard: FocusGuard, events: Sequence[Any] = (), now_ns: int = LONG_AFTER
) -> tuple[list[Event], list[Event]]:
    passed, excluded = guard.sift(deque(events), now_ns, now_ns - TOLD_NS)
    return [event for lot in passed for event in lot], excluded


# --- whatever happens in whatever order ----------------------------------------------------------------------

_APPS = st.sampled_from(["editor", "browser", "KeePassXC", None])
_AT = st.integers(0, 12_000).map(lambda ms: ms * MS)
_LATE = st.integers(0, 1_500).map(lambda ms: ms * MS)
_CHANGES = st.lists(st.tuples(_AT, _APPS, _LATE), max_size=8, unique_by=lambda change: change[0])
_GAPS = st.lists(st.tuples(_AT, st.integers(0, 1_500).map(lambda ms: ms * MS)), max_size=2)
_KEYS = st.lists(st.tuples(_AT, st.integers(0, 3_000).map(lambda ms: ms * MS)), max_size=30)
_LOOKS = st.lists(st.integers(0, 16_000).map(lambda ms: ms * MS), max_size=12)


def covered(
    changes: Sequence[tuple[int, str | None]], gaps: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """When a program that is exempt was in use, or nobody knew. A gap ends with the next change, or itself."""
    marks = sorted([*changes, *((t_ns, None) for t_ns, _ in gaps)], key=lambda mark: mark[0])
    edges = [-(2**62), *(t_ns for t_ns, _ in marks), 2**62]
    apps = [None, *(app for _, app in marks)]
    spans = [
        (begin, end)
        for begin, end, app in zip(edges[:-1], edges[1:], apps, strict=True)
        if app is None or app == "KeePassXC"
    ]
    return [*spans, *((t_ns, t_ns + lasted_ns) for t_ns, lasted_ns in gaps)]


def is_near(t_ns: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(begin - EDGE_NS <= t_ns < end + EDGE_NS for begin, end in spans)


@given(_CHANGES, _GAPS, _KEYS, _LOOKS)
@settings(max_examples=400, deadline=None)
def test_no_event_near_an_exempt_program_passes_and_all_others_do(changes, gaps, keys, looks):
    """For any schedule, when changes are told within 1.5 s and gaps within the time of a gap."""
    gaps = [gap for gap in gaps if gap[0] not in {t_ns for t_ns, _, _ in changes}][:1]
    told: list[tuple[int, int, Event]] = [
        (t + late, n, Focus(t, app)) for n, (t, app, late) in enumerate(changes)
    ]
    told += [(t + lasted, -1, Gap(t, lasted, "window")) for t, lasted in gaps]
    told += [(t + late, 100 + n, key(t)) for n, (t, late) in enumerate(keys)]
    told.sort(key=lambda one: one[:2])
    guard = FocusGuard(SECRET)
    passed: list[Event] = []
    excluded: list[Event] = []
    for now_ns in [*sorted(looks), LONG_AFTER]:
        ripe = [event for at_ns, _, event in told if at_ns <= now_ns]
        told = told[len(ripe) :]
        more, less = sift(guard, ripe, now_ns)
        passed += more
        excluded += less
    assert not guard.breached
    spans = covered([(t, app) for t, app, _ in changes], gaps)
    assert sorted(e.t_ns for e in passed if isinstance(e, KeyPress)) == sorted(
        t for t, _ in keys if not is_near(t, spans)
    )
    for event in passed:  # also what says how things are
        assert isinstance(event, Gap) or not is_near(event.t_ns, spans)
        assert getattr(event, "app", "") != "KeePassXC"
    waiting = guard.drop()
    assert all(isinstance(event, Focus) for event in waiting)
    assert len(passed) + len(excluded) + len(waiting) == len(changes) + len(gaps) + len(keys)


@given(
    _CHANGES, st.lists(st.integers(0, 20_000).map(lambda ms: ms * MS), min_size=8, max_size=8), _KEYS, _LOOKS
)
@settings(max_examples=300, deadline=None)
def test_what_is_told_too_late_is_noticed(changes, lates, keys, looks):
    told: list[tuple[int, int, Event]] = [
        (t + late, n, Focus(t, app))
        for n, ((t, app, _), late) in enumerate(zip(changes, lates, strict=False))
    ]
    told += [(t + late, 100 + n, key(t)) for n, (t, late) in enumerate(keys)]
    told.sort(key=lambda one: one[:2])
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    passed: list[Event] = []
    for now_ns in [*sorted(looks), LONG_AFTER]:
        ripe = [event for at_ns, _, event in told if at_ns <= now_ns]
        told = told[len(ripe) :]
        more, _ = sift(guard, ripe, now_ns)
        if guard.breached:
            guard.breached, passed = False, []  # as who sees to it loses what has passed
        passed += more
    spans = covered([(0, "editor"), *((t, app) for t, app, _ in changes if t)], [])
    spans = [span for span in spans if span[0] >= 0]
    if any(t == 0 for t, _, _ in changes):
        return
    assert not [event for event in passed if is_near(event.t_ns, spans)]


# --- one by one ----------------------------------------------------------------------------------------------


def test_nothing_passes_before_anybody_has_told_which_program_is_in_use():
    guard = FocusGuard(SECRET)
    assert sift(guard, [key(1 * S), key(2 * S)]) == ([], [key(1 * S), key(2 * S)])


def test_an_event_waits_until_its_edge_is_known():
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    assert sift(guard, [key(10 * S)], 10 * S) == ([], [])
    assert guard.waits_until_ns == 10 * S + EDGE_NS
    due_ns = 10 * S + EDGE_NS + TOLD_NS
    assert sift(guard, [], due_ns - 1) == ([], [])
    assert sift(guard, [], due_ns) == ([key(10 * S)], [])
    assert guard.waits_until_ns is None


def test_the_edges():
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    enter, leave = 10 * S, 20 * S
    at = [enter - EDGE_NS - 1, enter - EDGE_NS, enter, 15 * S, leave, leave + EDGE_NS - 1, leave + EDGE_NS]
    events: list[Event] = [Focus(enter, "keepassxc", "my passwords"), Focus(leave, "editor"), *map(key, at)]
    passed, excluded = sift(guard, events)
    assert [e.t_ns for e in passed if isinstance(e, KeyPress)] == [at[0], at[-1]]
    assert Focus(enter, "keepassxc", "my passwords") not in passed
    assert len(excluded) == 6


def test_what_is_true_afterwards_is_told_when_the_edge_is_over():
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    display, layout = Display(12 * S, 0, 0, 0, 800, 600), Layout(13 * S, "de")
    events: list[Event] = [
        Focus(10 * S, "KeePassXC"), Display(11 * S, 0, 0, 0, 640, 480), display, Display(12 * S, 1, 800, 0, 800, 600),
        layout, Focus(20 * S, "browser", "a page"), key(21 * S),
    ]  # fmt: skip
    passed, excluded = sift(guard, events, 20 * S + EDGE_NS + TOLD_NS + EDGE_NS - 1)
    assert (passed, len(excluded)) == ([], 2)  # the secret one, and the display as it was
    passed, excluded = sift(guard, [])
    over = 20 * S + EDGE_NS
    assert passed[-1] == key(21 * S)
    assert set(passed[:-1]) == {
        Focus(over, "browser", "a page"), Display(over, 0, 0, 0, 800, 600), Display(over, 1, 800, 0, 800, 600),
        Layout(over, "de"),
    }  # fmt: skip
    assert excluded == []


def test_a_program_that_is_only_passed_through_is_not_told():
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    events = [Focus(10 * S, "KeePassXC"), Focus(20 * S, "browser"), Focus(20 * S + 100 * MS, "KeePassXC")]
    passed, excluded = sift(guard, [*events, Focus(30 * S, "editor"), key(40 * S)])
    assert passed == [Focus(30 * S + EDGE_NS, "editor"), key(40 * S)]
    assert excluded == events


def test_a_gap_of_who_tells_makes_it_unknown_and_of_others_does_not():
    for source, kept in (("window", False), ("keyboard", True)):
        guard = FocusGuard(SECRET, focus=(0, "editor"))
        gap = Gap(10 * S, 2 * S, source)
        passed, _ = sift(guard, [gap, key(11 * S), key(20 * S)])
        assert passed == [gap, *([key(11 * S), key(20 * S)] if kept else [])]
    passed, _ = sift(
        guard := FocusGuard(SECRET, ["gaze"], (0, "editor")), [Gap(10 * S, 2 * S, "gaze"), key(20 * S)]
    )
    assert passed == [Gap(10 * S, 2 * S, "gaze")]
    passed, _ = sift(guard, [Focus(21 * S, "editor"), key(22 * S)], LONG_AFTER + 1)
    assert passed == [Focus(21 * S + EDGE_NS, "editor"), key(22 * S)]


def test_blind_until_it_is_told_again():
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    guard.blind(10 * S)
    assert guard.focus == (10 * S, None)
    passed, _ = sift(guard, [key(5 * S), key(11 * S), Focus(20 * S, "editor"), key(21 * S)])
    assert passed == [key(5 * S), Focus(20 * S + EDGE_NS, "editor"), key(21 * S)]


def test_what_waits_is_dropped():
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    sift(guard, [key(10 * S), Focus(11 * S, None)], 11 * S)
    assert guard.drop() == [key(10 * S), Focus(11 * S, None)]
    assert guard.waits_until_ns is None
    assert guard.drop() == []


@pytest.mark.parametrize("t_ns", [None, "soon", float("nan"), float("inf"), 2**70, object()])
def test_a_time_that_is_none_is_that_of_telling(t_ns: Any):
    """What is no event goes on, to be counted where all such is."""
    odd = Move(t_ns, 1, 1)
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    assert sift(guard, [odd, key(10 * S)], 10 * S) == ([], [])
    passed, excluded = sift(guard, [], 10 * S + EDGE_NS + TOLD_NS)
    assert ([id(event) for event in passed], excluded) == ([id(odd), id(passed[-1])], [])
    guard = FocusGuard(SECRET, focus=(0, "keepassxc"))
    passed, excluded = sift(guard, [odd, Focus(t_ns, "editor"), Gap(t_ns, t_ns, "window")], 10 * S)
    passed, excluded = sift(guard, [key(11 * S)])
    assert key(11 * S) in excluded
    assert not any(isinstance(event, Move) for event in passed)


def test_what_is_no_event_at_all():
    things: Any = [object(), 3]
    passed, _ = sift(FocusGuard(SECRET, focus=(0, "editor")), things, 10 * S)
    assert passed == []


def test_the_history_is_bounded_and_what_is_older_is_excluded(monkeypatch):
    monkeypatch.setattr(limits, "FOCUS_HISTORY", 10)
    guard = FocusGuard(SECRET, focus=(0, "editor"))
    sift(guard, [Focus(n * S, "editor") for n in range(1, 31)], 40 * S)
    assert len(guard._history) <= 10
    passed, excluded = sift(guard, [key(3 * S), key(35 * S)])
    assert key(3 * S) in excluded
    assert passed[-1] == key(35 * S)


# --- between the buffer and the batches ----------------------------------------------------------------------


class Guarded:
    """A batcher behind a gate that knows of exemptions, and what came of all that it was given."""

    def __init__(self) -> None:
        self.clock = ManualClock(100 * S, int(datetime.now(UTC).timestamp() * 1e9))
        self.gate = Gate(example_grant("keys", "pointer", "titles"))
        self.aside: list[tuple[str, int]] = []
        self.batcher = Batcher(
            self.gate, self.clock, lambda cause, count: self.aside.append((cause, count)),
            max_events=1_000, max_bytes=2**20, max_age_s=60.0, quanta_per_px=1,
        )  # fmt: skip
        self.guarding = Guarding(self.gate, self.batcher, self.clock, self._set_aside, ["window"])
        self.buffer: deque[Event] = deque()

    def _set_aside(self, cause: str, count: int) -> None:
        self.aside.append((cause, count))

    def exempt(self, *apps: str) -> None:
        exemptions = (Exemption("e" * 32, ExemptScope(apps=apps), "personal", "", 1),) if apps else ()
        self.gate.apply(Now.by(self.clock, "boot"), state=ControlState(exemptions=exemptions))

    def tell(self, *events: Event, pass_s: float = 0.0) -> None:
        self.buffer.extend(events)
        self.clock.advance(pass_s)
        self.guarding.take(self.buffer)

    @property
    def t_ns(self) -> int:
        return self.clock.monotonic_ns()

    @property
    def captured(self) -> dict[str, int]:
        return dict(self.batcher.captured)

    @property
    def excluded(self) -> int:
        return sum(count for cause, count in self.aside if cause == "excluded")


def test_without_an_exemption_nothing_waits():
    guarded = Guarded()
    guarded.tell(Focus(guarded.t_ns, "KeePassXC"), key(guarded.t_ns))
    assert guarded.captured == {"focus": 1, "key_press": 1}
    assert guarded.guarding.ends_ns is None


def test_an_exemption_holds_from_when_it_was_asked_for_and_before_it_as_far_as_nothing_was_taken():
    guarded = Guarded()
    guarded.tell(Focus(guarded.t_ns, "KeePassXC"))
    guarded.clock.advance(10)
    guarded.buffer.append(key(guarded.t_ns))
    guarded.exempt("keepassxc")
    guarded.tell(key(guarded.t_ns), pass_s=10)
    assert (guarded.captured, guarded.excluded) == ({"focus": 1}, 2)
    guarded.tell(Focus(guarded.t_ns, "editor"), pass_s=5)
    guarded.tell(key(guarded.t_ns), pass_s=5)
    guarded.tell()
    assert (guarded.captured, guarded.excluded) == ({"focus": 2, "key_press": 1}, 2)


def test_the_program_in_use_when_it_is_exempt_is_known_before():
    guarded = Guarded()
    guarded.tell(Focus(guarded.t_ns, "editor"))
    guarded.clock.advance(10)
    guarded.exempt("keepassxc")
    guarded.tell(key(guarded.t_ns))
    assert guarded.guarding.ends_ns == guarded.t_ns + EDGE_NS + TOLD_NS
    guarded.tell(pass_s=2)
    assert guarded.captured == {"focus": 1, "key_press": 1}


def test_what_was_heard_under_an_exemption_does_not_pass_because_it_has_ended():
    guarded = Guarded()
    guarded.exempt("keepassxc")
    guarded.tell(Focus(guarded.t_ns, "KeePassXC", "passwords"))
    guarded.clock.advance(10)
    guarded.buffer.append(key(guarded.t_ns))
    guarded.clock.advance(10)
    guarded.buffer.append(key(guarded.t_ns))  # not ripe
    guarded.exempt()
    guarded.tell(pass_s=1)
    assert (guarded.captured, guarded.excluded) == ({"focus": 1}, 2)  # and which program it is now
    guarded.tell(key(guarded.t_ns))
    assert guarded.captured == {"focus": 1, "key_press": 1}


def test_one_exemption_after_the_other():
    guarded = Guarded()
    guarded.exempt("keepassxc")
    guarded.tell(Focus(guarded.t_ns, "editor"))
    guarded.tell(pass_s=10)
    guarded.tell(key(guarded.t_ns), pass_s=0.1)
    guarded.exempt("editor", "browser")
    guarded.tell(key(guarded.t_ns), pass_s=10)
    guarded.tell(pass_s=10)
    assert (guarded.captured, guarded.excluded) == ({"focus": 1}, 2)


def test_told_too_late_the_open_batch_is_lost():
    guarded = Guarded()
    guarded.exempt("keepassxc")
    guarded.tell(Focus(guarded.t_ns, "editor"), pass_s=5)
    guarded.tell(key(guarded.t_ns), pass_s=5)
    guarded.tell()
    assert guarded.captured == {"focus": 1, "key_press": 1}
    guarded.tell(Focus(guarded.t_ns - 5 * S, "KeePassXC"))
    guarded.tell(pass_s=5)
    assert guarded.captured == {}
    assert guarded.batcher.open is None
    assert guarded.excluded == 2


def test_dropped_nothing_is_known():
    guarded = Guarded()
    guarded.exempt("keepassxc")
    guarded.tell(Focus(guarded.t_ns, "editor"), pass_s=5)
    guarded.tell(key(guarded.t_ns))
    guarded.guarding.drop()
    assert guarded.excluded == 1
    guarded.tell(key(guarded.t_ns), pass_s=5)
    guarded.tell(pass_s=5)
    assert guarded.excluded == 2


def test_a_batch_admits_by_the_windows_of_the_gate():
    guarded = Guarded()
    guarded.tell(key(guarded.t_ns))
    batch = guarded.batcher.open
    assert batch is not None
    assert guarded.batcher._windows == dict(guarded.gate.windows(ClockAnchor.now(guarded.clock)))
