"""A D-Bus client for a thread that mostly sleeps: jeepney reads and writes the messages, the socket is ours.

Each wait has a deadline and ends when `wake` can be read, so a frozen bus holds nobody. What comes in is
bounded by the bus, which takes no message above its own limit (32 MiB on a system bus as a rule).
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any


class Stopped(Exception):
    """`wake` became readable: the thread is to end."""


class Refused(Exception):
    """The answer to a call is an error; the message is its name."""


class Bus:
    """One connection to the `SYSTEM` or `SESSION` bus, for one thread at a time.

    Everything that asks raises `Refused` for an error in answer, `Stopped`, TimeoutError when no answer comes by
    the deadline, OSError when the bus is gone, and whatever jeepney raises for nonsense. The constructor also raises
    what jeepney does for an address that is not there or cannot be used. No service is started by being asked.
    """

    def __init__(self, name: str, wake: socket.socket, timeout_s: float) -> None:
        from jeepney.auth import BEGIN, Authenticator
        from jeepney.bus import get_bus
        from jeepney.low_level import Parser

        address = get_bus(name)
        self._wake, self._serial, self._parser = wake, 0, Parser()
        self._signals: list[Any] = []
        self._replies: list[Any] = []
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.setblocking(False)
            self.allow(timeout_s)
            try:
                self._socket.connect(address)
            except BlockingIOError:  # its queue is full
                raise TimeoutError("the bus takes no connection") from None
            authenticator = Authenticator()
            for line in authenticator:
                self._socket.sendall(line)
                self._wait()
                authenticator.feed(self._receive())
            self._socket.sendall(BEGIN)
            self.ask("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def allow(self, seconds: float) -> None:
        """From now on this much time for all answers together."""
        self._deadline_s = time.monotonic() + seconds

    def ask(
        self, service: str, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> Any:
        """Call a method; its results as a tuple."""
        from jeepney import DBusAddress, HeaderFields, MessageFlag, MessageType, new_method_call

        address = DBusAddress(path, bus_name=service, interface=interface)
        message = new_method_call(address, member, signature or None, arguments)
        message.header.flags |= MessageFlag.no_auto_start
        self._serial += 1
        self._socket.sendall(message.serialise(self._serial))
        while True:
            for reply in self._replies:
                if reply.header.fields.get(HeaderFields.reply_serial) == self._serial:
                    self._replies.clear()
                    if reply.header.message_type is MessageType.error:
                        raise Refused(reply.header.fields.get(HeaderFields.error_name, ""))
                    return reply.body
            self._replies.clear()
            self._wait()
            self.read()

    def watch(self, sender: str, path: str, interface: str, member: str, argument: str = "") -> str:
        """Hear signals of this kind and no others (with `argument` as their first); the rule, for `unwatch`."""
        rule = f"type='signal',sender='{sender}',path='{path}',interface='{interface}',member='{member}'"
        if argument:
            rule += f",arg0='{argument}'"
        self._rule("AddMatch", rule)
        return rule

    def watch_owner(self, service: str) -> None:
        """Hear when `service` comes or goes."""
        bus = "org.freedesktop.DBus"
        self.watch(bus, "/org/freedesktop/DBus", bus, "NameOwnerChanged", service)

    def unwatch(self, rule: str) -> None:
        self._rule("RemoveMatch", rule)

    def _rule(self, member: str, rule: str) -> None:
        self.ask("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member, "s", rule)

    def signals(self) -> list[tuple[str, str, tuple[Any, ...]]]:
        """Interface, member and body of each signal since the last call, in order; also of those that came
        while an answer was waited for."""
        from jeepney import HeaderFields

        taken, self._signals = self._signals, []
        return [
            (m.header.fields.get(HeaderFields.interface, ""), m.header.fields[HeaderFields.member], m.body)
            for m in taken
            if HeaderFields.member in m.header.fields
        ]

    def close(self) -> None:
        self._socket.close()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(max(0.0, self._deadline_s - time.monotonic()) * 1000)]
        if self._wake.fileno() in ready:
            raise Stopped
        if not ready:
            raise TimeoutError("the bus does not answer")

    def read(self) -> None:
        """Takes in what has come. Waits for nothing."""
        from jeepney import MessageType

        for message in self._parser.feed(self._receive()):
            kind = message.header.message_type
            if kind is MessageType.signal:
                self._signals.append(message)
            elif kind in (MessageType.method_return, MessageType.error):
                self._replies.append(message)

    def _receive(self) -> bytes:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the bus closed the connection")
        return data
