"""Reading late and in bulk: the same events as one by one, their own times, no click lost, no key guessed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from costs import thread_cost
from sinks import KeySink
from waiting import until

from mcilib import ConfigError, KeyboardSource, KeyPress, Move, PointerSource, Press, Release, Scroll, limits
from mcilib.sources import _xkeys
from mcilib.sources._xkeys import Key
from mcilib.testing.fakes import ListSink

Q, CTRL, SPARE = 24, 37, 248


@pytest.fixture(autouse=True)
def backend() -> None:
    """These tests choose for themselves."""


def heard(source: Any, drive: Any, count: int) -> ListSink:
    sink = KeySink()
    source.start(sink)
    drive()
    until(lambda: len(sink.events) >= count, what=f"{count} events")
    source.stop()
    return sink


def plain(sink: ListSink) -> list[tuple[object, ...]]:
    """What was heard, without its time."""
    return [
        (type(e).__name__, *(getattr(e, n) for n in ("x", "y", "dx", "dy", "button", "key") if hasattr(e, n)))
        for e in sink.events
    ]


def test_both_backends_tell_the_same_of_the_pointer(xserver):
    def drive() -> None:
        for n in range(200):
            xserver.move(100 + n, 300 - n)
            if n % 20 == 0:
                xserver.click(1 + (n // 20) % 3)
                xserver.scroll(dx=1, dy=-1)
                xserver.sync()
        for number in (8, 9):
            xserver.click(number)
        xserver.sync()

    count = 200 + 10 * (2 + 2) + 4
    told = [plain(heard(PointerSource(backend=name), drive, count)) for name in ("xrecord", "pynput")]
    assert told[0] == told[1]
    assert len(told[0]) == count


def test_both_backends_tell_the_same_of_the_keyboard(xserver):
    def drive() -> None:
        for n, code in enumerate((*range(10, 60), 65, 79, 86, 113)):
            xserver.tap(code)
            if n % 10 == 0:
                xserver.sync()
        xserver.key(CTRL, True)
        xserver.tap(54)
        xserver.key(CTRL, False)
        xserver.sync()

    # Locks (caps, 66, is not among them) would change what the second run is told.
    told = [plain(heard(KeyboardSource(backend=name), drive, 112)) for name in ("xrecord", "pynput")]
    assert told[0] == told[1]
    assert ("KeyPress", "ctrl+c") in told[0]


@pytest.mark.alone
@pytest.mark.parametrize("interval_s", [0.0, 0.05, 0.25])
def test_times_are_within_two_milliseconds_at_every_read_interval(xserver, interval_s):
    sink, source = ListSink(), PointerSource(backend="xrecord", read_interval_s=interval_s)
    source.start(sink)
    injected = []
    for n in range(60):
        before_ns = time.monotonic_ns()
        xserver.move(200 + n, 100)
        xserver.sync()
        injected.append((before_ns, time.monotonic_ns()))
        time.sleep(0.005)
    until(lambda: len(sink.events) >= 60)
    source.stop()
    for (before_ns, after_ns), event in zip(injected, sink.events, strict=True):
        assert before_ns - 2e6 <= event.t_ns <= after_ns + 2e6


@pytest.mark.alone
def test_the_read_interval_bounds_the_wake_ups_and_may_change_while_it_runs(xserver):
    sink, source = ListSink(), PointerSource(backend="xrecord", read_interval_s=0.25)
    source.start(sink)

    def wakeups(seconds: float) -> float:
        place, before = 0, thread_cost(source.threads()[:1]).wakeups or 0
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            place += 1
            xserver.move(place % 1000, place % 700)
            xserver.sync()
            time.sleep(0.002)
        return ((thread_cost(source.threads()[:1]).wakeups or 0) - before) / seconds

    slow = wakeups(1.0)
    source.read_interval_s = 0.02
    fast = wakeups(1.0)
    source.stop()
    assert slow <= 10
    assert 20 <= fast <= 110


def read_now(source: Any) -> None:
    """Returns when all that the server has heard and been asked for is read and carried out; this ends a nap."""
    listener = source._reader._listener
    assert listener.call(listener.fetch).wait(20)


def until_it_naps(source: Any, something: Callable[[], None]) -> None:
    """Has it read `something`, or what came before; returns when it has begun the nap after that."""
    naps = threading.Event()

    def may_be_roused(again: bool) -> bool:
        naps.set()
        return False

    source._reader._listener._may_be_roused = may_be_roused
    read_now(source)
    something()
    assert naps.wait(20)


def test_stopping_in_the_middle_of_a_nap_takes_what_waits(xserver, monkeypatch):
    monkeypatch.setattr(limits, "READ_INTERVAL_CAP_S", 60.0)
    sink, source = ListSink(), PointerSource(backend="xrecord", read_interval_s=60.0)
    source.start(sink)
    until_it_naps(source, lambda: (xserver.move(1, 1), xserver.sync())[0])
    seen = len(sink.events)
    for n in range(50):
        xserver.move(10 + n, 5)
    xserver.sync()
    begin_s = time.monotonic()
    source.stop()
    assert time.monotonic() - begin_s < 20
    assert seen <= 1
    assert [(e.x, e.y) for e in sink.events] == [(1, 1)] + [(10 + n, 5) for n in range(50)]


def test_keys_wait_for_the_read_interval_too(xserver, monkeypatch):
    monkeypatch.setattr(limits, "READ_INTERVAL_CAP_S", 60.0)
    sink, source = KeySink(), KeyboardSource(backend="xrecord", read_interval_s=60.0)
    source.start(sink)
    until_it_naps(source, lambda: (xserver.tap(Q), xserver.sync())[0])
    seen = len(sink.events)
    for _ in range(5):
        xserver.tap(Q)
    xserver.sync()
    time.sleep(0.3)
    assert len(sink.events) == seen <= 2
    source.stop()
    assert len(sink.events) == 12


def reached(count: Callable[[], int], enough: int) -> bool:
    return count() >= enough


@pytest.mark.parametrize("name", ["xrecord", "pynput"])
def test_motion_off_and_on_loses_no_click(xserver, name):
    sink, source = ListSink(), PointerSource(backend=name)
    source.start(sink)

    def others() -> int:
        return sum(not isinstance(e, Move) for e in sink.events)

    for round_ in range(6):
        source.motion = round_ % 2 == 0
        xserver.sync()
        if name == "xrecord":  # what is moved before it is carried out is moved with the wish of before
            read_now(source)
        else:
            source._loop._listener._display_stop.sync()
        for n in range(30):
            xserver.move(100 * round_ + n, 50 + n)
            if n % 3 == 0:
                xserver.click()
                xserver.scroll(dy=1)
                xserver.sync()
        xserver.sync()
        until(partial(reached, others, 30 * (round_ + 1)))
    source.stop()
    kinds = [type(e) for e in sink.events]
    assert kinds.count(Press) == kinds.count(Release) == kinds.count(Scroll) == 60
    moved = {e.x // 100 for e in sink.events if isinstance(e, Move)}
    assert moved == {0, 2, 4}
    clicked = {e.x // 100 for e in sink.events if isinstance(e, Press)}
    assert clicked == {0, 1, 2, 3, 4, 5}


def test_motion_can_be_off_from_the_start(xserver):
    sink, source = ListSink(), PointerSource(motion=False)
    source.start(sink)
    xserver.move(7, 8)
    xserver.click()
    xserver.sync()
    until(lambda: len(sink.events) == 2)
    source.stop()
    assert [(type(e), e.x, e.y) for e in sink.events] == [(Press, 7, 8), (Release, 7, 8)]


def remap(xserver: Any, keysym: str) -> None:
    command = ["xmodmap", "-e", f"keycode {SPARE} = {keysym}"]
    subprocess.run(command, env={**os.environ, **xserver.environ()}, check=True)


def test_a_keycode_that_is_remapped_for_a_moment_reads_as_no_known_key(xserver):
    """As programs do that type text: a spare keycode gets a character, is pressed, and loses it again."""
    sink, source = KeySink(), KeyboardSource(backend="xrecord", read_interval_s=0.3)
    source.start(sink)
    for _ in range(3):
        remap(xserver, "x")
        xserver.tap(SPARE)
        xserver.tap(Q)
        remap(xserver, "")
        xserver.sync()
    until(lambda: len(sink.events) >= 12)
    source.stop()
    labels = [e.key for e in sink.events if isinstance(e, KeyPress)]
    assert labels[1::2] == ["letter"] * 3  # its neighbours are read as they are
    assert set(labels[::2]) <= {"letter", "other"}


class Notice:
    type, request = 34, 1

    def __init__(self, first: int, count: int, request: int = 1) -> None:
        self.first_keycode, self.count, self.request = first, count, request


class Map:
    def __init__(self, char: str) -> None:
        self.char = char

    def look_up(self, code: int, state: int) -> Key:
        return Key(self.char if code == Q else "z", None, False, False, False, False, False)


@pytest.mark.parametrize(
    ("notices", "unread", "after", "q", "z"),
    [
        ([], True, "a", "a", "z"),  # nothing changed
        ([Notice(Q, 1)], False, "b", "b", "z"),  # nobody was typing
        ([Notice(Q, 1)], True, "b", None, "z"),  # either
        ([Notice(Q, 1)], True, "a", "a", "z"),  # the same in both, and nothing between
        ([Notice(Q, 1), Notice(Q, 1)], True, "a", None, "z"),  # something between, and back again
        ([Notice(0, 0, request=0)], True, "b", None, "z"),  # the modifiers: any key may have changed
        ([Notice(0, 0, request=0), Notice(8, 248)], True, "a", "a", "z"),  # another keyboard of the same kind
        ([Notice(8, 248)] * 2, True, "a", None, None),
    ],
)
def test_what_a_late_read_key_may_be_called(monkeypatch, notices, unread, after, q, z):
    maps = [Map("a"), Map(after)]
    monkeypatch.setattr(_xkeys, "read_keymap", lambda: maps.pop(0))
    keys = _xkeys.KeyReader()
    keys.begin()
    keys.changed(notices, unread=unread)
    assert (keys.look_up(Q, 0).char, keys.look_up(25, 0).char) == (q, z)
    keys.changed([], unread=True)
    assert keys.look_up(Q, 0).char == after if notices else "a"


def test_options_out_of_range_are_refused():
    for option in ({"backend": "evdev"}, {"read_interval_s": -0.1}, {"read_interval_s": 1.1}):
        for make in (PointerSource, KeyboardSource):
            with pytest.raises(ConfigError, match=next(iter(option))):
                make(**option)


def test_auto_takes_xrecord_on_x11():
    assert PointerSource().backend == KeyboardSource().backend == "xrecord"
    assert PointerSource(backend="pynput").backend == "pynput"


def test_a_listener_thread_ends_with_its_source(xserver):
    threads = threading.active_count()
    for name in ("xrecord", "pynput"):
        source = PointerSource(backend=name)
        source.start(ListSink())
        source.stop()
    assert threading.active_count() == threads
