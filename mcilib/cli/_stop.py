"""The wish to end, from SIGINT, SIGTERM or a closed terminal. Signal handlers belong to the command line."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Generic, Self, TypeVar

ALL_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")

T = TypeVar("T")


class StopSignal:
    """While entered, signals do not interrupt anything but end a `wait`. Only for the main thread.

    Afterwards they are ignored: what was asked for is done, and the process is about to end.

    A socket pair carries the wish, since `threading.Event.set` in a signal handler can lock up with a `wait`
    in the same thread, and `select` can wait for sockets on every system. It is the wake-up descriptor too: a
    signal that another thread gets, or that comes just before the `select`, does not interrupt it.
    """

    def __init__(self, signals: Sequence[str] = ALL_SIGNALS) -> None:
        self.requested = False
        self._signals = signals
        self._numbers: list[int] = []
        self._woken_before = -1
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)

    def __enter__(self) -> Self:
        for name in self._signals:
            number = getattr(signal, name, None)
            # A terminal that closes under nohup is to be ignored. SIGINT is heard even where a shell's `&` has
            # made it ignored: it is the promised way to end this.
            nohup = name == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            if number is not None and not nohup:
                signal.signal(number, self._on_signal)
                self._numbers.append(number)
        self._woken_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._woken_before)
        self._reading.close()
        self._writing.close()

    def wait(self, timeout_s: float | None) -> bool:
        """True as soon as the end is asked for; False after `timeout_s` or a `wake`."""
        if not self.requested:
            timeout_s = None if timeout_s is None else max(0.0, timeout_s)
            if select.select([self._reading], [], [], timeout_s)[0]:
                with contextlib.suppress(BlockingIOError):
                    self._reading.recv(64)
        return self.requested

    def wake(self) -> None:
        """Ends a `wait`. Any thread."""
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: nobody waits
            self._writing.send(b"\0")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.wake()

    def call(self, work: Callable[[], T], timeout_s: float | None = None) -> Call[T]:
        """Runs `work` in a thread of its own until it ends, the end is asked for, or the time is over."""
        call = Call(work, self.wake)
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not call.done and not self.requested:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
        return call


class Call(Generic[T]):
    """Work in a daemon thread: one that hangs does not keep the process alive."""

    def __init__(self, work: Callable[[], T], on_done: Callable[[], None]) -> None:
        self._work, self._on_done = work, on_done
        self._value: T | None = None
        self._error: BaseException | None = None
        self.done = False
        self._thread = threading.Thread(target=self._run, name="mcilib-cli", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for it after all; True when it is done."""
        self._thread.join(timeout_s)
        return self.done

    def result(self) -> T | None:
        """What it returned, or None when it is not done. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._value if self.done else None

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
        self.done = True
        self._on_done()
