"""What macOS tells of input beyond what pynput passes on: when an event happened, and that listening was switched off.

Not yet run on hardware: tested against pynput's own macOS code on a stand-in for Quartz.

pynput creates an event tap in the thread that runs the listener. The numbers are those of CGEventTypes.h.
"""

from __future__ import annotations

import contextlib
from typing import Any

from mcilib.sources._x11 import ServerClock

MOVES = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 27
"""The mask of kCGEventMouseMoved, LeftMouseDragged, RightMouseDragged and OtherMouseDragged."""
CLICKS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 25 | 1 << 26 | 1 << 22
"""The mask of the buttons' downs and ups, and of kCGEventScrollWheel."""
TAP_DISABLED = (0xFFFF_FFFE, 0xFFFF_FFFF)
"""kCGEventTapDisabledByTimeout and kCGEventTapDisabledByUserInput: told to a tap instead of an event."""

_BELIEVED_NS = 10_000_000_000
"""Times of events are "roughly, nanoseconds since startup". On Apple silicon some have been seen in ticks of the
processor, 41.7 ns each: far from now unless the machine was started a moment ago."""
_RECENT_NS = 60_000_000_000
"""How long a tap that was switched off, and on again, is told as a problem: health is asked for once a minute or so."""


def happened_ns(event: Any, now_ns: int) -> int | None:
    """The monotonic time of an event (a `CGEventRef`) that a tap is given now; None when its own cannot be true."""
    from Quartz import CGEventGetTimestamp  # type: ignore[import-not-found, unused-ignore]

    t_ns = int(CGEventGetTimestamp(event))
    return min(t_ns, now_ns) if abs(now_ns - t_ns) <= _BELIEVED_NS else None


def narrow(listener: Any, motion: bool) -> bool:
    """Has a listener that does not run yet ask for moves or not; False when it runs, or where pynput has changed."""
    events = getattr(listener, "_EVENTS", None)
    if not isinstance(events, int) or events & CLICKS != CLICKS or getattr(listener, "_tap_asked", True):
        return False
    listener._EVENTS = events | MOVES if motion else events & ~MOVES
    return True


def timed(listener: Any, server: ServerClock) -> Any:
    """A subclass of pynput's `listener` that stamps each event before its callback and switches a tap on again that
    the system has switched off; None where pynput has changed."""
    if not all(hasattr(listener, part) for part in ("_handler", "_create_event_tap")):
        return None

    class Timed(listener):  # type: ignore[misc]
        _tap: Any = None
        _tap_asked = False
        _off_count = 0
        _off_ns = 0

        def _create_event_tap(self) -> Any:
            self._tap_asked = True
            self._tap = super()._create_event_tap()
            return self._tap

        def _handler(self, proxy: Any, event_type: int, event: Any, refcon: Any) -> Any:
            if (
                event_type & 0xFFFF_FFFF in TAP_DISABLED
            ):  # no event: pynput would take it for the release of a key
                with contextlib.suppress(Exception):
                    self._switch_on()
                return event
            t_ns = None
            with contextlib.suppress(Exception):
                t_ns = happened_ns(event, server.now_ns())
            server.stamp_ns(t_ns, "darwin")
            return super()._handler(proxy, event_type, event, refcon)

        def _switch_on(self) -> None:
            from Quartz import CGEventTapEnable

            self._off_count += 1
            self._off_ns = server.now_ns()
            CGEventTapEnable(self._tap, True)

        def _trouble(self) -> tuple[str, str] | None:
            if not self._tap_asked or not getattr(self, "_ready", True):
                return None
            if self._tap is None or not (getattr(self, "IS_TRUSTED", True) or _may_listen()):
                return (
                    "macOS does not let this program see input",
                    "Allow it in System Settings, Privacy & Security, Input Monitoring, then start again.",
                )
            from Quartz import CGEventTapIsEnabled

            if not CGEventTapIsEnabled(self._tap):
                self._switch_on()
                if not CGEventTapIsEnabled(self._tap):
                    return "macOS has switched listening off", "Start again."
            if self._off_count and server.now_ns() - self._off_ns <= _RECENT_NS:
                return (
                    f"macOS switched listening off, and it was switched on again ({self._off_count} times so far); "
                    "input in between was not seen",
                    "Nothing to do unless it goes on; then see what keeps this program from running.",
                )
            return None

    return Timed


def _may_listen() -> bool:
    """Whether Input Monitoring is allowed, which does for a tap that only listens; pynput looks at Accessibility."""
    try:
        from Quartz import CGPreflightListenEventAccess
    except ImportError:  # before macOS 10.15
        return False
    return bool(CGPreflightListenEventAccess())
