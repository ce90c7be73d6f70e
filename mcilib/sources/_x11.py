"""X servers: is there one, can input be heard on it, is it alive. The connections are python-xlib's."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mcilib.errors import DisplayError

_MS = 1_000_000
_EXTENSIONS = ("RECORD", "RANDR")
_TURN_MS = 2**32
_SAME_CLOCK_MS = 1_000
"""Clocks of two machines differ by their boot times, hours as a rule; a reply takes milliseconds."""
_RECENT_NS = 10_000_000_000
"""Two such stretches are looked at: quartz drifts by some 50 ppm, so what is forgotten late costs 1 ms."""


def on_x11() -> bool:
    """True where pynput speaks X11 (neither Windows nor macOS)."""
    return sys.platform not in ("win32", "darwin")


def connect(name: str | None = None, *, whole: bool = False) -> Any:
    """A new connection (`Xlib.display.Display`) to `name`, or to what `DISPLAY` names. May hang.

    python-xlib keeps the event numbers of extensions in one table for all connections, and trips over it when
    a later server numbers them otherwise (an X server that came back as another one): each begins afresh. And it brings
    up all extensions that the server has, and a keyboard mapping, which takes megabytes: `whole`, or what is used here.
    """
    from Xlib.display import Display
    from Xlib.protocol import display as protocol
    from Xlib.protocol import event

    class Connection(Display):
        def list_extensions(self) -> list[str]:
            return [name for name in super().list_extensions() if name in _EXTENSIONS]

        def _update_keymap(self, *_: int) -> None:
            pass

    protocol.Display.event_classes = {**event.event_class}
    return Display(name) if whole else Connection(name)


class ServerClock:
    """An X server's event times on the monotonic clock of this machine. For the listener's thread.

    X servers stamp events with the low 32 bits of CLOCK_MONOTONIC in milliseconds (`GetTimeInMillis` in the
    X.Org server), which is what `time.monotonic_ns` reads. `compare` finds out whether this server does. One on
    another machine has a clock of its own: how far it is behind ours is then the least that any of its times was,
    when it came here, of late (`_RECENT_NS`), so that a drift is followed, and a late read changes nothing.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self.told = False
        """A server has said what time it is."""
        self.shared = False
        self.clock = ""
        """Whose times `stamp_ns` was given, once it was."""
        self._stamp_ns = 0
        self._behind_ms = 0
        self._least_ms: list[
            tuple[int, int]
        ] = []  # (begin, least) of this stretch of time and the one before

    def compare(self, server_ms: int) -> None:
        """`server_ms` is the server's time now; the first thing that it says."""
        now_ns = self.now_ns()
        self.told, self._least_ms, self._behind_ms = True, [], 0
        self.shared = abs(self.late_ms(server_ms, now_ns)) <= _SAME_CLOCK_MS
        self.hear(server_ms, now_ns)

    def hear(self, server_ms: int, now_ns: int) -> None:
        """A time that the server has sent, read now."""
        if self.shared:
            return
        late_ms = (now_ns // _MS - server_ms) % _TURN_MS
        least = self._least_ms = [pair for pair in self._least_ms if now_ns - pair[0] < 2 * _RECENT_NS]
        if not least or now_ns - least[-1][0] >= _RECENT_NS:
            least.append((now_ns, late_ms))
        elif _nearest(late_ms - least[-1][1]) < 0:
            least[-1] = least[-1][0], late_ms
        self._behind_ms = least[0][1] + min(_nearest(late - least[0][1]) for _, late in least)

    def stamp(self, event_ms: int) -> None:
        """The event that is told next carries this time, and was read at once."""
        now_ns = self.now_ns()
        self.hear(event_ms, now_ns)
        self._stamp_ns = self.at(event_ms, now_ns)

    def stamp_ns(self, t_ns: int | None, clock: str) -> None:
        """The event that is told next happened then, as `clock` says; None: it does not say. Never before the last."""
        if t_ns is not None:
            self.clock = clock
        self._stamp_ns = max(self._stamp_ns, self.now_ns() if t_ns is None else t_ns)

    def at(self, event_ms: int, now_ns: int) -> int:
        """The time of an event that carries this time and is read now."""
        late_ms = self.late_ms(event_ms + self._behind_ms, now_ns)
        return (now_ns // _MS - late_ms) * _MS if self.told and late_ms >= -_SAME_CLOCK_MS else now_ns

    def times(self, events_ms: Sequence[int], now_ns: int) -> list[int]:
        """The times of events that carry these, in order, and are read now: `at` for many."""
        now_ms, half = now_ns // _MS, _TURN_MS // 2
        ahead = now_ms - self._behind_ms + half
        times = [(now_ms - (ahead - ms) % _TURN_MS + half) * _MS for ms in events_ms]
        if self.told and max(times) <= now_ns + _SAME_CLOCK_MS * _MS:
            return times
        return [self.at(ms, now_ns) for ms in events_ms]

    def event_ns(self) -> int:
        """The time of the event that is being told; now, where no server stamps events."""
        return self._stamp_ns or self.now_ns()

    @staticmethod
    def late_ms(server_ms: int, now_ns: int) -> int:
        """Milliseconds from a server time to now, the nearest way round its 32 bits."""
        return _nearest(now_ns // _MS - server_ms)


def _nearest(ms: int) -> int:
    """The nearest way round a clock of 32 bits (49.7 days)."""
    return (ms + _TURN_MS // 2) % _TURN_MS - _TURN_MS // 2


def x_error() -> type[Exception]:
    """What a server's refusal is raised as: say of a question about a window that is gone."""
    from Xlib.error import XError

    return XError


def ignore_errors(display: Any) -> None:
    """python-xlib prints X errors that nobody waits for; those of a connection that is going away tell nothing."""
    display.set_error_handler(lambda *_: None)


def check_display() -> None:
    """Raises `DisplayError` unless `DISPLAY` names an X server on which input can be heard.

    pynput reads `DISPLAY` itself, so this does too. May hang with a display that hangs.
    """
    name = os.environ.get("DISPLAY", "")
    wayland = os.environ.get("WAYLAND_DISPLAY", "")
    if not name:
        if wayland:
            raise _wayland()
        raise DisplayError(
            "There is no display (DISPLAY is not set)", "Start it in a desktop session, or under `xvfb-run`."
        )
    from Xlib.error import DisplayConnectionError, DisplayNameError, XauthError

    try:
        display = connect(name)
    except (DisplayConnectionError, DisplayNameError, XauthError, OSError) as error:
        raise DisplayError(
            f"The display {name} cannot be reached ({one_line(error)})",
            "Check DISPLAY and XAUTHORITY, or `mcilib doctor`.",
        ) from None
    try:
        if _is_xwayland(display):
            raise _wayland()
        if display.query_extension("RECORD") is None:
            raise DisplayError(
                f"The X server of {name} has no RECORD extension", "Enable it in the server's configuration."
            )
    finally:
        display.close()


def _wayland() -> DisplayError:
    return DisplayError(
        "This is a Wayland session, where a program hears input of XWayland windows only",
        "Log in to an X11 session; a recording with silent holes is not started.",
    )


def _is_xwayland(display: Any) -> bool:
    """Xwayland 23.1 and newer say so with an extension, older ones by the names of their outputs."""
    if display.query_extension("XWAYLAND") is not None:
        return True
    from Xlib.ext import randr

    if display.query_extension("RANDR") is None:
        return False
    resources = randr.get_screen_resources_current(display.screen().root)
    names = (randr.get_output_info(display, output, 0).name for output in resources.outputs)
    return any(name.startswith("XWAYLAND") for name in names)


def shut(display: Any) -> None:
    """Ends all waiting on a connection, from any thread. None is ignored."""
    if display is not None:
        with contextlib.suppress(OSError, AttributeError):
            display.display.socket.shutdown(socket.SHUT_RDWR)


def close(display: Any) -> None:
    """Closes a connection, whatever state it is in. None is ignored."""
    if display is not None:
        with contextlib.suppress(Exception):
            display.display.socket.close()


def one_line(error: Exception) -> str:
    """An error's text for people, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
