"""Windows: pynput's own code for it, on a stand-in for the functions of user32 and kernel32 that it calls.

Nothing of Windows can run here, so this proves the way of an event from a hook's structure to a callback, its time
and what is told when the system stays silent; it does not prove that Windows behaves as its documents say.
"""

from __future__ import annotations

import ctypes
import importlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from ctypes import wintypes
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from mcilib.sources import _pynput, _win32
from mcilib.sources._pynput import event_clock, keyboard_listener, narrow, pointer_listener, trouble
from mcilib.sources._win32 import KEYBOARD, MOUSE
from mcilib.sources._x11 import ServerClock

MS = 1_000_000
TURN_MS = 2**32
MOVED, LEFT_DOWN, LEFT_UP, WHEEL = 0x200, 0x201, 0x202, 0x20A
KEY_DOWN, KEY_UP, WM_STOP = 0x100, 0x101, 0x401
DWORD, LONG = ctypes.c_uint32, ctypes.c_int32


@pytest.fixture(autouse=True)
def backend() -> None:
    """These tests are of pynput alone."""


class Point(ctypes.Structure):
    _fields_ = [("x", LONG), ("y", LONG)]


class MouseStruct(ctypes.Structure):
    """MSLLHOOKSTRUCT, as its page has it."""

    _fields_ = [
        *(("pt", Point), ("mouseData", DWORD), ("flags", DWORD), ("time", DWORD)),
        ("dwExtraInfo", ctypes.c_void_p),
    ]


class KeyStruct(ctypes.Structure):
    """KBDLLHOOKSTRUCT, as its page has it."""

    _fields_ = [
        *(("vkCode", DWORD), ("scanCode", DWORD), ("flags", DWORD), ("time", DWORD)),
        ("dwExtraInfo", ctypes.c_void_p),
    ]


class Function:
    """A function of a DLL: may be given `argtypes` and more."""

    def __init__(self, does: Callable[..., Any] = lambda *_: 0) -> None:
        self._does = does

    def __call__(self, *args: Any) -> Any:
        return self._does(*args)


class Dll:
    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.__dict__.update({name: Function(does) for name, does in functions.items()})

    def __getattr__(self, name: str) -> Function:
        if name.startswith("_"):
            raise AttributeError(name)
        function = self.__dict__[name] = Function()
        return function


class Windows:
    """Hooks that are called in their thread while it waits for messages, and messages that it posts to itself."""

    def __init__(self) -> None:
        self.tick_ms = 5_000_000
        self.input_ms = 5_000_000
        self.refuses = False
        self.full = False  # the thread's message queue
        self.busy_ms = 0  # how long a thread is busy before it takes its messages
        self._hooks: dict[int, tuple[int, Callable[..., int]]] = {}
        self._queues: dict[int, queue.Queue[tuple[Any, ...]]] = {}
        self.windll = SimpleNamespace(
            user32=Dll(
                SetWindowsHookExW=self._set_hook,
                PeekMessageW=self._make_queue,
                GetMessageW=self._get_message,
                PostThreadMessageW=self._post,
                GetLastInputInfo=self._last_input,
            ),
            kernel32=Dll(
                GetCurrentThreadId=threading.get_ident,
                GetTickCount=lambda: LONG(self.tick_ms % TURN_MS).value,  # ctypes takes it for a signed int
            ),
        )

    def now_ns(self) -> int:
        """A monotonic clock that began at another time."""
        return (self.tick_ms + 777_000) * MS

    def happens(self, hook: int, message: int, data: ctypes.Structure, code: int = 0) -> None:
        thread, call = self._hooks[hook]
        self._queues[thread].put((call, code, message, data))

    def hooked(self, hook: int) -> bool:
        return hook in self._hooks

    def _make_queue(self, *_: Any) -> int:
        self._queues[threading.get_ident()] = queue.Queue()
        return 0

    def _set_hook(self, hook: int, call: Callable[..., int], *_: Any) -> int:
        self._hooks[hook] = threading.get_ident(), call
        return 0 if self.refuses else 77

    def _get_message(self, reference: Any, *_: Any) -> int:
        while True:
            first, *rest = self._queues[threading.get_ident()].get()
            if not callable(first):
                self.tick_ms += self.busy_ms
                message = reference._obj
                message.message, message.wParam, message.lParam = first, *rest
                return 1
            code, message, data = rest
            first(code, message, ctypes.addressof(data))

    def _post(self, thread: int, message: int, wparam: int, lparam: int) -> int:
        if self.full and message != WM_STOP:
            return 0
        self._queues[thread].put((message, wparam, lparam))
        return 1

    def _last_input(self, reference: Any) -> int:
        size, _ = reference._obj
        reference._obj[1] = self.input_ms % TURN_MS
        return int(size == 8)


