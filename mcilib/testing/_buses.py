"""A D-Bus daemon of one's own, and stand-ins for system services that speak real D-Bus from other processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"
"""The system's own Python: python-dbusmock and its dependencies come from the system's packages."""

MOCK = "org.freedesktop.DBus.Mock"

_PATIENCE_S = 10.0
"""A daemon is there after 10 ms, a stand-in after 0.2 s; both took a second on a loaded machine."""


def dbusmock_is_here() -> bool:
    try:
        return subprocess.run([PYTHON, "-c", "import dbusmock, gi"], capture_output=True).returncode == 0
    except OSError:
        return False


class BusDaemon:
    """A dbus-daemon of the test's own at `path`; may be frozen, moved and ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = f"unix:path={path}"
        self._children: list[subprocess.Popen[bytes]] = []
        command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={self.address}"]
        self._daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _until(self._listens, "the bus")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def stop(self) -> None:
        for child in (self._daemon, *self._children):  # the bus first, so that it has no time for goodbyes
            child.kill()
            child.wait()
        self._children.clear()
        self.path.unlink(missing_ok=True)

    def move(self, path: Path) -> None:
        """From now on it is reached at `path`."""
        self.path = self.path.rename(path)

    def freeze(self) -> None:
        os.kill(self._daemon.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._daemon.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        return self._daemon.pid

    def run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a stand-in (python-dbusmock's arguments); returns when it has its name on the bus."""
        return self.serve(name, [PYTHON, "-m", "dbusmock", *arguments])

    def serve(
        self, name: str, command: list[str], environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        """Starts a service; returns when it has its name on the bus. It ends with `stop`."""
        environment = {
            **os.environ,
            **environment,
            "DBUS_SYSTEM_BUS_ADDRESS": self.address,
            "DBUS_SESSION_BUS_ADDRESS": self.address,
        }
        null = subprocess.DEVNULL
        child = subprocess.Popen(command, env=environment, stdin=null, stdout=null, stderr=null)
        self._children.append(child)
        _until(lambda: self.has(name), name)
        return child

    def has(self, name: str) -> bool:
        """Whether somebody has this name."""
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        return bool(self.call(*bus, "NameHasOwner", "s", name)[0])

    def call(
        self, service: str, path: str, interface: str, member: str, signature: str = "", *body: Any
    ) -> Any:
        """The answer, over a connection of its own."""
        from jeepney import DBusAddress, MessageType, new_method_call
        from jeepney.io.blocking import DBusConnection, prep_socket

        with DBusConnection(prep_socket(str(self.path))) as connection:
            address = DBusAddress(path, bus_name=service, interface=interface)
            message = new_method_call(address, member, signature or None, body)
            answer = connection.send_and_get_reply(message, timeout=10)
        assert answer.header.message_type is not MessageType.error, answer
        return answer.body

    def send(self, service: str, path: str, interface: str, member: str) -> None:
        """A call whose answer nobody waits for."""
        from jeepney import DBusAddress, message_bus, new_method_call
        from jeepney.io.blocking import DBusConnection, prep_socket

        with DBusConnection(prep_socket(str(self.path))) as connection:
            connection.send(new_method_call(DBusAddress(path, bus_name=service, interface=interface), member))
            connection.send_and_get_reply(message_bus.ListNames(), timeout=10)  # the bus has it


def _until(done: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s, f"{what} is not there after {_PATIENCE_S} s"
        time.sleep(0.005)
