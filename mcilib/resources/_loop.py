"""A thread that sleeps until a bus has something to say, and the connections to the buses it sleeps on."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Generic, TypeVar

from mcilib import limits
from mcilib.resources._bus import Bus, Signal, Stopped
from mcilib.statistics import Health, Problem

_log = logging.getLogger("mcilib")

T = TypeVar("T")


class Part:
    """What one bus tells, and the connection to it, made again after a loss. Used by one thread at a time."""

    bus_name: ClassVar[str]
    concern: ClassVar[str]
    """The part named in a problem."""
    loss: ClassVar[str]
    """What may be missed without the bus, in words."""

    def __init__(self) -> None:
        self.known = False
        self.bus: Bus | None = None
        self.retry_at_s: float | None = None  # monotonic; None: not to be tried
        self._pause_s = 0.0

    def open(self, wake: socket.socket, timeout_s: float) -> None:
        """Connects, watches and reads. Raises `Stopped` only."""
        try:
            self.bus = Bus(self.bus_name, wake, timeout_s)
            self.begin(self.bus)
            self.take(self.bus)
        except Stopped:
            raise
        except Exception as error:
            # At the start a bus that takes no connection is not there; one that gives no answer is.
            if self.bus is None and self.retry_at_s is None and not isinstance(error, TimeoutError):
                self.forget(f"no {self.bus_name.lower()} bus")
            else:
                self._lost(error)
        else:
            self._pause_s, self.retry_at_s = 0.0, None

    def serve(self) -> None:
        """Takes up what has come. Raises `Stopped` only."""
        if self.bus is None:
            return
        try:
            self.bus.allow(limits.BUS_ANSWER_S)
            self.bus.read()
            self.take(self.bus)
        except Stopped:
            raise
        except Exception as error:
            self._lost(error)

    @property
    def due_s(self) -> float | None:
        """When it is to be looked after although nothing came (monotonic); None: never."""
        return self.retry_at_s

    def look_after(self, wake: socket.socket) -> None:
        """It is due. Raises `Stopped` only."""
        if self.bus is None and self.retry_at_s is not None:
            self.open(wake, limits.BUS_ANSWER_S)

    def take(self, bus: Bus) -> None:
        """Takes up what has been read."""
        while signals := bus.signals():  # more may come while the answer to one is waited for
            self.hear(bus, signals)

    def _lost(self, error: Exception) -> None:
        name = f"the {self.bus_name.lower()} bus"
        if not self._pause_s:
            _log.warning("mcilib: lost %s, trying again (%s: %s)", name, type(error).__name__, error)
        self.close()
        self.forget(f"{name} is lost")
        self._pause_s = next_pause_s(self._pause_s)
        self.retry_at_s = time.monotonic() + self._pause_s

    def close(self) -> None:
        bus, self.bus = self.bus, None
        if bus is not None:
            bus.close()

    def health(self) -> Health:
        if self.retry_at_s is None:
            return Health()
        words = f"The {self.bus_name.lower()} bus is lost: {self.loss}"
        step = "It is tried again, at least once a minute; a new login makes a new bus."
        return Health((Problem(self.concern, words, step),))

    def begin(self, bus: Bus) -> None:
        """Watches first and reads then, so that no change falls between."""
        raise NotImplementedError

    def hear(self, bus: Bus, signals: list[Signal]) -> None:
        raise NotImplementedError

    def forget(self, why: str) -> None:
        """Nothing is known any more."""
        raise NotImplementedError


def next_pause_s(pause_s: float) -> float:
    """The pause before the next attempt, after one of `pause_s` (0: none yet)."""
    return min(max(2 * pause_s, limits.BUS_RETRY_FIRST_S), limits.BUS_RETRY_CAP_S)


class Loop(Generic[T]):
    """One start of a watch: its parts, their thread where there is a bus, and the `value` made of what they tell.

    A subclass says what the value is. `value` may be read from any thread, and `tell` called.
    """

    name: ClassVar[str]
    """Of the thread."""
    what: ClassVar[str]
    """What is watched, in words."""

    def __init__(self, parts: Sequence[Part], on_change: Callable[[], None], value: T) -> None:
        self.parts, self.value, self._on_change = parts, value, on_change
        self._lock, self._stopping = threading.Lock(), False
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._wake, self._waker = socket.socketpair()

    def now(self) -> T:
        """The value of what is known now."""
        raise NotImplementedError

    def start(self) -> None:
        """Reads all there is; the thread only where there is a bus."""
        try:
            for part in self.parts:
                part.open(self._wake, limits.BUS_CONNECT_S)
            self.value = self.now()
            if any(part.bus is not None or part.retry_at_s is not None for part in self.parts):
                self.thread.start()
        finally:
            if self.thread.ident is None:
                self._close()

    def stop(self) -> None:
        self._stopping = True
        with suppress(OSError):  # closed: it has ended
            self._waker.send(b"x")
        if self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join(limits.BUS_STOP_TIMEOUT_S)

    def tell(self) -> None:
        """Makes the value anew, and calls `on_change` when it is another one."""
        with self._lock:
            before, self.value = self.value, self.now()
            if self.value == before or self._stopping:
                return
        try:
            self._on_change()
        except Exception:
            _log.exception("mcilib: on_change of %s failed", self.what)

    def health(self) -> Health:
        return Health.join(part.health() for part in self.parts)

    def _run(self) -> None:
        try:
            while True:
                self._wait()
                self.tell()
        except Stopped:
            pass
        except Exception:
            _log.exception("mcilib: %s is not watched any more", self.what)
            for part in self.parts:
                part.forget("the watch has failed")
            self.tell()
        finally:
            self._close()

    def _wait(self) -> None:
        """Until a bus has something to say or a part is due; then takes it up. Raises `Stopped`."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for part in self.parts:
            if part.bus is not None:
                poll.register(part.bus, select.POLLIN)
        due = [part.due_s for part in self.parts if part.due_s is not None]
        left_s = max(0.0, min(due) - time.monotonic()) if due else None
        ready = {fd for fd, _ in poll.poll(None if left_s is None else left_s * 1000 + 1)}
        if self._wake.fileno() in ready:
            raise Stopped
        for part in self.parts:
            if part.bus is not None and part.bus.fileno() in ready:
                part.serve()
            elif part.due_s is not None and part.due_s <= time.monotonic():
                part.look_after(self._wake)

    def _close(self) -> None:
        for part in self.parts:
            part.close()
        self._wake.close()
        self._waker.close()
