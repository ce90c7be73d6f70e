"""The composition: start refuses clearly, stop keeps everything, two collectors do not know each other."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from costs import cost_at_rest, thread_cost
from waiting import until

from mcilib import (
    Collector,
    ConfigError,
    GrantError,
    KeyPress,
    McilibError,
    Move,
    PointerSource,
    Reader,
    SourceError,
    SpoolError,
    limits,
)
from mcilib.policy.plan import Upload
from mcilib.protocols import Outcome, Reply
from mcilib.testing.fakes import FakeSource, FakeTransport, ManualClock, example_grant


def collector(tmp_path, *sources, **options):
    options.setdefault("grant", example_grant())
    return Collector(sources=sources or [FakeSource()], state_dir=tmp_path / "state", **options)


def events(tmp_path):
    return [row.event for row in Reader(tmp_path / "state" / "spool").rows()]


def mcilib_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mcilib")]


# --- start --------------------------------------------------------------------------------------------------


def test_nothing_exists_before_start(tmp_path):
    subject = collector(tmp_path, FakeSource(), transport=FakeTransport())
    assert mcilib_threads() == []
    assert list(tmp_path.iterdir()) == []
    assert not subject.statistics().running
    assert not subject.health().ok


@pytest.mark.parametrize(
    ("grant", "message"),
    [
        (None, "There is no grant"),
        (example_grant(expires_in=timedelta(seconds=-1)), "expired"),
        (example_grant("keys"), "not 'pointer'"),
    ],
)
def test_no_start_without_a_grant_that_covers_it(tmp_path, grant, message):
    source = FakeSource()
    subject = collector(tmp_path, source, grant=grant)
    with pytest.raises(GrantError, match=message):
        subject.start()
    assert mcilib_threads() == []
    assert list(tmp_path.iterdir()) == []
    assert source.feed(Move(0, 1, 1)) == 0


def test_a_source_that_fails_leaves_nothing_running(tmp_path):
    good, bad = FakeSource(), FakeSource("keyboard", "keys", fails=SourceError("It is broken", "Mend it."))
    subject = collector(tmp_path, good, bad)
    with pytest.raises(SourceError, match="broken"):
        subject.start()
    assert mcilib_threads() == []
    assert good.feed(Move(0, 1, 1)) == 0
    subject2 = collector(tmp_path)  # the spool was given back
    subject2.start()
    subject2.stop()


def test_sources_need_names_of_their_own(tmp_path):
    with pytest.raises(SourceError):
        collector(tmp_path, FakeSource(), FakeSource())
    with pytest.raises(SourceError):
        Collector(sources=[], grant=example_grant(), state_dir=tmp_path)


def test_one_state_directory_has_one_collector(tmp_path):
    with collector(tmp_path), pytest.raises(SpoolError, match="another"):
        collector(tmp_path).start()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(SpoolError):
        collector(tmp_path).start()


def test_errors_are_of_one_tree():
    assert issubclass(GrantError, McilibError)
    assert issubclass(SpoolError, McilibError)


# --- the run ------------------------------------------------------------------------------------------------


def test_stop_commits_and_uploads_nothing(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    subject = collector(tmp_path, source, transport=transport)
    with subject:
        source.feed(Move(time.monotonic_ns(), 1, 2))
    assert transport.requests == []
    assert transport.closed == 1
    assert [(e.x, e.y) for e in events(tmp_path)] == [(1, 2)]
    assert mcilib_threads() == []
    subject.stop()  # twice is fine


def test_flush_delivers_everything(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    with collector(tmp_path, source, transport=transport) as subject:
        source.feed(*(Move(time.monotonic_ns(), n, n) for n in range(10)))
        result = subject.flush()
        assert result.delivered
        assert result.committed
        assert result.waiting_batches == 0
        assert len(transport.received) == 1
        statistics = subject.statistics()
        assert statistics.capture.captured == {"move": 10}
        assert statistics.spool.committed_batches == statistics.spool.delivered_batches == 1
        assert statistics.upload.delivered_batches == 1
        assert statistics.cost.cpu_s > 0
        assert statistics.as_dict()["capture"]["captured"] == {"move": 10}


def test_flush_says_why_something_still_waits(tmp_path):
    source, transport = FakeSource(), FakeTransport([Outcome.REFUSED] * 5)
    with collector(tmp_path, source, transport=transport) as subject:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        result = subject.flush()
        assert not result.delivered
        assert result.committed
        assert result.waiting_batches == 1
        assert result.detail
        assert not subject.health().ok
    assert len(events(tmp_path)) == 1


def test_flush_without_transport_and_without_a_run(tmp_path):
    source = FakeSource()
    subject = collector(tmp_path, source)
    assert "not running" in subject.flush().detail
    with subject:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        result = subject.flush()
        assert (result.delivered, result.committed, result.waiting_batches) == (False, True, 1)


def test_an_expired_grant_sends_nothing_and_says_so(tmp_path):
    from datetime import UTC, datetime

    clock = ManualClock(wall_ns=int(datetime.now(UTC).timestamp() * 1e9))
    source, transport = FakeSource(), FakeTransport()
    grant = example_grant(expires_in=timedelta(hours=1))
    with collector(tmp_path, source, transport=transport, grant=grant, clock=clock) as subject:
        source.feed(Move(clock.monotonic_ns(), 1, 1))
        subject._recorder.commit()
        clock.advance(3601)
        assert not subject.flush(timeout_s=2).delivered
        assert transport.requests == []
        assert any("expired" in problem.message for problem in subject.health().problems)


def test_it_can_be_started_again(tmp_path):
    source = FakeSource()
    subject = collector(tmp_path, source)
    for n in range(2):
        with subject:
            source.feed(Move(time.monotonic_ns(), n, n))
    assert [event.x for event in events(tmp_path)] == [0, 1]
    assert [h.sequence for h in Reader(tmp_path / "state" / "spool").headers()] == [1, 2]


def test_two_collectors_do_not_know_each_other(tmp_path):
    sources = [FakeSource(), FakeSource()]
    subjects = [collector(tmp_path / str(n), source) for n, source in enumerate(sources)]
    with subjects[0], subjects[1]:
        sources[0].feed(Move(time.monotonic_ns(), 1, 1))
        sources[1].feed(Move(time.monotonic_ns(), 2, 2), Move(time.monotonic_ns(), 3, 3))
    assert [len(events(tmp_path / str(n))) for n in range(2)] == [1, 2]


# --- interrupted, forked, out of order ----------------------------------------------------------------------


def test_numbers_that_cannot_be_are_refused_before_anything_happens(tmp_path):
    for option, value in (
        ("batch_max_events", 0), ("batch_max_events", 10**9), ("batch_max_events", 2.5), ("batch_max_bytes", 0),
        ("batch_max_bytes", 2**22), ("quanta_per_px", 0), ("quanta_per_px", 257), ("quanta_per_px", 1.5),
        ("recipients", "age1..."), ("batch_max_age_s", float("nan")),
        ("batch_max_age_s", float("inf")), ("zstd_level", 100), ("zstd_level", 0), ("upload_interval_s", -1),
        ("upload_interval_s", float("nan")), ("max_request_bytes", 0), ("spool_max_files", 0), ("spool_max_bytes", 0),
        ("spool_max_age_s", 0), ("spool_min_free_bytes", -1),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=option.removeprefix("spool_")):
            collector(tmp_path, **{option: value})
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_during_stop_loses_nothing(tmp_path, monkeypatch):
    source = FakeSource()
    subject = collector(tmp_path, source)
    subject.start()
    source.feed(Move(time.monotonic_ns(), 1, 1))
    left = [3]
    recorder_stop = subject._recorder.stop

    def interrupted_stop():
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        recorder_stop()

    monkeypatch.setattr(subject._recorder, "stop", interrupted_stop)
    with pytest.raises(KeyboardInterrupt):
        subject.stop()
    assert [event.x for event in events(tmp_path)] == [1]
    assert not subject.statistics().running
    assert mcilib_threads() == []
    with collector(tmp_path):  # the spool was given back
        pass


@pytest.mark.parametrize(("delay_s", "commit_s"), [(0.0005, 0), (0.002, 0), (0.02, 0), (0.1, 0.3)])
def test_two_real_interrupts_in_a_row_keep_what_was_captured(tmp_path, delay_s, commit_s):
    """Also where the second one comes while the last commit goes on."""
    code = f"""
