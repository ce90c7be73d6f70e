"""macOS: pynput's own code for it, on a stand-in for Quartz and the rest of PyObjC.

Nothing of macOS can run here, so this proves the way of an event from a tap to a callback, its time, and what becomes
of a tap that is switched off; it does not prove that macOS behaves as its documents say.
"""

from __future__ import annotations

import importlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from waiting import until

from mcilib.sources import _darwin, _pynput
from mcilib.sources._pynput import event_clock, keyboard_listener, narrow, pointer_listener, trouble
from mcilib.sources._x11 import ServerClock

S = 1_000_000_000
NOW_NS = 40_000 * S
BY_TIMEOUT, BY_USER = 0xFFFF_FFFE, 0xFFFF_FFFF
TYPES = {
    "kCGEventLeftMouseDown": 1,
    "kCGEventLeftMouseUp": 2,
    "kCGEventRightMouseDown": 3,
    "kCGEventRightMouseUp": 4,
    "kCGEventMouseMoved": 5,
    "kCGEventLeftMouseDragged": 6,
    "kCGEventRightMouseDragged": 7,
    "kCGEventKeyDown": 10,
    "kCGEventKeyUp": 11,
    "kCGEventFlagsChanged": 12,
    "NSSystemDefined": 14,
    "kCGEventScrollWheel": 22,
    "kCGEventOtherMouseDown": 25,
    "kCGEventOtherMouseUp": 26,
    "kCGEventOtherMouseDragged": 27,
}
MOVED, DRAGGED, LEFT_DOWN, LEFT_UP, SCROLLED, KEY_DOWN, KEY_UP = 5, 6, 1, 2, 22, 10, 11


@pytest.fixture(autouse=True)
def backend() -> None:
    """These tests are of pynput alone."""


class Tap:
    def __init__(self, mask: int, call: Any) -> None:
        self.mask, self.call, self.enabled, self.enabled_count = mask, call, False, 0


class Quartz(ModuleType):
    """What pynput and mcilib ask of it. Taps are called by the run loop of their thread."""

    kCFRunLoopRunTimedOut = 3
    kCGKeyboardEventKeycode = "keycode"
    kCGEventSourceUnixProcessID = "pid"
    kCGScrollWheelEventDeltaAxis1 = "dy"
    kCGScrollWheelEventDeltaAxis2 = "dx"

    def __init__(self) -> None:
        super().__init__("Quartz")
        self.trusted, self.may_listen, self.gives_tap, self.may_enable = True, True, True, True
        self.taps: list[Tap] = []
        self.now_ns = NOW_NS
        self._waiting: queue.Queue[tuple[int, Any]] = queue.Queue()
        self.__dict__.update(TYPES)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("kCGEventFlagMask"):
            return 1 << 17
        if name.startswith(("kC", "NS", "CFRunLoop", "CFMachPort")):
            return MagicMock()
        if name in (
            "CGEventCreateKeyboardEvent",
            "CGEventKeyboardSetUnicodeString",
            "CGEventPost",
            "CGEventSetFlags",
        ):
            return MagicMock()  # for injecting
        raise AttributeError(name)

    def happens(self, event_type: int, late_ns: int = 0, **fields: Any) -> None:
        self._waiting.put(
            (event_type, SimpleNamespace(type=event_type, t_ns=self.now_ns - late_ns, **fields))
        )

    def CGEventMaskBit(self, number: int) -> int:
        return 1 << number

    def CGEventTapCreate(self, _1: Any, _2: Any, _3: Any, mask: int, call: Any, _4: Any) -> Tap | None:
        if self.gives_tap:
            self.taps.append(Tap(mask, call))
            return self.taps[-1]
        return None

    def CGEventTapEnable(self, tap: Tap, wanted: bool) -> None:
        tap.enabled = wanted and self.may_enable
        tap.enabled_count += 1

    def CGEventTapIsEnabled(self, tap: Tap) -> bool:
        return tap.enabled

    def CGPreflightListenEventAccess(self) -> bool:
        return self.may_listen

    def CFRunLoopRunInMode(self, *_: Any) -> int:
        try:
            event_type, event = self._waiting.get(timeout=0.05)
        except queue.Empty:
            return self.kCFRunLoopRunTimedOut
        tap = self.taps[-1]
        if event_type >= BY_TIMEOUT:
            tap.enabled = False
            tap.call(None, event_type, None, None)
        elif tap.enabled and tap.mask & 1 << event_type:
            tap.call(None, event_type, event, None)
        return self.kCFRunLoopRunTimedOut

    def CGEventGetTimestamp(self, event: Any) -> int:
        return int(event.t_ns)

    def CGEventGetType(self, event: Any) -> int:
        return int(event.type)

    def CGEventGetFlags(self, event: Any) -> int:
        return 0

    def CGEventGetLocation(self, event: Any) -> tuple[float, float]:
        return 3.5, 4.25

    def CGEventGetIntegerValueField(self, event: Any, field: str) -> int:
        return int(getattr(event, field, 0))

    def CGEventKeyboardGetUnicodeString(self, event: Any, *_: Any) -> tuple[int, str]:
        return 1, event.char


