"""Keys through a real X server, under real layouts."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial

import pytest
from sinks import KeySink
from waiting import until

from mcilib import KeyboardSource, KeyDetail, KeyPress, KeyRelease
from mcilib.testing.conformance import check_source

# Physical keys of a PC keyboard, by what a US layout prints on them (evdev keycodes).
CODE = {
    "1": 10, "0": 19, "q": 24, "e": 26, "y": 29, "[": 34, "l": 46, ";": 47, "`": 49, "c": 54,
    "tab": 23, "enter": 36, "ctrl": 37, "shift": 50, "alt": 64, "space": 65, "f4": 70, "kp7": 79, "kp+": 86,
    "backspace": 22, "left": 113, "delete": 119, "altgr": 108, "super": 133, "esc": 9, "numlock": 77, "caps": 66,
}  # fmt: skip


def keys_of(chord: str) -> list[str]:
    return [chord] if chord == "kp+" else chord.split("+")


def typed(xserver, *chords: str, detail: KeyDetail = KeyDetail.CLASS) -> list[str | None]:
    """What the last key of each chord (`altgr+q`) is called."""
    sink, source = KeySink(), KeyboardSource(detail=detail)
    source.start(sink)
    last: list[int] = []  # places of the presses asked for
    total = 0
    for chord in chords:
        keys = keys_of(chord)
        for key in keys:
            xserver.key(CODE[key], True)
        last.append(total + len(keys) - 1)
        for key in reversed(keys):
            xserver.key(CODE[key], False)
        xserver.sync()
        total += 2 * len(keys)
    until(lambda: len(sink.events) >= total, what=f"{total} key events")
    source.stop()
    pressed = [sink.events[place] for place in last]
    return [event.key for event in pressed if isinstance(event, KeyPress)]


def test_source_promise(xserver):
    def drive(_source):
        for _ in range(40):
            xserver.tap(CODE["q"])
        xserver.sync()

    check_source(KeyboardSource, drive)


@pytest.mark.parametrize(
    ("layout", "chords", "labels"),
    [
        ("us", ("q", "1", "shift+1", "0", ";", "`"), ("letter", "digit", "punctuation", "digit") + ("punctuation",) * 2),
        ("de", ("q", "altgr+q", "altgr+e", "y", "[", ";"),
         ("letter", "punctuation", "punctuation", "letter", "letter", "letter")),
        ("de", ("`",), ("other",)),  # a dead key types nothing by itself
        ("pl", ("l", "altgr+l", "altgr+e", "altgr+c"), ("letter",) * 4),  # l-stroke, e-ogonek, c-acute
        ("fr", ("1", "shift+1", "0", "altgr+0", "q", "["),
         ("punctuation", "digit", "letter", "punctuation", "letter", "other")),
        ("ru", ("q", "[", "1"), ("letter", "letter", "digit")),
    ],
)  # fmt: skip
def test_classes_follow_the_layout(xserver, layout, chords, labels):
    xserver.setxkbmap(layout)
    assert typed(xserver, *chords) == list(labels)


@pytest.mark.parametrize("layout", ["us", "de", "pl", "fr"])
def test_shortcuts_are_named_and_typed_characters_never(xserver, layout):
    xserver.setxkbmap(layout)
    first = {"fr": "a"}.get(layout, "q")
    assert typed(xserver, "ctrl+q", "ctrl+shift+c", "super+l", "alt+tab", "alt+f4", "ctrl+left") == [
        f"ctrl+{first}", "ctrl+shift+c", "cmd+l", "alt+tab", "alt+f4", "ctrl+left",
    ]  # fmt: skip
    assert typed(xserver, "alt+c", "alt+space", "shift+c") == ["letter", "space", "letter"]
    if layout != "us":
        level3 = typed(xserver, "altgr+q", "altgr+e", "altgr+0", "altgr+l", "ctrl+altgr+q")
        assert all(label is not None and "+" not in label for label in level3), level3


def test_named_keys(xserver):
    keys = (
        "tab",
        "enter",
        "space",
        "backspace",
        "delete",
        "left",
        "f4",
        "esc",
        "shift",
        "ctrl",
        "altgr",
        "kp+",
    )
    assert typed(xserver, *keys) == [
        "tab", "enter", "space", "editing", "editing", "navigation", "function", "function",
        "modifier", "modifier", "modifier", "punctuation",
    ]  # fmt: skip


def test_keypad_follows_num_lock(xserver):
    assert typed(xserver, "kp7", "numlock", "kp7", "numlock", "kp7") == [
        "navigation", "modifier", "digit", "modifier", "navigation",
    ]  # fmt: skip


def told(sink: KeySink, count: int) -> bool:
    return len(sink.events) == count


def test_a_layout_changed_while_listening_is_seen(xserver):
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    for done, layout in enumerate(("us", "fr", "us"), start=1):
        xserver.setxkbmap(layout)
        xserver.tap(CODE["1"])
        xserver.sync()
        until(partial(told, sink, 2 * done))
    source.stop()
    assert [e.key for e in sink.events if isinstance(e, KeyPress)] == ["digit", "punctuation", "digit"]


def test_the_second_group_of_two_layouts(xserver):
    xserver.setxkbmap("us,fr", "-option", "grp:caps_toggle")
    assert typed(xserver, "1", "caps", "1", "altgr+0", "caps", "1") == [
        "digit", "modifier", "punctuation", "punctuation", "modifier", "digit",
    ]  # fmt: skip


def test_a_release_says_what_its_press_said(xserver):
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    for key, press in (("ctrl", True), ("c", True), ("ctrl", False), ("c", False)):
        xserver.key(CODE[key], press)
    xserver.sync()
    until(lambda: len(sink.events) == 4)
    source.stop()
    assert [(type(e), e.key) for e in sink.events] == [
        (KeyPress, "modifier"), (KeyPress, "ctrl+c"), (KeyRelease, "modifier"), (KeyRelease, "ctrl+c"),
    ]  # fmt: skip


def test_a_release_whose_press_was_not_heard_is_no_shortcut(xserver):
    """Typed without ctrl, let go with it: the key's name would be a typed character."""
    xserver.key(CODE["q"], True)
    xserver.sync()
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    for key, press in (("ctrl", True), ("q", False), ("ctrl", False)):
        xserver.key(CODE[key], press)
    xserver.sync()
    until(lambda: len(sink.events) == 3)
    source.stop()
    assert sink.events[1].key == "letter"


