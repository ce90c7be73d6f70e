"""One run of the demo: its folder, its child processes, the stations that the data passes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TextIO, TypeVar

from mcilib.cli._demo.children import Typist, start_receiver
from mcilib.cli._demo.report import Figures, commands, notes_on
from mcilib.cli._demo.stations import NOT_INJECTED, Station, differences, export, look_at_spool, read
from mcilib.cli._output import count
from mcilib.collector import Collector
from mcilib.consent import Gate, Grant
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.errors import ConfigError, DeliveryError, GrantError, StoreError
from mcilib.indicator import TerminalIndicator
from mcilib.sources._x11 import on_x11
from mcilib.sources.display import DisplaySource
from mcilib.sources.keyboard import KeyboardSource
from mcilib.sources.pointer import PointerSource

BATCH_EVENTS = 400
"""Small, so that a run of seconds makes more than one batch."""

ARRIVE_S = 3.0
"""For the last injected events on their way through the X server."""

UPLOAD_S = 20.0
BAR = 30

Number = TypeVar("Number", int, float)


def unusable_display(environ: Mapping[str, str]) -> str | None:
    """Why the display of this session cannot be used; None when it can. A process that may hang is asked."""
    if sys.platform in ("win32", "darwin"):
        return None
    if not environ.get("DISPLAY"):
        return "DISPLAY is not set"
    code = (
        "from mcilib.sources._x11 import check_display as check; from mcilib.errors import McilibError as E\n"
        "try: check()\nexcept E as e: print(e.problem)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the display {environ['DISPLAY']} does not answer"
    said = done.stdout.strip()
    return said or (None if done.returncode == 0 else "the display cannot be asked")


class Demo:
    """A context manager: whatever ends it, nothing runs on, and a folder without results is removed."""

    def __init__(self, *, keep: Path | None, words: TextIO) -> None:
        self._keep, self._words = keep, words
        self._bar = sys.stderr.isatty()
        self._stack = contextlib.ExitStack()
        self._grant: Grant | None = None

    def __enter__(self) -> Self:
        handlers = {n: signal.getsignal(n) for n in map(_number, ("SIGTERM", "SIGHUP")) if n}
        # What was ignored from the start (nohup) stays ignored.
        self._signals = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}
        for number in self._signals:
            signal.signal(number, _interrupt)
        try:
            self.folder = self._make_folder()
        except BaseException:
            self._restore_signals()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end itself takes a second at most
        try:
            self._stack.close()
            if kind is not None and self._keep is None:
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            signal.signal(signal.SIGINT, before)
            self._restore_signals()

    def show(self, seconds: float, *, virtual_because: str | None, ask: bool) -> Figures:
        """Everything. Raises `McilibError`."""
        virtual = virtual_because is not None
        self._say("mcilib demo: real input through the whole path. Nothing leaves this machine.\n")
        if virtual and virtual_because != "--virtual":
            self._say(f"A virtual display is used: {virtual_because}.\n")
        state, store = self.folder / "state", self.folder / "store"
        self._grant = grant = self._agree(ask=ask and not virtual, virtual=virtual)
        grant.save(state)
        endpoint = self._stack.enter_context(start_receiver(store))
        typist = self._stack.enter_context(Typist(seconds)) if virtual else None
        if typist is not None:
            self._stack.enter_context(_environment(DISPLAY=typist.display, WAYLAND_DISPLAY=None))
        display = os.environ.get("DISPLAY", sys.platform)

        displays = [DisplaySource()] if on_x11() else []
        collector = Collector(
            sources=[*displays, KeyboardSource(), PointerSource()],
            grant=grant, state_dir=state, batch_max_events=BATCH_EVENTS, policies=(),
            indicator=TerminalIndicator(self._words),
        )  # fmt: skip
        self._stack.callback(collector.stop)
        collector.start()
        began_s, before = time.monotonic(), collector.statistics()
        injected = self._let_type(typist, collector, seconds)
        after, took_s = collector.statistics(), time.monotonic() - began_s
        collector.stop()

        spooled, keys, size = look_at_spool(state / "spool")
        captured = collector.statistics()
        self._say("Uploading, reading back, exporting.", end="\n\n" if self._words is sys.stderr else "\n")
        _upload(state / "spool", endpoint, grant)
        stations = [Station("captured", captured.capture.captured), spooled]
        stations += [read("received", store), export(store, self.folder / "events.jsonl")]
        if injected is not None:
            stations.insert(0, Station("injected", injected))
        return Figures(
            display=display,
            virtual=virtual,
            seconds=round(took_s, 3),
            stations=stations,
            batch_bytes=size,
            cpu_s=_minus(after.cost.cpu_s, before.cost.cpu_s),
            wakeups=_minus(after.cost.wakeups, before.cost.wakeups),
            keys=keys,
            folder=str(self.folder),
            store=str(store),
            read=commands(store, self.folder),
            delete=f"rm -r {shlex.quote(str(self.folder))}",
            notes=notes_on(captured),
            differences=differences(stations),
        )

    def grant_record(self) -> dict[str, Any]:
        """The grant as it was recorded."""
        return asdict(self._grant) if self._grant is not None else {}

    # --- the parts, in order --------------------------------------------------------------------------------

    def _make_folder(self) -> Path:
        if self._keep is None:
            return Path(tempfile.mkdtemp(prefix="mcilib-demo-"))
        try:
            self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self._keep.iterdir()):
                raise ConfigError(f"{self._keep} is not empty", "Name a new or empty folder with --keep.")
        except OSError as error:
            raise StoreError(
                f"{self._keep} cannot be used ({error.strerror})", "Name another with --keep."
            ) from None
        return self._keep

    def _agree(self, *, ask: bool, virtual: bool) -> Grant:
        """The demo grant, shown in full; on a person's display, and a terminal, it takes their yes."""
        asked = ask and sys.stdin is not None and sys.stdin.isatty()
        grant = Grant.give(
            operator="mcilib demo, on this machine",
            purpose="to see the whole path work; the receiver runs on this machine too",
            scopes=("pointer", "keys"),
            given_via="terminal" if asked else "unattended",
            expires_in=timedelta(hours=1),
            retention_days=1,
        )
        self._say("The demo grant:\n\n" + _narrow(grant.describe()) + "\n")
        if not virtual:
            self._say(
                "This is your own display. What you do on it is recorded as the grant says,\nuntil the time is over."
            )
        if asked:
            self._say("Do you agree? Type yes: ", end="")
            if sys.stdin.readline().strip().lower() not in ("yes", "y"):
                raise GrantError(
                    "No grant was given",
                    "Nothing was collected. `mcilib demo --virtual` needs none of yours.",
                )
        return grant

    def _let_type(
        self, typist: Typist | None, collector: Collector, seconds: float
    ) -> Mapping[str, int] | None:
        """Until all is typed. What was injected; None on a person's own display."""
        if typist is None:
            self._say(f"\nPlease type and move, click and scroll, for {seconds:.0f} seconds.")
            until_s = time.monotonic() + seconds
            while (left_s := until_s - time.monotonic()) > 0:
                events = sum(collector.statistics().capture.captured.values()) if self._bar else 0
                self._progress(1 - left_s / seconds, f"{left_s:3.0f} s left, {count(events, 'event')}")
                time.sleep(min(left_s, 0.5))
            self._progress(1, "done")
            return None
        self._say(f"Typing and moving for {seconds:.0f} seconds on the virtual display {typist.display}.")
        injected = typist.perform(lambda done: self._progress(done, f"{done:4.0%}"))
        until_s = time.monotonic() + ARRIVE_S
        while _of_hands(collector) != injected and time.monotonic() < until_s:
            time.sleep(0.05)
        return injected

    # --- words ----------------------------------------------------------------------------------------------

    def _say(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self._words, flush=True)

    def _progress(self, done: float, text: str) -> None:
        """A bar on a terminal, nothing in a file."""
        if self._bar:
            full = round(BAR * done)
            end = "\n" if done >= 1 else ""
            print(f"\r  {'█' * full}{'░' * (BAR - full)} {text}\033[K", end=end, file=sys.stderr, flush=True)

    def _restore_signals(self) -> None:
        for number, handler in self._signals.items():
            signal.signal(number, handler)


