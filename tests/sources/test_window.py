"""Which window is in use and where: told at once, told late, and in order with the input around it."""

from __future__ import annotations

import time
from functools import partial

import pytest
from costs import thread_cost
from sinks import KeySink
from waiting import until
from xwindows import Manager, Program, Window, apps, focuses, openbox

from mcilib import (
    ConfigError,
    DisplayError,
    KeyboardSource,
    KeyPress,
    KeyRelease,
    PointerSource,
    Press,
    Release,
    limits,
)
from mcilib.events import Event, Focus
from mcilib.sources._x11 import connect
from mcilib.sources._xrecord import _PROMPT_NAPS
from mcilib.sources.window import WindowSource
from mcilib.testing.conformance import check_source
from mcilib.testing.fakes import ListSink

_MS = 1_000_000


@pytest.fixture(autouse=True)
def backend() -> None:
    """There is one."""


def place(focus: Focus) -> tuple[int | None, ...]:
    return focus.x, focus.y, focus.width, focus.height


def test_the_window_in_use_is_told_at_the_start_and_each_other_one_with_its_time(program, manager):
    editor, browser = program.open("Editor"), program.open("Browser", at=(50, 60, 70, 80))
    manager.use(editor)
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    started_ns = time.monotonic_ns()
    times = [manager.use(browser)]
    until(lambda: len(sink.events) >= 2)
    times.append(manager.use(None))
    until(lambda: len(sink.events) >= 3)
    source.stop()
    assert apps(sink) == ["Editor", "Browser", None]
    told = focuses(sink)
    assert [place(focus) for focus in told] == [(10, 20, 300, 200), (50, 60, 70, 80), (None,) * 4]
    assert started_ns - 2e9 <= told[0].t_ns <= started_ns
    for (before_ns, after_ns), focus in zip(times, told[1:], strict=True):
        assert before_ns - 2 * _MS <= focus.t_ns <= after_ns + 2 * _MS
    assert {focus.title for focus in told} == {None}


@pytest.fixture
def long_naps(monkeypatch) -> float:
    """A read interval that outlasts a test."""
    monkeypatch.setattr(limits, "READ_INTERVAL_CAP_S", 60.0)
    return 60.0


def test_windows_gone_through_within_one_read_are_all_told(program, manager, long_naps):
    """Each while it is in use, with its time, though input is read once a minute only."""
    windows = [program.open(f"App{n}") for n in range(6)]
    sink = ListSink()
    pointer, source = PointerSource(read_interval_s=long_naps), WindowSource(read_interval_s=long_naps)
    source.read_with(pointer)
    pointer.start(sink)
    source.start(sink)
    times = []
    for n, window in enumerate(windows):
        times.append(manager.use(window))
        until(lambda n=n: apps(sink)[-1] == f"App{n}")  # type: ignore[misc]
    pointer.stop()
    source.stop()
    assert apps(sink) == [None, *(f"App{n}" for n in range(6))]
    for (before_ns, after_ns), focus in zip(times, focuses(sink)[1:], strict=True):
        assert before_ns - 2 * _MS <= focus.t_ns <= after_ns + 2 * _MS


@pytest.mark.alone
def test_windows_that_never_stop_changing_wake_it_once_for_each_read(program, manager):
    """What goes on for long is looked at as often as input is read."""
    windows = [program.open("One"), program.open("Two")]
    sink, source = ListSink(), WindowSource(read_interval_s=0.5)
    source.start(sink)
    for n in range(60):  # what may be told at once is used up
        manager.use(windows[n % 2])
        time.sleep(0.02)
    before, told, began_s = thread_cost(source.threads()[:1]).wakeups or 0, len(sink.events), time.monotonic()
    for n in range(100):
        manager.use(windows[n % 2])
        time.sleep(0.02)
    after = thread_cost(source.threads()[:1]).wakeups or 0
    told, naps = len(sink.events) - told, (time.monotonic() - began_s) / 0.5 + 1
    source.stop()
    assert after - before <= 10 * naps, "those naps, and its questions to the server in each"
    assert told <= naps


def test_one_that_is_passed_over_is_not_told_with_the_time_of_another(program, manager):
    """Of changes that are read together only the last one is known, and since when."""
    windows = [program.open(f"App{n}") for n in range(3)]
    source, told = WindowSource(), list[Event]()
    source.start(ListSink())  # so that it knows the server's clock
    source.stop()
    control = connect()
    source._begin(control, told)
    for window in windows[:2]:
        manager.use(window)
    time.sleep(0.02)  # another millisecond of the server's
    before_ns, after_ns = manager.use(windows[2])
    control.sync()  # notices come before the answer
    source._take_notices([control.next_event() for _ in range(control.pending_events())], False, told)
    control.close()
    assert [focus.app for focus in told if isinstance(focus, Focus)] == [None, "App2"]
    assert before_ns - 2 * _MS <= told[-1].t_ns <= after_ns + 2 * _MS


