"""Stand-ins for logind and a screen saver that speak real D-Bus from other processes, on buses of the tests' own.

They are python-dbusmock's templates, run by the system's own Python: nothing here runs systemd, and the
real one would lock the machine of whoever runs the tests.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from mcilib.testing._buses import MOCK, BusDaemon, dbusmock_is_here

__all__ = ["BusDaemon", "Logind", "Saver", "dbusmock_is_here"]

LOGIND = "org.freedesktop.login1"
MANAGER = "/org/freedesktop/login1"
NO_SESSION = 'raise dbus.exceptions.DBusException("none", name="org.freedesktop.login1.NoSessionForPID")'


class Logind:
    """A logind in which this user has no session yet, and processes belong to none."""

    def __init__(self, bus: BusDaemon) -> None:
        self.bus = bus
        self.user = f"{MANAGER}/user/{os.getuid()}"
        self.start()

    def start(self) -> None:
        self.process = self.bus.run(LOGIND, "--system", "--template", "logind")
        # The template lacks the one and its own of the other fails.
        self._method("GetUser", f'ret = dbus.ObjectPath("{MANAGER}/user/" + str(args[0]))')
        self._method("GetSessionByPID", NO_SESSION)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def add(self, name: str, uid: int | None = None, kind: str = "x11", active: bool = True) -> str:
        """A session; its path."""
        uid = os.getuid() if uid is None else uid
        arguments = (name, "seat0", uid, f"user{uid}", active)
        (path,) = self.bus.call(LOGIND, MANAGER, MOCK, "AddSession", "ssusb", *arguments)
        self.set(path, Type=("s", kind))
        return str(path)

    def own(self, path: str) -> None:
        """Whoever asks belongs to this session."""
        self._method("GetSessionByPID", f'ret = dbus.ObjectPath("{path}")')

    def display(self, path: str) -> None:
        """The session in which this user has the screen; `/` for none."""
        # The template's UpdateProperties takes no structures.
        code = (
            f"self._set_property('{LOGIND}.User', 'Display', dbus.Struct(('', dbus.ObjectPath('{path}'))))\n"
        )
        code += "self.EmitSignal(dbus.PROPERTIES_IFACE, 'PropertiesChanged', 'sa{sv}as', "
        code += f"['{LOGIND}.User', {{}}, ['Display']])"
        self.bus.call(LOGIND, self.user, MOCK, "AddMethod", "sssss", MOCK, "Show", "", "", code)
        self.bus.call(LOGIND, self.user, MOCK, "Show")

    def set(self, path: str, **properties: tuple[str, Any]) -> None:
        """Properties of a session, with the signal that tells of it: Active=("b", False)."""
        self._update(path, f"{LOGIND}.Session", properties)

    def lock(self, path: str, locked: bool = True) -> None:
        self.set(path, LockedHint=("b", locked))

    def activate(self, path: str, active: bool = True) -> None:
        self.set(path, Active=("b", active))

    def lock_and_freeze(self, path: str) -> None:
        """Tells of a lock and answers nothing from then on, until `thaw`."""
        code = "import os, signal\nself.EmitSignal(dbus.PROPERTIES_IFACE, 'PropertiesChanged', 'sa{sv}as', "
        code += f"['{LOGIND}.Session', {{'LockedHint': True}}, []])\nself.connection.flush()\n"
        code += f"self._set_property('{LOGIND}.Session', 'LockedHint', True)\nos.kill(os.getpid(), signal.SIGSTOP)"
        self.bus.call(LOGIND, path, MOCK, "AddMethod", "sssss", MOCK, "Freeze", "", "", code)
        self.bus.send(LOGIND, path, MOCK, "Freeze")
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def remove(self, path: str) -> None:
        self.bus.call(LOGIND, MANAGER, MOCK, "RemoveObject", "s", path)

    def _update(self, path: str, interface: str, properties: dict[str, tuple[str, Any]]) -> None:
        self.bus.call(LOGIND, path, MOCK, "UpdateProperties", "sa{sv}", interface, properties)

    def _method(self, name: str, code: str) -> None:
        arguments = (f"{LOGIND}.Manager", name, "u", "o", code)
        self.bus.call(LOGIND, MANAGER, MOCK, "AddMethod", "sssss", *arguments)


class Saver:
    """A screen saver under one of the names that desktops use."""

    def __init__(self, bus: BusDaemon, name: str, active: bool = False) -> None:
        self.bus, self.name, self.path = bus, name, "/" + name.replace(".", "/")
        self.process = bus.run(name, name, self.path, name)
        self._answer(active)

    def _answer(self, active: bool) -> None:
        self.bus.call(
            self.name,
            self.path,
            MOCK,
            "AddMethod",
            "sssss",
            self.name,
            "GetActive",
            "",
            "b",
            f"ret = {active}",
        )

    def activate(self, active: bool = True) -> None:
        self._answer(active)
        body = ("ActiveChanged", "b", [("b", active)])
        self.bus.call(self.name, self.path, MOCK, "EmitSignal", "sssav", self.name, *body)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