import os, signal, threading, time
from mcilib import Collector, Move
from mcilib.delivery.spool import DirectorySpool
from mcilib.testing.fakes import FakeSource, example_grant
commit = DirectorySpool.commit
def slow(self, seal):
    time.sleep({commit_s})
    return commit(self, seal)
DirectorySpool.commit = slow
source = FakeSource()
def interrupt():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep({delay_s})
try:
    with Collector(sources=[source], grant=example_grant(), state_dir={str(tmp_path / "state")!r}):
        for n in range(50):
            source.feed(Move(time.monotonic_ns(), n, n))
        threading.Thread(target=interrupt).start()
        time.sleep(30)
except KeyboardInterrupt:
    pass
"""
    subprocess.run([sys.executable, "-P", "-c", code], timeout=30, capture_output=True)
    assert [event.x for event in events(tmp_path)] == list(range(50))


@pytest.mark.parametrize("delay_s", [0.002, 0.01, 0.016, 0.02, 0.03])
def test_stop_from_a_signal_handler_during_start_leaves_nothing_running(tmp_path, xserver, delay_s):
    code = f"""
import signal, threading, time
from mcilib import Collector, KeyboardSource, PointerSource
from mcilib.testing.fakes import example_grant
collector = Collector(sources=[PointerSource(), KeyboardSource()], grant=example_grant(), state_dir={str(tmp_path / "state")!r})
signal.signal(signal.SIGALRM, lambda *_: collector.stop())
import pynput.mouse
signal.setitimer(signal.ITIMER_REAL, {delay_s})
began = time.monotonic()
collector.start()
time.sleep(0.3)
print(time.monotonic() - began < 2.5, collector.statistics().running, [t.name for t in threading.enumerate()])
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], timeout=30, capture_output=True, text=True)
    assert done.stdout.strip() == "True False ['MainThread']", done.stderr


