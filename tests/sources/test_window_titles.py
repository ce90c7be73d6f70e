"""What windows say of themselves: only what was asked for, and nothing that they say does harm."""

from __future__ import annotations

import threading
import time

import pytest
from costs import cost_at_rest, thread_cost
from recording import batches
from sinks import KeySink
from waiting import until
from xwindows import Program, apps, focuses

from mcilib import KeyboardSource, PointerSource, Recorder, limits
from mcilib.consent import Gate
from mcilib.events import Focus
from mcilib.format.metadata import NAME_MAX_BYTES
from mcilib.format.rows import TITLE_MAX_BYTES
from mcilib.sources.display import DisplaySource
from mcilib.sources.window import WindowSource
from mcilib.testing.fakes import ListSink, MemorySpool, example_grant

_PROPERTY_CHANGE = 1 << 22


@pytest.fixture(autouse=True)
def backend() -> None:
    """There is one."""


def first_focus(*, titles: bool) -> Focus:
    sink, source = ListSink(), WindowSource(titles=titles)
    source.start(sink)
    source.stop()
    [focus] = focuses(sink)
    return focus


@pytest.mark.parametrize(
    ("name", "kind", "raw", "title"),
    [
        ("_NET_WM_NAME", "UTF8_STRING", "Größe — 文".encode(), "Größe — 文"),
        ("WM_NAME", "STRING", "Größe".encode("latin-1"), "Größe"),
        ("WM_NAME", "UTF8_STRING", "Größe".encode(), "Größe"),
        ("_NET_WM_NAME", "UTF8_STRING", b"a\n\x1b[31mb\0c\x7f\xe2\x80\xae", "a  [31mb c"),
        ("_NET_WM_NAME", "UTF8_STRING", b"\xff\xfe ok \xc3", "\ufffd\ufffd ok \ufffd"),
        ("_NET_WM_NAME", "UTF8_STRING", b"  \t ", None),
        ("_NET_WM_NAME", "UTF8_STRING", b"", None),
        ("_NET_WM_NAME", "UTF8_STRING", ("x" + "é" * 600).encode(), "x" + "é" * 255),
        ("_NET_WM_NAME", "UTF8_STRING", b"y" * 4_000_000, "y" * 512),
    ],
)
def test_titles(program, manager, name, kind, raw, title):
    window = program.open("Editor")
    send(program, window, name, kind, raw)
    manager.use(window)
    focus = first_focus(titles=True)
    assert focus.title == title
    assert len((focus.title or "").encode()) <= TITLE_MAX_BYTES
    without = first_focus(titles=False)
    assert without == Focus(without.t_ns, "Editor", None, 10, 20, 300, 200)


def send(program: Program, window: object, name: str, kind: str, raw: bytes) -> None:
    """A property in pieces: a request holds 256 kB."""
    program.say(window, name, raw[:200_000], kind=kind)
    for at in range(200_000, len(raw), 200_000):
        piece = raw[at : at + 200_000]
        window.change_property(program.atom(name), program.atom(kind), 8, piece, mode=2)  # type: ignore[attr-defined]
    program.display.sync()


def test_the_title_of_today_goes_before_the_old_one(program, manager):
    window = program.open("Editor", "new")
    program.say(window, "WM_NAME", b"old")
    manager.use(window)
    assert first_focus(titles=True).title == "new"
    program.say(window, "_NET_WM_NAME", b"", kind="UTF8_STRING")
    assert first_focus(titles=True).title == "old"


