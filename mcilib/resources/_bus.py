"""A D-Bus client for a thread that mostly sleeps: jeepney reads and writes the messages, the socket is ours.

Each wait has a deadline and ends when `wake`, if given, can be read, so a frozen bus holds nobody. What comes in is
bounded by the bus, which takes no message above its own limit (32 MiB on a system bus as a rule).
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any, NamedTuple


class Signal(NamedTuple):
    interface: str
    member: str
    body: tuple[Any, ...]


class Answer(NamedTuple):
    """To a call by `post`."""

    serial: int
    body: tuple[Any, ...] | None
    """None: an error."""


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

    def __init__(self, name: str, wake: socket.socket | None, timeout_s: float) -> None:
        from jeepney.auth import BEGIN, Authenticator
        from jeepney.bus import get_bus
        from jeepney.low_level import Parser

        address = get_bus(name)
        self._wake, self._serial, self._parser = wake, 0, Parser()
        self._news: list[Signal | Answer] = []
        self._posted: set[int] = set()
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
                self.wait()
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
        from jeepney import HeaderFields, MessageType

        serial = self._send(service, path, interface, member, signature, arguments)
        while True:
            for reply in self._replies:
                if reply.header.fields.get(HeaderFields.reply_serial) == serial:
                    self._replies.clear()
                    if reply.header.message_type is MessageType.error:
                        raise Refused(reply.header.fields.get(HeaderFields.error_name, ""))
                    return reply.body
            self._replies.clear()
            self.wait()
            self.read()

    def post(
        self, service: str, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> int:
        """Call a method and wait for nothing; the serial of the `Answer` that may come."""
        serial = self._send(service, path, interface, member, signature, arguments)
        self._posted.add(serial)
        return serial

    def _send(
        self, service: str, path: str, interface: str, member: str, signature: str, body: tuple[Any, ...]
    ) -> int:
        from jeepney import DBusAddress, MessageFlag, new_method_call

        address = DBusAddress(path, bus_name=service, interface=interface)
        message = new_method_call(address, member, signature or None, body)
        message.header.flags |= MessageFlag.no_auto_start
        self._serial += 1
        self._socket.sendall(message.serialise(self._serial))
        return self._serial

    def watch(self, sender: str, path: str, interface: str, member: str, argument: str = "") -> str:
        """Hear signals of this kind and no others (with `argument` as their first; of any path when that is ""); the
        rule, for `unwatch`."""
        rule = f"type='signal',sender='{sender}',interface='{interface}',member='{member}'"
        if path:
            rule += f",path='{path}'"
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

    def news(self) -> list[Signal | Answer]:
        """Signals, and answers to what was posted, since the last call, in order; also those that came while an
        answer was waited for."""
        taken, self._news = self._news, []
        return taken

    def signals(self) -> list[Signal]:
        """The same for those who post nothing."""
        return [one for one in self.news() if isinstance(one, Signal)]

    def close(self) -> None:
        self._socket.close()

    def wait(self) -> None:
        """Until there is something to read."""
        poll = select.poll()
        if self._wake is not None:
            poll.register(self._wake, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(max(0.0, self._deadline_s - time.monotonic()) * 1000)]
        if self._wake is not None and self._wake.fileno() in ready:
            raise Stopped
        if not ready:
            raise TimeoutError("the bus does not answer")

    def read(self) -> None:
        """Takes in what has come. Waits for nothing."""
        from jeepney import HeaderFields, MessageType

        for message in self._parser.feed(self._receive()):
            kind, fields = message.header.message_type, message.header.fields
            if kind is MessageType.signal:
                if HeaderFields.member in fields:
                    interface = fields.get(HeaderFields.interface, "")
                    self._news.append(Signal(interface, fields[HeaderFields.member], message.body))
            elif kind in (MessageType.method_return, MessageType.error):
                serial = fields.get(HeaderFields.reply_serial, 0)
                if serial in self._posted:
                    self._posted.remove(serial)
                    body = message.body if kind is MessageType.method_return else None
                    self._news.append(Answer(serial, body))
                else:
                    self._replies.append(message)

    def _receive(self) -> bytes:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the bus closed the connection")
        return data
