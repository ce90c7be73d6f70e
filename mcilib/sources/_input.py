"""What the pointer and the keyboard share: which backend hears the input, and what is done to each event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.errors import ConfigError
from mcilib.events import Event, Gap
from mcilib.protocols import EventSink
from mcilib.sources._listening import ListenerLoop
from mcilib.sources._pynput import event_clock
from mcilib.sources._x11 import ServerClock, on_x11
from mcilib.sources._xreader import XSource
from mcilib.statistics import Health

AUTO_ON_X11 = "xrecord"
"""What `backend="auto"` takes there."""


class InputSource(XSource):
    """Hears input with one of two backends: `xrecord`, as an `XSource` does, or a listener of pynput."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        backend: str = "auto",
        read_interval_s: float = limits.READ_INTERVAL_S,
    ) -> None:
        super().__init__(clock, read_interval_s=read_interval_s)
        self._backend = _backend(backend)
        self._server = ServerClock(self._clock.monotonic_ns)  # of pynput's events
        self._now_ns = self._server.event_ns
        self._loop: ListenerLoop | None = None
        self._sink: EventSink | None = None

    @property
    def backend(self) -> str:
        """What it hears with: `xrecord` or `pynput`."""
        return self._backend

    @property
    def clock(self) -> str:
        """Whose times its events have: `x11`, `win32`, `darwin`, or `callback` where the system gives none."""
        return "x11" if self._backend == "xrecord" else event_clock(self._server)

    def start(self, sink: EventSink) -> None:
        """Starts to listen; returns when input is heard. Raises `SourceError` within 5 s when it cannot be."""
        if self._backend == "xrecord":
            super().start(sink)
            return
        self._sink = sink
        self._loop = ListenerLoop(self.name, self._make_listener, self._emit_gap, self._clock)
        self._loop.start()

    def stop(self) -> None:
        """Takes what the system has seen so far and ends within 0.5 s; nothing is emitted afterwards."""
        super().stop()
        if self._loop is not None:
            self._loop.stop()
        self._sink = None

    def health(self) -> Health:
        return self._loop.health(self.name) if self._loop is not None else super().health()

    def threads(self) -> list[threading.Thread]:
        """The threads whose cost is this source's, and of those that read with it."""
        return self._loop.threads() if self._loop is not None else super().threads()

    def _make_listener(self, on_heard: Callable[[], None]) -> Any:
        """Of pynput."""
        raise NotImplementedError

    def _emit(self, event: Event) -> None:
        sink, loop = self._sink, self._loop
        if sink is not None and loop is not None:
            loop.touched(event.t_ns)
            sink.emit(event)

    def _emit_gap(self, t_ns: int, duration_ns: int) -> None:
        if self._sink is not None:
            self._sink.emit(Gap(t_ns, duration_ns, self.name))


def _backend(asked: str) -> str:
    if asked not in ("auto", "xrecord", "pynput"):
        raise ConfigError(f"backend is {asked!r}", "Give auto, xrecord or pynput.")
    if asked == "xrecord" and not on_x11():
        raise ConfigError("The backend xrecord is for X11", "Give auto or pynput.")
    return (AUTO_ON_X11 if on_x11() else "pynput") if asked == "auto" else asked