def settle(sink: ListSink, wanted: tuple[int, ...]) -> None:
    until(lambda: place(focuses(sink)[-1]) == wanted, what=f"{wanted} is told")


def test_a_window_that_moves_is_told_once_a_second_and_its_last_place_always(program, manager):
    window = program.open("Editor")
    manager.use(window)
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    began_s = time.monotonic()
    for n in range(50):
        window.configure(x=100 + n, y=50, width=300 + n, height=100)
        program.display.sync()
        time.sleep(0.02)
    settle(sink, (149, 50, 349, 100))
    took_s = time.monotonic() - began_s
    assert took_s < 3
    told = len(focuses(sink))
    assert told <= 1 + 1 + took_s
    time.sleep(1.2)
    assert len(focuses(sink)) == told, "and once only"
    source.stop()


@pytest.mark.alone
def test_the_last_place_costs_a_single_wake_up(program, manager):
    window = program.open("Editor")
    manager.use(window)
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    window.configure(x=200)
    program.display.sync()
    time.sleep(0.5)  # it has been seen, and is not yet to be told
    assert len(sink.events) == 1
    before = thread_cost(source.threads()[:1]).wakeups or 0
    settle(sink, (200, 20, 300, 200))
    time.sleep(0.3)
    assert (thread_cost(source.threads()[:1]).wakeups or 0) - before <= 8, (
        "one, and its questions to the server"
    )
    source.stop()


def test_the_last_place_of_a_window_that_is_left_is_told_before_the_next_one(program, manager):
    first, second = program.open("First"), program.open("Second")
    manager.use(first)
    sink, source = ListSink(), WindowSource(read_interval_s=0)
    source.start(sink)
    first.configure(x=333)
    program.display.sync()
    time.sleep(0.1)
    manager.use(second)
    until(lambda: apps(sink)[-1] == "Second")
    source.stop()
    assert [(focus.app, focus.x) for focus in focuses(sink)] == [
        ("First", 10),
        ("First", 333),
        ("Second", 10),
    ]
    times = [focus.t_ns for focus in focuses(sink)]
    assert times == sorted(times)


def test_a_window_that_is_closed_is_no_longer_in_use(program, manager):
    window = program.open("Editor")
    manager.use(window)
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    window.destroy()
    program.display.sync()
    until(lambda: len(sink.events) >= 2)
    source.stop()
    assert apps(sink) == ["Editor", None]


def reading_late(
    sink: KeySink, read_interval_s: float = 0.5
) -> tuple[PointerSource, KeyboardSource, WindowSource]:
    """Input and windows into one sink, read together; started."""
    sources = (
        PointerSource(read_interval_s=read_interval_s),
        KeyboardSource(read_interval_s=read_interval_s),
        WindowSource(read_interval_s=read_interval_s),
    )
    for source in sources:
        source.read_with(sources[0])
        source.start(sink)
    return sources


def test_focus_lies_between_the_events_before_and_after_it(xserver, program, manager):
    """A click that raises a window, read with it half a second later."""
    first, second = program.open("First"), program.open("Second")
    manager.use(first)
    sink = KeySink()
    sources = reading_late(sink)
    expected: list[object] = ["First"]
    for n in range(8):
        app, window = (("Second", second), ("First", first))[n % 2]
        xserver.click()
        xserver.sync()  # as a rule in the millisecond of what comes of it
        manager.use(window)
        time.sleep(0.004)
        xserver.tap(24)
        xserver.sync()
        expected += [Press, app, KeyPress]
        until(lambda n=n: len(focuses(sink)) == n + 2)  # type: ignore[misc]
    until(lambda: sum(isinstance(event, KeyPress) for event in sink.events) == 8)
    for source in sources:
        source.stop()
    told = [event for event in sink.events if isinstance(event, Press | KeyPress | Focus)]
    assert [event.app if isinstance(event, Focus) else type(event) for event in told] == expected
    times = [event.t_ns for event in told]
    assert times == sorted(times)


