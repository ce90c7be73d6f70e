"""What happens to a device: forks, ends of the interpreter, clocks that step, sleep, weeks without a network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from waiting import until

from mcilib import Collector, Move, Reader
from mcilib.clock import SystemClock
from mcilib.delivery.schedule import ScheduleFile
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.testing.fakes import FakeSource, FakeTransport, ManualClock, example_grant

LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition)
HOUR_S, DAY_S = 3_600.0, 86_400.0


@pytest.fixture
def memory() -> Iterator[Path]:
    """An fsync costs nothing there."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


# --- fork ---------------------------------------------------------------------------------------------------


def locks_of(owner: Any, name: str, seen: set[int]) -> dict[str, Any]:
    """Every lock in an object of ours and in those that it holds."""
    found: dict[str, Any] = {}
    if id(owner) in seen:
        return found
    seen.add(id(owner))
    for key, value in list(getattr(owner, "__dict__", {}).items()):
        if isinstance(value, LOCKS):
            found[f"{name}.{key}"] = value
        elif type(value).__module__.startswith("mcilib"):
            found |= locks_of(value, f"{name}.{key}", seen)
    return found


@pytest.mark.alone
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_any_lock_is_held_harms_neither_side(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    collector = Collector(sources=[source], grant=example_grant(), state_dir=tmp_path, transport=transport)
    with collector:
        locks = locks_of(collector, "collector", set())
        owners = {name.rpartition(".")[0] for name in locks}
        assert {"collector", "collector.spool"} <= owners
        for part in ("_uploader", "_recorder", "_schedule_file", "gate", "journal", "audit"):
            assert any(owner.endswith(f".{part}") for owner in owners), part
        for name, lock in locks.items():
            source.feed(Move(time.monotonic_ns(), len(name), 1))
            held, release = threading.Event(), threading.Event()

            def hold(lock: Any = lock, held: Any = held, release: Any = release) -> None:
                with lock:
                    held.set()
                    release.wait(60)

            holder = threading.Thread(target=hold)
            holder.start()
            assert held.wait(20), name
            pid = os.fork()
            if pid == 0:
                child(collector, transport)
            try:
                ended = reaped(pid, 30.0)
            finally:
                release.set()
                holder.join()
            assert ended == 0, f"with {name} held a child ended with {ended}"
        assert collector.flush().delivered
    assert len(transport.received) == 1


def child(collector: Collector, transport: FakeTransport) -> None:
    code = 1
    try:
        collector.reconsider()
        collector.override("host", upload="none")
        collector.take_back("host")
        collector.statistics()
        collector.health()
        flushed = collector.flush(0.5)
        collector.stop()
        uploader, spool = collector._uploader, collector.spool  # each by itself too: hosts use them so
        assert uploader is not None
        uploader.notify()
        uploader.reconsider()
        uploader.statistics()
        uploader.health()
        assert not uploader.flush(0.5).settled
        uploader.stop()
        assert not spool.waiting()
        assert not spool.controls()
        spool.statistics()
        spool.close()
        code = 0 if not flushed.delivered and not transport.closed else 2  # it is the parent's
    finally:
        os._exit(code)


def reaped(pid: int, within_s: float) -> int | None:
    """Its exit code; None when it hung and was killed."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# --- the end of the interpreter -----------------------------------------------------------------------------

ENDS = """
import os, sys, threading, time
from mcilib import Collector, Move
from mcilib.testing.fakes import FakeSource, FakeTransport, example_grant

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once: two threads speak

class Hangs(FakeTransport):
    def send(self, batches, /):
        say("hangs")
        time.sleep(60)

source, transport = FakeSource(), Hangs()
collector = Collector(
    sources=[source], grant=example_grant(), state_dir=sys.argv[1], transport=transport,
    upload_interval_s=0.01, batch_max_age_s=0.05,
)
collector.start()
taken = source.feed(Move(time.monotonic_ns(), 1, 1))
while not transport.requests and collector.statistics().upload.requests == 0 and not collector.spool.waiting():
    time.sleep(0.01)
taken += sum(source.feed(Move(time.monotonic_ns(), n % 1500, n // 1500)) for n in range(1, 30_001))
say("taken", taken)
if sys.argv[2] == "thread":
    def more():
        for n in range(200):
            source.feed(Move(time.monotonic_ns(), n, 900))
            time.sleep(0.005)
    threading.Thread(target=more).start()
say("ends", time.monotonic())
"""


@pytest.mark.alone
@pytest.mark.parametrize("how", ["plain", "thread"])
def test_an_interpreter_that_ends_with_a_full_queue_and_an_upload_that_hangs(tmp_path, how):
    done = subprocess.run(
        [sys.executable, "-P", "-c", ENDS, str(tmp_path), how], capture_output=True, text=True, timeout=90
    )
    ended_s = time.monotonic()
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, "the indicator's line and nothing else"
    said = dict(line.split(" ") for line in done.stdout.splitlines() if " " in line)
    assert ended_s - float(said["ends"]) < 20  # 60, were the upload waited for
    assert "hangs" in done.stdout
    rows = [event for event in Reader(tmp_path / "spool").events() if isinstance(event, Move)]
    assert int(said["taken"]) == 30_001
    assert len(rows) == 30_001 + 200 * (how == "thread")


# --- clocks -------------------------------------------------------------------------------------------------

STEPS_S = [-HOUR_S, 7 * DAY_S, 10 * 365 * DAY_S]


class Stepped(SystemClock):
    offset_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.offset_ns


@pytest.mark.parametrize("step_s", STEPS_S)
def test_uploads_go_on_when_the_wall_clock_steps(memory, seal, step_s):
    clock, transport = Stepped(), FakeTransport()
    with DirectorySpool(memory / "s", clock=clock) as spool:
        remembered: dict[str, Any] = {
            "schedule_file": ScheduleFile(memory / "s" / "schedule.json"),
            "endpoint": "e",
        }
        uploader = Uploader(spool, transport, interval_s=0.1, clock=clock, **remembered)
        uploader.start()
        for round_ in range(3):
            clock.offset_ns += int(step_s * 1e9) * (round_ == 1)
            spool.commit(seal())
            uploader.notify()
            until(lambda: not spool.waiting())
        uploader.stop()
        spool.commit(seal())
        clock.offset_ns -= int(step_s * 1e9)  # set right while nothing runs
        again = Uploader(spool, transport, interval_s=0.1, clock=clock, **remembered)
        again.start()
        until(lambda: not spool.waiting())
        again.stop()
        assert len(transport.received) == 4
        assert sum(spool.statistics().lost.values()) == 0


@pytest.mark.parametrize("step_s", STEPS_S)
def test_a_step_neither_evicts_nor_lets_go_what_is_held(memory, seal, step_s):
    clock, transport = ManualClock(), FakeTransport()
    with DirectorySpool(memory / "s", clock=clock) as spool:
        uploader = Uploader(spool, transport, hold_s=DAY_S, clock=clock)
        spool.commit(seal())
        clock.advance(HOUR_S)
        clock.step_wall(step_s)
        spool.commit(seal())
        assert not uploader.flush().settled
        clock.advance(23 * HOUR_S)
        uploader.flush()
        assert len(transport.received) == 1
        clock.advance(HOUR_S)
        assert uploader.flush().delivered
        assert sum(spool.statistics().lost.values()) == 0


def test_sleep_counts_for_the_age_of_a_batch_and_not_for_the_time_of_an_upload(memory, seal):
    clock, transport = ManualClock(), FakeTransport()
    with DirectorySpool(memory / "s", clock=clock) as spool:
        uploader = Uploader(spool, transport, hold_s=8 * HOUR_S, clock=clock, random=Random(3))
        spool.commit(seal())
        assert not uploader.flush().settled
        before_s = uploader._schedule.wait_s(clock.monotonic_ns())
        clock.suspend(9 * HOUR_S)
        assert uploader._schedule.wait_s(clock.monotonic_ns()) == before_s
        assert uploader.flush().delivered


# --- weeks --------------------------------------------------------------------------------------------------


def test_fourteen_days_of_eight_hours_offline_lose_nothing(memory, seal):
    """At the defaults: a batch of 1.5 kB a minute, asleep at night."""
    clock, transport = ManualClock(), FakeTransport()
    with DirectorySpool(memory / "s", clock=clock, min_free_bytes=0) as spool:
        for _ in range(14):
            for _ in range(480):
                spool.commit(seal(1_500))
                clock.advance(60)
            clock.suspend(16 * HOUR_S)
        assert len(spool.waiting()) == 14 * 480
        assert sum(spool.statistics().lost.values()) == 0
        assert Uploader(spool, transport, clock=clock).flush(60).delivered
    assert len(transport.received) == 14 * 480
    assert len(transport.requests) == 14  # as few as the limits allow


def test_what_is_held_for_a_day_arrives_after_a_day(memory, seal):
    clock, transport = ManualClock(), FakeTransport()
    born_s: dict[str, float] = {}

    def now_s() -> float:
        return (clock.monotonic_ns() + clock.suspended_ns()) / 1e9

    with DirectorySpool(memory / "s", clock=clock) as spool:
        uploader = Uploader(spool, transport, hold_s=DAY_S, clock=clock)
        for hour in range(5 * 24):
            if hour < 4 * 24:
                born_s[spool.commit(seal(500)).batch_id] = now_s()
            known = set(transport.received)
            uploader.flush()
            assert all(now_s() - born_s[i] >= DAY_S for i in transport.received.keys() - known)
            clock.suspend(HOUR_S) if hour % 24 > 8 else clock.advance(HOUR_S)
        assert set(transport.received) == set(born_s)
        assert sum(spool.statistics().lost.values()) == 0