def test_a_code_point_typed_with_ctrl_and_shift_is_not_spelled_out(xserver):
    """GTK and IBus take ctrl+shift+u and then hex digits for a character."""
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    hexadecimal = (30, 19, 10, 26, 54)  # u 0 1 e c
    for key, press in (("ctrl", True), ("shift", True)):
        xserver.key(CODE[key], press)
    for code in hexadecimal:
        xserver.tap(code)
    xserver.key(CODE["shift"], False)
    xserver.tap(CODE["c"])
    xserver.key(CODE["ctrl"], False)
    xserver.sync()
    until(lambda: len(sink.events) == 16)
    source.stop()
    assert [e.key for e in sink.events if isinstance(e, KeyPress)] == [
        "modifier", "modifier", "ctrl+shift+u", "punctuation", "punctuation", "letter", "letter", "ctrl+c",
    ]  # fmt: skip


def test_detail_timing_says_when_and_not_which(xserver):
    assert typed(xserver, "q", "ctrl+c", detail=KeyDetail.TIMING) == [None, None]


def test_detail_none_sets_no_hook(xserver):
    sink, source = KeySink(), KeyboardSource(detail=KeyDetail.NONE)
    before = threading.active_count()
    source.start(sink)
    xserver.tap(CODE["q"])
    xserver.sync()
    assert threading.active_count() == before
    source.stop()
    assert sink.events == []