@pytest.mark.as_shipped
def test_stop_during_a_start_that_hangs_on_a_frozen_display(tmp_path, own_xserver):
    own_xserver.freeze()
    subject = collector(tmp_path, PointerSource())
    starting = threading.Thread(target=subject.start)
    starting.start()
    time.sleep(0.5)
    began = time.monotonic()
    subject.stop()
    assert time.monotonic() - began < limits.STOP_TIMEOUT_S
    starting.join(3)
    assert not starting.is_alive()
    assert not subject.statistics().running


def test_a_forked_child_that_ends_leaves_the_parent_alone(tmp_path, xserver):
    code = f"""
import os, sys, time
from mcilib import Collector, PointerSource, KeyboardSource
from mcilib.testing.fakes import example_grant
collector = Collector(sources=[PointerSource(), KeyboardSource()], grant=example_grant(), state_dir={str(tmp_path / "state")!r})
collector.start()
print("ready", flush=True)
for _ in range(3):
    sys.stdin.readline()
    child = os.fork()
    if child == 0:
        assert not collector.statistics().running
        assert not collector.flush(1).committed
        assert not collector.health().ok
        collector.stop()
        sys.exit(0)
    os.waitpid(child, 0)
    print("forked", flush=True)
sys.stdin.readline()
collector.stop()
"""
    host = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert host.stdout.readline() == "ready\n"
    x = 100
    for _ in range(3):
        for _ in range(20):
            x += 1
            xserver.move(x, 50)
        xserver.sync()
        host.stdin.write("\n")
        assert host.stdout.readline() == "forked\n"
    host.communicate("\n", timeout=20)
    assert host.returncode == 0
    assert [event.kind for event in events(tmp_path)] == ["layout"] + ["move"] * 60
    assert [event.x for event in events(tmp_path)[1:]] == list(range(101, 161))


