"""The pointer through a real X server: what is injected is what is emitted."""

from __future__ import annotations

import threading
import time
from functools import partial

from waiting import until, until_taken

from mcilib import Move, PointerSource, Press, Release, Scroll
from mcilib.testing.conformance import check_source
from mcilib.testing.fakes import ListSink


def test_source_promise(xserver):
    place = iter(range(10_000))

    def drive(_source):
        for _ in range(40):
            xserver.move(next(place) % 1280, 17)
        xserver.click()
        xserver.sync()

    check_source(PointerSource, drive)


def test_every_injected_event_arrives_once_in_order(xserver):
    sink, source = ListSink(), PointerSource()
    source.start(sink)
    path = [(10 + i % 1000, 20 + (7 * i) % 700) for i in range(2_000)]
    for i, (x, y) in enumerate(path):
        xserver.move(x, y)
        if i % 5 == 0:  # Xvfb's own RECORD loses some of a longer burst, once in some hundred servers
            xserver.sync()
    xserver.sync()
    until(lambda: len(sink.events) >= len(path))
    source.stop()
    assert [(e.x, e.y) for e in sink.events] == path
    assert all(isinstance(e, Move) for e in sink.events)
    times = [e.t_ns for e in sink.events]
    assert times == sorted(times)


def test_times_are_the_servers_own_however_late_they_are_read(xserver):
    """The listener's thread is kept busy for half a second; the times do not notice."""
    busy = threading.Event()

    class Slow(ListSink):
        def emit(self, event, /):
            if not self.events:
                busy.wait(0.5)
            return super().emit(event)

    sink, source = Slow(), PointerSource()
    source.start(sink)
    assert source.clock == "x11"
    injected = []
    for i in range(20):
        injected.append(time.monotonic_ns())
        xserver.move(200 + i, 90)
        xserver.sync()
        busy.wait(0.01)
    until(lambda: len(sink.events) == 20)
    source.stop()
    late_ns = [event.t_ns - t_ns for event, t_ns in zip(sink.events, injected, strict=True)]
    assert min(late_ns) > -2_000_000
    assert sorted(late_ns)[len(late_ns) // 2] < 5_000_000


def test_stop_takes_what_record_holds_back(monkeypatch, needs):
    """With no window that takes events X RECORD keeps up to 31 of them in its buffer."""
    needs("Xvfb")
    from mcilib.testing.xvfb import VirtualDisplay

    with VirtualDisplay(take_events=False) as display:
        monkeypatch.setenv("DISPLAY", display.display)
        sink, source = ListSink(), PointerSource()
        source.start(sink)
        for i in range(50):
            display.move(100 + i, 60)
        display.sync()
        source.stop()
    assert [e.x for e in sink.events] == list(range(100, 150))


def test_an_orderly_end_is_asked_of_the_server(monkeypatch, needs):
    """It hands over what it holds back and ends the recording by itself: no socket needs to be shut."""
    needs("Xvfb")
    from mcilib.sources._pynput import close_listener, drain_listener, pointer_listener
    from mcilib.sources._x11 import ServerClock
    from mcilib.testing.xvfb import VirtualDisplay

    with VirtualDisplay(take_events=False) as display:
        monkeypatch.setenv("DISPLAY", display.display)
        heard, seen = threading.Event(), []
        listener = pointer_listener(
            {"on_move": lambda x, y, injected: seen.append(x)}, heard.set, ServerClock(time.monotonic_ns)
        )
        thread = threading.Thread(target=listener.run)
        thread.start()
        assert heard.wait(20)
        for i in range(50):
            display.move(100 + i, 60)
        until_taken(display)
        time.sleep(0.1)
        assert len(seen) < 50
        drain_listener(listener)
        thread.join(20)
        close_listener(listener)
        assert not thread.is_alive()
    assert seen == list(range(100, 150))


def test_buttons_and_scrolls(xserver):
    sink, source = ListSink(), PointerSource()
    xserver.move(300, 400)
    xserver.sync()
    source.start(sink)
    for number in (1, 2, 3, 8, 9):
        xserver.click(number)
    xserver.scroll(dx=2, dy=-1)
    xserver.scroll(dx=-1, dy=1)
    xserver.sync()
    until(lambda: len(sink.events) >= 15)
    source.stop()
    buttons = [(type(e), e.button) for e in sink.events if isinstance(e, Press | Release)]
    names = ("left", "middle", "right", "back", "forward")
    assert buttons == [(kind, name) for name in names for kind in (Press, Release)]
    scrolls = [(e.dx, e.dy) for e in sink.events if isinstance(e, Scroll)]
    assert scrolls == [(1, 0), (1, 0), (0, -1), (-1, 0), (0, 1)]
    assert {(e.x, e.y) for e in sink.events} == {(300, 400)}


def test_a_hundred_lives_leave_no_thread_and_no_connection(xserver):
    import os

    source = PointerSource()
    source.start(ListSink())
    source.stop()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        source.start(ListSink())
        source.stop()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= files


def test_idle_threads_do_not_wake(xserver, monkeypatch):
    from costs import cost_at_rest, thread_cost

    from mcilib import limits

    monkeypatch.setattr(limits, "WATCH_WINDOW_S", 0.2)
    monkeypatch.setattr(limits, "WATCH_INTERVAL_S", 0.1)
    sink, source = ListSink(), PointerSource()
    source.start(sink)
    xserver.move(5, 5)
    xserver.move(6, 6)
    xserver.sync()
    until(lambda: len(sink.events) == 2)
    before = cost_at_rest(source.threads(), 0.5)  # the watch has fallen asleep
    threading.Event().wait(2.0)
    after = thread_cost(source.threads())
    source.stop()
    assert before.threads == 2
    assert after.wakeups == before.wakeups, "a thread woke although there was no input"


def reached(sink: ListSink, count: int) -> bool:
    return len(sink.events) == count


def test_a_sink_that_raises_does_not_end_the_listener(xserver, caplog):
    class Broken(ListSink):
        def emit(self, event, /):
            super().emit(event)
            raise RuntimeError("a bug of the host")

    sink, source = Broken(), PointerSource()
    source.start(sink)
    for i in range(3):
        xserver.move(100 + i, 50)
        xserver.sync()
        until(partial(reached, sink, i + 1))
    source.stop()
    assert "dropped" in caplog.text
