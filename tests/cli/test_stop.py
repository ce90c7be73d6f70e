"""The wish to end: a wait that signals end, and calls that it abandons."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from mcilib.cli._stop import StopSignal


@pytest.fixture(autouse=True)
def _handlers_come_back() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_signal_ends_the_wait_and_later_ones_are_ignored() -> None:
    with StopSignal() as stop:
        assert not stop.wait(0)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        started_s = time.monotonic()
        assert stop.wait(10)
        assert time.monotonic() - started_s < 5
        assert stop.wait(None), "once asked for, it stays"
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_another_thread_gets_ends_the_wait_too() -> None:
    """As one does that comes just before the wait: neither interrupts it."""

    def signalled() -> None:
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with StopSignal() as stop:
        threading.Thread(target=signalled).start()
        started_s = time.monotonic()
        assert stop.wait(10)
        assert time.monotonic() - started_s < 5
    assert signal.set_wakeup_fd(-1) == -1, "it is given back"


def test_many_signals_at_once_do_no_harm() -> None:
    with StopSignal() as stop:
        for _ in range(2_000):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)


def test_ctrl_c_is_heard_also_where_a_shell_had_it_ignored() -> None:
    """`mcilib run &` in a script begins with SIGINT ignored; `kill -INT` ends it all the same."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)


def test_what_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.wait(0.05)


def test_a_call_gives_its_result_or_its_error() -> None:
    with StopSignal() as stop:
        assert stop.call(lambda: 42).result() == 42
        with pytest.raises(ZeroDivisionError):
            stop.call(lambda: 1 / 0).result()
        assert not stop.requested


def test_a_call_that_hangs_is_left_behind() -> None:
    go_on = threading.Event()
    with StopSignal() as stop:
        call = stop.call(go_on.wait, 0.05)
        assert not call.done
        assert call.result() is None
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        again = stop.call(go_on.wait)
        assert (again.done, stop.requested) == (False, True)
        go_on.set()
        assert call.join(5)
        assert again.join(5)
