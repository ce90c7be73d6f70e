"""The uploader's thread, with real servers: when it wakes, how it stops, that it sleeps otherwise."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from random import Random
from types import SimpleNamespace

import pytest
from costs import cost_at_rest, thread_cost
from waiting import until

from mcilib import limits
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Flushed, Uploader
from mcilib.protocols import Outcome, Receipt, ReceiptStatus, Reply


class Fake:
    """A transport whose next request can be made to wait."""

    def __init__(self) -> None:
        self.requests = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.threads: set[int] = set()

    def send(self, batches, /) -> Reply:
        self.requests += 1
        self.threads.add(threading.get_ident())
        assert self.go_on.wait(20)
        return Reply(
            Outcome.DELIVERED, {b.batch_id: Receipt(b.batch_id, ReceiptStatus.STORED) for b in batches}
        )

    def close(self) -> None:
        pass


@pytest.fixture
def fake():
    transport = Fake()
    yield transport
    transport.go_on.set()


@pytest.fixture
def make(spool):
    made = []

    def uploader(transport, **options) -> Uploader:
        made.append(Uploader(spool, transport, **options))
        return made[-1]

    yield uploader
    for one in made:
        one.stop()


# --- when it wakes ------------------------------------------------------------------------------------------


def test_what_an_earlier_run_left_goes_out_within_one_interval(make, spool, seal, fake):
    spool.commit(seal())
    make(fake, interval_s=0.1).start()
    until(lambda: not spool.waiting())


def test_interval_s_is_the_time_between_uploads(make, spool, seal, fake):
    uploader = make(fake, interval_s=0.2)
    uploader.start()
    for round_ in (1, 2):
        spool.commit(seal())
        uploader.notify()
        until(lambda: not spool.waiting())
        assert fake.requests == round_
    assert uploader.statistics().last_outcome == "delivered"


def test_a_long_interval_keeps_a_commit_waiting(make, spool, seal, fake):
    uploader = make(fake, interval_s=3_600, random=Random(1))
    uploader.start()
    spool.commit(seal())
    uploader.notify()
    until(lambda: uploader.statistics().next_attempt_s)
    assert 100 < uploader.statistics().next_attempt_s <= 3_600
    assert fake.requests == 0


def test_flush_sends_now_in_the_uploaders_own_thread(make, spool, seal, fake):
    uploader = make(fake)
    uploader.start()
    for _ in range(3):
        spool.commit(seal())
    assert uploader.flush() == Flushed(True, True, Outcome.DELIVERED, "")
    assert fake.threads == {uploader.threads()[0].ident}
    assert uploader.threads()[0].daemon


def test_two_flushes_at_once_both_end(make, spool, seal, fake):
    uploader = make(fake)
    uploader.start()
    fake.go_on.clear()
    results: list[Flushed] = []
    threads = []
    for _ in range(2):
        spool.commit(seal())
        threads.append(threading.Thread(target=lambda: results.append(uploader.flush())))
        threads[-1].start()
        until(lambda: fake.requests)
    fake.go_on.set()
    for thread in threads:
        thread.join()
    assert [result.delivered for result in results] == [True, True]


def test_flush_counts_what_an_upload_under_way_delivers(make, spool, seal, fake):
    """The batch it waits for is in a request that began before."""
    uploader = make(fake)
    uploader.start()
    fake.go_on.clear()
    spool.commit(seal())
    first = threading.Thread(target=uploader.flush)
    first.start()
    until(lambda: fake.requests)
    threading.Timer(0.1, fake.go_on.set).start()
    result = uploader.flush()
    assert (result.settled, result.delivered) == (True, True)
    assert fake.requests == 1
    first.join()


def test_the_interval_goes_on_after_trouble(make, spool, seal, serve, monkeypatch):
    """Down, then up again: delivered by the schedule alone."""
    monkeypatch.setattr(limits, "BACKOFF_FIRST_S", 0.02)
    up = threading.Event()

    def answer(request):
        receipts = {"receipts": [{"batch": request.body[:32].decode(), "status": "stored"}]}
        body = json.dumps(receipts).encode() if up.is_set() else b""
        return SimpleNamespace(status=200 if up.is_set() else 503, body=body, headers={})

    server = serve(answer)
    transport = HttpTransport(server.url)
    uploader = make(transport, interval_s=0.02, attempts=1)
    uploader.start()
    spool.commit(seal())
    uploader.notify()
    until(lambda: len(server.requests) >= 2)
    up.set()
    until(lambda: not spool.waiting())
    uploader.stop()
    transport.close()
    assert spool.statistics().delivered_batches == 1


# --- when it sleeps -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts context switches in /proc")
def test_with_nothing_waiting_or_nothing_due_the_thread_never_wakes(make, spool, seal, fake):
    uploader = make(fake, interval_s=3_600)
    uploader.start()
    before = cost_at_rest(uploader.threads())
    time.sleep(0.5)
    assert thread_cost(uploader.threads()).wakeups == before.wakeups
    spool.commit(seal())
    uploader.notify()
    until(lambda: uploader.statistics().next_attempt_s)
    before = cost_at_rest(uploader.threads())
    for _ in range(50):  # the thread has a deadline: a commit does not move it
        spool.commit(seal())
        uploader.notify()
    time.sleep(0.2)
    assert thread_cost(uploader.threads()).wakeups == before.wakeups


# --- how it stops -------------------------------------------------------------------------------------------


def test_stop_never_uploads_and_may_be_called_twice(make, spool, seal, fake):
    uploader = make(fake)
    uploader.stop()
    uploader.start()
    uploader.start()
    assert len([t for t in threading.enumerate() if t.name == "mcilib-uploader"]) == 1
    spool.commit(seal())
    uploader.notify()
    uploader.stop()
    uploader.stop()
    assert not uploader.threads()[0].is_alive()
    assert fake.requests == 0
    assert len(spool.waiting()) == 1


def test_a_stopped_uploader_starts_again(make, spool, seal, fake):
    uploader = make(fake)
    for _ in range(2):
        uploader.start()
        spool.commit(seal())
        assert uploader.flush().delivered
        uploader.stop()
    assert fake.requests == 2


def test_stop_does_not_wait_for_a_request_that_hangs(make, spool, seal, raw_serve):
    """A second is what it waits for; half a minute is what the request would take."""
    hanging, hang_up = threading.Event(), threading.Event()

    def talk(connection) -> None:
        hanging.set()
        hang_up.wait(60)

    transport = HttpTransport(raw_serve(talk).url, timeout_s=30)
    uploader = make(transport)
    uploader.start()
    spool.commit(seal())
    results: list[Flushed] = []
    flush = threading.Thread(target=lambda: results.append(uploader.flush()))
    flush.start()
    assert hanging.wait(20)
    begin_s = time.monotonic()
    uploader.stop()
    assert 0.9 < time.monotonic() - begin_s < 10
    flush.join()
    assert results == [Flushed(False, False, None, "the uploader was stopped")]
    assert uploader.threads()[0].is_alive(), "it is left behind"
    hang_up.set()
    until(lambda: not uploader.threads()[0].is_alive())
    transport.close()
    assert len(spool.waiting()) == 1


def test_stop_timeout_is_how_long_a_request_is_waited_for(make, spool, seal, fake):
    """Neither the second that it is without one, nor until the request ends."""
    uploader = make(fake)
    uploader.start()
    fake.go_on.clear()
    spool.commit(seal())
    flush = threading.Thread(target=uploader.flush)
    flush.start()
    until(lambda: fake.requests)
    began_s = time.monotonic()
    uploader.stop(timeout_s=1.5)
    assert 1.5 <= time.monotonic() - began_s < 10
    fake.go_on.set()
    flush.join()


def test_what_a_request_delivers_while_stop_waits_is_settled(make, spool, seal, fake):
    uploader = make(fake)
    uploader.start()
    fake.go_on.clear()
    spool.commit(seal())
    flush = threading.Thread(target=uploader.flush)
    flush.start()
    until(lambda: fake.requests)
    threading.Timer(0.1, fake.go_on.set).start()
    uploader.stop()
    flush.join()
    assert spool.waiting() == ()


def test_stop_ends_the_wait_between_attempts_without_another_attempt(make, spool, seal, monkeypatch):
    monkeypatch.setattr(limits, "ATTEMPT_WAIT_FIRST_S", 60.0)
    monkeypatch.setattr(limits, "ATTEMPT_WAIT_CAP_S", 60.0)
    monkeypatch.setattr("random.uniform", lambda a, b: b)
    requests = []

    class Busy(Fake):
        def send(self, batches, /) -> Reply:
            requests.append(1)
            return Reply(Outcome.RETRY, detail="busy")

    uploader = make(Busy(), attempts=3)
    uploader.start()
    spool.commit(seal())
    flush = threading.Thread(target=uploader.flush)
    flush.start()
    until(lambda: requests)
    cost_at_rest(uploader.threads())
    uploader.stop()
    assert not uploader.threads()[0].is_alive()
    assert len(requests) == 1
    flush.join()


def test_stop_ends_a_flush_in_the_callers_thread_before_its_next_request(make, spool, seal, fake):
    uploader = make(fake, max_request_bytes=1)
    fake.go_on.clear()
    for _ in range(3):
        spool.commit(seal())
    results: list[Flushed] = []
    flush = threading.Thread(target=lambda: results.append(uploader.flush()))
    flush.start()
    until(lambda: fake.requests)
    uploader.stop()
    fake.go_on.set()
    flush.join()
    assert fake.requests == 1
    assert len(spool.waiting()) == 2
    assert not results[0].settled


def test_flush_timeout_is_held_while_a_request_hangs(make, spool, seal, fake):
    uploader = make(fake)
    uploader.start()
    fake.go_on.clear()
    spool.commit(seal())
    begin_s = time.monotonic()
    result = uploader.flush(timeout_s=0.2)
    assert 0.15 < time.monotonic() - begin_s < 8  # 10, were it the default
    assert result == Flushed(False, False, None, "still busy after 0.2 s")


def test_an_interpreter_that_ends_does_not_wait_for_the_thread(tmp_path, raw_serve):
    import subprocess

    server = raw_serve(lambda connection: connection.recv(1))
    script = """
import sys, threading, time
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import SealedBatch
spool = DirectorySpool(sys.argv[1])
spool.open()
spool.commit(lambda sequence: SealedBatch("a" * 32, sequence, b"x"))
uploader = Uploader(spool, HttpTransport(sys.argv[2], timeout_s=60))
uploader.start()
uploader.flush(0.3)
"""
    subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path / "spool"), server.url], check=True, timeout=30
    )
    assert DirectorySpool.read_statistics(tmp_path / "spool").waiting_batches == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_fork_sends_nothing_and_says_so(make, spool, seal, fake):
    uploader = make(fake)
    uploader.start()
    spool.commit(seal())
    with uploader._wake:  # the worst moment
        pid = os.fork()
        if pid == 0:
            result = uploader.flush(1)
            uploader.stop()
            os._exit(0 if not result.settled and "fork" in result.detail and not fake.requests else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert uploader.flush().delivered