@pytest.fixture
def quartz(xserver: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quartz]:
    """pynput's macOS modules, imported on the stand-in; ctypes stands for Carbon, which tells keyboard layouts."""
    import pynput.keyboard
    import pynput.mouse

    system = Quartz()
    names = ("pynput._util.darwin", "pynput.mouse._darwin", "pynput.keyboard._darwin")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("objc", "CoreFoundation", "AppKit"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    monkeypatch.setitem(sys.modules, "HIServices", MagicMock(AXIsProcessTrusted=lambda: system.trusted))
    monkeypatch.setitem(sys.modules, "Quartz", system)
    with monkeypatch.context() as carbon:
        carbon.setitem(sys.modules, "ctypes", MagicMock())
        carbon.setitem(sys.modules, "ctypes.util", MagicMock())
        _, mouse, keyboard = [importlib.import_module(name) for name in names]
    monkeypatch.setattr(pynput.mouse, "Listener", mouse.Listener)
    monkeypatch.setattr(pynput.keyboard, "Listener", keyboard.Listener)
    monkeypatch.setattr(_pynput, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(_pynput, "on_x11", lambda: False)
    _pynput._warn.cache_clear()
    yield system
    for name in names:
        sys.modules.pop(name, None)


class Heard:
    """A running listener and what it told: (ns, what)."""

    def __init__(self, quartz: Quartz, *, keys: bool = False, motion: bool = True) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.server = ServerClock(lambda: quartz.now_ns)
        self._heard = threading.Event()
        if keys:
            self.listener = keyboard_listener(
                lambda code, down, key: self._tell(key.char, down), self._heard.set, self.server
            )
        else:
            callbacks: dict[str, Callable[..., None]] = {
                "on_move": lambda x, y, _: self._tell("move", x, y),
                "on_click": lambda x, y, button, down, _: self._tell(button.name, down),
                "on_scroll": lambda x, y, dx, dy, _: self._tell("scroll", dx, dy),
            }
            self.listener = pointer_listener(callbacks, self._heard.set, self.server, motion=motion)
        self.thread = threading.Thread(target=self.listener.run, daemon=True)

    def start(self) -> Heard:
        self.thread.start()
        assert self._heard.wait(20)
        return self

    def _tell(self, *what: Any) -> None:
        self.events.append((self.server.event_ns(), *what))

    def told(self, count: int) -> list[tuple[Any, ...]]:
        until(lambda: len(self.events) >= count)
        return self.events

    def stop(self) -> None:
        self.listener.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_the_pointer_tells_the_time_of_the_event(quartz):
    heard = Heard(quartz).start()
    quartz.happens(MOVED, 300)
    quartz.happens(LEFT_DOWN, 250)
    quartz.happens(DRAGGED, 200)
    quartz.happens(LEFT_UP, 150)
    quartz.happens(SCROLLED, 0, dx=1, dy=-2)
    assert heard.told(5) == [
        (NOW_NS - 300, "move", 3.5, 4.25),
        (NOW_NS - 250, "left", True),
        (NOW_NS - 200, "move", 3.5, 4.25),
        (NOW_NS - 150, "left", False),
        (NOW_NS, "scroll", 1, -2),
    ]
    heard.stop()
    assert event_clock(heard.server) == "darwin"


def test_the_keyboard_tells_the_time_of_the_event(quartz):
    heard = Heard(quartz, keys=True).start()
    quartz.happens(KEY_DOWN, 2 * S, keycode=200, char="a")
    quartz.happens(KEY_UP, 1 * S, keycode=200, char="a")
    assert heard.told(2) == [(NOW_NS - 2 * S, "a", True), (NOW_NS - S, "a", False)]
    heard.stop()
    assert event_clock(heard.server) == "darwin"


@pytest.mark.parametrize(
    ("late_ns", "told_ns", "clock"),
    [
        (10 * S, NOW_NS - 10 * S, "darwin"),
        (10 * S + 1, NOW_NS, "callback"),
        (-10 * S - 1, NOW_NS, "callback"),
        (-5, NOW_NS, "darwin"),  # no event is told before it happens
        (NOW_NS - NOW_NS * 3 // 125, NOW_NS, "callback"),  # in ticks, as on Apple silicon
        (NOW_NS, NOW_NS, "callback"),  # an event that was made without a time
    ],
)
def test_a_time_is_believed_when_it_can_be_true(quartz, late_ns, told_ns, clock):
    heard = Heard(quartz).start()
    quartz.happens(MOVED, late_ns)
    assert heard.told(1) == [(told_ns, "move", 3.5, 4.25)]
    heard.stop()
    assert event_clock(heard.server) == clock


def test_without_the_function_events_have_the_time_of_the_call(quartz, monkeypatch):
    monkeypatch.delattr(Quartz, "CGEventGetTimestamp")
    heard = Heard(quartz).start()
    quartz.happens(MOVED, 300)
    assert heard.told(1) == [(NOW_NS, "move", 3.5, 4.25)]
    heard.stop()
    assert event_clock(heard.server) == "callback"


@pytest.mark.parametrize("part", ["_handler", "_create_event_tap"])
def test_a_pynput_without_a_private_part_is_heard_with_the_time_of_the_call(quartz, caplog, part):
    bare = type("Listener", (), {name: None for name in ("_handler", "_create_event_tap") if name != part})
    assert _darwin.timed(bare, ServerClock(lambda: 1)) is None
    _pynput._hearing(bare, lambda: None, ServerClock(lambda: 1))
    assert "pynput has changed" in caplog.text


@pytest.mark.parametrize("motion", [True, False])
def test_a_tap_is_asked_for_moves_or_not(quartz, caplog, motion):
    heard = Heard(quartz, motion=motion).start()
    for kind in (MOVED, DRAGGED, 7, 27, LEFT_DOWN, 4, 26, SCROLLED):
        quartz.happens(kind)
    told = heard.told(8 if motion else 4)
    heard.stop()
    assert [what for _, what, *_ in told] == [*["move"] * 4 * motion, "left", "right", "middle", "scroll"]
    assert not caplog.records


def test_a_tap_can_be_narrowed_before_it_runs_only(quartz):
    heard = Heard(quartz)
    assert narrow(heard.listener, False)
    assert narrow(heard.listener, True)
    heard.start()
    assert quartz.taps[-1].mask & _darwin.MOVES == _darwin.MOVES
    assert not narrow(heard.listener, False)
    heard.stop()


@pytest.mark.parametrize("events", [None, (4, 8), 0, _darwin.MOVES])
def test_a_pynput_that_asks_otherwise_is_left_alone_and_said_to_be(quartz, monkeypatch, caplog, events):
    import pynput.mouse

    monkeypatch.setattr(pynput.mouse.Listener, "_EVENTS", events)
    listener = Heard(quartz, motion=False).listener
    assert events == listener._EVENTS
    assert "cannot be left out" in caplog.text


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("cause", [BY_TIMEOUT, BY_USER])
def test_a_tap_that_is_switched_off_is_switched_on_again_and_told(quartz, keys, cause):
    heard = Heard(quartz, keys=keys).start()
    assert trouble(heard.listener) is None
    for _ in range(2):
        quartz.happens(cause)
    quartz.happens(KEY_DOWN if keys else MOVED, keycode=200, char="a")
    heard.told(1)
    assert len(heard.events) == 1  # the notice itself is no input
    assert quartz.taps[-1].enabled_count == 3
    message, step = trouble(heard.listener) or ("", "")
    assert "2 times" in message
    assert step
    quartz.now_ns += 61 * S
    assert trouble(heard.listener) is None
    heard.stop()


def test_a_notice_with_a_sign_is_the_same_notice(quartz):
    heard = Heard(quartz).start()
    heard.listener._handler(None, -2, None, None)
    assert trouble(heard.listener) is not None
    assert heard.events == []
    heard.stop()


def test_a_tap_that_was_switched_off_in_silence_is_found_by_asking(quartz):
    heard = Heard(quartz).start()
    quartz.taps[-1].enabled = False
    message, _ = trouble(heard.listener) or ("", "")
    assert "1 times" in message
    assert quartz.taps[-1].enabled
    heard.stop()


def test_a_tap_that_stays_off_is_told(quartz):
    heard = Heard(quartz).start()
    quartz.may_enable = False
    quartz.happens(BY_USER)
    until(lambda: not quartz.taps[-1].enabled)
    quartz.now_ns += 61 * S
    for _ in range(2):
        assert trouble(heard.listener) == ("macOS has switched listening off", "Start again.")
    heard.stop()


@pytest.mark.parametrize(
    ("trusted", "may_listen", "told"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_a_missing_permission_is_told(quartz, trusted, may_listen, told):
    quartz.trusted, quartz.may_listen = trusted, may_listen
    heard = Heard(quartz)
    heard.listener._create_event_tap()
    assert trouble(heard.listener) is None  # not ready: nobody has asked for trust, and the tap is not yet on
    heard.start()
    found = trouble(heard.listener)
    assert (found is not None and "Input Monitoring" in found[1]) is told
    heard.stop()


def test_before_macos_10_15_trust_alone_counts(quartz, monkeypatch):
    monkeypatch.delattr(Quartz, "CGPreflightListenEventAccess")
    quartz.trusted = False
    heard = Heard(quartz).start()
    assert trouble(heard.listener) is not None
    heard.stop()


def test_no_tap_at_all_is_told(quartz):
    quartz.gives_tap = False
    heard = Heard(quartz).start()
    heard.thread.join(20)
    message, _ = trouble(heard.listener) or ("", "")
    assert "does not let this program see input" in message


def test_asking_for_trouble_never_raises(quartz, monkeypatch):
    heard = Heard(quartz).start()
    monkeypatch.delattr(Quartz, "CGEventTapIsEnabled")
    assert trouble(heard.listener) is None
    assert trouble(None) is None
    heard.stop()