@pytest.mark.parametrize(
    ("raw", "app"),
    [
        (b"instance\0Class\0", "Class"),
        (b"instance\0Class", "Class"),
        (b"instance", None),
        (b"", None),
        (b"\0\0", None),
        (b"\0\0\0\0Third\0", None),
        (b"i\0Cl\nass\x9b\0", "Cl ass"),
        (b"i\0" + b"\xe9" * 3000, "é" * (NAME_MAX_BYTES // 2)),
    ],
)
def test_names_of_programs(program, manager, raw, app):
    window = program.open()
    program.say(window, "WM_CLASS", raw)
    manager.use(window)
    assert first_focus(titles=False).app == app


@pytest.mark.parametrize("bits", [16, 32])
def test_names_and_titles_that_are_numbers_are_none(program, manager, bits):
    window = program.open()
    for name in ("WM_CLASS", "_NET_WM_NAME", "WM_NAME"):
        program.say(window, name, [0x41424344 & (2**bits - 1)] * 50, kind="CARDINAL", bits=bits)
    manager.use(window)
    focus = first_focus(titles=True)
    assert (focus.app, focus.title) == (None, None)
    assert focus.width == 300


def test_a_window_in_use_that_is_none(program, manager):
    """Ids of windows that are gone, of the root window, of the manager's own, of nothing; and then it goes on."""
    window, gone = program.open("Editor"), program.open("Gone")
    gone.destroy()
    program.display.sync()
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    manager.use(window)
    until(lambda: apps(sink)[-1] == "Editor")
    for number in (gone.id, manager.root.id, manager.check.id, 1, 2**32 - 1):
        manager.use(number)
        until(lambda: apps(sink)[-1] is None)
        manager.use(window)
        until(lambda: apps(sink)[-1] == "Editor")
    for kind, bits, value in (("STRING", 8, b"abcd"), ("CARDINAL", 16, [7]), ("WINDOW", 32, [])):
        manager.say(manager.root, "_NET_ACTIVE_WINDOW", value, kind=kind, bits=bits)
        until(lambda: apps(sink)[-1] is None)
        manager.use(window)
        until(lambda: apps(sink)[-1] == "Editor")
    assert source.health().ok
    source.stop()
    assert not any(event.kind == "gap" for event in sink.events), "and the connection was never lost"


def test_a_manager_that_names_what_is_none(program, manager):
    window = program.open("Editor")
    manager.use(window)
    sink, source = ListSink(), WindowSource()
    source.start(sink)
    for number in (manager.root.id, 1, window.id):
        manager.say(manager.root, "_NET_SUPPORTING_WM_CHECK", [number], kind="WINDOW", bits=32)
        until(lambda: not source.health().ok)
        manager.say(manager.root, "_NET_SUPPORTING_WM_CHECK", [manager.check.id], kind="WINDOW", bits=32)
        until(lambda: source.health().ok)
    other = program.open("Other")
    manager.use(other)
    until(lambda: apps(sink)[-1] == "Other", what="the root window is still heard")
    source.stop()


def test_a_new_title_is_told_with_its_time_and_only_when_asked_for(program, manager):
    window = program.open("Editor", "one")
    manager.use(window)
    asked, other = ListSink(), ListSink()
    source, silent = WindowSource(titles=True), WindowSource()
    source.start(asked)
    silent.start(other)
    before_ns = time.monotonic_ns()
    program.say(window, "_NET_WM_NAME", b"two", kind="UTF8_STRING")
    after_ns = time.monotonic_ns()
    until(lambda: len(focuses(asked)) == 2)
    assert [focus.title for focus in focuses(asked)] == ["one", "two"]
    assert before_ns - 2e6 <= focuses(asked)[1].t_ns <= after_ns + 2e6
    source.stop()
    silent.stop()
    assert [focus.title for focus in focuses(other)] == [None]


def test_without_titles_windows_are_not_asked_to_tell_of_them(program, manager):
    window = program.open("Editor", "one")
    manager.use(window)
    for titles in (False, True):
        source = WindowSource(titles=titles)
        source.start(ListSink())
        masks = window.get_attributes().all_event_masks
        source.stop()
        assert bool(masks & _PROPERTY_CHANGE) == titles


def test_a_title_that_keeps_changing_wakes_nobody_who_did_not_ask(program, manager):
    window = program.open("Editor", "one")
    manager.use(window)
    source = WindowSource()
    source.start(ListSink())
    titled = WindowSource(titles=True)
    titled.start(sink := ListSink())

    def wakeups(of: WindowSource) -> int:
        return thread_cost(of.threads()[:1]).wakeups or 0

    cost_at_rest([*source.threads()[:1], *titled.threads()[:1]])
    before, began_s = (wakeups(source), wakeups(titled)), time.monotonic()
    for n in range(60):
        program.say(window, "_NET_WM_NAME", b"title %d" % n, kind="UTF8_STRING")
        time.sleep(0.05)
    after = wakeups(source), wakeups(titled)
    until(lambda: focuses(sink)[-1].title == "title 59")
    took_s = time.monotonic() - began_s
    source.stop()
    titled.stop()
    assert after[0] - before[0] <= 1
    assert after[1] - before[1] >= 10, "as who asked was"
    assert 3 <= len(focuses(sink)) <= 2 + took_s, "one a second"


@pytest.mark.parametrize(("scopes", "title"), [(("apps",), None), (("apps", "titles"), "secret plan")])
def test_no_title_passes_without_its_scope(program, manager, scopes, title):
    """Through a recorder, from a source that asks for titles."""
    manager.use(program.open("Editor", "secret plan"))
    source, spool = WindowSource(titles=True), MemorySpool()
    recorder = Recorder(gate=Gate(example_grant(*scopes)), spool=spool, sources=[source])
    recorder.start()
    source.start(recorder)
    source.stop()
    recorder.stop()
    [batch] = batches(spool)
    [focus] = batch.events
    assert isinstance(focus, Focus)
    assert (focus.app, focus.title) == ("Editor", title)


def test_nothing_wakes_while_nothing_happens(xserver, program, manager, monkeypatch):
    """With all sources of one collector, over some seconds."""
    monkeypatch.setattr(limits, "WATCH_WINDOW_S", 1.0)  # so long a display is asked whether it is alive
    monkeypatch.setattr(limits, "WATCH_INTERVAL_S", 0.2)
    manager.use(program.open("Editor", "one"))
    sources = [PointerSource(), KeyboardSource(), DisplaySource(), WindowSource(titles=True)]
    sink = KeySink()
    for source in sources:
        source.read_with(sources[0])
        source.start(sink)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("mcilib-")]
    assert len(threads) == 2
    before = cost_at_rest(threads, 2 * limits.WATCH_INTERVAL_S).wakeups
    time.sleep(4.0)
    after = thread_cost(threads).wakeups
    for source in sources:
        source.stop()
    assert after is not None
    assert after == before
