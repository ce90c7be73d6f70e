"""One reader for all that the sources of a collector hear of an X server: one thread, one sleep, one connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mcilib import limits
from mcilib.clock import Clock, SystemClock
from mcilib.errors import ConfigError, DisplayError
from mcilib.events import Display, Event, Focus, Gap
from mcilib.protocols import EventSink
from mcilib.sources._listening import ListenerLoop
from mcilib.sources._x11 import ServerClock, on_x11
from mcilib.sources._xrecord import Part, Told, XRecordListener
from mcilib.statistics import Health

_log = logging.getLogger("mcilib")


class XReader:
    """Runs while one source at least is with it. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.server = ServerClock(clock.monotonic_ns)
        self._lock = threading.Lock()
        self._parts: tuple[Part, ...] = ()
        self._leaving: set[str] = set()
        self._sink: EventSink | None = None
        self._has_complained = False
        self._loop: ListenerLoop | None = None
        self._listener: XRecordListener | None = None

    def add(self, part: Part, sink: EventSink) -> None:
        """Returns when the part hears. Raises `SourceError` within 5 s when it cannot."""
        with self._lock:
            first = not self._parts
            self._parts = (*self._parts, part)
            self._leaving.discard(part.name)
            if first:
                self._sink = sink
                self._loop = ListenerLoop(part.name, self._make, self._tell_gap, self._clock)
            loop, parts = self._loop, self._parts
        if loop is None:
            return
        try:
            if first:
                loop.start()
            else:
                self._attend(part, parts, limits.SOURCE_START_TIMEOUT_S)
        except BaseException:
            self._leave((part,))
            raise

    def remove(self, part: Part) -> None:
        """Reads what the server has sent; the part is told nothing afterwards. At most 0.5 s."""
        with self._lock:
            if part not in self._parts:
                return
            self._leaving.add(part.name)
            last = all(other.name in self._leaving for other in self._parts)
            loop, listener = self._loop, self._listener
        if last and loop is not None:
            loop.stop()
            self._leave(self._parts)
        elif listener is not None:
            listener.call(listener.fetch).wait(limits.SOURCE_DRAIN_S)
            listener.call(lambda: listener.dismiss(part)).wait(limits.SOURCE_DRAIN_S)
            blind = loop.blind_for() if loop is not None else None
            if blind is not None:  # the others are told when it is over
                self._emit([Gap(*blind, part.name)])
            self._leave((part,))

    def leave_together(self, parts: Sequence[object]) -> bool:
        """True when all that are with it are among these: the first of them to be removed then ends it for all, without
        an extra way to the server and back for each."""
        with self._lock:
            if not all(part in parts for part in self._parts):
                return False
            self._leaving |= {part.name for part in self._parts}
            return True

    def _leave(self, gone: Sequence[Part]) -> None:
        with self._lock:
            self._parts = tuple(part for part in self._parts if part not in gone)
            self._leaving -= {part.name for part in gone}
            if self._listener is not None:
                self._listener.forget(self._parts)
                if not self._parts:
                    self._listener.abandon()

    def _attend(self, new: Part, parts: Sequence[Part], timeout_s: float) -> None:
        """Raises `DisplayError` when the listener cannot do so in time, and what a part raises that begins."""
        listener, outcome = self._listener, list[Exception | None]()

        def attend() -> None:
            try:
                if listener is not None:
                    listener.attend(parts)
                outcome.append(None)
            except Exception as error:
                outcome.append(error)

        if listener is not None:
            listener.call(attend).wait(timeout_s)
        if new.name in self._leaving or new not in self._parts:
            return  # it was stopped meanwhile
        if not outcome:
            raise DisplayError("The display does not answer", "Check it with `mcilib doctor`.")
        if outcome[0] is not None:
            raise outcome[0]

    def deliver(self) -> None:
        """Something else is wanted now."""
        if self._listener is not None:
            self._listener.call(self._listener.deliver)

    def hasten(self) -> None:
        """How long the parts let it sleep has changed."""
        if self._listener is not None:
            self._listener.hasten()

    def health(self, name: str) -> Health:
        return self._loop.health(name) if self._loop is not None else Health()

    def threads(self) -> list[threading.Thread]:
        return self._loop.threads() if self._loop is not None else []

    def _make(self, on_heard: Callable[[], None]) -> Any:
        listener = XRecordListener((), self._tell, on_heard, self.server)  # may hang
        with self._lock:
            if (
                threading.current_thread() in self.threads()
            ):  # else its start was given up, and it tells nobody
                self._listener = listener
                listener.forget(self._parts)
        return listener

    def _tell(self, events: Told) -> None:
        if self._loop is not None and events:
            self._loop.touched(events[0].t_ns)
            self._loop.touched(events[-1].t_ns)
            self._emit(events)

    def _emit(self, events: Told) -> None:
        try:
            if self._sink is not None:
                self._sink.emit_all(events)
        except Exception as error:  # of the host's, whose words may say what was typed
            if not self._has_complained:
                words = "mcilib: events were not taken (%s); those that were dropped are not counted"
                _log.error(words, type(error).__name__)
            self._has_complained = True

    def _tell_gap(self, t_ns: int, duration_ns: int) -> None:
        gaps: Told = [Gap(t_ns, duration_ns, part.name) for part in self._parts]
        self._emit(gaps)


