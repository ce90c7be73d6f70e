"""Sources that read an X server together: one thread, one watch, and each as it would be alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import pytest
from costs import thread_cost
from waiting import until, until_taken
from xwindows import Manager

from mcilib import Collector, DisplayError, Gap, KeyboardSource, KeyPress, Move, PointerSource, limits
from mcilib.capture import stop_together
from mcilib.events import Display, Event, Focus, Layout
from mcilib.sources.display import DisplaySource
from mcilib.sources.window import WindowSource
from mcilib.testing.fakes import ListSink, example_grant
from mcilib.testing.xvfb import VirtualDisplay

_STARTED: list[Any] = []

NAMES = ["pointer", "keyboard", "display", "window"]


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    """There is one that reads together. A test that fails leaves nobody who reads."""
    yield
    stop(_STARTED)
    _STARTED.clear()


@pytest.fixture
def untaken(monkeypatch) -> Iterator[VirtualDisplay]:
    """An X server with no window that takes events: RECORD then keeps them until there are 1 KB."""
    with VirtualDisplay(take_events=False) as display:
        monkeypatch.setenv("DISPLAY", display.display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        yield display


def together(**options: Any) -> list[Any]:
    sources: list[Any] = [
        PointerSource(**options),
        KeyboardSource(**options),
        DisplaySource(),
        WindowSource(),
    ]
    for source in sources:
        source.read_with(sources[0])
    return sources


def started(sink: ListSink, **options: Any) -> list[Any]:
    sources = together(**options)
    for source in sources:
        source.start(sink)
    _STARTED.extend(sources)
    return sources


def stop(sources: list[Any]) -> None:
    stop_together([source.stop for source in sources], limits.SOURCE_STOP_TIMEOUT_S)


def ours() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("mcilib-"))


def of(kind: type, sink: ListSink) -> list[Any]:
    return [event for event in sink.events if isinstance(event, kind)]


def test_one_thread_and_one_watch(xserver):
    sources = started(sink := ListSink())
    assert len(ours()) == 2
    for source in sources:
        assert source.threads() == sources[0].threads()
    xserver.move(5, 6)
    xserver.tap(24)
    xserver.sync()
    until(lambda: of(KeyPress, sink) and of(Move, sink))
    stop(sources)
    assert ours() == []
    assert {type(event) for event in sink.events} >= {Move, KeyPress, Display, Layout, Focus}


def test_a_collector_has_its_sources_read_together(xserver, tmp_path):
    sources = [PointerSource(), KeyboardSource(), DisplaySource(), WindowSource()]
    grant = example_grant("pointer", "keys", "apps")
    with Collector(sources=sources, grant=grant, state_dir=tmp_path):
        readers = {thread for source in sources for thread in source.threads()}
        assert len(readers) == 2
    alone = PointerSource()
    alone.start(ListSink())
    assert len(ours()) == 2
    alone.stop()


def reads(xserver: VirtualDisplay, source: Any, seconds: float) -> float:
    """Wake-ups a second while the pointer moves all the while."""
    before, ends_s, n = thread_cost(source.threads()[:1]).wakeups or 0, time.monotonic() + seconds, 0
    while time.monotonic() < ends_s:
        n += 1
        xserver.move(n % 1000, 7)
        xserver.sync()
        time.sleep(0.002)
    return ((thread_cost(source.threads()[:1]).wakeups or 0) - before) / seconds


@pytest.mark.alone
def test_the_shortest_read_interval_holds_and_may_change(xserver):
    sources = started(ListSink(), read_interval_s=1.0)
    sources[2].read_interval_s = sources[3].read_interval_s = 1.0
    slow = reads(xserver, sources[0], 1.5)
    sources[3].read_interval_s = 0.03
    fast = reads(xserver, sources[0], 1.5)
    sources[3].stop()  # and goes with it
    slow_again = reads(xserver, sources[0], 1.5)
    stop(sources)
    assert slow <= 4
    assert 12 <= fast <= 70
    assert slow_again <= 4


@pytest.mark.parametrize("leaver", range(4))
def test_one_that_stops_takes_nothing_from_the_others(untaken, leaver):
    """Nor do its own last events stay behind, which RECORD holds back."""
    sources = started(sink := ListSink())
    kinds = (Move, KeyPress)
    move, tap = partial(untaken.move, y_px=10), lambda _: untaken.tap(24)
    for act in (tap, move) if leaver == 0 else (move, tap):  # its own are the last ones
        for n in range(7):
            act(10 + n)
    until_taken(untaken)
    sources[leaver].stop()
    seen = {kind: len(of(kind, sink)) for kind in kinds}
    if leaver < 2:
        assert seen[kinds[leaver]] == 7
    for n in range(5):
        untaken.move(30 + n, 10)
        untaken.tap(24)
    until_taken(untaken)
    stop(sources)
    for number, kind in enumerate(kinds):
        assert len(of(kind, sink)) == (7 if number == leaver else 12)


def test_two_of_four_that_stop_at_once(untaken):
    """Nobody begins again because another leaves, and the two that stay hear on."""
    for first, second in combinations(range(4), 2):
        sources = started(sink := ListSink())
        untaken.move(10, 10)
        untaken.tap(24)
        until_taken(untaken)
        stop([sources[first], sources[second]])
        untaken.move(20, 10)
        untaken.tap(24)
        until_taken(untaken)
        stop(sources)
        assert len(of(Move, sink)) == (1 if 0 in (first, second) else 2)
        assert len(of(KeyPress, sink)) == (1 if 1 in (first, second) else 2)
        assert len(of(Display, sink)) == len(of(Layout, sink)) == len(of(Focus, sink)) == 1


def test_while_there_is_input_one_after_the_other_stops_and_comes_back(xserver):
    """The pointer, which stays, misses nothing."""
    sink = ListSink()
    sources = started(sink)
    done = threading.Event()
    moved = []

    def move() -> None:
        n = 0
        while not done.is_set():
            n += 1
            moved.append(n)
            xserver.move(n % 1200, n // 1200)
            if n % 20 == 0:
                xserver.sync()
                time.sleep(0.002)

    thread = threading.Thread(target=move)
    thread.start()
    for _ in range(3):
        for source in sources[1:]:
            source.stop()
            source.start(sink)
    done.set()
    thread.join()
    xserver.sync()
    stop(sources)
    assert [(e.x, e.y) for e in of(Move, sink)] == [(n % 1200, n // 1200) for n in moved]
    assert len(of(Display, sink)) == len(of(Layout, sink)) == 4


@pytest.mark.parametrize("life", range(3))
def test_all_that_stop_at_once_lose_nothing(untaken, life):
    sources = started(sink := ListSink())
    for _ in range(life):
        stop(sources)
        for source in sources:
            source.start(sink)
    sink.events.clear()
    for n in range(9):
        untaken.move(10 + n, 10)
        untaken.tap(24)
    until_taken(untaken)
    stop(sources)
    assert [(e.x, e.y) for e in of(Move, sink)] == [(10 + n, 10) for n in range(9)]
    assert len(of(KeyPress, sink)) == 9
    assert ours() == []


def test_a_second_one_cannot_be_started_on_a_dead_display(own_xserver):
    sink = ListSink()
    first, second = PointerSource(), WindowSource()
    second.read_with(first)
    first.start(sink)
    own_xserver.kill()
    until(lambda: not first.health().ok)
    with pytest.raises(DisplayError):
        second.start(sink)
    own_xserver.restart()
    until(lambda: first.health().ok)
    own_xserver.move(3, 4)
    own_xserver.sync()
    until(lambda: of(Move, sink))
    assert not of(Focus, sink), "who could not be started is told nothing"
    second.start(sink)
    until(lambda: of(Focus, sink))
    stop([first, second])
    assert [gap.source for gap in of(Gap, sink)] == ["pointer"]


class Broken(WindowSource):
    def _begin(self, control: Any, out: list[Event]) -> None:
        super()._begin(control, out)
        raise DisplayError("It cannot", "Leave it out.")


def test_one_that_cannot_begin_disturbs_nobody(xserver):
    sink = ListSink()
    first, broken = PointerSource(), Broken()
    broken.read_with(first)
    first.start(sink)
    with pytest.raises(DisplayError, match="It cannot"):
        broken.start(sink)
    xserver.move(3, 4)
    xserver.sync()
    until(lambda: of(Move, sink))
    broken.stop()
    assert first.health().ok
    first.stop()
    assert [type(event) for event in sink.events] == [Move]
    with pytest.raises(DisplayError, match="It cannot"):
        broken.start(sink)
    assert ours() == []


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["kill", "freeze"])
def test_lost_and_back_is_a_gap_for_each_and_all_is_told_anew(own_xserver, trouble):
    sources = started(sink := ListSink())
    own_xserver.move(3, 4)
    own_xserver.sync()
    until(lambda: of(Move, sink))
    getattr(own_xserver, trouble)()
    until(lambda: not any(source.health().ok for source in sources), timeout_s=20)
    time.sleep(0.5)
    own_xserver.restart() if trouble == "kill" else own_xserver.thaw()
    manager = Manager()
    until(lambda: of(Gap, sink), timeout_s=20)
    until(lambda: all(source.health().ok for source in sources), timeout_s=20)
    seen = len(of(Move, sink))
    own_xserver.move(30, 40)
    own_xserver.sync()
    until(lambda: len(of(Move, sink)) > seen)
    manager.retire()
    stop(sources)
    gaps = of(Gap, sink)
    assert sorted(gap.source for gap in gaps) == sorted(NAMES)
    assert len({(gap.t_ns, gap.duration_ns) for gap in gaps}) == 1
    after = [type(event) for event in sink.events[sink.events.index(gaps[-1]) :]]
    if trouble == "kill":
        assert {Display, Layout, Focus} <= set(after)


class Slow(WindowSource):
    """Another window comes into use while it begins, and the server's notice of that with an answer to it."""

    def __init__(self, manager: Manager) -> None:
        super().__init__()
        self._manager_of_all = manager

    def _begin(self, control: Any, out: list[Event]) -> None:
        super()._begin(control, out)
        self._manager_of_all.use(self._manager_of_all.open("Late"))
        control.sync()


