"""X servers: is there one, can input be heard on it, is it alive. The connections are python-xlib's."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from mcilib.errors import DisplayError

_MS = 1_000_000
_SAME_CLOCK_MS = 1_000
"""Clocks of two machines differ by their boot times, hours as a rule; a reply takes milliseconds."""


def on_x11() -> bool:
    """True where pynput speaks X11 (neither Windows nor macOS)."""
    return sys.platform not in ("win32", "darwin")


def connect(name: str | None = None) -> Any:
    """A new connection (`Xlib.display.Display`) to `name`, or to what `DISPLAY` names. May hang.

    python-xlib keeps the event numbers of extensions in one table for all connections, and trips over it when
    a later server numbers them otherwise (an X server that came back as another one): each begins afresh.
    """
    from Xlib.display import Display
    from Xlib.protocol import display as protocol
    from Xlib.protocol import event

    protocol.Display.event_classes = {**event.event_class}
    return Display(name)


class ServerClock:
    """An X server's event times on the monotonic clock of this machine. For the listener's thread.

    X servers stamp events with the low 32 bits of CLOCK_MONOTONIC in milliseconds (`GetTimeInMillis` in the
    X.Org server), which is what `time.monotonic_ns` reads. `compare` finds out whether this server does: one on
    another machine does not, and then the time at which the listener was called has to do.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self._stamp_ns = 0
        self.shared = False

    def compare(self, server_ms: int) -> None:
        """`server_ms` is the server's time now."""
        self.shared = abs(self._late_ms(server_ms, self.now_ns())) <= _SAME_CLOCK_MS

    def stamp(self, event_ms: int) -> None:
        """The event that is told next carries this time."""
        self._stamp_ns = self.at(event_ms, self.now_ns())

    def at(self, event_ms: int, now_ns: int) -> int:
        """The time of an event that carries this time and is read now."""
        late_ms = self._late_ms(event_ms, now_ns)
        usable = self.shared and late_ms >= -_SAME_CLOCK_MS
        return (now_ns // _MS - late_ms) * _MS if usable else now_ns

    def event_ns(self) -> int:
        """The time of the event that is being told; now, where no server stamps events."""
        return self._stamp_ns or self.now_ns()

    @staticmethod
    def _late_ms(server_ms: int, now_ns: int) -> int:
        """Milliseconds from a server time to now, the nearest way round the 32-bit clock (49.7 days)."""
        return (now_ns // _MS - server_ms + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000


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
