"""While the session is locked, or another user's is in the foreground, nothing is captured: first with fakes, then with a
real X server and a real bus (`test_locked_for_real.py`)."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import batches, recorder
from waiting import until

from mcilib import Collector, Gap, Move, Reader, SourceError, limits
from mcilib.capture import Capture
from mcilib.reader.actions import Break
from mcilib.reader.timeline import coverage, timeline
from mcilib.reader.trajectory import trajectory
from mcilib.statistics import Health
from mcilib.testing.fakes import (
    FakeSession,
    FakeSource,
    FakeTransport,
    ManualClock,
    MemorySpool,
    example_grant,
)

T0 = 1_000_000_000_000


def threads():
    return {t.name for t in threading.enumerate() if t.name.startswith("mcilib")}


class Run:
    """A collector of one fake source under a fake session."""

    def __init__(self, folder, source=None, session=None, **options):
        self.source = source if source is not None else FakeSource()
        self.session = session if session is not None else FakeSession()
        self.folder = folder
        self.clock = options.setdefault("clock", ManualClock(wall_ns=time.time_ns()))
        options.setdefault("grant", example_grant())
        self.collector = Collector(sources=[self.source], session=self.session, state_dir=folder, **options)

    def __enter__(self):
        self.collector.start()
        return self

    def __exit__(self, *_):
        self.collector.stop()

    def feed(self, x, source=None):
        """One move, also when the source has been told to stop."""
        return (source or self.source).feed(Move(self.clock.monotonic_ns(), x, x))

    def late(self, x):
        """One move that the source has heard before it was stopped, and tells now."""
        return self.collector._recorder.emit(Move(self.clock.monotonic_ns(), x, x))

    def back(self):
        self.session.become(None)
        until(lambda: self.source._sink is not None, what="the source to be started again")

    @property
    def capture(self):
        return self.collector.statistics().capture

    def parts(self):
        return list(timeline(Reader(self.folder / "spool")))

    def batches(self):
        """(x of the moves, excluded, seconds not collected) of each."""
        return [
            ([e.x for e in part.batch.events if e.kind == "move"], said.excluded, said.not_collected_ns / 1e9)
            for part in self.parts()
            if hasattr(part, "batch")
            for said in [part.batch.metadata.coverage]
        ]


def test_locked_and_back(tmp_path):
    with Run(tmp_path) as run:
        assert run.collector.held is None
        run.feed(1)
        run.session.become("locked")
        assert run.collector.held == "the session is locked"
        assert run.collector.health().ok
        assert run.source._sink is None
        until(lambda: run.batches() == [([1], 0, 0.0)], what="the batch before the lock on disk")
        assert not run.late(2)
        run.clock.advance(90)
        assert run.capture.excluded == 1
        assert run.capture.not_collected_s == 90.0
        run.back()
        assert run.collector.held is None
        run.clock.advance(5)
        assert run.capture.not_collected_s == 90.0
        assert run.feed(3) == 1
    assert run.batches() == [([1], 0, 0.0), ([3], 1, 90.0)]
    assert run.collector.held is None
    assert threads() == set()


def test_the_reader_shows_the_hole(tmp_path):
    with Run(tmp_path) as run:
        run.feed(1)
        run.session.become("locked")
        run.clock.advance(90)
        run.back()
        run.feed(3)
    segments = [part for part in run.parts() if hasattr(part, "batch")]
    assert [segment.pause_ns for segment in segments] == [0, 90 * 10**9]
    assert coverage(run.parts())[segments[0].device].not_collected_ns == 90 * 10**9
    breaks = [item for item in trajectory(Reader(tmp_path / "spool")) if isinstance(item, Break)]
    assert [(one.cause, one.duration_ns) for one in breaks] == [("start", None), ("pause", 90 * 10**9)]


def test_a_pause_too_short_for_the_thread_to_notice_still_ends_the_batch(tmp_path):
    with Run(tmp_path) as run, run.collector._recorder._work:  # so that its thread cannot act meanwhile
        run.feed(1)
        run.session.become("locked")
        run.clock.advance(0.5)
        run.back()
        run.feed(2)
    assert run.batches() == [([1], 0, 0.0), ([2], 0, 0.5)]


def test_what_waits_for_the_disk_does_not_tell_of_the_pause_after_it(tmp_path):
    spool = MemorySpool()
    spool.fail_next = 1
    clock = ManualClock()
    subject, _ = recorder(spool, clock=clock, started=False)
    subject.emit(Move(T0, 1, 1))
    subject.hold()
    assert not subject.commit()
    clock.advance(7)
    subject.release()
    subject.emit(Move(clock.monotonic_ns(), 2, 2))
    assert subject.commit()
    assert [b.metadata.coverage.not_collected_ns for b in batches(spool)] == [0, 7 * 10**9]


def test_after_a_pause_the_pointer_may_be_anywhere(tmp_path):
    """So a move to where it was before is a row."""
    with Run(tmp_path) as run:
        run.feed(1)
        run.session.become("locked")
        run.back()
        run.feed(1)
        run.feed(1)
    assert [moves for moves, _, _ in run.batches()] == [[1], [1]]


def test_locked_at_the_start(tmp_path):
    with Run(tmp_path, session=FakeSession("locked")) as run:
        assert run.collector.held
        assert run.source._sink is None
        run.clock.advance(30)
        run.back()
        run.feed(1)
    assert run.batches() == [([1], 0, 30.0)]


def test_switched_is_named(tmp_path):
    with Run(tmp_path) as run:
        run.session.become("switched")
        assert run.collector.held == "another user's session is in the foreground"
        run.session.become("on fire")  # of a later version
        assert run.collector.held == "the session is on fire"
        assert run.source._sink is None


def test_locked_then_switched_then_locked_counts_once(tmp_path):
    with Run(tmp_path) as run:
        for away in ("locked", "switched", "locked"):
            run.session.become(away)
            run.clock.advance(10)
        run.back()
        run.feed(1)
    assert run.batches() == [([1], 0, 30.0)]


def test_time_asleep_counts_once(tmp_path):
    """It is not told again as a gap of the machine; a sleep before the lock is."""
    with Run(tmp_path) as run:
        run.feed(1)
        until(lambda: run.capture.captured == {"move": 1})
        run.clock.suspend(100)
        run.session.become("locked")
        run.clock.advance(10)
        run.clock.suspend(3600)
        run.clock.advance(10)
        assert run.capture.not_collected_s == 3620.0
        run.back()
        run.feed(2)
        assert (run.capture.gap_count, run.capture.gap_s) == (1, 100.0)
    assert run.batches()[-1][2] == 3620.0


def test_flush_while_held_delivers_what_was_captured(tmp_path):
    transport = FakeTransport()
    with Run(tmp_path, transport=transport) as run:
        run.feed(1)
        run.session.become("locked")
        run.late(2)
        result = run.collector.flush()
        assert (result.delivered, result.committed, result.waiting_batches) == (True, True, 0)
        assert len(transport.received) == 1
        assert run.collector.flush().delivered
        assert len(transport.received) == 1


@pytest.mark.as_shipped
def test_a_grant_that_ends_while_held(tmp_path):
    clock = ManualClock(wall_ns=int(datetime.now(UTC).timestamp() * 1e9))
    grant = example_grant(expires_in=timedelta(hours=1))
    with Run(tmp_path, clock=clock, grant=grant) as run:
        run.feed(1)
        run.session.become("locked")
        until(lambda: len(run.batches()) == 1)
        clock.advance(3601)
        assert any("expired" in p.message for p in run.collector.health().problems)
        run.session.become(None)
        run.late(2)  # whether sources are on again depends on who has noticed first that it has ended
        assert run.capture.excluded == 1
    assert [moves for moves, _, _ in run.batches()] == [[1]]


def test_two_collectors_have_sessions_of_their_own(tmp_path):
    with Run(tmp_path / "a") as one, Run(tmp_path / "b") as other:
        one.session.become("locked")
        assert (bool(one.collector.held), other.collector.held) == (True, None)
        assert (one.feed(1), other.feed(1)) == (0, 1)


def test_stop_while_locked_and_a_start_after_it(tmp_path):
    with Run(tmp_path) as run:
        run.session.become("locked")
        run.clock.advance(5)
        run.collector.stop()
        assert threads() == set()
        assert run.collector.held is None
        run.clock.advance(5)
        assert run.capture.not_collected_s == 5.0
        run.session.become(None)  # nobody listens
        assert run.source._sink is None
        run.collector.start()
        assert run.feed(1) == 1
        assert run.capture.not_collected_s == 0.0
    assert run.batches() == [([1], 0, 0.0)]


def test_gaps_pass_while_held():
    """A source tells as it stops since when it could not hear: that is no input."""
    subject, spool = recorder(clock=ManualClock(), buffer_events=1)
    subject.hold()
    assert subject.emit(Gap(T0, 10**9, "pointer"))
    assert not subject.emit(Move(T0, 1, 1))
    until(lambda: batches(spool), what="the gap on disk, while it is held")
    subject.stop()
    [batch] = batches(spool)
    assert [event.kind for event in batch.events] == ["gap"]
    assert subject.statistics().excluded == 1


def test_a_full_buffer_takes_no_gap_either():
    subject, _ = recorder(clock=ManualClock(), buffer_events=1, started=False)
    subject.emit(Move(T0, 1, 1))
    subject._taking = False  # held, and the thread has not been yet
    assert not subject.emit(Gap(T0, 10**9, "pointer"))


def test_a_pause_is_told_once():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    for seconds in (5, 0, 7):
        subject.hold()
        subject.hold()  # changes nothing
        clock.advance(seconds)
        subject.release()
        subject.release()
        for _ in range(2):
            subject.emit(Move(clock.monotonic_ns(), seconds, 1))
            assert subject.commit()
            clock.advance(1)
            subject._batcher.begin_run()
    told = [batch.metadata.coverage.not_collected_ns / 1e9 for batch in batches(spool)]
    assert told == [5, 0, 0, 0, 7, 0]
    assert subject.statistics().not_collected_s == 12


def test_a_recorder_that_was_stopped_while_held_tells_it_after_the_next_start():
    clock = ManualClock()
    subject, spool = recorder(clock=clock)
    subject.hold()
    clock.advance(5)
    subject.stop()
    clock.advance(5)
    subject.start()
    subject.emit(Move(clock.monotonic_ns(), 1, 1))
    subject.stop()
    [batch] = batches(spool)
    assert batch.metadata.coverage.not_collected_ns == 5 * 10**9


def test_a_release_that_comes_too_late_opens_nothing(monkeypatch):
    subject, _ = recorder(clock=ManualClock(), started=False)
    subject.hold()
    monkeypatch.setattr(subject._batcher, "pass_over", lambda *_: subject.stop(0))  # meanwhile
    subject.release()
    assert not subject.emit(Move(T0, 1, 1))
    assert subject.statistics().dropped == {"not_running": 1}


def test_what_was_on_its_way_when_it_was_held_is_of_the_time_before():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, started=False)
    subject.hold()
    subject._buffer.append(Move(T0, 1, 1))  # by a thread that `emit` had let in
    clock.advance(5)
    subject.release()
    subject.emit(Move(clock.monotonic_ns(), 2, 2))
    assert subject.commit()
    assert [b.metadata.coverage.not_collected_ns for b in batches(spool)] == [0, 5 * 10**9]


def test_a_second_release_ends_no_batch():
    subject, _ = recorder(clock=ManualClock(), started=False)
    subject.emit(Move(T0, 1, 1))
    assert subject.statistics().open_events == 1
    subject.release()
    assert subject._batcher.open is not None


def test_a_clock_that_trembles_makes_no_negative_pause():
    clock = ManualClock()
    subject, _ = recorder(clock=clock, started=False)
    clock._suspended_ns = 50
    subject.hold()
    clock._suspended_ns = 0
    subject.release()
    subject.emit(Move(T0, 1, 1))
    assert subject.commit()
    assert subject.statistics().not_collected_s == 0.0


# --- sources that cannot go on, or hang ---------------------------------------------------------------------


class Hangs(FakeSource):
    """From the second start on it waits for `stop`, as a source does for a display that hangs."""

    lingers_s = 0.0

    def __init__(self, from_start=2):
        super().__init__()
        self.starts, self.from_start = 0, from_start
        self.waits, self.told = threading.Event(), threading.Event()

    def start(self, sink):
        self.starts += 1
        if self.starts == self.from_start:
            self.told.clear()
            self.waits.set()
            self.told.wait(10)
            time.sleep(self.lingers_s)
            return
        super().start(sink)

    def stop(self):
        super().stop()
        self.told.set()


@pytest.mark.parametrize("error", [SourceError("It is broken", "Mend it."), ZeroDivisionError()])
def test_a_source_that_cannot_go_on_is_tried_again(tmp_path, error):
    with Run(tmp_path, FakeSource()) as run:
        run.session.become("locked")
        run.clock.advance(10)
        run.source._fails = error
        run.session.become(None)
        until(lambda: not run.collector.health().ok)
        [problem] = run.collector.health().problems
        assert problem.part == "capture"
        assert ("It is broken" if isinstance(error, SourceError) else "ZeroDivisionError") in problem.message
        assert run.collector.held is None
        assert "mcilib-resume" in {thread.name for thread in run.collector.threads()}
        run.clock.advance(7)
        run.source._fails = None
        until(lambda: run.feed(1))
        until(lambda: run.collector.health().ok)
        until(lambda: "mcilib-resume" not in threads())
    gaps = [gap for part in run.parts() if hasattr(part, "batch") for gap in part.gaps]
    assert [(gap.source, gap.duration_ns) for gap in gaps] == [("pointer", 7 * 10**9)]
    assert sum(pause for _, _, pause in run.batches()) == 10.0


@pytest.mark.parametrize("then", ["locked", "stop"])
def test_what_is_missed_until_a_lock_or_stop_is_a_gap_too(tmp_path, then):
    with Run(tmp_path, FakeSource()) as run:
        run.session.become("locked")
        run.source._fails = SourceError("It is broken", "Mend it.")
        run.session.become(None)
        until(lambda: not run.collector.health().ok)
        run.clock.advance(7)
        if then == "locked":
            run.session.become("locked")
            assert run.collector.health().ok
            until(lambda: "mcilib-resume" not in threads())
    gaps = [gap for part in run.parts() if hasattr(part, "batch") for gap in part.gaps]
    assert [(gap.source, gap.duration_ns) for gap in gaps] == [("pointer", 7 * 10**9)]
    assert threads() == set()


def test_a_lock_ends_a_return_that_hangs(tmp_path):
    """Its first source hears already: what it tells is excluded from that moment on."""
    hangs = Hangs()
    keyboard, session = FakeSource("keyboard", "keys"), FakeSession()
    subject = Collector(sources=[keyboard, hangs], session=session, grant=example_grant(), state_dir=tmp_path)
    with subject:
        session.become("locked")
        session.become(None)
        assert hangs.waits.wait(20)
        sink = keyboard._sink
        assert sink.emit(Move(time.monotonic_ns(), 1, 1))
        began = time.monotonic()
        session.become("locked")
        assert time.monotonic() - began < 8, "a start that hangs does so for 10 s"
        assert not sink.emit(Move(time.monotonic_ns(), 2, 2))
        assert keyboard._sink is None
        until(lambda: "mcilib-resume" not in threads())
        assert keyboard._sink is None
        session.become(None)
        until(lambda: hangs._sink is not None)
        assert keyboard.feed(Move(time.monotonic_ns(), 3, 3)) == 1
    assert [e.x for e in Reader(tmp_path / "spool").events()] == [1, 3]


def test_a_lock_during_a_start_that_hangs(tmp_path):
    session, source = FakeSession(), Hangs(from_start=1)
    run = Run(tmp_path, source, session)
    starting = threading.Thread(target=run.collector.start)
    starting.start()
    assert source.waits.wait(20)
    session.become("locked")
    starting.join(20)
    assert not starting.is_alive()
    assert run.collector.held
    assert source._sink is None
    run.back()
    assert run.feed(1) == 1
    run.collector.stop()


@pytest.mark.slow
@pytest.mark.as_shipped
def test_locked_and_back_during_a_start_that_hangs(tmp_path, monkeypatch):
    """The start that was ended by the lock is not taken for one that hears."""
    session, source = FakeSession(), Hangs(from_start=1)
    run = Run(tmp_path, source, session)
    decide, decided = Capture._decide, threading.Event()

    def slow(self, *args):
        away = decide(self, *args)
        if away == "the session is locked":  # the other change comes before the sources are stopped
            session.become(None)
            decided.set()
        return away

    starting = threading.Thread(target=run.collector.start)
    starting.start()
    assert source.waits.wait(20)
    monkeypatch.setattr(Capture, "_decide", slow)
    session.become("locked")
    assert decided.is_set()
    starting.join(20)
    until(lambda: source._sink is not None)
    assert run.feed(1) == 1
    run.collector.stop()
    assert threads() == set()


def test_a_session_that_calls_for_nothing_starts_nothing_twice(tmp_path):
    session, source = FakeSession(), Hangs(from_start=1)
    run = Run(tmp_path, source, session)
    starting = threading.Thread(target=run.collector.start)
    starting.start()
    assert source.waits.wait(20)
    run.collector._capture._turn()
    source.told.set()
    starting.join(20)
    until(lambda: "mcilib-resume" not in threads())
    run.collector._capture._turn()
    assert source.starts == 1
    run.collector.stop()


def test_a_session_that_calls_at_once_starts_nothing_twice(tmp_path):
    class Eager(FakeSession):
        def start(self, on_change, /):
            super().start(on_change)
            on_change()
            until(lambda: source.starts == 1 and "mcilib-resume" not in threads())

    source = Hangs(from_start=9)
    with Run(tmp_path, source, Eager()) as run:
        assert source.starts == 1
        assert run.feed(1) == 1


def test_of_several_sources_that_cannot_go_on_none_does(tmp_path):
    pointer, keyboard, session = FakeSource(), FakeSource("keyboard", "keys"), FakeSession()
    subject = Collector(
        sources=[pointer, keyboard], session=session, grant=example_grant(), state_dir=tmp_path
    )
    with subject:
        session.become("locked")
        keyboard._fails = SourceError("It is broken", "Mend it.")
        session.become(None)
        until(lambda: not subject.health().ok)
        for _ in range(3):
            subject._capture._turn()
        assert [t.name for t in threading.enumerate()].count("mcilib-resume") == 1
        with subject._capture._turning:  # between two attempts
            assert pointer._sink is None


def test_attempts_grow_rarer(tmp_path):
    with Run(tmp_path) as run:
        stirred, waits = run.collector._capture._stirred, []
        real_wait = stirred.wait

        def wait(seconds):
            waits.append(seconds)
            return real_wait(0.001)

        stirred.wait = wait
        run.session.become("locked")
        run.source._fails = SourceError("It is broken", "Mend it.")
        run.session.become(None)
        until(lambda: len(waits) > 11)
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[11] == 60.0


def test_where_no_thread_can_be_started_it_says_so(tmp_path, monkeypatch):
    start = threading.Thread.start

    def refuse(self):
        if self.name == "mcilib-resume":
            raise RuntimeError("can't start new thread")
        start(self)

    with Run(tmp_path) as run:
        run.session.become("locked")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            run.session.become(None)
        assert "No thread" in run.collector.health().problems[0].message
        run.clock.advance(3)
        run.session.become("locked")
        run.back()
        assert run.collector.health().ok
        assert run.capture.gap_s == 3.0


def test_a_lock_during_a_start_starts_no_other_source(tmp_path):
    session, first, second = FakeSession(), Hangs(from_start=1), Hangs(from_start=9)
    first.name = "keyboard"
    subject = Collector(sources=[first, second], session=session, grant=example_grant(), state_dir=tmp_path)
    starting = threading.Thread(target=subject.start)
    starting.start()
    assert first.waits.wait(20)
    session.become("locked")
    starting.join(20)
    assert second.starts == 0
    subject.stop()


@pytest.mark.as_shipped
def test_a_source_that_starts_when_all_is_stopped_is_stopped_too(tmp_path):
    class Late(FakeSource):
        starts = 0

        def start(self, sink):
            self.starts += 1
            if self.starts == 2:
                run.collector.stop()
            super().start(sink)

    with Run(tmp_path, Late()) as run:
        run.session.become("locked")
        run.session.become(None)
        until(lambda: run.source.starts == 2 and threads() == set())
        assert run.source._sink is None
        run.collector.start()
        assert run.feed(1) == 1


@pytest.mark.parametrize("how", ["call", "signal"])
def test_stop_while_it_comes_back_and_hangs(tmp_path, how):
    source = Hangs()
    source.lingers_s = 0.2
    with Run(tmp_path, source) as run:
        run.session.become("locked")
        run.session.become(None)
        assert source.waits.wait(20)
        began = time.monotonic()
        if how == "call":
            run.collector.stop()
        else:
            signal.signal(signal.SIGTERM, lambda *_: run.collector.stop())
            signal.raise_signal(signal.SIGTERM)
        assert time.monotonic() - began < limits.STOP_TIMEOUT_S
        assert not run.collector.statistics().running
        assert threads() == set()
        assert source._sink is None


def test_stop_from_a_signal_handler_while_counts_are_read(tmp_path):
    with Run(tmp_path) as run:
        run.session.become("locked")
        signal.signal(signal.SIGTERM, lambda *_: run.collector.stop())
        began = time.monotonic()
        with run.collector._recorder._drops:
            signal.raise_signal(signal.SIGTERM)
        assert time.monotonic() - began < limits.STOP_TIMEOUT_S


@pytest.mark.as_shipped
def test_no_number_of_hanging_sources_makes_stop_long(tmp_path):
    class Stuck(FakeSource):
        def stop(self):
            time.sleep(3)

    sources = [Stuck(f"s{n}") for n in range(6)]
    subject = Collector(sources=sources, session=FakeSession(), grant=example_grant(), state_dir=tmp_path)
    subject.start()
    began = time.monotonic()
    subject.stop()
    assert time.monotonic() - began < 1.5


def test_a_stop_just_before_the_sources_is_not_forgotten(tmp_path):
    class Stops(FakeSession):
        def start(self, on_change, /):
            run.collector.stop()  # as a signal handler would
            super().start(on_change)

    run = Run(tmp_path, session=Stops())
    run.collector.start()
    assert not run.collector.statistics().running
    assert run.source._sink is None
    run.session.__class__ = FakeSession
    with run:
        assert run.feed(1) == 1


# --- somebody else's session --------------------------------------------------------------------------------


class Raises(FakeSession):
    raises: tuple[str, ...] = ()

    def _may(self, name):
        if name in self.raises:
            raise ZeroDivisionError

    @property
    def away(self):
        self._may("away")
        return super().away

    def start(self, on_change, /):
        self._may("start")
        super().start(on_change)

    def stop(self):
        super().stop()
        self._may("stop")

    def health(self):
        self._may("health")
        return super().health()

    def threads(self):
        self._may("threads")
        return []


@pytest.mark.parametrize("name", ["away", "start"])
def test_a_session_that_raises_at_the_start_ends_the_start(tmp_path, name):
    session = Raises()
    session.raises = (name,)
    run = Run(tmp_path, session=session)
    with pytest.raises(ZeroDivisionError):
        run.collector.start()
    assert not run.collector.statistics().running
    assert run.source._sink is None
    assert threads() == set()


@pytest.mark.parametrize("away", [None, "locked"])
def test_a_session_that_raises_later_is_taken_to_be_as_it_was(tmp_path, away):
    session = Raises()
    with Run(tmp_path, session=session) as run:
        session.become(away)
        session.raises = ("away", "stop", "health", "threads")
        run.collector._capture._turn()
        assert bool(run.collector.held) == bool(away)
        assert (run.source._sink is None) == bool(away)
        words = " ".join(problem.message for problem in run.collector.health().problems)
        assert "Whether the session is locked cannot be told (ZeroDivisionError)" in words
        assert "Its health cannot be told" in words
        assert run.collector.statistics().running
        session.raises = ("stop",)
        session.become("switched")
        assert run.collector.health().ok
    assert threads() == set()


def test_a_session_without_health_words_or_threads(tmp_path):
    class Plain:
        away = None

        def __len__(self):  # one that is false is still one
            return 0

        def start(self, on_change, /):
            self.on_change = on_change

        def stop(self):
            pass

        def health(self):
            return Health()

    session = Plain()
    with Run(tmp_path, session=session) as run:
        session.away = "locked"
        session.on_change()
        assert run.collector.held
    session.on_change()  # after stop
    assert run.source._sink is None


def test_a_forks_child_knows_of_no_hold(tmp_path):
    code = f"""