@pytest.mark.needs("strace")
@pytest.mark.slow
def test_stop_within_two_seconds_on_a_disk_that_takes_four_for_an_fsync(tmp_path):
    code = f"""
import time
from mcilib import Collector, Move
from mcilib.testing.fakes import FakeSource, example_grant
source = FakeSource()
collector = Collector(sources=[source], grant=example_grant(), state_dir={str(tmp_path / "state")!r})
collector.start()
open({str(tmp_path / "go")!r}, "w")
while not __import__("os").path.exists({str(tmp_path / "slow")!r}):
    time.sleep(0.05)
source.feed(Move(time.monotonic_ns(), 1, 1))
began = time.monotonic()
collector.stop()
print(time.monotonic() - began, flush=True)
__import__("os")._exit(0)
"""
    host = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    until((tmp_path / "go").exists)
    slow = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=4000000",
         "-p", str(host.pid)], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(1)
    (tmp_path / "slow").touch()
    took_s = float(host.stdout.readline())
    host.kill()
    host.wait()
    slow.wait(20)
    host.stdout.close()
    assert took_s < limits.STOP_TIMEOUT_S + 0.2


def test_parts_of_the_host_that_fail_do_not_keep_the_rest_from_stopping(tmp_path):
    class Bad(FakeSource):
        def stop(self):
            raise RuntimeError("a bug of somebody's source")

        def health(self):
            raise RuntimeError("a bug of somebody's source")

    class BadTransport(FakeTransport):
        def close(self):
            raise OSError("a bug of somebody's transport")

    source, bad = FakeSource(), Bad("keyboard", "keys")
    with collector(tmp_path, source, bad, transport=BadTransport()) as subject:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        assert any("cannot be told" in problem.message for problem in subject.health().problems)
    assert [event.x for event in events(tmp_path)] == [1]
    assert mcilib_threads() == []


def test_folders_are_the_owners_alone(tmp_path):
    import stat

    with collector(tmp_path):
        for folder in (
            tmp_path / "state",
            tmp_path / "state" / "spool",
            tmp_path / "state" / "spool" / "ready",
        ):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# --- options: each test fails when the option is ignored ----------------------------------------------------


def test_batch_max_events(tmp_path):
    source = FakeSource()
    with collector(tmp_path, source, batch_max_events=3):
        source.feed(*(Move(time.monotonic_ns(), n, n) for n in range(7)))
    assert len(list(Reader(tmp_path / "state" / "spool").headers())) == 3


def test_batch_max_bytes(tmp_path):
    source = FakeSource()
    with collector(tmp_path, source, batch_max_bytes=48):
        source.feed(*(Move(time.monotonic_ns(), n, n) for n in range(7)))
    assert len(list(Reader(tmp_path / "state" / "spool").headers())) == 3


@pytest.mark.parametrize(("quanta", "x"), [(1, 12), (4, 12.5), (256, 12.3984375)])
def test_quanta_per_px(tmp_path, quanta, x):
    source = FakeSource()
    with collector(tmp_path, source, quanta_per_px=quanta):
        source.feed(Move(time.monotonic_ns(), 12.4, 1))
    assert [event.x for event in events(tmp_path)] == [x]


def test_batch_max_age(tmp_path):
    source = FakeSource()
    with collector(tmp_path, source, batch_max_age_s=0.2) as subject:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        until(lambda: subject.statistics().spool.waiting_batches == 1, timeout_s=5)


def test_zstd_level(tmp_path):
    sizes = []
    for level in (1, 19):
        source = FakeSource()
        with collector(tmp_path / str(level), source, zstd_level=level) as subject:
            now = time.monotonic_ns()
            source.feed(*(Move(now + n * 7_000_000, (n * n) % 1000, (n * 37) % 700) for n in range(4_000)))
            subject.flush()
            sizes.append(subject.statistics().spool.waiting_bytes)
    assert sizes[1] < sizes[0]


def test_spool_max_files(tmp_path):
    source = FakeSource()
    with collector(tmp_path, source, spool_max_files=2, batch_max_events=1) as subject:
        source.feed(*(Move(n * 10**9, n, n) for n in range(5)))
        subject.flush()
        assert subject.statistics().spool.waiting_batches == 2
        assert subject.statistics().spool.lost["evicted"] == 3


def test_spool_max_bytes(tmp_path):
    source = FakeSource()
    with collector(tmp_path, source, spool_max_bytes=1_000, batch_max_events=1) as subject:
        source.feed(*(Move(n * 10**9, n, n) for n in range(10)))
        subject.flush()
        assert 0 < subject.statistics().spool.waiting_bytes <= 1_000


