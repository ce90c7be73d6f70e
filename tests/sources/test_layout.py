"""The keyboard layout: told at the start and once for each change; a key typed around a change is never misnamed."""

from __future__ import annotations

import time

import pytest
from sinks import KeySink
from waiting import until
from Xlib import Xatom

from mcilib import KeyboardSource, KeyPress
from mcilib.sources._x11 import connect
from mcilib.testing.fakes import ListSink

Q, BRACKET, MENU = 24, 34, 135  # BRACKET: `[` on us, `ü` on de


def names(sink: KeySink) -> list[str]:
    return [layout.name for layout in sink.layouts]


def typed(sink: ListSink) -> list[str | None]:
    return [event.key for event in sink.events if isinstance(event, KeyPress)]


def tap(xserver, sink: KeySink, code: int = Q) -> str | None:
    """The class that it is told with."""
    seen = len(typed(sink))
    xserver.tap(code)
    xserver.sync()
    until(lambda: len(typed(sink)) > seen)
    return typed(sink)[-1]


def test_each_layout_is_told_once(xserver, backend):
    sink, source, told = KeySink(), KeyboardSource(), 1
    source.start(sink)
    classes = [tap(xserver, sink, BRACKET)]
    for options in (["de", "-variant", "nodeadkeys"], ["ru", "-variant", ""], ["us", "-variant", ""]):
        xserver.setxkbmap(*options)
        told += 1
        if backend == "xrecord":
            until(lambda told=told: len(names(sink)) == told)  # type: ignore[misc]
        else:
            time.sleep(0.3)  # typed around a change a key may be `other`
        classes += [tap(xserver, sink, BRACKET), tap(xserver, sink)]
        xserver.setxkbmap(*options)  # as it is
    tap(xserver, sink)
    source.stop()
    assert names(sink) == ["us", "de(nodeadkeys)", "ru", "us"]
    assert classes == ["punctuation", "letter", "letter", "letter", "letter", "punctuation", "letter"]


def test_a_group_that_is_chosen_with_a_key(xserver):
    xserver.setxkbmap("us,de", "-option", "", "-option", "grp:menu_toggle")
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    expected = ["us"]
    assert tap(xserver, sink, BRACKET) == "punctuation"
    for name, told in (("de", "letter"), ("us", "punctuation"), ("de", "letter")):
        tap(xserver, sink, MENU)
        assert tap(xserver, sink, BRACKET) == told
        assert tap(xserver, sink, BRACKET) == told
        expected.append(name)
        assert names(sink) == expected
    source.stop()
    again = KeyboardSource()
    again.start(later := KeySink())
    tap(xserver, later)
    again.stop()
    assert names(later) == ["de"], "the group in force, not the first one"
    xserver.tap(MENU)  # as it was
    xserver.sync()


def test_at_the_start_without_a_key(xserver, backend):
    """pynput is not told of layouts, only of keys."""
    xserver.setxkbmap("ru")
    sink, source = KeySink(), KeyboardSource()
    before_ns = time.monotonic_ns()
    source.start(sink)
    source.stop()
    assert names(sink) == ([] if backend == "pynput" else ["ru"])
    if sink.layouts:
        assert before_ns - 1e6 <= sink.layouts[0].t_ns <= time.monotonic_ns()


def test_changes_in_a_row_are_all_told_by_their_names(xserver):
    """setxkbmap sets the layout first and its name afterwards; who reads in between must look again."""
    sink, source = KeySink(), KeyboardSource(backend="xrecord")  # pynput reads a layout with the next key
    source.start(sink)
    expected = ["us"]
    for n in range(12):
        name = ("de", "ru", "us")[n % 3]
        xserver.setxkbmap(name)
        expected.append(name)
        until(lambda: names(sink) == expected, what=f"{name} is told")
    source.stop()


def test_a_name_that_comes_after_its_layout(xserver):
    sink, source = KeySink(), KeyboardSource(backend="xrecord")
    source.start(sink)
    control = connect()
    root, name = control.screen().root, control.intern_atom("_XKB_RULES_NAMES")
    for layout in ("xx", "xx", "us"):
        root.change_property(name, Xatom.STRING, 8, f"evdev\0pc105\0{layout}\0\0\0".encode())
        control.sync()
        until(lambda layout=layout: names(sink)[-1] == layout)  # type: ignore[misc]
    control.close()
    source.stop()
    assert names(sink) == ["us", "xx", "us"]


@pytest.mark.slow
def test_keys_typed_around_a_change_are_never_misnamed(xserver, backend):
    """Read late, they are `other` at worst; how many depends on how busy the machine is."""
    sink, source = KeySink(), KeyboardSource(read_interval_s=0.3)
    source.start(sink)
    allowed = []
    for n in range(8):
        xserver.setxkbmap(("de", "us")[n % 2])
        if backend == "pynput":
            time.sleep(0.3)
        for _ in range(6):
            xserver.tap(BRACKET)
            xserver.tap(Q)
            xserver.sync()
            allowed += [("letter", "punctuation")[n % 2], "letter"]
            time.sleep(0.01)
        if backend == "pynput":
            time.sleep(0.3)
    until(lambda: len(typed(sink)) == len(allowed))
    source.stop()
    wrong = [
        (n, told, right)
        for n, (told, right) in enumerate(zip(typed(sink), allowed, strict=True))
        if told not in (right, "other")
    ]
    assert wrong == []
    assert set(typed(sink)) - {"other"}, "some are named"