@pytest.mark.parametrize("alone", [True, False])
def test_what_changes_while_one_begins_is_told(xserver, alone):
    manager, sink, slow = Manager(), ListSink(), Slow(Manager())
    other = PointerSource()
    slow.read_with(other)
    for source in [slow] if alone else [other, slow]:
        source.start(sink)
    until(lambda: len(of(Focus, sink)) == 2)
    stop([slow, other])
    assert [focus.app for focus in of(Focus, sink)] == [None, "Late"]
    manager.close()
    slow._manager_of_all.retire()


@pytest.mark.alone
@pytest.mark.as_shipped
@pytest.mark.parametrize("count", [1, 4])
def test_stopped_while_it_waits_for_an_answer_of_a_frozen_server(own_xserver, count):
    manager = Manager()
    window = manager.open("Editor")
    sources = started(ListSink())
    own_xserver.freeze()
    sources[3]._reader._listener.call(
        sources[3]._root.get_geometry
    )  # as when a window came into use just before
    began_s = time.monotonic()
    stop(sources[-count:])
    assert time.monotonic() - began_s < 0.6
    if count == 1:
        own_xserver.thaw()
        own_xserver.move(3, 4)
        own_xserver.sync()
        stop(sources)
    until(lambda: ours() == [])
    own_xserver.thaw()
    assert window.get_geometry().width == 300
    manager.close()


