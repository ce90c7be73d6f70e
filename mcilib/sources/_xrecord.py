"""X RECORD, read late and in bulk: a sleep between reads costs no event and no time, since each carries the server's.

A listener of pynput wakes for every event and takes it apart field by field. This reads what has piled up in the
socket, some 10 times a second while there is input and never without, and takes it apart in one go.
The replies are those of the RECORD extension (https://www.x.org/releases/X11R7.7/doc/recordproto/record.html,
section 4, "Record_Enable_Context"), their data are core events of 32 bytes.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Protocol, TypeAlias

from mcilib.events import Event
from mcilib.sources._x11 import ServerClock, check_display, close, connect, ignore_errors, shut

_log = logging.getLogger("mcilib")

KEY_PRESS, KEY_RELEASE, BUTTON_PRESS, BUTTON_RELEASE, MOTION = 2, 3, 4, 5, 6

PROPERTY_NOTIFY, PROPERTY_CHANGES = 28, 1 << 22
"""Of the root window all parts ask for these and no other, since the last one to ask is heard."""

ALL_CLIENTS = 3
"""Also those that come later."""

_REPLY = struct.Struct("=BBHIBBHII12x")
_EVENT = struct.Struct("=BB2xI12xhh4xH2x")
_FROM_SERVER, _START, _END = 0, 4, 5
_NOTHING = (0, 0)
_READ_BYTES = 256 * 1024
"""More than a socket holds: one read takes all that is older than a notice that is read next."""
_PROMPT_NAPS = 10
"""So many naps in a row may be ended by what the server tells of windows and keyboard, as when somebody goes through
the windows: each is looked at while it is in use."""
# A reply with one event in it, which nearly all are: its head, to be compared, and its event.
_ONE, _EVENT_OF_ONE = struct.Struct("=BB2xI56x"), struct.Struct("=32xBB2xI12xhh4xH2x")
_ONE_EVENT = (1, _FROM_SERVER, 8)

Told: TypeAlias = "list[Event]"
_Read: TypeAlias = "Callable[[int, int, int, int, int, int], Event | Told | None]"


class Part(Protocol):
    """What one source wants of an X server. Its methods are called in the reader's thread, `_wanted` in any."""

    name: str

    @property
    def read_interval_s(self) -> float: ...

    def _wanted(self) -> Sequence[tuple[int, int]]:
        """Ranges of device events, by their first and last type."""

    def _begin(self, control: Any, out: Told) -> None:
        """There is a connection, for the first time or again: asks `control` for notices, tells how things are.
        May raise: then the source cannot be started."""

    def _take_notices(self, notices: Sequence[Any], unread: bool, out: Told) -> int | None:
        """The events that came for `control`, of all parts; once more, with none, before what is read next. `unread`:
        some input that is read now is older. Returns when (monotonic ns) to be called again though none came."""

    def _read(self, kind: int, detail: int, t_ns: int, x: int, y: int, state: int) -> Event | Told | None:
        """What to tell of a device event; `detail` is its keycode or button, `state` what was held before it."""