_State = TypeVar("_State", Display, Focus)


def is_news(state: _State, told: _State | None) -> bool:
    """Whether it says something else than the last that was told, apart from when."""
    return told is None or replace(state, t_ns=told.t_ns) != told


class XSource:
    """A source that reads the X server which `DISPLAY` names, as a `Part` of a reader.

    Promise as in `mcilib.protocols.Source`; methods may be called from any thread, those of `Part` in the reader's.
    """

    name: str
    scope: str

    def __init__(
        self, clock: Clock | None = None, *, read_interval_s: float = limits.READ_INTERVAL_S
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._reader = XReader(self._clock)
        self.read_interval_s = read_interval_s
        self._reading = False

    @property
    def backend(self) -> str:
        """What it hears with: `x11`, the X server's own word."""
        return "x11"

    @property
    def clock(self) -> str:
        """`x11`: event times are the X server's own."""
        return "x11"

    @property
    def read_interval_s(self) -> float:
        """Seconds between two reads while there is input, 0 to 1; may be changed while it runs. No event and no time
        is lost by it. Of sources that read together the shortest holds. Of no meaning with pynput, which reads each
        event as it comes."""
        return self._read_interval_s

    @read_interval_s.setter
    def read_interval_s(self, seconds: float) -> None:
        if not 0 <= seconds <= limits.READ_INTERVAL_CAP_S:
            raise ConfigError(
                f"read_interval_s is {seconds}", f"Give seconds from 0 to {limits.READ_INTERVAL_CAP_S:g}."
            )
        self._read_interval_s = seconds
        self._reader.hasten()

    def read_with(self, other: object) -> None:
        """Reads the X server together with `other` from the next start on, into the same sink: one thread wakes, not
        two. A collector does this with its sources."""
        if isinstance(other, XSource) and not self._reading:
            self._reader = other._reader

    def start(self, sink: EventSink) -> None:
        """Starts to listen; returns when input is heard. Raises `SourceError` within 5 s when it cannot be."""
        if not on_x11():
            raise DisplayError(f"The {self.name} source reads X11 only", "Leave it out on this system.")
        self._reading = True
        try:
            self._reader.add(self, sink)
        except BaseException:
            self._reading = False
            raise

    def stop(self) -> None:
        """Takes what the system has seen so far and ends within 0.5 s; nothing is emitted afterwards."""
        if self._reading:
            self._reader.remove(self)
        self._reading = False

    def leave_with(self, sources: Sequence[object]) -> bool:
        """These are about to be stopped. True when nobody else reads with this one: then they may be stopped one after
        the other, the first takes them along."""
        return self._reading and self._reader.leave_together(sources)

    def health(self) -> Health:
        return self._reader.health(self.name) if self._reading else Health()

    def threads(self) -> list[threading.Thread]:
        """The threads whose cost is this source's, and of those that read with it."""
        return self._reader.threads()

    def _moment_ns(self) -> int:
        """Now, as an X server counts: in whole milliseconds."""
        return self._clock.monotonic_ns() // 1_000_000 * 1_000_000

    def _wanted(self) -> Sequence[tuple[int, int]]:
        return ()

    def _begin(self, control: Any, out: Told) -> None:
        pass

    def _take_notices(self, notices: Sequence[Any], unread: bool, out: Told) -> int | None:
        return None

    def _read(self, kind: int, detail: int, t_ns: int, x: int, y: int, state: int) -> Event | Told | None:
        return None