def _of_hands(collector: Collector) -> dict[str, int]:
    """What was captured that can have been injected."""
    captured = collector.statistics().capture.captured
    return {kind: number for kind, number in captured.items() if kind not in NOT_INJECTED}


def _upload(spool: Path, endpoint: str, grant: Grant) -> None:
    """Delivers all that waits. Raises `DeliveryError` when something still does."""
    gate, transport = Gate(grant), HttpTransport(endpoint)
    try:
        with DirectorySpool(spool) as opened:
            uploader = Uploader(opened, transport, may_send=lambda: gate.closed(time.time_ns()))
            result = uploader.flush(UPLOAD_S)
            left = len(opened.waiting())
    finally:
        transport.close()
    if left:
        raise DeliveryError(f"{count(left, 'batch')} could not be uploaded: {result.detail}", "Run it again.")


# --- the process --------------------------------------------------------------------------------------------


def _narrow(text: str) -> str:
    """A grant for a terminal of 80 columns."""
    terms, policy = text.split("\nPolicy:\n")
    lines = []
    for line in terms.splitlines():
        lines += textwrap.wrap(line, 78, initial_indent="  ", subsequent_indent=" " * 18)
    words = " ".join(policy.split())
    lines += ["  Policy:", *textwrap.wrap(words, 78, initial_indent=" " * 4, subsequent_indent=" " * 4)]
    return "\n".join(lines)


def _minus(after: Number | None, before: Number | None) -> Number | None:
    return after - before if after is not None and before is not None else None


@contextlib.contextmanager
def _environment(**changes: str | None) -> Iterator[None]:
    """pynput takes the display from the environment, so for this while it names another."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _number(name: str) -> int | None:
    return getattr(signal, name, None)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