class XRecordListener:
    """Takes the place of a listener of pynput in `ListenerLoop`: `run` in one thread, the rest from any.

    The constructor raises `DisplayError` where no input can be heard, and may hang with a display that hangs.
    Gives `tell` what its `parts` make of what came, in the order of time; between two reads it sleeps as long as the
    least patient of them allows. `on_heard` is called when input is heard, before the first `tell`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        tell: Callable[[Told], None],
        on_heard: Callable[[], None],
        server: ServerClock,
    ) -> None:
        check_display()
        self._parts, self._tell, self._on_heard, self._server = tuple(parts), tell, on_heard, server
        self._control: Any = None  # of the thread in `run` alone: two that ask python-xlib can wait for ever
        self._display_record: Any = None  # as pynput has it: `_pynput.end_listener` and others
        self._context: Any = None
        self._rest = b""
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._readers: dict[int, _Read] = {}
        self._nap_ms = 0.0
        self._roused_ns = 0
        self._asked = False  # so that notices may lie in python-xlib's queue and none in the socket
        self._due_ns: int | None = None
        self._woken, self._waker = socket.socketpair()
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._closed = False
        self._is_ending = False  # the end of data comes at once: nobody sleeps over it

    def hurry(self) -> None:
        """Ends `run` in order, once all that the server has heard is read. Any thread."""
        self.call(self._disable)

    def abandon(self) -> None:
        """Ends a question to a server that does not answer. Any thread."""
        shut(self._control)

    def _disable(self) -> None:
        self._is_ending = True
        self._control.record_disable_context(self._context)
        self._control.flush()

    def call(self, action: Callable[[], None]) -> threading.Event:
        """Has `action` done by the reader's thread, after it has read what the server sent so far; not at all when
        `run` has ended. The event is set in either case."""
        done = threading.Event()
        self._calls.put((action, done))
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        if self._closed:
            self._answer_calls()
        return done

    def run(self) -> None:
        """Returns when the context was disabled. Raises when the connection is lost."""
        try:
            with self._woken, self._waker:
                self._run()
        finally:
            self._closed = True
            close(self._control)
            self._answer_calls()

    def forget(self, parts: Sequence[Part]) -> None:
        """From now on only these are told anything. Any thread."""
        self._parts = tuple(parts)
        self._arrange()

    def hasten(self) -> None:
        """How long the parts let it sleep has changed. Any thread."""
        self._nap_ms = 1e3 * min((part.read_interval_s for part in self._parts), default=0.0)

    def _run(self) -> None:
        control = self._control = connect()
        ignore_errors(control)
        data = self._display_record = connect()
        self._context = data.record_create_context(0, [ALL_CLIENTS], self._arrange())
        data.sync()
        opcode = data.query_extension("RECORD").major_opcode
        sock, control_sock, woken = data.display.socket, control.display.socket, self._woken
        sock.setblocking(True)
        sock.sendall(struct.pack("=BBHI", opcode, 5, 2, self._context))
        sock.setblocking(False)
        poll, aside = _poll(sock, control_sock, woken), _poll(control_sock, woken)
        # What the server tells of its keyboard and windows ends a nap, so that it is looked at while it is so; but
        # not for long, so that a window that goes on changing does not keep this awake.
        nap, deep_nap = aside, _poll(woken)
        while True:
            chunk = self._receive(sock)
            # After the input was read: what is older than a notice is read with it.
            more, beside = len(chunk) == _READ_BYTES, aside.poll(0)
            if not (chunk or beside or self._asked) and poll.poll(self._patience_ms()):
                continue
            notices = (
                [control.next_event() for _ in range(control.pending_events())]
                if beside or self._asked
                else []
            )
            ended = self._take(chunk, notices)
            chunk[:] = bytes(len(chunk))  # which keys it were does not stay here until the next read
            if ended:
                return
            if called := not more and any(fd == woken.fileno() for fd, _ in beside):
                woken.recv(4096)
                self._answer_calls()
                self._asked = True
            if (chunk or notices) and not (called or more or self._is_ending):
                (nap if self._may_be_roused(bool(notices)) else deep_nap).poll(self._nap_ms)

    def _may_be_roused(self, again: bool) -> bool:
        """Whether notices may end the next nap; `again`: they have just done so."""
        now_ns, nap_ns = self._server.now_ns(), int(self._nap_ms * 1e6)
        if again:  # each is paid for with the time of a nap
            self._roused_ns = max(self._roused_ns, now_ns) + nap_ns
        return self._roused_ns - now_ns <= _PROMPT_NAPS * nap_ns

    def _receive(self, sock: socket.socket) -> memoryview:
        """What is there; nothing when there is nothing."""
        try:
            size = sock.recv_into(self._buffer)
        except BlockingIOError:
            return self._buffer[:0]
        if not size:
            raise ConnectionError("the X server closed the connection")
        return self._buffer[:size]

    def _answer_calls(self) -> None:
        with contextlib.suppress(queue.Empty):
            for _ in range(self._calls.qsize()):  # of those that come meanwhile each is after another read
                action, done = self._calls.get_nowait()
                try:
                    if not self._closed:
                        action()
                finally:
                    done.set()

    def _patience_ms(self) -> float | None:
        return None if self._due_ns is None else max(0.0, (self._due_ns - self._server.now_ns()) / 1e6)

    def fetch(self) -> None:
        """Has the server send what RECORD holds back in its buffer of 1 KB, as it does with any answer; to be read
        next. In the reader's thread."""
        self._control.sync()
        self._control.sync()

    def attend(self, parts: Sequence[Part]) -> None:
        """From now on to these. In the reader's thread; raises what `_begin` of a new one does."""
        out: Told = []
        for part in parts:
            if part not in self._parts:
                part._begin(self._control, out)
        self._parts = tuple(parts)
        self.deliver()
        self._control.sync()  # what comes from now on is heard
        self._tell(out)

    def dismiss(self, part: Part) -> None:
        """It is told nothing from now on, and the server sends nothing for it. In the reader's thread."""
        self.forget([other for other in self._parts if other is not part])
        self.deliver()
        self._control.sync()

    def deliver(self) -> None:
        """Asks the server for what the parts want now; what was wanted before and still is, is not lost."""
        if self._context is not None:
            self._control.record_register_clients(self._context, 0, [ALL_CLIENTS], self._arrange())
            self._control.flush()

    def _arrange(self) -> list[dict[str, Any]]:
        """Who reads what; the ranges to ask for."""
        self.hasten()
        wanted = [(part, events) for part in self._parts for events in part._wanted()]
        self._readers = {
            kind: part._read for part, (first, last) in wanted for kind in range(first, last + 1)
        }
        return [event_range(events) for _, events in wanted] or [event_range(_NOTHING)]

    def _take(self, chunk: memoryview, notices: Sequence[Any]) -> bool:
        """Tells what is complete. True at the end of data."""
        out: Told = []
        noticed: Told = []
        is_due = self._due_ns is not None and self._server.now_ns() >= self._due_ns
        again, self._asked = self._asked, bool(notices) or is_due
        records, ended = self._records(chunk, out) if chunk else ((), False)
        if notices or again or is_due:
            dues = [part._take_notices(notices, bool(records), noticed) for part in self._parts]
            self._due_ns = min((due for due in dues if due is not None), default=None)
        begun = len(out)
        if records:
            self._read(records, out)
        if noticed or begun:
            out += noticed  # behind the input of the same millisecond, which may be why
            out.sort(key=attrgetter("t_ns"))
        if out:
            self._tell(out)
        return ended

    def _records(self, chunk: memoryview, out: Told) -> tuple[list[tuple[int, ...]], bool]:
        """The events of all replies that are complete, and whether it was the end of data."""
        if not (self._rest or len(chunk) % _ONE.size) and set(_ONE.iter_unpack(chunk)) == {_ONE_EVENT}:
            return list(_EVENT_OF_ONE.iter_unpack(chunk)), False
        records: list[tuple[int, ...]] = []
        ended = False
        for category, server_ms, body in self._replies(self._rest + bytes(chunk)):
            if category == _FROM_SERVER:
                records += _EVENT.iter_unpack(body)
            elif category == _START:
                self._server.compare(server_ms)
                self._asked = True
                for part in self._parts:
                    part._begin(self._control, out)
                self._on_heard()
            elif category == _END:
                ended = True
        return records, ended

    def _read(self, records: Sequence[tuple[int, ...]], out: Told) -> None:
        now_ns, readers = self._server.now_ns(), self._readers
        self._server.hear(records[-1][2], now_ns)
        times_ns = self._server.times([record[2] for record in records], now_ns)
        for (kind, detail, _, x, y, state), t_ns in zip(records, times_ns, strict=True):
            read = readers.get(kind)
            if read is None:  # no longer wanted
                continue
            try:
                event = read(kind, detail, t_ns, x, y, state)
            except Exception as error:  # without its words, which may say what was typed
                _log.error("mcilib: an event could not be read and was dropped (%s)", type(error).__name__)
                continue
            if isinstance(event, list):
                out += event
            elif event is not None:
                out.append(event)

    def _replies(self, buffer: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(category, server time, data); what is incomplete is kept."""
        at, size = 0, len(buffer)
        while size - at >= _REPLY.size:
            kind, category, _, length, _, _, _, _, server_ms = _REPLY.unpack_from(buffer, at)
            if kind == 0:
                raise ConnectionError(f"the X server refuses RECORD (error {category})")
            end = at + _REPLY.size + (4 * length if kind == 1 else 0)
            if end > size:
                break
            if kind == 1:
                yield category, server_ms, buffer[at + _REPLY.size : end]
            at = end  # else an event for this client, such as MappingNotify
        self._rest = buffer[at:]


def _poll(*files: socket.socket) -> select.poll:
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return poll


def event_range(events: tuple[int, int]) -> dict[str, Any]:
    """Of RECORD: these device events, by their first and last type, and nothing else."""
    return {
        "core_requests": _NOTHING,
        "core_replies": _NOTHING,
        "ext_requests": (0, 0, 0, 0),
        "ext_replies": (0, 0, 0, 0),
        "delivered_events": _NOTHING,
        "device_events": events,
        "errors": _NOTHING,
        "client_started": False,
        "client_died": False,
    }
