"""Keeps a listener running: brings a lost one back, notices a frozen display, tells both as gaps."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from mcilib import limits
from mcilib.clock import Clock
from mcilib.errors import DisplayError, SourceError
from mcilib.sources._pynput import close_listener, drain_listener, end_listener, trouble
from mcilib.sources._x11 import close, connect, on_x11, one_line, shut
from mcilib.statistics import Health, Problem

_log = logging.getLogger("mcilib")

MakeListener: TypeAlias = Callable[[Callable[[], None]], Any]
"""Given what to call when input is heard, an unstarted pynput listener."""
OnGap: TypeAlias = Callable[[int, int], None]
"""(monotonic ns, duration ns) of a time in which nothing could be heard."""

_FREEZE_NS = int(limits.FREEZE_S * 1e9)


class ListenerLoop:
    """Runs a pynput listener in a thread of its own until stopped; a lost one comes back, its gap is told to `on_gap`.

    `make` builds the listener and may raise; `name` is the source's. `touched` must be called with the time
    of each event: it keeps the watch for a frozen display awake. Methods may be called from any thread.
    """

    def __init__(self, name: str, make: MakeListener, on_gap: OnGap, clock: Clock) -> None:
        self._name, self._make, self._on_gap, self._clock = name, make, on_gap, clock
        self._decided = threading.Event()  # input is heard, or cannot be, or nobody wants it any more
        self._stopping = threading.Event()
        self._was_heard = False
        self._listener: Any = None
        self._failure: SourceError | None = None
        self._lost_ns: int | None = None
        self._tries = 0
        self._watch = _FreezeWatch(name, on_gap, clock, self._stopping) if on_x11() else None
        self._thread = threading.Thread(target=self._run, name=f"mcilib-{name}", daemon=True)

    def start(self) -> None:
        """Returns when input is heard, or `stop` was called. Raises `SourceError` within 5 s otherwise."""
        self._thread.start()
        self._decided.wait(limits.SOURCE_START_TIMEOUT_S)
        if self._stopping.is_set():
            return
        failure = self._failure
        if failure is None and not self._decided.is_set():
            failure = DisplayError(
                f"The display {os.environ.get('DISPLAY', '')} does not answer",
                "Check it with `mcilib doctor`.",
            )
        if failure is not None:
            self.stop()
            raise failure
        if self._watch is not None:
            self._watch.start()

    def stop(self) -> None:
        now_ns = self._clock.monotonic_ns()
        stopped_before = self._stopping.is_set()
        self._stopping.set()
        self._decided.set()
        if self._was_heard and self._lost_ns is None:
            drain_listener(self._listener)  # what the system has seen and not yet handed over
            self._thread.join(limits.SOURCE_DRAIN_S)
        if self._watch is not None:
            self._watch.stop()
        deadline_ns = now_ns + int(limits.SOURCE_STOP_TIMEOUT_S * 1e9)
        while self._thread.is_alive() and self._clock.monotonic_ns() < deadline_ns:
            end_listener(self._listener)
            self._thread.join(0.02)
        blind_ns = self._blind_since(now_ns)
        if blind_ns is not None and not stopped_before:
            self._on_gap(blind_ns, now_ns - blind_ns)

    def touched(self, t_ns: int) -> None:
        if self._watch is not None:
            self._watch.touched(t_ns)

    def health(self, name: str) -> Health:
        if self._stopping.is_set():
            return Health()
        if self._lost_ns is not None or not self._thread.is_alive():
            message = f"The display was lost; trying to hear it again ({self._tries} attempts so far)"
            step = "Nothing to do if it comes back; see `mcilib doctor`."
            return Health((Problem(name, message, step),))
        if self._blind_since(self._clock.monotonic_ns()) is not None:
            message = "The display does not answer; nothing is heard until it does"
            return Health((Problem(name, message, "Wait, or see `mcilib doctor`."),))
        found = trouble(self._listener)
        return Health((Problem(name, *found),)) if found is not None else Health()

    def threads(self) -> list[threading.Thread]:
        return [self._thread, *([self._watch.thread] if self._watch is not None else [])]

    def blind_for(self) -> tuple[int, int] | None:
        """The gap so far, as `on_gap` is told it, while the display is lost or frozen."""
        now_ns = self._clock.monotonic_ns()
        blind_ns = self._blind_since(now_ns)
        return None if blind_ns is None else (blind_ns, now_ns - blind_ns)

    def _blind_since(self, now_ns: int) -> int | None:
        """The last sign of life, while the display is lost or frozen."""
        if not self._was_heard:
            return None
        if self._lost_ns is not None:
            return self._lost_ns
        return self._watch.silent_since(now_ns) if self._watch is not None else None

    def _run(self) -> None:
        wait_s = limits.RECONNECT_FIRST_S
        while not self._stopping.is_set():
            error: Exception | None = None
            try:
                self._listener = self._make(self._on_heard)
                if self._watch is not None and self._lost_ns is None:
                    self._watch.connect()
                self._listener.run()
            except Exception as caught:  # pynput and Xlib raise almost anything when a display goes away
                error = caught
            finally:
                close_listener(self._listener)
            if self._stopping.is_set():
                return
            if not self._was_heard:
                self._failure = _failure(error)
                self._decided.set()
                return
            now_ns = self._clock.monotonic_ns()
            if self._lost_ns is None:
                blind_ns = self._blind_since(now_ns)  # it may have been frozen before it died
                self._tries, wait_s = 0, limits.RECONNECT_FIRST_S
                self._lost_ns = now_ns if blind_ns is None else blind_ns
                _log.warning("mcilib: %s lost the display, trying to hear it again", self._name)
            self._tries += 1
            given_up = now_ns - self._lost_ns > limits.RECONNECT_GIVE_UP_S * 1e9
            self._stopping.wait(limits.RECONNECT_IDLE_S if given_up else wait_s)
            wait_s = min(wait_s * 2, limits.RECONNECT_CAP_S)

    def _on_heard(self) -> None:
        if self._stopping.is_set():  # a display that hung through start() or stop() and answers now
            end_listener(self._listener)
            return
        if self._lost_ns is not None:
            if self._watch is not None:
                self._watch.connect()
            now_ns = self._clock.monotonic_ns()
            self._on_gap(self._lost_ns, now_ns - self._lost_ns)
            self._lost_ns = None
        self._was_heard = True
        self._decided.set()


class _FreezeWatch:
    """Finds out that an X server froze, by asking it for a reply while there is input.

    A frozen server says nothing and closes nothing. One thread, asleep while no input has come for `WATCH_WINDOW_S`;
    while it comes, that is sign enough, and nothing is asked. A reply later than `FREEZE_S`, with no events meanwhile,
    is a gap that begins at the last sign of life.
    """

    def __init__(self, name: str, on_gap: OnGap, clock: Clock, stopping: threading.Event) -> None:
        self._name, self._on_gap, self._clock, self._stopping = name, on_gap, clock, stopping
        self._active = threading.Event()
        self._event_ns = 0  # when the last event came
        self._alive_ns = 0  # when the server last replied
        self._asked_ns = 0  # when it was asked, while it has not replied; else 0
        self._silence_ns = (0, 0)  # the last long silence between two events
        self._display: Any = None
        self.thread = threading.Thread(target=self._run, name=f"mcilib-{name}-watch", daemon=True)

    def connect(self) -> None:
        """Opens the connection to ask over, again after a loss. May raise or hang as `connect` does."""
        close(self._display)
        self._display = connect()
        if self._stopping.is_set():  # `stop` has closed the one before
            close(self._display)
        self._asked_ns, self._alive_ns = 0, self._clock.monotonic_ns()

    def start(self) -> None:
        self._event_ns = self._clock.monotonic_ns()
        self._active.set()
        self.thread.start()

    def stop(self) -> None:
        self._active.set()
        shut(self._display)
        if self.thread.ident is not None:
            self.thread.join(limits.SOURCE_STOP_TIMEOUT_S / 2)
        close(self._display)

    def silent_since(self, now_ns: int) -> int | None:
        """The last sign of life of a server that has owed a reply for too long; None when all is well."""
        if not self._asked_ns or now_ns - self._asked_ns <= _FREEZE_NS:
            return None
        last_ns = max(self._alive_ns, self._event_ns)
        return last_ns if now_ns - last_ns > _FREEZE_NS else None

    def touched(self, t_ns: int) -> None:
        if t_ns - self._event_ns > _FREEZE_NS:
            self._silence_ns = (self._event_ns, t_ns)
            self._active.set()
        self._event_ns = t_ns

    def _run(self) -> None:
        while True:
            self._active.wait()
            asked_ns = self._asked_ns = self._clock.monotonic_ns()
            answered = self._ask()
            now_ns = self._clock.monotonic_ns()
            if self._stopping.is_set():
                return
            if answered:
                if now_ns - asked_ns > _FREEZE_NS:
                    self._emit_silence(min(self._alive_ns, asked_ns), asked_ns, now_ns)
                self._asked_ns, self._alive_ns = 0, now_ns
            if now_ns - self._event_ns > limits.WATCH_WINDOW_S * 1e9:
                self._active.clear()
            elif not self._wait_for_silence():
                return

    def _wait_for_silence(self) -> bool:
        """Until nothing has come for `WATCH_INTERVAL_S`, and so long at least; False: to be stopped."""
        wait_s = limits.WATCH_INTERVAL_S
        while wait_s > 0:
            if self._stopping.wait(wait_s):
                return False
            wait_s = limits.WATCH_INTERVAL_S - (self._clock.monotonic_ns() - self._event_ns) / 1e9
        return True

    def _ask(self) -> bool:
        """True when the server replied; False when the connection is gone, which the loop notices and counts."""
        try:
            self._display.sync()
        except Exception:
            return False
        return True

    def _emit_silence(self, alive_ns: int, asked_ns: int, now_ns: int) -> None:
        """The server replied late. What came meanwhile decides whether, and since when, nothing was seen."""
        last_ns, next_ns = self._silence_ns
        if self._event_ns < asked_ns:  # nothing came at all
            last_ns, next_ns = self._event_ns, now_ns
        elif next_ns < asked_ns:  # events came all the while
            return
        start_ns = max(alive_ns, last_ns)
        self._on_gap(start_ns, next_ns - start_ns)
        _log.warning("mcilib: the display froze for %.1f s (%s)", (now_ns - asked_ns) / 1e9, self._name)


def _failure(error: Exception | None) -> SourceError:
    if isinstance(error, SourceError):
        return error
    cause = one_line(error) if error is not None else "it ended at once"
    return DisplayError(f"Input cannot be heard ({cause})", "See what is missing with `mcilib doctor`.")