def test_stopped_while_windows_change_all_the_while(xserver):
    """Questions to the server and the end of all sources at the same time: nobody waits for ever."""
    manager = Manager()
    windows = [manager.open("One"), manager.open("Two")]
    done = threading.Event()

    def change() -> None:
        n = 0
        while not done.is_set():
            n += 1
            manager.use(windows[n % 2])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            sources = started(sink := ListSink(), read_interval_s=0)
            sources[2].read_interval_s = sources[3].read_interval_s = 0
            until(lambda sink=sink: len(of(Focus, sink)) > 2)  # type: ignore[misc]
            began_s = time.monotonic()
            stop(sources)
            assert time.monotonic() - began_s < limits.SOURCE_STOP_TIMEOUT_S / 2
            until(lambda: ours() == [])
    finally:
        done.set()
        thread.join()
        manager.retire()


@pytest.mark.as_shipped
def test_a_start_that_is_given_up_is_nobody_s_later(own_xserver):
    """The thread of a start that hung, once the server goes on, takes nothing from the next start."""
    sink = ListSink()
    source = PointerSource()
    own_xserver.freeze()
    with pytest.raises(DisplayError, match="does not answer"):
        source.start(sink)
    restarted = threading.Thread(target=source.start, args=[sink])
    restarted.start()
    own_xserver.thaw()
    restarted.join()
    window = WindowSource()
    window.read_with(source)
    window.start(sink)
    own_xserver.move(3, 4)
    own_xserver.sync()
    until(lambda: of(Move, sink))
    stop([source, window])
    assert len(of(Move, sink)) == len(of(Focus, sink)) == 1
    until(lambda: ours() == [])
