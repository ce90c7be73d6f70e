"""X RECORD, read late and in bulk: a sleep between reads costs no event and no time, since each carries the server's.

A listener of pynput wakes for every event and takes it apart field by field. This reads what has piled up in the
socket, some 20 times a second while there is input and never without, and takes it apart in one go.
The replies are those of the RECORD extension (https://www.x.org/releases/X11R7.7/doc/recordproto/record.html,
section 4, "Record_Enable_Context"), their data are core events of 32 bytes.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from mcilib.sources._x11 import ServerClock, check_display, connect, ignore_errors
from mcilib.sources._xkeys import Key, Keymap, read_keymap

_log = logging.getLogger("mcilib")

KEY_PRESS, KEY_RELEASE, BUTTON_PRESS, BUTTON_RELEASE, MOTION = 2, 3, 4, 5, 6

OnRecord: TypeAlias = Callable[[int, int, int, int, int, int], None]
"""(type, keycode or button, monotonic ns, x, y, state: modifiers and buttons)"""

_REPLY = struct.Struct("=BBHIBBHII12x")
_EVENT = struct.Struct("=BB2xI12xhh4xH2x")
_FROM_SERVER, _START, _END = 0, 4, 5
_MAPPING_NOTIFY, _KEYBOARD, _MODIFIERS = 34, 1, -1
_READ_BYTES = 256 * 1024


class XRecordListener:
    """Takes the place of a listener of pynput in `ListenerLoop`: `run` in one thread, the rest from any.

    The constructor raises `DisplayError` where no input can be heard, and may hang with a display that hangs.
    Tells `on_record` each event, in order; between two reads it sleeps `read_interval_s()` seconds. `on_heard` is
    called when input is heard; `server` learns whether its clock is ours: if not, it does not sleep, since then the
    time of reading has to do. With `keys`, changes of the keyboard mapping are told to it, also while nothing is typed.
    """

    def __init__(
        self,
        events: tuple[int, int],
        on_record: OnRecord,
        on_heard: Callable[[], None],
        server: ServerClock,
        read_interval_s: Callable[[], float],
        keys: KeyReader | None = None,
    ) -> None:
        check_display()
        self._events, self._on_record, self._on_heard = events, on_record, on_heard
        self._server, self._read_interval_s, self._keys = server, read_interval_s, keys
        self._display_stop: Any = None  # these three as pynput has them: `_pynput.end_listener` and others
        self._display_record: Any = None
        self._context: Any = None
        self._rest = b""
        self._woken, self._waker = socket.socketpair()

    def hurry(self) -> None:
        """No more sleep. Any thread."""
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def run(self) -> None:
        """Returns when the context was disabled. Raises when the connection is lost."""
        with self._woken, self._waker:
            self._run()

    def _run(self) -> None:
        control = self._display_stop = connect()
        ignore_errors(control)
        data = self._display_record = connect()
        if self._keys is not None:
            self._keys.begin()
        self._context = data.record_create_context(0, [3], [self._range()])  # 3: all clients, also later ones
        data.sync()
        opcode = data.query_extension("RECORD").major_opcode
        sock = data.display.socket
        sock.setblocking(True)
        sock.sendall(struct.pack("=BBHI", opcode, 5, 2, self._context))
        sock.setblocking(False)
        poll, nap = select.poll(), select.poll()
        poll.register(sock, select.POLLIN)
        nap.register(self._woken, select.POLLIN)
        if self._keys is not None:  # a new mapping ends the nap, so that few keys are read with a doubt
            poll.register(control.display.socket, select.POLLIN)
            nap.register(control.display.socket, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if sock.fileno() not in ready:
                if self._keys is not None:  # nothing unread: all that comes is typed with the new mapping
                    self._keys.changed(control)
                continue
            try:
                chunk = sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                raise ConnectionError("the X server closed the connection")
            if self._take(chunk, control):
                return
            interval_s = self._read_interval_s() if self._server.shared else 0.0
            if interval_s > 0 and len(chunk) < _READ_BYTES:
                nap.poll(interval_s * 1e3)

    def deliver(self, events: tuple[int, int]) -> None:
        """From now on these, by their first and last type; those between are not lost."""
        self._events = events
        if self._context is not None:
            self._display_stop.record_register_clients(self._context, 0, [3], [self._range()])
            self._display_stop.flush()

    def _range(self) -> dict[str, Any]:
        none = (0, 0)
        return {
            "core_requests": none,
            "core_replies": none,
            "ext_requests": (0, 0, 0, 0),
            "ext_replies": (0, 0, 0, 0),
            "delivered_events": none,
            "device_events": self._events,
            "errors": none,
            "client_started": False,
            "client_died": False,
        }

    def _take(self, chunk: bytes, control: Any) -> bool:
        """Tells the records of all replies that are complete. True at the end of data."""
        records: list[tuple[int, ...]] = []
        ended = False
        for category, server_ms, body in self._replies(self._rest + chunk):
            if category == _FROM_SERVER:
                records += _EVENT.iter_unpack(body)
            elif category == _START:
                self._server.compare(server_ms)
                self._on_heard()
            elif category == _END:
                ended = True
        if records:
            if self._keys is not None:
                self._keys.changed(control, unread=True)
            self._tell(records)
        return ended

    def _tell(self, records: list[tuple[int, ...]]) -> None:
        now_ns, at, tell = self._server.now_ns(), self._server.at, self._on_record
        for kind, detail, event_ms, x, y, state in records:
            try:
                tell(kind, detail, at(event_ms, now_ns), x, y, state)
            except Exception:
                _log.exception("mcilib: an event could not be read and was dropped")

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


class KeyReader:
    """Which key a keycode is, for events that are read late. For the listener's thread.

    A keycode that was mapped anew between its event and the read may have meant either: it reads as no known key,
    unless it is the same in both mappings and nothing stood between them.
    """

    def __init__(self) -> None:
        self._keymap: Keymap | None = None
        self._before: Keymap | None = None
        self._mapped: Counter[int] = Counter()
        """How often each keycode was mapped anew while what is read now was typed; under `_MODIFIERS` the modifiers."""

    def begin(self) -> None:
        self._keymap = read_keymap()
        self._mapped.clear()

    def changed(self, control: Any, *, unread: bool = False) -> None:
        """Takes what the server has told `control` about its mapping; `unread`: events wait that may be older."""
        mapped: Counter[int] = Counter()
        while control.pending_events():
            event = control.next_event()
            if event.type != _MAPPING_NOTIFY:
                continue
            first, count = event.first_keycode, event.count
            mapped.update(range(first, first + count) if event.request == _KEYBOARD else [_MODIFIERS])
        if mapped:
            self._before, self._keymap = self._keymap, read_keymap()
        self._mapped = mapped if unread else Counter()

    def look_up(self, keycode: int, state: int) -> Key:
        """For the events read since `changed`."""
        if self._keymap is None:
            raise RuntimeError("begin() comes first")
        key = self._keymap.look_up(keycode, state)
        times = max(self._mapped[keycode], self._mapped[_MODIFIERS])
        if times > 1 or (times and self._before is not None and self._before.look_up(keycode, state) != key):
            return Key(None, None, key.ctrl, key.alt, key.shift, key.cmd, key.level3)
        return key