import os
from mcilib import Collector
from mcilib.testing.fakes import FakeSession, FakeSource, example_grant
session = FakeSession()
with Collector(sources=[FakeSource()], session=session, grant=example_grant(), state_dir={str(tmp_path)!r}) as collector:
    session.become("locked")
    if not (child := os.fork()):
        held = collector.held
        collector.stop()
        os._exit(held is not None)
    assert os.waitpid(child, 0)[1] == 0
    assert collector.held
"""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", code], timeout=30, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, "the indicator's line and nothing else"


# --- whatever comes in whatever order -----------------------------------------------------------------------

_STEPS = st.lists(
    st.one_of(
        st.just(("emit",)), st.just(("commit",)), st.just(("fail",)),
        st.tuples(st.just("become"), st.sampled_from([None, None, "locked", "switched"])),
        st.tuples(st.just("advance"), st.integers(1, 100)), st.tuples(st.just("suspend"), st.integers(2, 100)),
    ),
    min_size=20,
    max_size=60,
)  # fmt: skip


@given(_STEPS)
@settings(max_examples=200, deadline=None)
def test_every_event_is_a_row_or_counted_once_and_so_is_every_second(steps):
    clock, session, source, spool = ManualClock(), FakeSession(), FakeSource(), MemorySpool()
    subject, _ = recorder(spool, clock=clock, started=False)
    capture = Capture([source], session, clock)
    in_this_thread: Any = capture
    in_this_thread._resume_later = capture._try_to_resume
    capture.begin()
    capture.start(subject)
    wanted: list[float] = []
    emitted, held_s, holds, slept_s, begins = 0, 0.0, [], 0.0, []
    for step in steps:
        held = session.away is not None
        match step:
            case ("emit",):
                emitted += 1
                taken = subject.emit(Move(clock.monotonic_ns(), emitted, 0))
                assert taken != held
                if taken:
                    wanted.append(emitted)
                    begins.append(held_s)
            case ("commit",):
                subject.commit()
            case ("fail",):
                spool.fail_next = 1
            case ("become", away):
                if away and not held:
                    begin_ns = clock.monotonic_ns()
                elif held and not away:
                    holds.append((begin_ns, clock.monotonic_ns()))
                session.become(away)
            case (how, seconds):
                getattr(clock, how)(seconds)
                held_s += seconds * held
                slept_s += seconds * (how == "suspend" and not held)
    spool.fail_next = 0
    assert subject.commit()
    said = subject.statistics()
    made = batches(spool)
    moves = [[e for e in batch.events if isinstance(e, Move)] for batch in made]
    assert [move.x for batch in moves for move in batch] == wanted
    assert said.excluded == emitted - len(wanted)
    assert said.dropped == {}
    assert said.not_collected_s == held_s
    told_s = 0.0
    for batch, events in zip(made, moves, strict=True):
        told_s += batch.metadata.coverage.not_collected_ns / 1e9
        assert {begins[wanted.index(move.x)] for move in events} <= {
            told_s
        }  # what came before it, and no more
    for begin_ns, end_ns in holds:
        assert not any(begin_ns < move.t_ns < end_ns for batch in moves for move in batch)
    assert sum(b.metadata.coverage.excluded for b in made) <= said.excluded
    assert said.gap_s <= slept_s
    capture.stop()
