"""The real command `mcilib` in processes of its own, and batches for it to work on."""

from __future__ import annotations

import os
import pty
import select
import selectors
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from mcilib.collector import Collector
from mcilib.consent import Grant
from mcilib.delivery.spool import DirectorySpool
from mcilib.events import Event, KeyPress, Move
from mcilib.reader import Reader
from mcilib.statistics import SpoolStatistics
from mcilib.testing.fakes import FakeSource
from mcilib.testing.xvfb import VirtualDisplay

_SCRIPT = Path(sysconfig.get_path("scripts")) / "mcilib"
COMMAND = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "mcilib"]

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def run(*args: str | Path, **more: Any) -> Done:
    """Runs `mcilib ARGS` to its end. No traceback may ever show."""
    more.setdefault("stdin", subprocess.DEVNULL)
    more.setdefault("timeout", 40)
    done = subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, **more)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> str:
    """The one line of an error, which must have all `words`."""
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mcilib: ")
    for word in words:
        assert word in lines[0], (word, lines[0])
    return lines[0]


def on_terminal(*args: str, answer: str) -> tuple[int, str]:
    """Runs the command with a terminal as stdin and stdout, and types the answer when it asks."""
    master, slave = pty.openpty()
    with subprocess.Popen([*COMMAND, *args], stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen, typed = "", False
        while select.select([master], [], [], 20)[0]:
            try:
                seen += os.read(master, 4096).decode()
            except OSError:  # the other side has closed
                break
            if not typed and seen.endswith("Type yes: "):
                os.write(master, f"{answer}\n".encode())
                typed = True
        os.close(master)
    return process.returncode, seen.replace("\r\n", "\n")


class Background:
    """A command that goes on. `line` waits for a line of its output that holds some text, `error_line` for one of
    its stderr."""

    def __init__(self, *args: str | Path, prefix: Sequence[str] = (), **more: Any) -> None:
        self.process = subprocess.Popen(
            [*prefix, *COMMAND, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            **more,
        )
        self.seen = self.seen_errors = ""

    def line(self, text: str, timeout_s: float = 20) -> str:
        return self._line(self.process.stdout, text, timeout_s)

    def error_line(self, text: str, timeout_s: float = 20) -> str:
        return self._line(self.process.stderr, text, timeout_s)

    def _line(self, stream: IO[str] | None, text: str, timeout_s: float) -> str:
        assert stream is not None
        fd = stream.fileno()
        deadline_s = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline_s - time.monotonic())):
                # Byte by byte from the system: a buffer would hide lines from `select`.
                line = b""
                while not line.endswith(b"\n"):
                    byte = os.read(fd, 1)
                    if not byte:
                        break
                    line += byte
                if not line:
                    break
                if stream is self.process.stdout:
                    self.seen += line.decode()
                else:
                    self.seen_errors += line.decode()
                if text in line.decode():
                    return line.decode()
        self.process.kill()
        _, err = self.process.communicate(timeout=20)
        raise AssertionError(f"no line with {text!r} in {self.seen!r}; {self.seen_errors + err!r}")

    def end(self, number: int | None = signal.SIGTERM) -> subprocess.CompletedProcess[str]:
        """Sends a signal (None: just waits) and gives all that it printed. `seconds` is how long it took."""
        started_s = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=40)
        self.seconds = time.monotonic() - started_s
        err = self.seen_errors + err
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(COMMAND, self.process.returncode, self.seen + out, err)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


@dataclass
class Receiver:
    """A running `mcilib receive`."""

    url: str
    store: Path
    command: Background

    @property
    def batches(self) -> int:
        return len(list(self.store.rglob("*.mcib")))


EVENTS: tuple[Event, ...] = (Move(1_000, 1, 2), Move(2_000_000, 3, 4), KeyPress(3_000_000, "letter"))


def record(state: Path, batches: int = 1, events: tuple[Event, ...] = EVENTS, **more: Any) -> None:
    """Leaves `batches` batches waiting in the spool of `state`, which has a grant."""
    pointer = FakeSource()
    more = {"grant": Grant.load(state), "batch_max_age_s": 600, **more}
    first_ns = time.monotonic_ns() - batches * 10_000_000
    with Collector(sources=[pointer], state_dir=state, **more) as collector:
        for number in range(batches):
            pointer.feed(*(_at(event, first_ns + number * 10_000_000) for event in events))
            collector.flush(0)


def _at(event: Event, base_ns: int) -> Event:
    return replace(event, t_ns=base_ns + event.t_ns)


# --- real input, and what came of it ---


def input_on(display: VirtualDisplay) -> None:
    """Ten moves, a click, a key."""
    for n in range(10):
        display.move(100 + n, 100 + n)
    display.click()
    display.tap(display.keycode("a"))
    display.sync()
    time.sleep(0.1)


#: What an agent for everything of `example_grant` tells at its start.
START = {"display": 1, "layout": 1}
#: What `input_on` comes out as, with that of the one agent that heard it.
INPUT = {**START, "move": 10, "press": 1, "release": 1, "key_press": 1, "key_release": 1}


def kinds(path: Path) -> dict[str, int]:
    """Events by kind of a spool or store."""
    found: dict[str, int] = {}
    for row in Reader(path).rows():
        found[row.event.kind] = found.get(row.event.kind, 0) + 1
    return found


def spool_of(state: Path) -> SpoolStatistics:
    return DirectorySpool.read_statistics(state / "spool")


def summary(text: str) -> dict[str, str]:
    return {
        key: value.strip() for key, value in (line.split(":", 1) for line in text.splitlines() if ":" in line)
    }
