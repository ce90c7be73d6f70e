"""The participant's bars with nothing made up: a real X server, a window manager, terminals, input by XTEST.

The whole machinery below the collector is here: sources, gate, recorder and capture; the spool is in memory.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from recording import batches, rows
from waiting import until, until_since
from xwindows import Program, openbox

from mcilib import (
    DisplaySource,
    Focus,
    KeyboardSource,
    KeyPress,
    Move,
    PointerSource,
    Recorder,
    WindowSource,
)
from mcilib.capture import Capture
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate
from mcilib.consent.focus import EDGE_NS
from mcilib.consent.pause import Now, Pause
from mcilib.sources._x11 import connect
from mcilib.testing.fakes import FakeSession, MemorySpool, example_grant
from mcilib.testing.xvfb import VirtualDisplay

EDGE_S = EDGE_NS / 1e9


class Machine:
    """All four sources on a display, reading together."""

    def __init__(self, display: VirtualDisplay, read_interval_s: float, *, backend: str = "xrecord") -> None:
        self.display = display
        every: dict[str, Any] = {"read_interval_s": read_interval_s}
        self.window = WindowSource(titles=True, **every)
        self.sources: list[Any] = [
            PointerSource(backend=backend, **every), KeyboardSource(backend=backend, **every),
            DisplaySource(**every), self.window,
        ]  # fmt: skip
        self.gate, self.spool = Gate(example_grant("keys", "pointer", "titles")), MemorySpool()
        self.recorder = Recorder(gate=self.gate, spool=self.spool, sources=self.sources)
        self.capture = Capture(self.sources, FakeSession(), self.recorder._clock, on_resume=self._tell)
        self.told = 0

    def _tell(self) -> bool:
        self.told += 1
        assert capturing() <= {"mcilib-resume"} or self.capture.held is None
        return True

    def __enter__(self) -> Machine:
        self.recorder.start()
        self.capture.begin()
        self.capture.start(self.recorder)
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.stop()
        self.recorder.stop(5)

    @property
    def now(self) -> Now:
        return Now.by(self.recorder._clock, "boot")

    def apply(self, *scopes: ExemptScope, paused: bool = False) -> None:
        exemptions = tuple(
            Exemption(f"{n}" * 32, scope, "personal", "", 1) for n, scope in enumerate(scopes, start=1)
        )
        pause = Pause(self.now, 60 * 10**9) if paused else None
        barred = self.gate.apply(self.now, state=ControlState(pause, exemptions))
        self.capture.bar(barred.all.words if barred.all is not None else None, barred.scopes)

    def opened(self) -> None:
        self.apply()
        until(lambda: self.capture.held is None and not self.capture._lacks(), what="all hears again")
        until(lambda: "mcilib-resume" not in capturing())

    def type(self, key: str, count: int = 1) -> None:
        for _ in range(count):
            self.display.tap(self.display.keycode(key))
        self.display.sync()

    def captured(self, kind: str) -> int:
        return self.recorder.statistics().captured.get(kind, 0)

    @property
    def excluded(self) -> int:
        return self.recorder.statistics().excluded

    def contexts(self) -> set[int]:
        """RECORD contexts of ours."""
        listeners = [source._reader._listener for source in self.sources]
        return {listener._context for listener in listeners if listener is not None}


def capturing() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("mcilib")} - {"mcilib-recorder"}


def has_context(context: int) -> bool:
    from Xlib.error import XError

    server = connect()
    try:
        server.record_get_context(context)
    except XError:
        return False
    except TypeError:  # python-xlib cannot read the answer; that one came says enough
        return True
    finally:
        server.close()
    return True


@contextmanager
def terminal(app: str) -> Iterator[None]:
    """An xterm of this class, and title."""
    command = ["xterm", "-class", app, "-T", f"the title of {app}", "-geometry", "40x10", "-e", "sleep", "60"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def window_of(program: Program, app: str) -> Any:
    from Xlib.error import BadWindow

    found = program.root.get_full_property(program.atom("_NET_CLIENT_LIST"), 0)
    for number in found.value if found is not None else ():
        window = program.display.create_resource_object("window", number)
        with suppress(BadWindow):  # it has gone meanwhile
            if (name := window.get_wm_class()) is not None and name[1] == app:
                return window
    return None


# --- all -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_interval_s", [0.1, 1.0])
def test_paused_no_hook_is_left_and_nothing_is_kept(xserver: VirtualDisplay, read_interval_s: float) -> None:
    with Machine(xserver, read_interval_s) as machine:
        machine.type("a")
        naps_since_s = until_since(lambda: machine.captured("key_release") == 1)
        contexts = machine.contexts()
        assert all(map(has_context, contexts))
        machine.type("b", 4)  # heard by the server, and at a read interval of 1 s by nobody else
        machine.apply(paused=True)
        is_unread = time.monotonic() - naps_since_s < read_interval_s
        assert capturing() == set()
        until(lambda: not any(map(has_context, contexts)))
        before = machine.captured("key_press"), machine.excluded
        if is_unread:
            assert before == (1, 8)
        assert before[0] * 2 + before[1] == 10, "each is kept or counted"
        machine.type("c", 4)
        xserver.move(7, 7)
        xserver.sync()
        time.sleep(0.3)
        assert (machine.captured("key_press"), machine.excluded) == before
        assert machine.told == 0
        machine.opened()
        assert machine.told == 1
        machine.type("a")
        until(lambda: machine.captured("key_release") == before[0] + 1)
        assert machine.excluded == before[1]
    made = batches(machine.spool)
    assert sum(batch.metadata.coverage.not_collected_ns for batch in made) > 0.3e9
    assert not any(isinstance(event, Move) and event.x == 7 for event in rows(machine.spool))


@pytest.mark.alone
def test_input_that_comes_meanwhile_does_not_put_the_reader_to_sleep_over_its_end(
    xserver: VirtualDisplay,
) -> None:
    """Else one pause in twenty lasts until the stop gives up waiting, half a second."""
    done, took_s = threading.Event(), list[float]()

    def move() -> None:
        n = 0
        while not done.is_set():
            n += 1
            xserver.move(100 + n % 900, 100)
            xserver.sync()

    thread = threading.Thread(target=move)
    with Machine(xserver, 1.0) as machine:
        thread.start()
        try:
            for n in range(60):
                time.sleep(0.01 * (n % 5))
                began_s = time.monotonic()
                machine.apply(paused=True)
                took_s.append(time.monotonic() - began_s)
                machine.opened()
        finally:
            done.set()
            thread.join()
    assert max(took_s) < 0.4


def test_with_pynput_too(xserver: VirtualDisplay) -> None:
    with Machine(xserver, 0.1, backend="pynput") as machine:
        machine.type("a")
        until(lambda: machine.captured("key_release") == 1)
        machine.apply(paused=True)
        assert capturing() == set()
        machine.type("c", 4)
        time.sleep(0.2)
        assert machine.captured("key_press") == 1
        machine.opened()
        machine.type("a")
        until(lambda: machine.captured("key_release") == 2)
        machine.apply(ExemptScope(scopes=("keys",)))
        assert "mcilib-keyboard" not in capturing()
        machine.type("c", 4)
        xserver.move(3, 3)
        xserver.sync()
        until(lambda: machine.captured("move"))
        assert machine.captured("key_press") == 2


# --- some ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_interval_s", [0.1, 1.0])
@pytest.mark.parametrize(
    ("scope", "kind", "other"), [("keys", "key_press", "move"), ("pointer", "move", "key_press")]
)
def test_one_scope_is_off_and_what_it_had_not_told_is_excluded(
    xserver: VirtualDisplay, read_interval_s: float, scope: str, kind: str, other: str
) -> None:
    def input_here(at: int) -> None:
        xserver.move(at, at)
        machine.type("a")

    with Machine(xserver, read_interval_s) as machine:
        input_here(100)
        naps_since_s = until_since(
            lambda: machine.captured("key_release") == 1 and machine.captured("move") >= 1
        )
        for n in range(4):
            input_here(110 + n)
        machine.apply(ExemptScope(scopes=(scope,)))
        assert machine.capture.held is None
        if time.monotonic() - naps_since_s < read_interval_s:
            assert machine.captured(kind) == 1
            assert machine.excluded == (8 if scope == "keys" else 4)
        before = machine.captured(kind), machine.excluded
        others = machine.captured(other)
        for n in range(4):
            input_here(210 + n)
        until(lambda: machine.captured(other) >= others + 4, what="the other goes on")
        assert (machine.captured(kind), machine.excluded) == before, "it is not even heard"
        machine.opened()
        assert machine.told == 1
        input_here(300)
        until(lambda: machine.captured(kind) == before[0] + 1)
    assert machine.capture.health().ok


def test_the_last_that_hears_may_be_barred_and_the_first_alone(xserver: VirtualDisplay) -> None:
    """They share a reader, which the first one to start began."""
    scopes = {"keys": "keyboard", "pointer": "pointer", "titles": "window", "apps": "window"}
    with Machine(xserver, 0.1) as machine:
        for closed in (("keys",), ("pointer",), ("apps",), ("keys", "pointer"), ("keys", "pointer", "apps")):
            machine.apply(ExemptScope(scopes=closed))
            off = {scopes[scope] for scope in closed} | ({"display"} if "pointer" in closed else set())
            assert {source.name for source in machine.sources if not source._reading} == off
            machine.opened()
            before = machine.captured("move"), machine.captured("key_press")
            xserver.move(100 + before[0], 50)
            machine.type("a")
            until(lambda b=before: machine.captured("move") > b[0] and machine.captured("key_press") > b[1])  # type: ignore[misc]


# --- programs ------------------------------------------------------------------------------------------------


@pytest.mark.needs("openbox", "xterm")
@pytest.mark.parametrize("read_interval_s", [0.1, 1.0])
def test_nothing_typed_into_a_terminal_that_is_exempt_is_kept(
    xserver: VirtualDisplay, read_interval_s: float
) -> None:
    """Letters are typed elsewhere; digits, which come out as such, into the terminal and within the edges."""
    program = Program()

    def use(app: str) -> None:
        program.ask_for(window_of(program, app))
        active, number = program.atom("_NET_ACTIVE_WINDOW"), window_of(program, app).id
        until(lambda: program.root.get_full_property(active, 0).value[0] == number, what=f"{app} is in use")

    with openbox(), terminal("Editor"), terminal("Secret"):
        until(lambda: all(window_of(program, app) for app in ("Editor", "Secret")))
        use("Editor")
        with Machine(xserver, read_interval_s) as machine:
            machine.apply(ExemptScope(apps=("secret",)))
            assert machine.capture.held is None
            time.sleep(EDGE_S + 0.1)  # it is known since the start which is in use
            for _ in range(2):
                machine.type("a", 3)
                time.sleep(EDGE_S + 0.1)
                machine.type("5")  # within the edge
                use("Secret")
                machine.type("1", 4)
                time.sleep(0.3)
                machine.type("2", 4)
                use("Editor")
                machine.type("6")  # within the edge
                time.sleep(EDGE_S + 0.1)
                machine.type("b", 2)
                time.sleep(EDGE_S + 0.1)
            time.sleep(read_interval_s + 2.2)
            assert machine.captured("key_press") == 10
            assert machine.excluded >= 2 * 20
        events = rows(machine.spool)
    program.close()
    assert [event.key for event in events if isinstance(event, KeyPress)] == ["letter"] * 10
    shown = [event for event in events if isinstance(event, Focus)]
    assert {event.app for event in shown} == {"Editor"}
    assert "Secret" not in repr(events)
    assert any(event.kind == "display" for event in events), (
        "where the displays are is told when the edge is over"
    )


@pytest.mark.needs("openbox", "xterm")
def test_exempt_while_it_runs_and_taken_back(xserver: VirtualDisplay) -> None:
    """What is typed there before it is exempt is kept, then nothing, then all; also the program's name."""
    program = Program()
    with openbox(), terminal("Secret"):
        until(lambda: window_of(program, "Secret"))
        program.ask_for(window_of(program, "Secret"))
        with Machine(xserver, 0.1) as machine:
            until(lambda: machine.captured("focus"))
            machine.type("a", 3)
            until(lambda: machine.captured("key_release") == 3)
            machine.apply(ExemptScope(apps=("secret",)))
            machine.type("1", 3)
            time.sleep(2.5)
            assert machine.captured("key_press") == 3
            machine.apply()
            time.sleep(0.05)  # what the server dates before that moment, to the millisecond, is not admitted
            machine.type("b", 3)
            until(lambda: machine.captured("key_release") == 6)
    program.close()
    assert [e.key for e in rows(machine.spool) if isinstance(e, KeyPress)] == ["letter"] * 6


@pytest.mark.needs("openbox", "xterm")
def test_titles_alone_are_exempt(xserver: VirtualDisplay) -> None:
    program = Program()
    with openbox(), terminal("Editor"), terminal("Browser"):
        until(lambda: all(window_of(program, app) for app in ("Editor", "Browser")))
        program.ask_for(window_of(program, "Editor"))
        with Machine(xserver, 0.1) as machine:
            until(lambda: machine.captured("focus"))
            before = machine.captured("focus")
            machine.apply(ExemptScope(scopes=("titles",)))
            program.ask_for(window_of(program, "Browser"))
            until(lambda: machine.captured("focus") > before)
            machine.opened()
            until(lambda: machine.window.titles)
            machine.type("a")
            until(lambda: machine.captured("key_release") == 1)
    program.close()
    told = [(event.app, event.title) for event in rows(machine.spool) if isinstance(event, Focus)]
    assert told[0] == ("Editor", "the title of Editor")
    assert ("Browser", None) in told
    assert told[-1] == ("Browser", "the title of Browser")