@pytest.fixture
def windows(xserver: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Windows]:
    """pynput's Windows modules, imported with the sizes that types have there."""
    import pynput.keyboard
    import pynput.mouse

    system = Windows()
    names = ("pynput._util.win32", "pynput.mouse._win32", "pynput.keyboard._win32")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(ctypes, "windll", system.windll, raising=False)
    monkeypatch.setattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE, raising=False)
    for name, kind in (("DWORD", DWORD), ("LONG", LONG), ("POINT", Point)):
        monkeypatch.setattr(wintypes, name, kind)
    _, mouse, keyboard = [importlib.import_module(name) for name in names]
    monkeypatch.setattr(pynput.mouse, "Listener", mouse.Listener)
    monkeypatch.setattr(pynput.keyboard, "Listener", keyboard.Listener)
    monkeypatch.setattr(_pynput, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(_pynput, "on_x11", lambda: False)
    monkeypatch.setattr(_win32, "_heard_ms", {})
    _pynput._warn.cache_clear()
    yield system
    for name in names:
        sys.modules.pop(name, None)


class Heard:
    """A running listener and what it told: (time in ms, what)."""

    def __init__(self, windows: Windows, hook: int, motion: bool = True) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.server = ServerClock(windows.now_ns)
        self._hook, self._windows = hook, windows
        heard = threading.Event()
        if hook == MOUSE:
            callbacks: dict[str, Callable[..., None]] = {
                "on_move": lambda x, y, _: self._tell("move", x, y),
                "on_click": lambda x, y, button, down, _: self._tell(button.name, x, y, down),
                "on_scroll": lambda x, y, dx, dy, _: self._tell("scroll", dx, dy),
            }
            self.listener = pointer_listener(callbacks, heard.set, self.server, motion=motion)
        else:
            self.listener = keyboard_listener(
                lambda code, down, _: self._tell(code, down), heard.set, self.server
            )
        self.thread = threading.Thread(target=self.listener.run, daemon=True)
        self.thread.start()
        assert heard.wait(20)
        until(lambda: windows.hooked(hook))

    def _tell(self, *what: Any) -> None:
        self.events.append(((self.server.event_ns() / MS - 777_000) % TURN_MS, *what))

    def stop(self) -> None:
        self.listener.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        del self._windows._hooks[self._hook]

    def key(self, vk: int, down: bool, late_ms: int, code: int = 0) -> None:
        at_ms = (self._windows.tick_ms - late_ms) % TURN_MS
        self._windows.happens(KEYBOARD, KEY_DOWN if down else KEY_UP, KeyStruct(vk, 30, 0, at_ms), code)

    def mouse(self, message: int, late_ms: int, data: int = 0) -> None:
        at_ms = (self._windows.tick_ms - late_ms) % TURN_MS
        self._windows.happens(MOUSE, message, MouseStruct(Point(3, 4), data, 0, at_ms))

    def told(self, count: int) -> list[tuple[Any, ...]]:
        until(lambda: len(self.events) >= count)
        return self.events


@pytest.mark.parametrize("now_ms", [5_000_000, 2**31 - 1, TURN_MS - 1, TURN_MS, TURN_MS + 7, 3 * TURN_MS])
def test_the_mouse_tells_the_time_of_its_structure_around_the_turn(windows, now_ms):
    windows.tick_ms = now_ms
    heard = Heard(windows, MOUSE)
    heard.mouse(MOVED, 250)
    heard.mouse(LEFT_DOWN, 100)
    heard.mouse(LEFT_UP, 31)
    heard.mouse(WHEEL, 0, data=120 << 16)
    told = heard.told(4)
    heard.stop()
    assert [what for _, *what in told] == [
        ["move", 3, 4],
        ["left", 3, 4, True],
        ["left", 3, 4, False],
        ["scroll", 0, 1],
    ]
    assert [t for t, *_ in told] == [(now_ms - late_ms) % TURN_MS for late_ms in (250, 100, 31, 0)]
    assert event_clock(heard.server) == "win32"


@pytest.mark.parametrize("now_ms", [5_000_000, TURN_MS + 7])
def test_the_keyboard_tells_the_time_of_its_structure_though_it_is_told_by_a_message(windows, now_ms):
    windows.tick_ms, windows.busy_ms = now_ms, 400
    heard = Heard(windows, KEYBOARD)
    heard.key(0x41, True, 50)
    told = heard.told(1)
    assert told == [((now_ms - 50) % TURN_MS, 0x41, True)]  # and not 400 ms later, when the message was taken
    heard.key(0x41, False, 20)
    assert heard.told(2)[1] == ((now_ms + 400 - 20) % TURN_MS, 0x41, False)
    heard.stop()
    assert event_clock(heard.server) == "win32"


def test_keys_that_wait_together_keep_their_own_times(windows):
    heard = Heard(windows, KEYBOARD)
    gate = threading.Event()
    windows._queues[heard.thread.ident].put((lambda *_: gate.wait(5) and 0, 0, 0, Point()))
    for n in range(5):
        heard.key(0x41 + n, True, 500 - 100 * n)
    gate.set()
    assert heard.told(5) == [(5_000_000 - 500 + 100 * n, 0x41 + n, True) for n in range(5)]
    heard.stop()


def test_a_message_that_a_full_queue_refused_does_not_give_its_time_to_the_next(windows):
    heard = Heard(windows, KEYBOARD)
    windows.full = True
    heard.key(0x41, True, 300)
    heard.key(0x42, True, 200)
    until(lambda: len(heard.listener._posted) == 2)
    assert heard.listener._posted.maxlen == 10_000  # as many as the thread's queue
    windows.full = False
    heard.key(0x43, True, 100)
    assert heard.told(1) == [(5_000_000 - 100, 0x43, True)]
    heard.stop()


def test_messages_that_nobody_posted_have_the_time_of_the_call(windows):
    heard = Heard(windows, KEYBOARD)
    windows.full = True
    heard.key(0x41, True, 300)
    until(lambda: len(heard.listener._posted) == 1)
    windows.full = False
    windows._post(heard.thread.ident or 0, heard.listener._WM_PROCESS, KEY_DOWN, 0x42)
    assert heard.told(1) == [(5_000_000, 0x42, True)]
    heard.stop()


def test_an_event_whose_time_cannot_be_read_does_not_get_that_of_the_one_before(windows, monkeypatch):
    heard = Heard(windows, MOUSE)
    heard.mouse(MOVED, 100)
    heard.told(1)
    monkeypatch.setattr(_win32, "event_ms", None)
    windows.tick_ms += 50
    heard.mouse(MOVED, 20)
    assert [t for t, *_ in heard.told(2)] == [4_999_900, 5_000_050]
    heard.stop()


@pytest.mark.parametrize("late_ms", [10_001, -10_001, 2**31, 5_000_000])
@pytest.mark.parametrize("hook", [MOUSE, KEYBOARD])
def test_a_time_that_cannot_be_true_is_that_of_the_call(windows, hook, late_ms):
    heard = Heard(windows, hook)
    heard.mouse(MOVED, late_ms) if hook == MOUSE else heard.key(0x41, True, late_ms)
    assert heard.told(1)[0][0] == 5_000_000
    heard.stop()
    assert event_clock(heard.server) == "callback"


def test_times_do_not_run_back(windows):
    """The steps of the system's clock are coarser than the monotonic one's."""
    heard = Heard(windows, MOUSE)
    for late_ms in (5, 16, 0, -3):
        heard.mouse(MOVED, late_ms)
    assert [t for t, *_ in heard.told(4)] == [4_999_995, 4_999_995, 5_000_000, 5_000_000]
    heard.stop()


@pytest.mark.parametrize("missing", ["GetTickCount", "time"])
def test_without_a_clock_events_have_the_time_of_the_call(windows, monkeypatch, missing):
    def fails(*_: Any) -> int:
        raise AttributeError(missing)

    heard = Heard(windows, MOUSE)
    if missing == "time":
        monkeypatch.setattr(_win32, "event_ms", fails)
    else:
        windows.windll.kernel32.GetTickCount = fails
    heard.mouse(MOVED, 250)
    assert heard.told(1) == [(5_000_000, "move", 3, 4)]
    heard.stop()
    assert event_clock(heard.server) == "callback"


def test_what_is_not_an_event_is_not_read(windows, monkeypatch):
    read: list[int] = []
    event_ms = _win32.event_ms

    def reading(hook: int, at: int) -> int:
        read.append(hook)
        return event_ms(hook, at)

    monkeypatch.setattr(_win32, "event_ms", reading)
    heard = Heard(windows, KEYBOARD)
    heard.key(0x41, True, 250, code=-1)
    heard.key(0x42, True, 100)
    assert heard.told(1) == [(5_000_000 - 100, 0x42, True)]
    assert read == [KEYBOARD]
    heard.stop()


@pytest.mark.parametrize("part", _win32._PARTS)
def test_a_pynput_without_a_private_part_is_left_alone(part):
    parts = {name: None for name in _win32._PARTS if name != part}
    bare = type("Listener", (), {**parts, "_EVENTS": MOUSE})
    assert _win32.timed(bare, ServerClock(lambda: 1)) is None
    assert _win32.timed(type("Listener", (), dict.fromkeys(_win32._PARTS)), ServerClock(lambda: 1)) is None


def test_a_pynput_that_has_changed_is_heard_with_the_time_of_the_call(windows, monkeypatch, caplog):
    import pynput.mouse

    monkeypatch.setattr(pynput.mouse.Listener, "_EVENTS", 99)
    heard = Heard.__new__(Heard)
    heard.events, heard.server = [], ServerClock(windows.now_ns)
    ready: list[bool] = []
    listener = pointer_listener(
        {"on_move": lambda x, y, _: heard._tell("move", x, y)}, lambda: ready.append(True), heard.server
    )
    listener._mark_ready()
    assert ready == [True]
    data = MouseStruct(Point(3, 4), 0, 0, 4_999_000)
    listener._handler(0, MOVED, ctypes.addressof(data))
    assert heard.events == [(5_000_000, "move", 3, 4)]
    assert event_clock(heard.server) == "callback"
    assert "pynput has changed" in caplog.text


def test_moves_cannot_be_left_out_and_that_is_said(windows, caplog):
    heard = Heard(windows, MOUSE, motion=False)
    assert "cannot be left out" in caplog.text
    assert not narrow(heard.listener, True)
    heard.mouse(MOVED, 0)
    assert heard.told(1)
    heard.stop()


def test_the_structures_are_read_where_the_documents_have_the_time():
    assert MouseStruct.time.offset == _win32._TIME_AT[MOUSE]
    assert KeyStruct.time.offset == _win32._TIME_AT[KEYBOARD]
    mouse, key = MouseStruct(time=0xFEDCBA98), KeyStruct(time=0x89ABCDEF)
    assert _win32.event_ms(MOUSE, ctypes.addressof(mouse)) == 0xFEDCBA98
    assert _win32.event_ms(KEYBOARD, ctypes.addressof(key)) == 0x89ABCDEF


@pytest.mark.parametrize("start_ms", [5_000_000, TURN_MS - 3_000])
@pytest.mark.parametrize(
    ("unheard_ms", "ago_ms", "told"),
    [
        (0, 60_000, False),  # nobody is there
        (5_000, 60_000, False),
        (5_001, 60_000, True),
        (5_001, 999, False),  # it may be on its way
        (5_001, 1_000, True),
        (3_600_000, 1_000, True),
        (-40, 60_000, False),
    ],
)
def test_input_that_neither_hook_heard_is_told(windows, start_ms, unheard_ms, ago_ms, told):
    windows.tick_ms = start_ms
    both = Heard(windows, MOUSE), Heard(windows, KEYBOARD)
    windows.tick_ms += 20_000
    both[0].mouse(MOVED, 0)
    both[0].told(1)
    windows.input_ms = windows.tick_ms + unheard_ms
    windows.tick_ms = windows.input_ms + ago_ms
    for heard in both:
        found = trouble(heard.listener)
        assert (found is not None and "Windows had input that was not heard" in found[0]) is told
    windows.input_ms = windows.tick_ms
    both[1].key(0x41, True, 0)
    both[1].told(1)
    windows.tick_ms += 60_000
    assert trouble(both[0].listener) is None  # it is heard again
    for heard in both:
        heard.stop()


def test_a_hook_alone_is_not_blamed_for_input_that_is_not_its_own(windows):
    for hook in (MOUSE, KEYBOARD):
        heard = Heard(windows, hook)
        windows.input_ms += 60_000
        windows.tick_ms = windows.input_ms + 2_000
        assert trouble(heard.listener) is None
        heard.stop()


def test_a_system_that_does_not_say_is_no_trouble(windows, monkeypatch):
    both = Heard(windows, MOUSE), Heard(windows, KEYBOARD)
    windows.windll.user32.GetLastInputInfo = lambda *_: 0
    assert trouble(both[0].listener) is None
    for heard in both:
        heard.stop()


def test_a_hook_that_is_refused_is_told(windows):
    windows.refuses = True
    heard = Heard(windows, MOUSE)
    until(lambda: trouble(heard.listener))
    message, step = trouble(heard.listener) or ("", "")
    assert "does not let this program see input" in message
    assert step
    heard.stop()
    assert trouble(heard.listener) is None
