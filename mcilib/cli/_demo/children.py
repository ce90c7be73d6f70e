"""The demo's child processes: the receiver, and the hands on a virtual display."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcilib.errors import ConfigError, DisplayError

START_S = 30.0
"""A child that has not said that it is ready by then is ended."""

END_S = 3.0
"""The receiver and the virtual display need less; after this they are killed."""

PYTHON = [sys.executable, "-P", "-m"]
"""Children run the same code: without -P the working folder would come first."""


@contextlib.contextmanager
def start_receiver(store: Path) -> Iterator[str]:
    """`mcilib receive` on loopback, on a free port: gives its endpoint. Raises `ConfigError`."""
    child: subprocess.Popen[str] | None = None
    try:
        with _uninterrupted():
            child = _start([*PYTHON, "mcilib", "receive", str(store), "--port", "0"], stderr=subprocess.PIPE)
        line = _first_line(child)
        if "Receiving at " not in line:
            child.kill()
            raise _no_receiver(child)
        yield line.split("Receiving at ")[1].split()[0]
    finally:
        if child is not None:
            _end(child)


class Typist:
    """A virtual display and what is typed on it: see `typist.py`. A context manager. Raises `DisplayError`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.display = ""

    def __enter__(self) -> Self:
        command = [*PYTHON, "mcilib.cli._demo.typist", str(self._seconds)]
        # It ends by itself when its input is closed, also by an interrupt at any moment.
        self._child = _start(command, stdin=subprocess.PIPE)
        try:
            self.display = self._hear(_first_line(self._child))["display"]
        except BaseException:
            _end(self._child)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._child)

    def perform(self, progress: Callable[[float], None]) -> Mapping[str, int]:
        """Types and moves, and tells how much is done. What was injected, by kind."""
        with contextlib.suppress(BrokenPipeError):
            print("begin", file=self._child.stdin, flush=True)
        while "injected" not in (told := self._hear(_line(self._child))):
            progress(told["done"])
        injected: Mapping[str, int] = told["injected"]
        return injected

    def _hear(self, line: str) -> Mapping[str, Any]:
        told: Mapping[str, Any] = json.loads(line) if line else {}
        if "problem" in told:
            raise DisplayError(told["problem"], told["next_step"])
        if not told:
            raise DisplayError("The virtual display ended early", "Run `mcilib demo` again.")
        return told


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A signal that comes meanwhile interrupts afterwards: a child that is just being made is not lost."""
    came: list[int] = []
    numbers = [
        n for name in ("SIGINT", "SIGTERM", "SIGHUP") if (n := getattr(signal, name, None)) is not None
    ]
    before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if any(before[number] is not signal.SIG_IGN for number in came):
        raise KeyboardInterrupt


def _start(command: list[str], **more: Any) -> subprocess.Popen[str]:
    # In a session of its own: Ctrl-C ends the demo, and the demo ends its children.
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, **more)


def _first_line(child: subprocess.Popen[str]) -> str:
    too_late = threading.Timer(START_S, child.kill)
    too_late.daemon = True
    too_late.start()
    try:
        return _line(child)
    finally:
        too_late.cancel()


def _line(child: subprocess.Popen[str]) -> str:
    return child.stdout.readline() if child.stdout is not None else ""


def _end(child: subprocess.Popen[str]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _no_receiver(child: subprocess.Popen[str]) -> ConfigError:
    said = child.stderr.read().strip().splitlines() if child.stderr is not None else []
    line = (said[-1] if said else "it said nothing").removeprefix("mcilib: ")
    problem, _, step = line.partition(". ")
    return ConfigError(
        f"The receiver did not start: {problem}", step or "Run `mcilib receive store/` to see why."
    )
