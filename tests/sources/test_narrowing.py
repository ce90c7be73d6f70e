"""A listener of pynput on a real X server that is asked for no moves: it is sent none, and loses no click for it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from costs import thread_cost
from waiting import until

from mcilib.sources import _pynput
from mcilib.sources._pynput import (
    close_listener,
    end_listener,
    event_clock,
    narrow,
    pointer_listener,
    trouble,
)
from mcilib.sources._x11 import ServerClock


@pytest.fixture(autouse=True)
def backend() -> None:
    """These tests are of pynput alone."""


class Heard:
    """A running listener and what it told."""

    def __init__(self, motion: bool) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.server = ServerClock(time.monotonic_ns)
        self._heard = threading.Event()
        callbacks: dict[str, Callable[..., None]] = {
            "on_move": lambda x, y, _: self.events.append(("move", x, y)),
            "on_click": lambda x, y, button, down, _: self.events.append((button.name, x, y, down)),
            "on_scroll": lambda x, y, dx, dy, _: self.events.append(("scroll", x, y, dx, dy)),
        }
        self.listener = pointer_listener(callbacks, self._heard.set, self.server, motion=motion)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # as `ListenerLoop` does: it ends by its socket's end
            self.listener.run()

    def start(self) -> Heard:
        self.thread.start()
        assert self._heard.wait(20)
        return self

    def stop(self) -> None:
        end_listener(self.listener)
        self.thread.join(5)
        close_listener(self.listener)

    def count(self, *kinds: str) -> int:
        return sum(event[0] in kinds for event in self.events)


@pytest.fixture
def heard(xserver: Any, request: pytest.FixtureRequest) -> Iterator[Heard]:
    heard = Heard(getattr(request, "param", False)).start()
    yield heard
    heard.stop()


def moves(xserver: Any, count: int, row: int = 9) -> None:
    for n in range(count):
        xserver.move(1 + n, row)
        if n % 5 == 0:
            xserver.sync()
            time.sleep(0.002)
    xserver.sync()


def test_clicks_and_scrolls_come_and_say_where_and_moves_do_not(xserver, heard):
    moves(xserver, 50)
    xserver.click(3)
    xserver.scroll(dx=1, dy=-1)
    xserver.sync()
    until(lambda: len(heard.events) >= 4)
    assert heard.events == [
        ("right", 50, 9, True),
        ("right", 50, 9, False),
        ("scroll", 50, 9, 1, 0),
        ("scroll", 50, 9, 0, -1),
    ]
    assert event_clock(heard.server) == "x11"
    assert trouble(heard.listener) is None


@pytest.mark.alone
@pytest.mark.parametrize(("heard", "wakeups"), [(False, (0, 5)), (True, (50, 5_000))], indirect=["heard"])
def test_moves_do_not_wake_a_listener_that_is_asked_for_none(xserver, heard, wakeups):
    moves(xserver, 5)
    before = thread_cost([heard.thread]).wakeups or 0
    moves(xserver, 500)
    woken = (thread_cost([heard.thread]).wakeups or 0) - before
    assert wakeups[0] <= woken <= wakeups[1]


def test_narrowing_while_it_runs_loses_no_click(xserver, heard):
    for round_ in range(8):
        assert narrow(heard.listener, round_ % 2 == 0)
        heard.listener._display_stop.sync()  # the request goes over another connection than the input
        for n in range(30):
            xserver.move(100 * round_ + n, 50 + n)
            xserver.click()
            xserver.scroll(dy=1)
            if n % 3 == 0:
                xserver.sync()
        xserver.sync()
    until(lambda: heard.count("left") >= 8 * 60 and heard.count("scroll") >= 8 * 30)
    assert heard.count("left") == 8 * 60
    assert heard.count("scroll") == 8 * 30
    assert {x // 100 for kind, x, *_ in heard.events if kind == "move"} == {0, 2, 4, 6}
    assert {x // 100 for kind, x, *_ in heard.events if kind == "left"} == set(range(8))


@pytest.mark.alone
def test_narrowing_in_the_midst_of_clicks_loses_none(xserver, heard):
    ended, refused = threading.Event(), list[bool]()

    def swing() -> None:
        motion = False
        while not ended.wait(0.001):
            motion = not motion
            refused.append(not narrow(heard.listener, motion))

    swinging = threading.Thread(target=swing, daemon=True)
    swinging.start()
    try:
        for n in range(500):
            xserver.move(n, n)
            xserver.click()
            if n % 5 == 0:  # of a longer burst the server's RECORD drops some, see `VirtualDisplay`
                xserver.sync()
        xserver.sync()
        until(lambda: heard.count("left") >= 1_000)
    finally:
        ended.set()
        swinging.join()
    assert not any(refused)
    assert heard.count("left") == 1_000


@pytest.mark.parametrize("motion", [True, False])
def test_before_it_runs(xserver, motion):
    heard = Heard(not motion)
    assert narrow(heard.listener, motion)
    heard.start()
    moves(xserver, 20)
    xserver.click()
    xserver.sync()
    until(lambda: heard.count("left") == 2)
    heard.stop()
    assert heard.count("move") == (20 if motion else 0)


def test_between_pynputs_asking_and_the_start(xserver, monkeypatch):
    """The moment at which the context has been created as it was, and RECORD has not started."""
    heard = Heard(True)
    monkeypatch.setattr(heard.listener, "_initialize", lambda display: narrow(heard.listener, False))
    heard.start()
    heard.listener._display_stop.sync()
    moves(xserver, 20)
    xserver.click()
    xserver.sync()
    until(lambda: heard.count("left") == 2)
    heard.stop()
    assert heard.count("move") == 0


def test_a_listener_that_has_ended_cannot_be_narrowed(xserver):
    heard = Heard(True).start()
    heard.stop()
    assert not narrow(heard.listener, False)


@pytest.mark.parametrize("events", [None, (), (4, 8, 9), (2, 6), (4, 4), "46"])
def test_a_pynput_that_asks_otherwise_is_left_alone_and_said_to_be(xserver, monkeypatch, caplog, events):
    from pynput.mouse import Listener

    _pynput._warn.cache_clear()
    heard = Heard(True)
    monkeypatch.setattr(Listener, "_EVENTS", events)
    assert not narrow(heard.listener, False)
    assert events == heard.listener._EVENTS
    with caplog.at_level(logging.WARNING, "mcilib"):
        for _ in range(3):
            pointer_listener({}, lambda: None, heard.server, motion=False)
    assert [record.message for record in caplog.records] == [
        "mcilib: moves of the pointer cannot be left out here: they are heard, and cost what they cost"
    ]


def test_without_the_private_attributes_narrowing_says_no(xserver, heard):
    context, heard.listener._context = heard.listener._context, None
    assert not narrow(heard.listener, True)
    heard.listener._context = context
    assert not narrow(object(), False)


@pytest.mark.parametrize("said_ms", [123_000, 99])
def test_which_clock(said_ms):
    """Its own, whether that is ours or not; that of the call before a server has said anything."""
    server = ServerClock(lambda: 123_000_000_000)
    assert event_clock(server) == "callback"
    server.compare(said_ms)
    assert event_clock(server) == "x11"
