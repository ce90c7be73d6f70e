"""Windows of a program, and who manages them: a window manager that the test plays itself, or openbox."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from waiting import until

from mcilib.events import Focus
from mcilib.sources._x11 import connect
from mcilib.testing.fakes import ListSink

Window: TypeAlias = Any

_SUBSTRUCTURE = 1 << 19 | 1 << 20


def focuses(sink: ListSink) -> list[Focus]:
    return [event for event in sink.events if isinstance(event, Focus)]


def apps(sink: ListSink) -> list[str | None]:
    return [focus.app for focus in focuses(sink)]


class Program:
    """One connection to the X server that `DISPLAY` names, with windows of its own."""

    def __init__(self) -> None:
        self.display = connect()
        self.root = self.display.screen().root

    def atom(self, name: str) -> int:
        return int(self.display.intern_atom(name))

    def open(
        self, app: str = "", title: str = "", *, at: tuple[int, int, int, int] = (10, 20, 300, 200)
    ) -> Window:
        """A window of the class `app` that is shown."""
        window = self.root.create_window(*at, 0, self.display.screen().root_depth)
        if app:
            self.say(window, "WM_CLASS", app.lower().encode() + b"\0" + app.encode() + b"\0")
        if title:
            self.say(window, "_NET_WM_NAME", title.encode(), kind="UTF8_STRING")
        window.map()
        self.display.sync()
        return window

    def say(self, window: Window, name: str, value: Any, *, kind: str = "STRING", bits: int = 8) -> None:
        """Sets a property."""
        window.change_property(self.atom(name), self.atom(kind), bits, value)
        self.display.sync()

    def ask_for(self, window: Window) -> None:
        """Asks the window manager to bring it into use."""
        from Xlib.protocol import event

        message = event.ClientMessage(
            window=window, client_type=self.atom("_NET_ACTIVE_WINDOW"), data=(32, [2, 0, 0, 0, 0])
        )
        self.root.send_event(message, event_mask=_SUBSTRUCTURE)
        self.display.sync()

    def close(self) -> None:
        self.display.display.socket.close()


class Manager(Program):
    """As much of a window manager as says which window is in use; the test decides."""

    def __init__(self, *, says_what_is_used: bool = True) -> None:
        super().__init__()
        self.check = self.root.create_window(-10, -10, 1, 1, 0, self.display.screen().root_depth)
        for window in (self.check, self.root):
            self.say(window, "_NET_SUPPORTING_WM_CHECK", [self.check.id], kind="WINDOW", bits=32)
        if says_what_is_used:
            self.use(None)

    def use(self, window: Window | int | None) -> tuple[int, int]:
        """This window is in use now; the time (monotonic ns) before and after."""
        number = window if isinstance(window, int) else 0 if window is None else window.id
        before_ns = time.monotonic_ns()
        self.say(self.root, "_NET_ACTIVE_WINDOW", [number], kind="WINDOW", bits=32)
        return before_ns, time.monotonic_ns()

    def retire(self) -> None:
        """Ends as a well-behaved one does."""
        for name in ("_NET_SUPPORTING_WM_CHECK", "_NET_ACTIVE_WINDOW"):
            self.root.delete_property(self.atom(name))
        self.display.sync()
        self.close()


@contextmanager
def openbox() -> Iterator[subprocess.Popen[bytes]]:
    """A real window manager, once it manages."""
    process = subprocess.Popen(
        ["openbox", "--sm-disable"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    program = Program()
    name = program.atom("_NET_SUPPORTING_WM_CHECK")

    def manages() -> bool:
        from Xlib.error import XError

        found = program.root.get_full_property(name, 0)
        if found is None:
            return False
        try:
            window = program.display.create_resource_object("window", found.value[0])
            return window.get_full_property(name, 0) is not None
        except XError:
            return False

    def listed() -> list[int]:
        found = program.root.get_full_property(program.atom("_NET_CLIENT_LIST"), 0)
        return list(found.value) if found is not None else []

    def takes_in() -> bool:
        probe.unmap()
        probe.map()
        program.display.sync()
        return probe.id in listed()

    try:
        until(manages, what="openbox manages")
        probe = program.open("Probe")  # it says that it manages before it looks after new windows
        until(takes_in, what="openbox takes in a new window")
        probe.destroy()
        program.display.sync()
        until(lambda: probe.id not in listed(), what="openbox has let it go")
        yield process
    finally:
        program.close()
        process.kill()
        process.wait()
