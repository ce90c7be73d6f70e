"""CPU and wake-ups of the library's own threads: living, ended, and whatever ids they had."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from waiting import until

from mcilib.resources import meter
from mcilib.resources.meter import CostMeter, thread_cpu_ns, thread_wakeups

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


class Worker:
    """A thread that works and sleeps as it is told."""

    def __init__(self) -> None:
        self._turn, self._end = threading.Semaphore(0), False
        self._work_s = 0.0
        self.turns = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            self._turn.acquire()
            if self._end:
                return
            ends_ns = time.thread_time_ns() + int(self._work_s * 1e9)
            while time.thread_time_ns() < ends_ns:
                pass
            self.turns += 1

    def work(self, cpu_s: float = 0.0) -> None:
        self._work_s, turns = cpu_s, self.turns
        self._turn.release()
        until(lambda: self.turns > turns)

    def end(self) -> None:
        self._end = True
        self._turn.release()
        self.thread.join()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    workers = [Worker(), Worker()]
    yield workers
    for worker in workers:
        worker.end()


def test_cpu_of_all_threads_and_of_no_other(workers):
    cost = CostMeter(lambda: [worker.thread for worker in workers])
    before = cost.read()
    for worker in workers:
        worker.work(0.05)
    ends_ns = time.thread_time_ns() + 100_000_000
    while time.thread_time_ns() < ends_ns:  # ours is not one of them
        pass
    after = cost.read()
    assert after.cpu_s is not None
    assert before.cpu_s is not None
    assert 0.1 <= after.cpu_s - before.cpu_s < 0.15
    assert after.threads == 2
    assert cost.cpu_ns() == pytest.approx(after.cpu_s * 1e9, abs=5e6)


def test_each_wait_that_ends_is_a_wake_up(workers):
    cost = CostMeter(lambda: [workers[0].thread])
    before = cost.read().wakeups
    for _ in range(20):
        workers[0].work()
        time.sleep(0.002)  # so that it sleeps
    after = cost.read().wakeups
    assert before is not None
    assert after is not None
    assert after - before >= 20  # and those for the interpreter's lock

    def sleeps() -> bool:
        seen = cost.read().wakeups
        time.sleep(0.05)
        return cost.read().wakeups == seen

    until(sleeps, what="a wait that goes on is none")


@pytest.mark.parametrize("read", ["read", "cpu_ns"])
def test_threads_that_have_ended_stay_in_the_sum(workers, read):
    ended = Worker()
    threads = [ended.thread, workers[0].thread]
    cost = CostMeter(lambda: threads)
    ended.work(0.05)
    getattr(cost, read)()
    ended.end()
    now = cost.read()
    assert now.cpu_s is not None
    assert now.cpu_s >= 0.05
    assert now.threads == 1
    del threads[0]
    assert (cost.cpu_ns() or 0) >= now.cpu_s * 1e9, "nor does it matter whether it is still named"


def test_a_thread_is_counted_once_and_let_go(workers):
    ended = Worker()
    cost = CostMeter(lambda: [ended.thread] * 3)
    ended.work(0.05)
    first = cost.cpu_ns()
    assert first is not None
    assert first < 0.1e9
    ended.end()
    assert cost.cpu_ns() == cost.cpu_ns() == first
    assert not cost._last


def test_ids_that_are_used_again_are_other_threads(monkeypatch):
    """The kernel gives an id anew after 4 million others here, so the ids are put on by hand."""

    class Named(threading.Thread):
        native_id = 4_711
        alive = True

        def is_alive(self) -> bool:
            return self.alive

    readings = iter([100, 130, 7, 9])
    monkeypatch.setattr(meter, "thread_cpu_ns", lambda native_id: next(readings))
    first, second = Named(), Named()
    cost = CostMeter(lambda: [first] if first.alive else [second])
    assert cost.cpu_ns() == 100
    assert cost.cpu_ns() == 130
    first.alive = False
    assert cost.cpu_ns() == 137
    assert cost.cpu_ns() == 139


def test_never_down_while_threads_come_and_go():
    threads: list[threading.Thread] = []
    cost = CostMeter(lambda: list(threads))
    last_ns = last_wakeups = 0
    for _ in range(60):
        worker = Worker()
        threads.append(worker.thread)
        worker.work(0.001)
        now, cpu_ns = cost.read(), cost.cpu_ns()
        assert now.wakeups is not None
        assert cpu_ns is not None
        assert now.wakeups >= last_wakeups
        assert cpu_ns > last_ns
        last_ns, last_wakeups = cpu_ns, now.wakeups
        worker.end()
    assert last_ns >= 60 * 1_000_000


def test_a_thread_that_has_not_begun():
    cost = CostMeter(lambda: [threading.Thread()])
    assert cost.cpu_ns() == 0
    assert cost.read().threads == 0


def test_a_thread_that_is_gone_tells_nothing():
    worker = Worker()
    native_id = worker.thread.native_id
    assert native_id is not None
    assert thread_cpu_ns(native_id) is not None
    assert thread_wakeups(native_id) is not None
    worker.end()
    until(lambda: thread_cpu_ns(native_id) is None)
    assert thread_wakeups(native_id) is None


def test_the_clock_is_the_one_of_that_thread():
    ident = threading.get_ident()
    assert time.pthread_getcpuclockid(ident) == (~threading.get_native_id() << 3) | 6


def test_where_the_system_cannot_tell(workers, monkeypatch):
    """Stands in for macOS, which is not here."""
    monkeypatch.setattr(meter, "_LINUX", False)
    monkeypatch.setattr(sys, "platform", "darwin")
    cost = CostMeter(lambda: [worker.thread for worker in workers])
    now = cost.read()
    assert (now.cpu_s, now.wakeups, now.threads) == (None, None, 2)
    assert cost.cpu_ns() is None


def test_psutil_tells_the_cpu_elsewhere(workers, monkeypatch):
    """Stands in for Windows; psutil itself is real. It resolves 10 ms here."""
    monkeypatch.setattr(meter, "_LINUX", False)
    cost = CostMeter(lambda: [worker.thread for worker in workers])
    workers[0].work(0.1)
    now = cost.read()
    assert now.wakeups is None
    assert now.cpu_s is not None
    assert 0.05 <= now.cpu_s <= 0.2


def test_the_whole_of_a_process_and_from_its_beginning():
    code = (
        "import threading, time\nfrom mcilib.resources.meter import CostMeter\n"
        "def work():\n    end = time.thread_time() + 0.05\n    while time.thread_time() < end: pass\n"
        "for _ in range(2):\n    t = threading.Thread(target=work); t.start(); t.join()\n"
        "for _ in range(30): time.sleep(0.001)\n"
        "own, all_ = CostMeter(), CostMeter(whole_process=True)\n"
        "assert own.cpu_ns() == 0 and own.read().wakeups == 0\n"
        "now = all_.read()\nassert now.cpu_s >= 0.1, now\nassert 30 <= now.wakeups < 300, now\n"
        "assert all_.cpu_ns() >= 100_000_000"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