def test_focus_that_is_read_late_lies_between_them_too(xserver, program, manager, long_naps):
    """When so much has happened that a read is no longer hastened."""
    first, second = program.open("First"), program.open("Second")
    sink = KeySink()
    sources = reading_late(sink, long_naps)
    listener = sources[0]._reader._listener

    def sleeps_deep() -> bool:
        manager.use(first)
        return bool(listener._roused_ns - time.monotonic_ns() > _PROMPT_NAPS * long_naps * 1e9)

    until(sleeps_deep)
    seen = len(sink.events)
    xserver.click()
    xserver.sync()
    time.sleep(0.004)
    manager.use(second)
    time.sleep(0.004)
    xserver.tap(24)
    xserver.sync()
    assert len(sink.events) == seen, "nothing of it has been read"
    for source in sources:
        source.stop()
    assert [type(event) for event in sink.events[seen:]] == [Press, Release, Focus, KeyPress, KeyRelease]
    assert apps(sink)[-1] == "Second"


def test_without_a_window_manager_health_says_so_until_there_is_one(program):
    window = program.open("Editor")
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    assert [problem.part for problem in source.health().problems] == ["window"]
    assert "window manager" in source.health().problems[0].message
    manager = Manager()
    until(lambda: source.health().ok)
    manager.use(window)
    until(lambda: apps(sink)[-1] == "Editor")
    manager.close()  # it dies, and what it said of the window in use stays behind
    until(lambda: not source.health().ok)
    until(lambda: apps(sink)[-1] is None)
    manager = Manager()
    manager.use(window)
    until(lambda: apps(sink)[-1] == "Editor")
    assert source.health().ok
    manager.close()  # the second one's death is seen like the first one's, whatever its window's number
    until(lambda: apps(sink)[-1] is None)
    source.stop()
    assert apps(sink) == [None, "Editor", None, "Editor", None]


@pytest.mark.parametrize("started", ["before", "after"])
def test_the_word_of_a_dead_window_manager_is_not_taken_for_its_successors(program, started):
    """It stands on the root window until somebody says otherwise; meanwhile another program may be in use."""
    window = program.open("Editor")
    sink, source = ListSink(), WindowSource()
    manager = Manager()
    manager.use(window)
    if started == "before":
        source.start(sink)
        manager.close()
        until(lambda: not source.health().ok)
    else:
        manager.close()
        source.start(sink)
    manager = Manager(says_what_is_used=False)
    until(lambda: source.health().ok)
    assert apps(sink)[-1] is None
    manager.use(window)
    until(lambda: apps(sink)[-1] == "Editor")
    source.stop()
    manager.retire()


@pytest.mark.needs("openbox")
def test_under_a_real_window_manager(program):
    """Its windows stand in frames, whose places are told to them by messages of the window manager."""
    sink, source = ListSink(), WindowSource()

    def last(app: str | None) -> bool:
        return bool(focuses(sink)) and apps(sink)[-1] == app

    with openbox() as first:
        editor, browser = program.open("Editor"), program.open("Browser", at=(400, 300, 200, 100))
        source.start(sink)
        for app, window in (("Editor", editor), ("Browser", browser), ("Editor", editor)):
            program.ask_for(window)
            until(partial(last, app), what=f"{app} is in use")
        place_before = place(focuses(sink)[-1])
        editor.configure(x=500, y=400, width=250, height=150)
        program.display.sync()
        until(lambda: place(focuses(sink)[-1]) != place_before)
        until(lambda: place(focuses(sink)[-1]) == on_screen(program, editor), what="its place on the screen")
        editor.destroy()
        program.display.sync()
        until(lambda: last("Browser") or last(None))
        first.kill()
        until(lambda: not source.health().ok)
    with openbox():
        until(lambda: source.health().ok)
        program.ask_for(browser)
        until(lambda: last("Browser"))
        browser.destroy()
        program.display.sync()
        until(lambda: last(None))
    source.stop()


def on_screen(program: Program, window: Window) -> tuple[int, ...]:
    size, at = window.get_geometry(), window.translate_coords(program.root, 0, 0)
    return -at.x, -at.y, size.width, size.height


def test_window_source_keeps_the_promises_of_a_source(program, manager):
    windows = [program.open("One"), program.open("Two")]
    turns = iter(range(100))

    def drive(source: object) -> None:
        manager.use(windows[next(turns) % 2])

    check_source(WindowSource, drive)


def test_options():
    assert (WindowSource().scope, WindowSource(titles=True).scope) == ("apps", "titles")
    assert (WindowSource().backend, WindowSource().clock) == ("x11", "x11")
    with pytest.raises(ConfigError, match="read_interval_s"):
        WindowSource(read_interval_s=1.1)


def test_on_another_system(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(DisplayError, match="window source reads X11 only"):
        WindowSource().start(ListSink())
