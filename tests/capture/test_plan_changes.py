"""Changes of the plan at bad moments: while it starts, stops, is locked, while a disk hangs, in a fork's child."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from mcilib import Collector, Move
from mcilib.delivery.spool import DirectorySpool
from mcilib.policy import Rule
from mcilib.policy.plan import Plan
from mcilib.policy.state import ResourceState
from mcilib.resources.ledger import IMPACT_FILE
from mcilib.testing.fakes import FakeResources, FakeSession, FakeSource, FakeTransport, example_grant


class Slow(FakeSource):
    """Stops when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping, self.may_stop, self.stopped = (threading.Event() for _ in range(3))
        self.may_stop.set()

    def stop(self) -> None:
        self.stopping.set()
        self.may_stop.wait(5)
        super().stop()
        self.stopped.set()


class SlowSession(FakeSession):
    """Takes as long as a bus to start."""

    def start(self, on_change: Any, /) -> None:
        time.sleep(0.1)
        super().start(on_change)


def portal_bars(state: ResourceState, latches: Any, moment: Any) -> tuple[Plan, None]:
    return Plan(capture=state.portal is not True), None


class Run:
    def __init__(
        self, folder: Path, *policies: Any, source: FakeSource | None = None, **options: Any
    ) -> None:
        self.folder, self.source = folder / "state", source or FakeSource()
        self.resources, self.session = FakeResources(ResourceState(online=True)), SlowSession()
        self.collector = Collector(
            sources=[self.source], grant=example_grant(), state_dir=self.folder, policies=policies,
            resources=self.resources, session=self.session, **options,
        )  # fmt: skip

    def feeds(self) -> bool:
        return self.source.feed(Move(time.monotonic_ns(), 1, 1)) == 1


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path, portal_bars)
    yield run
    run.collector.stop()


def test_a_bar_that_ended_while_it_was_stopped(run: Run) -> None:
    run.collector.override("host", capture=False)
    run.collector.start()
    assert run.source._sink is None
    run.collector.stop()
    run.collector.take_back("host")
    run.collector.start()
    assert run.feeds()
    assert run.collector.statistics().capture.captured == {"move": 1}


def test_a_bar_that_ends_while_sources_are_being_stopped(tmp_path: Path) -> None:
    source = Slow()
    run = Run(tmp_path, portal_bars, source=source)
    with run.collector:
        source.may_stop.clear()
        source.stopping.clear()
        source.stopped.clear()
        run.resources.become(portal=True)
        assert source.stopping.wait(20)
        run.resources.become(portal=False)
        until(lambda: run.collector.held is None, what="the bar ended")
        time.sleep(0.1)
        source.may_stop.set()
        assert source.stopped.wait(20)
        until(run.feeds, what="capture again")


def test_a_bar_without_a_reason_is_said_all_the_same(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="mcilib")
    with run.collector:
        run.resources.become(portal=True)
        until(lambda: run.collector.held, what="held")
        until(lambda: "nothing is collected" in caplog.text, what="the log")
        assert "collecting again" not in caplog.text


def test_locked_and_barred_together(run: Run) -> None:
    with run.collector:
        run.session.become("locked")
        run.resources.become(portal=True)
        assert run.collector.held == "the session is locked"
        run.session.become(None)
        assert not run.feeds()
        run.session.become("locked")
        run.resources.become(portal=False)
        time.sleep(0.1)
        assert not run.feeds()
        assert run.collector.held == "the session is locked"
        run.session.become(None)
        until(run.feeds, what="capture again")
        assert run.collector.held is None


def test_a_plan_that_comes_after_the_end_lowers_no_source(run: Run) -> None:
    """A thread that had decided before, and is late."""
    run.source.read_interval_s = 0.1  # type: ignore[attr-defined]
    run.collector.start()
    run.collector.stop()
    run.collector._capture.adopt(Plan(read_interval_s=1.0, capture=False))
    assert run.source.read_interval_s == 0.1  # type: ignore[attr-defined]
    run.collector.start()
    assert run.feeds()


