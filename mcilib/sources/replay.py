"""A recorded trace, played as if it happened now."""

from __future__ import annotations

import csv
import gzip
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from mcilib.clock import Clock, SystemClock
from mcilib.errors import TraceError
from mcilib.events import Event, KeyPress, KeyRelease, Move, Press, Release, Scroll
from mcilib.privacy import KeyDetail, key_label
from mcilib.protocols import EventSink
from mcilib.statistics import Health

_HELP = "A trace is a CSV file (or .csv.gz) with the columns t_ns,kind,x,y,button or t_ns,kind,key."
_SCROLLS = {"scroll_up": (0, 1), "scroll_down": (0, -1), "scroll_left": (-1, 0), "scroll_right": (1, 0)}
_TIME_CAP_NS = 2**62
_HELD = ("ctrl", "alt", "shift", "cmd", "alt_gr")
_HELD_MAX_NS = 2_000_000_000
"""A modifier whose release is not in the trace by then was let go unseen: real recordings miss some, and every letter
that follows would be named as a shortcut."""


class ReplaySource:
    """Plays a trace file at `speed` times its own pace, or with `speed=None` as fast as it is taken.

    The columns tell whether it is a pointer trace (`t_ns,kind,x,y,button`, scope `pointer`) or a keyboard trace
    (`t_ns,kind,key`, scope `keys`, keys kept as far as `detail` allows). Times are those of the trace, shifted
    to begin at the start and divided by the speed (not divided when `speed=None`).

    The constructor reads the header only and raises `TraceError` when it is no trace; a bad row ends the
    replay, and `health()` names its line. Promise as in `mcilib.protocols.Source`; any thread.
    """

    clock = backend = "trace"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        speed: float | None = 1.0,
        detail: KeyDetail = KeyDetail.CLASS,
        clock: Clock | None = None,
    ) -> None:
        if speed is not None and not speed > 0:
            raise TraceError(
                f"The speed of a replay cannot be {speed}", "Give a number above 0, or None for no pause."
            )
        self._path, self._speed = Path(path), speed
        self._clock: Clock = clock or SystemClock()
        try:
            with _open(self._path) as file:
                columns = file.readline().strip().split(",")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TraceError(f"The trace {self._path} cannot be opened ({reason})", _HELP) from None
        if columns[:2] != ["t_ns", "kind"] or columns[2:] not in (["x", "y", "button"], ["key"]):
            raise TraceError(f"{self._path} has no header of a trace", _HELP, 1)
        self.name = "keyboard" if columns[2:] == ["key"] else "pointer"
        self.scope = "keys" if self.name == "keyboard" else "pointer"
        self._read = _KeyRows(detail).event if self.name == "keyboard" else _pointer_event
        self._silent = self.name == "keyboard" and detail is KeyDetail.NONE
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._problem: TraceError | None = None
        self._thread: threading.Thread | None = None

    def start(self, sink: EventSink) -> None:
        self._stopping.clear()
        self._ended.clear()
        self._problem = None
        self._thread = threading.Thread(
            target=self._run, args=(sink,), name=f"mcilib-replay-{self.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Blocks until the trace has been played; False when `timeout_s` passed first."""
        return self._ended.wait(timeout_s)

    def health(self) -> Health:
        return Health.of(self.name, self._problem)

    def threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread is not None else []

    def _run(self, sink: EventSink) -> None:
        start_ns = self._clock.monotonic_ns()
        first_ns: int | None = None
        pace = self._speed or 1.0
        try:
            for t_ns, event_at in _rows(self._path, self._read):
                first_ns = t_ns if first_ns is None else first_ns
                due_ns = start_ns + int((t_ns - first_ns) / pace)
                ahead_ns = due_ns - self._clock.monotonic_ns() if self._speed is not None else 0
                if ahead_ns > 0 and self._stopping.wait(ahead_ns / 1e9):
                    return
                if self._silent:
                    continue
                while not sink.room and not self._stopping.wait(0.001):
                    pass
                if self._stopping.is_set():
                    return
                sink.emit(event_at(due_ns))
        except TraceError as error:
            self._problem = error
        finally:
            self._ended.set()


def _open(path: Path) -> TextIO:
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")


def _rows(
    path: Path, read: Callable[[list[str]], Callable[[int], Event]]
) -> Iterator[tuple[int, Callable[[int], Event]]]:
    """(time in the trace, event given its time now) for each row. Raises `TraceError` naming the line."""
    with _open(path) as file:
        rows = csv.reader(file)
        line = 1
        try:
            next(rows, None)
            for line, row in enumerate(rows, start=2):  # noqa: B007
                t_ns = int(row[0])
                if abs(t_ns) > _TIME_CAP_NS:
                    raise ValueError("a time beyond centuries")
                yield t_ns, read(row)
        except (ValueError, IndexError, KeyError, OverflowError, OSError, EOFError, csv.Error) as error:
            raise TraceError(f"{path} line {line} is not a row of a trace ({error})", _HELP, line) from None


def _pointer_event(row: list[str]) -> Callable[[int], Event]:
    kind, x, y, button = row[1], _number(row[2]), _number(row[3]), row[4]
    if kind == "move":
        return lambda t_ns: Move(t_ns, x, y)
    if kind == "press":
        return lambda t_ns: Press(t_ns, x, y, button)
    if kind == "release":
        return lambda t_ns: Release(t_ns, x, y, button)
    dx, dy = _SCROLLS[kind]
    return lambda t_ns: Scroll(t_ns, x, y, dx, dy)


class _KeyRows:
    """Keyboard rows, with the modifiers that are held."""

    def __init__(self, detail: KeyDetail) -> None:
        self._detail = detail
        self._held: dict[str, int] = {}  # since when
        self._down: dict[str, str | None] = {}

    def event(self, row: list[str]) -> Callable[[int], Event]:
        down = {"press": True, "release": False}[row[1]]
        now_ns, key = int(row[0]), row[2]
        self._held = {held: since for held, since in self._held.items() if now_ns - since <= _HELD_MAX_NS}
        if key in _HELD and down:
            self._held[key] = now_ns
        elif key in _HELD:
            self._held.pop(key, None)
        if not down:
            label = self._down.pop(key, None) or self._label(key)
            return lambda t_ns: KeyRelease(t_ns, label)
        label = self._down[key] = self._label(key)
        return lambda t_ns: KeyPress(t_ns, label)

    def _label(self, key: str) -> str | None:
        if key.startswith("symbol_"):
            key = chr(int(key.removeprefix("symbol_"), 16))
        char, name = (key, None) if len(key) == 1 else (None, key)
        held = {m: m in self._held for m in ("ctrl", "alt", "shift", "cmd")}
        return key_label(self._detail, char, name, **held, level3="alt_gr" in self._held)


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)
