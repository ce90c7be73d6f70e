"""The same with nothing made up: a real X server, input by XTEST, and logind's stand-in on a real bus."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buses import Logind
from costs import cost_at_rest, thread_cost
from waiting import until, until_since

from mcilib import Collector, DisplaySource, Gap, KeyboardSource, Move, PointerSource, Reader, limits
from mcilib.format.batch import Batch
from mcilib.reader.actions import Break
from mcilib.reader.timeline import Segment, timeline
from mcilib.reader.trajectory import trajectory
from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay


class Machine:
    """A collector with everything, and the session in which it runs."""

    def __init__(self, logind: Logind, folder: Path, read_interval_s: float = 0.1) -> None:
        self.logind, self.folder = logind, folder
        self.session = logind.add("7")
        logind.own(self.session)
        sources = [
            PointerSource(read_interval_s=read_interval_s),
            KeyboardSource(read_interval_s=read_interval_s),
            DisplaySource(read_interval_s=read_interval_s),
        ]
        self.collector = Collector(sources=sources, grant=example_grant(), state_dir=folder)

    def lock(self) -> None:
        self.logind.lock(self.session)
        until(lambda: self.collector.held, what="the lock")
        until(lambda: capturing() == set(), what="the ends of the threads")

    def unlock(self) -> None:
        self.logind.lock(self.session, False)
        until(lambda: not self.collector.held and not resuming(), what="the session's return")

    def captured(self, kind: str) -> int:
        return self.collector.statistics().capture.captured.get(kind, 0)

    def batches(self) -> list[Batch]:
        return [part.batch for part in timeline(Reader(self.folder / "spool")) if isinstance(part, Segment)]


def capturing() -> set[str]:
    """Threads of sources."""
    here = {"mcilib-session", "mcilib-recorder", "mcilib-uploader", "mcilib-resources", "mcilib-control"}
    return {t.name for t in threading.enumerate() if t.name.startswith("mcilib")} - here


def resuming() -> bool:
    return "mcilib-resume" in capturing()


@pytest.fixture
def machine(xserver: VirtualDisplay, logind: Logind, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(logind, tmp_path / "state")
    yield made
    made.collector.stop()


def inject(x: VirtualDisplay, at: int) -> None:
    for n in range(10):
        x.move(at + n, at)
    x.click()
    x.tap(x.keycode("a"))
    x.sync()


@pytest.mark.parametrize("how", ["locked", "switched"])
def test_nothing_of_what_is_typed_into_a_locked_screen_is_kept(
    how: str, machine: Machine, xserver: VirtualDisplay
) -> None:
    def away(is_so: bool) -> None:
        if how == "locked":
            machine.logind.lock(machine.session, is_so)
        else:
            machine.logind.activate(machine.session, not is_so)

    with machine.collector as collector:
        inject(xserver, 100)
        until(lambda: machine.captured("key_release") == 1)
        before = collector.statistics().capture.captured
        away(True)
        until(lambda: collector.held)
        began = time.monotonic()
        until(lambda: capturing() == set())
        until(lambda: len(machine.batches()) == 1)
        inject(xserver, 300)
        time.sleep(1.2)
        assert collector.statistics().capture.captured == before
        away(False)
        until(lambda: not collector.held and not resuming())
        took_s = time.monotonic() - began
        inject(xserver, 500)
        until(lambda: machine.captured("key_release") == 2)
    first, second = machine.batches()
    assert {e.x // 100 for e in first.events if isinstance(e, Move)} == {1}
    assert {e.x // 100 for e in second.events if isinstance(e, Move)} == {5}
    said = first.metadata.coverage, second.metadata.coverage
    assert said[0].not_collected_ns == 0
    assert said[1].not_collected_ns / 1e9 == pytest.approx(took_s, abs=1)
    # What input then means is said again, before there is any.
    kinds = [event.kind for event in second.events]
    assert set(kinds[:2]) == {"display", "layout"}
    [pause] = [
        i for i in trajectory(Reader(machine.folder / "spool")) if isinstance(i, Break) and i.cause == "pause"
    ]
    assert pause.duration_ns == said[1].not_collected_ns


def test_no_thread_of_capture_exists_or_wakes_while_input_comes(
    machine: Machine, xserver: VirtualDisplay
) -> None:
    with machine.collector as collector:
        inject(xserver, 100)
        until(lambda: machine.captured("key_release") == 1)
        machine.lock()
        until(lambda: collector.statistics().capture.open_events == 0)
        threads = collector.threads()
        assert {t.name for t in threads if t.is_alive()} == {
            "mcilib-control",
            "mcilib-session",
            "mcilib-resources",
            "mcilib-recorder",
        }
        before = cost_at_rest(threads)
        ends_s = time.monotonic() + 3
        while time.monotonic() < ends_s:
            inject(xserver, 300)
            time.sleep(0.05)
        after = thread_cost(threads)
        assert (after.wakeups, after.cpu_s) == (before.wakeups, before.cpu_s)


def test_what_was_typed_before_the_lock_and_not_read_is_excluded(
    xserver: VirtualDisplay, logind: Logind, tmp_path: Path
) -> None:
    machine = Machine(logind, tmp_path / "state", read_interval_s=1.0)
    with machine.collector as collector:
        inject(xserver, 100)  # is read at once; the next read comes a second later
        naps_since_s = until_since(lambda: machine.captured("key_release") == 1)
        for _ in range(5):
            xserver.tap(xserver.keycode("b"))
        xserver.sync()
        machine.lock()
        unread = time.monotonic() - naps_since_s < 1.0
        read, excluded = machine.captured("key_press") - 1, collector.statistics().capture.excluded
        assert 2 * read + excluded == 10
        assert not (unread and read)
        machine.unlock()
        inject(xserver, 500)
        until(lambda: machine.captured("key_release") == 2)
    events = [event for batch in machine.batches() for event in batch.events]
    assert sum(event.kind == "key_press" for event in events) == 2 + read
    assert sum(batch.metadata.coverage.excluded for batch in machine.batches()) == excluded


def test_locked_at_the_start_on_a_display_that_comes_only_later(
    own_xserver: VirtualDisplay, logind: Logind, tmp_path: Path
) -> None:
    machine = Machine(logind, tmp_path / "state")
    logind.lock(machine.session)
    own_xserver.kill()
    with machine.collector:
        assert machine.collector.held
        assert capturing() == set()
        own_xserver.restart()
        machine.unlock()
        inject(own_xserver, 100)
        until(lambda: machine.captured("key_release") == 1)


def test_the_display_has_died_when_the_session_is_back(
    own_xserver: VirtualDisplay, logind: Logind, tmp_path: Path
) -> None:
    machine = Machine(logind, tmp_path / "state")
    with machine.collector as collector:
        machine.lock()
        own_xserver.kill()
        began = time.monotonic()
        logind.lock(machine.session, False)
        until(lambda: not collector.health().ok)
        # While a source is just being started it tells of the display itself.
        until(lambda: [problem.part for problem in collector.health().problems] == ["capture"])
        [problem] = collector.health().problems
        assert "cannot be reached" in problem.message
        time.sleep(1)
        own_xserver.restart()
        until(lambda: collector.health().ok)
        missed_s = time.monotonic() - began
        until(lambda: not resuming())
        inject(own_xserver, 100)
        until(lambda: machine.captured("key_release") == 1)
    gaps = {e.source: e.duration_ns / 1e9 for b in machine.batches() for e in b.events if isinstance(e, Gap)}
    assert gaps == dict.fromkeys(("pointer", "keyboard", "display"), pytest.approx(missed_s, abs=0.5))


@pytest.mark.as_shipped
def test_stop_while_a_display_hangs_at_the_return(
    own_xserver: VirtualDisplay, logind: Logind, tmp_path: Path
) -> None:
    machine = Machine(logind, tmp_path / "state")
    machine.collector.start()
    machine.lock()
    own_xserver.freeze()
    logind.lock(machine.session, False)
    until(resuming)
    time.sleep(0.2)
    began = time.monotonic()
    machine.collector.stop()
    assert time.monotonic() - began < limits.STOP_TIMEOUT_S
    own_xserver.thaw()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("mcilib")])


@pytest.mark.as_shipped
def test_a_lock_while_a_display_hangs_at_the_return(
    own_xserver: VirtualDisplay, logind: Logind, tmp_path: Path
) -> None:
    machine = Machine(logind, tmp_path / "state")
    with machine.collector:
        machine.lock()
        own_xserver.freeze()
        logind.lock(machine.session, False)
        until(resuming)
        began = time.monotonic()
        logind.lock(machine.session)
        until(lambda: machine.collector.held)
        assert time.monotonic() - began < 1
        until(lambda: not resuming())
        own_xserver.thaw()
        machine.unlock()
        inject(own_xserver, 100)
        until(lambda: machine.captured("key_release") == 1)


def test_a_display_that_was_lost_before_the_lock(
    own_xserver: VirtualDisplay, logind: Logind, tmp_path: Path
) -> None:
    """What was missed until the lock is a gap, and the rest a pause."""
    machine = Machine(logind, tmp_path / "state")
    with machine.collector as collector:
        inject(own_xserver, 100)
        until(lambda: machine.captured("key_release") == 1)
        own_xserver.kill()
        until(lambda: not collector.health().ok)
        time.sleep(1)
        machine.lock()
        time.sleep(0.5)
        own_xserver.restart()
        machine.unlock()
        inject(own_xserver, 100)
        until(lambda: machine.captured("key_release") == 2)
    gaps = [e for b in machine.batches() for e in b.events if isinstance(e, Gap)]
    assert {gap.source for gap in gaps} >= {"pointer", "keyboard"}
    assert all(gap.duration_ns / 1e9 == pytest.approx(1, abs=0.5) for gap in gaps)
    assert machine.batches()[-1].metadata.coverage.not_collected_ns > 0.4e9