def test_portable_reading_of_keys(xserver):
    """The path of Windows and macOS, on the only system that runs here."""
    from mcilib.sources._pynput import close_listener, end_listener, keyboard_listener
    from mcilib.sources._x11 import ServerClock

    seen = []
    heard = threading.Event()
    server = ServerClock(time.monotonic_ns)
    listener = keyboard_listener(
        lambda code, down, key: seen.append((down, key)), heard.set, server, x11_keys=False
    )

    def run():
        with contextlib.suppress(Exception):  # its connection is shut under it
            listener.run()

    thread = threading.Thread(target=run)
    thread.start()
    assert heard.wait(20)
    for key, press in (
        ("ctrl", True),
        ("c", True),
        ("c", False),
        ("ctrl", False),
        ("tab", True),
        ("tab", False),
    ):
        xserver.key(CODE[key], press)
    xserver.sync()
    until(lambda: len(seen) == 6)
    end_listener(listener)
    thread.join(20)
    close_listener(listener)
    assert not thread.is_alive()
    downs = [(key.name, key.char, key.ctrl) for down, key in seen if down]
    assert downs == [("ctrl", None, True), (None, "c", True), ("tab", None, False)]


@pytest.mark.parametrize(
    ("system", "held", "char", "label"),
    [
        ("win32", ("ctrl_l", "alt_gr"), "@", "punctuation"),
        ("win32", ("ctrl_l", "alt_l"), "@", "punctuation"),  # AltGr as Windows tells it
        ("win32", ("ctrl_l",), "\x03", "ctrl+c"),
        ("darwin", ("alt",), "ł", "letter"),  # Option
        ("darwin", ("cmd",), "c", "cmd+c"),
        ("darwin", ("cmd", "alt"), "€", "punctuation"),
    ],
)
def test_what_other_systems_type_with_modifiers(monkeypatch, system, held, char, label):
    """Not yet run on hardware: pynput's key objects are stood in for by their public attributes."""
    from types import SimpleNamespace

    from mcilib.privacy import key_label
    from mcilib.sources._pynput import _PortableKeys

    seen = []
    monkeypatch.setattr("mcilib.sources._pynput.sys", SimpleNamespace(platform=system))
    portable = _PortableKeys(lambda code, down, key: seen.append(key))
    for name in held:
        portable.press(SimpleNamespace(name=name, vk=name))
    portable.press(SimpleNamespace(char=char, vk=1, is_dead=False))
    key = seen[-1]
    assert label == key_label(
        KeyDetail.CLASS,
        key.char,
        key.name,
        ctrl=key.ctrl,
        alt=key.alt,
        shift=key.shift,
        cmd=key.cmd,
        level3=key.level3,
    )


def test_a_key_that_is_held_repeats(xserver, repeating_keys):
    """The server's own repeat: presses without releases between them, each with a time of its own."""
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    xserver.key(CODE["q"], True)
    xserver.sync()
    until(lambda: len(sink.events) >= 4, what="three repeats (the first comes after some 0.5 s)")
    xserver.key(CODE["q"], False)
    xserver.sync()
    until(lambda: isinstance(sink.events[-1], KeyRelease))
    source.stop()
    *presses, release = sink.events
    assert {(type(event), event.key) for event in presses} == {(KeyPress, "letter")}
    assert release == KeyRelease(release.t_ns, "letter")
    times = [event.t_ns for event in presses]
    assert times == sorted(set(times))
    assert release.t_ns >= times[-1], "it may come in the millisecond of a repeat"


def test_keys_that_overlap_keep_their_own_releases(xserver):
    """Rollover: the second key goes down before the first is up."""
    sink, source = KeySink(), KeyboardSource()
    source.start(sink)
    for code, down in (
        ("q", True),
        ("1", True),
        ("q", False),
        ("space", True),
        ("1", False),
        ("space", False),
    ):
        xserver.key(CODE[code], down)
    xserver.sync()
    until(lambda: len(sink.events) == 6)
    source.stop()
    assert [(event.kind, event.key) for event in sink.events] == [
        ("key_press", "letter"), ("key_press", "digit"), ("key_release", "letter"),
        ("key_press", "space"), ("key_release", "digit"), ("key_release", "space"),
    ]  # fmt: skip
