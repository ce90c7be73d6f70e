"""What Windows tells of input beyond what pynput passes on: when an event happened, and when there was any at all.

Not yet run on hardware: tested against pynput's own Windows code on a stand-in for the system's functions.

pynput sets a low-level hook for the mouse and one for the keyboard, each in the thread that runs the listener. The
structure that a hook is given carries `time`, the event's GetTickCount: 32-bit milliseconds, in steps of 10 to 16
(https://learn.microsoft.com/windows/win32/api/winuser/ns-winuser-msllhookstruct and ns-winuser-kbdllhookstruct). It
says how late a hook was called, which is taken from the monotonic time of the call: exact when it is called in the same
step, and free of any guess of which clock `time.monotonic_ns` is.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

from mcilib.sources._x11 import ServerClock

MOUSE, KEYBOARD = 14, 13
"""WH_MOUSE_LL and WH_KEYBOARD_LL."""

_MS = 1_000_000
_TIME_AT = {MOUSE: 16, KEYBOARD: 12}
"""Bytes to `time` in MSLLHOOKSTRUCT and KBDLLHOOKSTRUCT, the same in 32 and 64 bits."""
_BELIEVED_MS = 10_000
"""A hook is called within a second or removed; a program that injects may write any time."""
_UNHEARD_MS = 5_000
_SETTLED_MS = 1_000
"""The longest that a hook may take (LowLevelHooksTimeout): younger input may be on its way to it."""
_POSTED = 10_000
"""Messages that a thread's queue holds."""
_PARTS = ("_run", "_handler", "_convert", "_process", "_handle_message")

_heard_ms: dict[int, int] = {}
"""By hook, GetTickCount of what it heard last, while it is set. The hooks are the process's, and so is this; each item
is set by the thread of its hook."""


def tick_ms() -> int:
    """GetTickCount now."""
    import ctypes

    return int(ctypes.windll.kernel32.GetTickCount()) & 0xFFFF_FFFF  # type: ignore[attr-defined,unused-ignore]


def last_input_ms() -> int:
    """GetTickCount of the session's last input, from any device. Raises `OSError` when Windows does not say."""
    import ctypes

    info = (ctypes.c_uint32 * 2)(8, 0)  # LASTINPUTINFO: its size, the time
    if not ctypes.windll.user32.GetLastInputInfo(ctypes.byref(info)):  # type: ignore[attr-defined,unused-ignore]
        raise OSError("GetLastInputInfo")
    return int(info[1])


def event_ms(hook: int, lpdata: int) -> int:
    """`time` of the structure at the address that this hook was given."""
    import ctypes

    return ctypes.c_uint32.from_address(lpdata + _TIME_AT[hook]).value


def happened_ns(event_ms: int, now_ms: int, now_ns: int) -> int | None:
    """The monotonic time of an event that a hook is given now, by both clocks; None when its own cannot be true."""
    late_ms = ServerClock.late_ms(event_ms, now_ms * _MS)
    return now_ns - max(late_ms, 0) * _MS if abs(late_ms) <= _BELIEVED_MS else None


def timed(listener: Any, server: ServerClock) -> Any:
    """A subclass of pynput's `listener` that stamps each event before its callback; None where pynput has changed.

    The mouse's callbacks are called in the hook. Those of the keyboard are called later, from a message that the hook
    posts to its own thread and that has no room for a time: times wait in a queue beside the thread's.
    """
    hook: int = getattr(listener, "_EVENTS", 0)
    if hook not in _TIME_AT or not all(hasattr(listener, part) for part in _PARTS):
        return None

    class Timed(listener):  # type: ignore[misc]
        _hook_ns: int | None = None

        def _run(self) -> None:
            self._posted: deque[tuple[int, int, int | None]] = deque(maxlen=_POSTED)
            with contextlib.suppress(Exception):
                _heard_ms[hook] = tick_ms()
            try:
                super()._run()
            finally:
                _heard_ms.pop(hook, None)

        def _handler(self, code: int, msg: int, lpdata: int) -> Any:
            self._hook_ns = None
            if code == 0:  # HC_ACTION: else there is no event
                with contextlib.suppress(Exception):
                    _heard_ms[hook] = now_ms = tick_ms()
                    self._hook_ns = happened_ns(event_ms(hook, lpdata), now_ms, server.now_ns())
            return super()._handler(code, msg, lpdata)

        def _handle_message(self, code: int, msg: int, lpdata: int) -> None:
            server.stamp_ns(self._hook_ns, "win32")
            super()._handle_message(code, msg, lpdata)

        def _convert(self, code: int, msg: int, lpdata: int) -> Any:
            posted = super()._convert(code, msg, lpdata)
            if posted is not None:
                self._posted.append((*posted, self._hook_ns))
            return posted

        def _process(self, wparam: int, lparam: int) -> None:
            t_ns = None
            while self._posted:  # what is passed over was refused by a full queue
                *posted, t_ns = self._posted.popleft()
                if posted == [wparam, lparam]:
                    break
                t_ns = None
            server.stamp_ns(t_ns, "win32")
            super()._process(wparam, lparam)

        def _trouble(self) -> tuple[str, str] | None:
            return trouble()

    return Timed


def trouble() -> tuple[str, str] | None:
    """What is wrong and what to do, when there was input that neither hook heard. May raise `OSError`.

    Windows removes a hook that was slow and tells nobody. It does say when the last input was, but not from which
    device: so this can only be told while both hooks are set.
    """
    heard = list(_heard_ms.values())
    if len(heard) < len(_TIME_AT):
        return None
    input_ms, now_ms = last_input_ms(), tick_ms()
    unheard_ms = min(ServerClock.late_ms(at_ms, input_ms * _MS) for at_ms in heard)
    if unheard_ms <= _UNHEARD_MS or ServerClock.late_ms(input_ms, now_ms * _MS) < _SETTLED_MS:
        return None
    return (
        "Windows had input that was not heard: it removed a hook that was slow, or a window of an administrator, the "
        "lock screen or a touch screen took it",
        "Start again if it stays while ordinary windows are used.",
    )