def test_a_rule_for_a_locked_session_holds_from_the_start_and_not_from_the_run_before(tmp_path: Path) -> None:
    run = Run(tmp_path, Rule.parse("locked: motion none"))
    run.session.become("locked")
    with run.collector:
        assert run.collector.plan.levers()["motion"] == "none"
    run.session.become(None)
    with run.collector:
        assert "motion" not in run.collector.plan.levers()


@pytest.mark.as_shipped
@pytest.mark.alone
def test_a_disk_that_hangs_holds_neither_sources_nor_stop(tmp_path: Path) -> None:
    run = Run(tmp_path, Rule.parse("portal: upload none"), transport=FakeTransport())
    run.resources.become(portal=True)
    run.collector.start()
    assert run.feeds()
    run.collector.flush(1)
    uploader = run.collector._uploader
    assert uploader is not None
    with run.collector.spool._lock:  # as while an fsync does not return
        with uploader._wake:
            uploader._wake.notify_all()  # whatever it is
        until(lambda: not can_have(uploader._wake), what="the uploader that waits for the disk")
        for what in (lambda: run.resources.become(portal=False), run.feeds, run.collector.stop):
            began_s = time.monotonic()
            calling = threading.Thread(target=what, daemon=True)
            calling.start()
            calling.join(3)
            assert time.monotonic() - began_s < 2.5, what
    run.collector.spool.close()  # for which `stop` could not wait


def can_have(lock: Any) -> bool:
    had: list[bool] = []

    def ask() -> None:
        had.append(lock.acquire(blocking=False))
        if had[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return had[0]


@pytest.mark.as_shipped
@pytest.mark.alone
def test_a_policy_that_hangs_holds_neither_sources_nor_stop(tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(state: ResourceState, latches: Any, moment: Any) -> tuple[Plan, None]:
        if state.portal:
            asked.set()
            go_on.wait(20)
        return Plan(), None

    run = Run(tmp_path, slow, transport=FakeTransport())
    run.collector.start()
    threading.Thread(target=run.resources.become, kwargs={"portal": True}, daemon=True).start()
    assert asked.wait(20)
    try:
        for what in (run.feeds, run.collector.stop):
            began_s = time.monotonic()
            calling = threading.Thread(target=what, daemon=True)
            calling.start()
            calling.join(3)
            assert time.monotonic() - began_s < 2.5, what
        assert DirectorySpool.read_statistics(run.folder / "spool").waiting_batches == 1
    finally:
        go_on.set()


@pytest.mark.as_shipped
@pytest.mark.alone
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="what hangs when it is opened")
def test_an_impact_file_that_hangs_does_not_hold_stop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hangs where files are made: their names cannot be guessed. So the disk is replaced by a pipe."""
    run.folder.mkdir(mode=0o700, exist_ok=True)
    pipe = run.folder / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(
        "mcilib.resources.ledger.write_private",
        lambda path, data, *, durable: pipe.write_bytes(data) if path.name == IMPACT_FILE else None,
    )
    run.collector.start()
    began_s = time.monotonic()
    stopping = threading.Thread(target=run.collector.stop, daemon=True)
    stopping.start()
    stopping.join(3)
    passed_s = time.monotonic() - began_s
    with open(pipe, "rb"):  # lets go of the one that waits
        assert passed_s < 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forks_child_sets_no_lever(tmp_path: Path) -> None:
    """Its sources' connections are the parent's."""
    source = FakeSource()
    source.read_interval_s = 0.1  # type: ignore[attr-defined]
    run = Run(tmp_path, source=source)
    with run.collector:
        pid = os.fork()
        if not pid:
            run.collector.override("host", read_interval_s=1.0)
            os._exit(source.read_interval_s != 0.1)  # type: ignore[attr-defined]
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.as_shipped
def test_stop_in_a_signal_handler_while_statistics_are_made(tmp_path: Path) -> None:
    """Whoever is interrupted then holds every lock of what is counted."""
    run = Run(tmp_path)
    run.collector.start()
    collector = run.collector

    def interrupted() -> None:
        with collector._meter._lock, collector._ledger._lock, collector._governor._lock:
            collector.stop()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert not collector.statistics().running