def test_spool_max_age(tmp_path):
    source, clock = FakeSource(), ManualClock()
    with collector(tmp_path, source, spool_max_age_s=3_600, batch_max_events=1, clock=clock) as subject:
        source.feed(Move(clock.monotonic_ns(), 1, 1))
        subject.flush()
        clock.advance(3_700)
        source.feed(Move(clock.monotonic_ns(), 2, 2))
        subject.flush()
        assert subject.statistics().spool.lost["expired"] == 1
        assert subject.statistics().spool.waiting_batches == 1


def test_plan_and_hold_and_fallback_age(tmp_path):
    clock = ManualClock()
    options = {"hold_s": 60.0, "fallback_age_s": 3_600.0, "clock": clock}
    source, transport = FakeSource(), FakeTransport()
    with collector(tmp_path, source, transport=transport, batch_max_events=1, **options) as subject:
        subject.override("host", upload="none")
        source.feed(Move(clock.monotonic_ns(), 1, 1))
        assert subject.flush().detail == "host set upload to none"
        subject.take_back("host")
        assert "hold_s" in subject.flush().detail
        clock.advance(60)
        assert subject.flush().delivered
        subject.override("host", upload=Upload.CONTROL)
        source.feed(Move(clock.monotonic_ns(), 2, 2))
        subject.flush()
        clock.advance(3_599)
        assert subject.flush().waiting_batches == 1
        clock.advance(1)
        assert subject.flush().delivered


def test_what_the_receiver_said_is_remembered_over_a_restart(tmp_path):
    script = [Reply(Outcome.RETRY, retry_after_s=600.0)]
    for transport in (FakeTransport(script), FakeTransport()):
        source = FakeSource()
        with collector(tmp_path, source, transport=transport, batch_max_events=1) as subject:
            source.feed(Move(time.monotonic_ns(), 1, 1))
            subject.flush()
            assert "asks to wait" in subject.flush().detail
    assert not transport.requests


def test_reconsider_brings_the_next_upload_forward(tmp_path):
    source = FakeSource()
    options = {"upload_interval_s": 86_400.0, "batch_max_events": 1}
    subject = collector(tmp_path, source, transport=FakeTransport(), **options)
    subject.reconsider()  # before the start: nothing
    subject.override("host", upload=Upload.NONE)
    with subject:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        subject.flush()
        assert subject.statistics().upload.next_attempt_s > 86_000
        waits = set()
        for _ in range(20):
            subject.reconsider()
            waits.add(subject.statistics().upload.next_attempt_s)
        assert min(waits) < 43_200


