"""Options that all sources of an X server have reach the part that obeys them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from waiting import until
from xwindows import Manager

from mcilib.sources.display import DisplaySource
from mcilib.sources.keyboard import KeyboardSource
from mcilib.sources.pointer import PointerSource
from mcilib.sources.window import WindowSource
from mcilib.testing.fakes import ListSink
from mcilib.testing.xvfb import VirtualDisplay

SOURCES = (DisplaySource, KeyboardSource, PointerSource, WindowSource)
AHEAD_NS = 10**15


class ClockAhead:
    """Far away from the system's."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + AHEAD_NS

    def wall_ns(self) -> int:
        return time.time_ns()

    def suspended_ns(self) -> int:
        return 0


@pytest.mark.parametrize("source_class", SOURCES)
def test_times_are_those_of_the_clock(source_class: Callable[..., Any], xserver: VirtualDisplay) -> None:
    source, sink = source_class(clock=ClockAhead()), ListSink()
    manager = Manager()
    try:
        before_ns = time.monotonic_ns() + AHEAD_NS - 10**9
        source.start(sink)
        xserver.move(10, 10)
        xserver.move(20, 20)
        xserver.tap(xserver.keycode("a"))
        xserver.sync()
        until(lambda: sink.events, what="something is told")
    finally:
        source.stop()
        manager.retire()
    assert all(before_ns <= event.t_ns <= before_ns + 60 * 10**9 for event in sink.events)


@pytest.mark.parametrize("source_class", SOURCES)
def test_the_read_interval_is_kept(source_class: Callable[..., Any]) -> None:
    """What it does to a reader is in test_backends and test_reading_together."""
    assert source_class(read_interval_s=0.7).read_interval_s == 0.7


@pytest.mark.parametrize("source_class", [KeyboardSource, PointerSource])
def test_the_backend_is_the_one_that_was_named(source_class: Callable[..., Any], backend: str) -> None:
    """And not the one that `auto` takes; what each hears is in test_backends."""
    other = {"xrecord": "pynput", "pynput": "xrecord"}[backend]
    assert source_class(backend=other).backend == other