def test_a_batch_that_was_changed_on_the_disk_is_not_sent(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    with collector(tmp_path, source, transport=transport, batch_max_age_s=0.1) as subject:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        until(subject.spool.waiting)
        [file] = (subject.spool.path / "ready").iterdir()
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        subject.flush()
        assert subject.statistics().spool.lost["damaged"] == 1
    assert not transport.received


def test_upload_interval(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    with collector(tmp_path, source, transport=transport, batch_max_age_s=0.1, upload_interval_s=0.3):
        source.feed(Move(time.monotonic_ns(), 1, 1))
        until(lambda: transport.received, timeout_s=5)


def test_max_request_bytes(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    with collector(
        tmp_path, source, transport=transport, batch_max_events=1, max_request_bytes=1_000
    ) as subject:
        source.feed(*(Move(n * 10**9, n, n) for n in range(10)))
        assert subject.flush().delivered
    assert len(transport.requests) > 1


# --- manners ------------------------------------------------------------------------------------------------


def test_no_handler_is_set_and_logs_carry_no_payload(tmp_path, caplog):
    import logging
    import signal

    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    caplog.set_level(logging.DEBUG, logger="mcilib")
    source = FakeSource("keyboard", "keys")
    with collector(tmp_path, source, transport=FakeTransport([Outcome.RETRY])) as subject:
        source.feed(KeyPress(time.monotonic_ns(), "ctrl+secret"))
        subject.flush(timeout_s=1)
    assert handlers == {s: signal.getsignal(s) for s in handlers}
    assert all(isinstance(h, logging.NullHandler) for h in logging.getLogger("mcilib").handlers)
    assert "collecting keyboard for Example Lab" in caplog.text
    assert "secret" not in caplog.text


def test_an_interpreter_that_ends_without_stop_keeps_what_was_captured(tmp_path):
    code = f"""
import time
from mcilib import Collector, Move
from mcilib.testing.fakes import FakeSource, example_grant
source = FakeSource()
collector = Collector(sources=[source], grant=example_grant(), state_dir={str(tmp_path / "state")!r})
collector.start()
source.feed(Move(time.monotonic_ns(), 7, 8))
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=30)
    assert [(e.x, e.y) for e in events(tmp_path)] == [(7, 8)]


def test_killed_agents_lose_the_open_batch_only(tmp_path):
    grant = example_grant()
    grant.save(tmp_path / "state")
    code = f"""
import time
from mcilib import Collector, Grant, Move
from mcilib.testing.fakes import FakeSource
source, state = FakeSource(), {str(tmp_path / "state")!r}
collector = Collector(sources=[source], grant=Grant.load(state), state_dir=state)
collector.start()
source.feed(Move(time.monotonic_ns(), 1, 1))
collector.flush()
source.feed(Move(time.monotonic_ns(), 2, 2))
print("ready", flush=True)
time.sleep(60)
"""
    agent = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert agent.stdout.readline() == "ready\n"
    agent.kill()
    agent.wait()
    agent.stdout.close()
    assert [event.x for event in events(tmp_path)] == [1]
    source = FakeSource()
    with collector(tmp_path, source, grant=grant) as subject:
        source.feed(Move(time.monotonic_ns(), 3, 3))
        subject.flush()
        assert subject.statistics().spool.waiting_batches == 2
    assert [h.sequence for h in Reader(tmp_path / "state" / "spool").headers()] == [1, 2]


@pytest.mark.as_shipped
@pytest.mark.slow
def test_stop_within_two_seconds_while_the_upload_hangs(tmp_path):
    class Hanging(FakeTransport):
        def send(self, batches, /):
            hangs.set()
            release.wait(30)
            return super().send(batches)

    hangs, release = threading.Event(), threading.Event()
    source = FakeSource()
    subject = collector(tmp_path, source, transport=Hanging(), batch_max_age_s=0.05, upload_interval_s=0.1)
    subject.start()
    source.feed(Move(time.monotonic_ns(), 1, 1))
    assert hangs.wait(10)
    source.feed(Move(time.monotonic_ns(), 2, 2))
    began = time.monotonic()
    subject.stop()
    took = time.monotonic() - began
    release.set()
    assert took < limits.STOP_TIMEOUT_S
    assert [event.x for event in events(tmp_path)][-1] == 2


def test_real_input_to_spool_and_idle_silence(tmp_path, xserver, monkeypatch):
    monkeypatch.setattr(limits, "WATCH_WINDOW_S", 0.2)
    monkeypatch.setattr(limits, "WATCH_INTERVAL_S", 0.1)
    with collector(tmp_path, PointerSource(), transport=FakeTransport(), batch_max_age_s=0.3) as subject:
        for n in range(50):
            xserver.move(100 + n, 200)
        xserver.sync()
        until(lambda: subject.statistics().spool.waiting_batches == 1)
        before = cost_at_rest(subject.threads(), 0.5)
        threading.Event().wait(2.0)
        after = thread_cost(subject.threads())
        assert after.wakeups == before.wakeups, "a thread woke although there was no input"
        assert after.threads == before.threads == 5
    assert [event.x for event in events(tmp_path)] == list(range(100, 150))


def test_the_pytest_fixture(mcilib_recording):
    mcilib_recording.pointer.feed(Move(time.monotonic_ns(), 1, 2))
    mcilib_recording.keyboard.feed(KeyPress(time.monotonic_ns(), "letter"))
    assert [event.kind for event in mcilib_recording.delivered()] == ["move", "key_press"]


def test_the_pointer_is_started_last_whatever_the_order_of_sources(tmp_path):
    """Displays and layouts tell how things are when they start: rows before the first move."""
    started = []

    class Noting(FakeSource):
        def start(self, sink):
            started.append(self.name)
            super().start(sink)

    sources = [Noting("pointer"), Noting("display"), Noting("keyboard", "keys")]
    with Collector(sources=sources, grant=example_grant(), state_dir=tmp_path):
        pass
    assert started == ["display", "keyboard", "pointer"]
