"""What the participant decides while the collector is being stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Run, rows
from waiting import until

from mcilib import limits
from mcilib.participant import Participant


def in_thread(step: Callable[[], Any], said: list[Any]) -> threading.Thread:
    def run() -> None:
        try:
            said.append(step())
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["withdraw", "forget"])
def test_what_is_being_deleted_is_deleted(tmp_path: Path, name: str) -> None:
    """Another deletion goes on, so that this one has only begun when `stop` comes."""
    said: list[Any] = []
    with Run(tmp_path) as run:
        run.move(1)
        run.collector.commit()
        controls = run.collector._controls
        with controls._erasing:
            step = {"withdraw": run.collector.withdraw, "forget": lambda: run.collector.forget(600)}[name]
            deleting = in_thread(step, said)
            until(lambda: controls._deciding, what="it has begun")
            stopping = in_thread(run.collector.stop, said)
            until(lambda: not run.move(2), what="the sources are stopped")
            time.sleep(0.2)
            assert said == []
        deleting.join(10)
        stopping.join(10)
        assert [one for one in said if isinstance(one, Exception)] == []
        assert rows(tmp_path) == []
        if name == "withdraw":
            withdrawal = Participant.read_state(tmp_path).withdrawal
            assert withdrawal is not None
            assert withdrawal.record_id


@pytest.mark.as_shipped
def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    said: list[Any] = []
    with Run(tmp_path) as run:
        run.move(1)
        controls = run.collector._controls
        with controls._erasing:
            deleting = in_thread(run.collector.withdraw, said)
            until(lambda: controls._deciding, what="it has begun")
            began_s = time.monotonic()
            in_thread(run.collector.stop, []).join(20)
            assert time.monotonic() - began_s < limits.STOP_TIMEOUT_S + 2
        deleting.join(10)
        assert len(said) == 1
    assert Participant.read_state(tmp_path).withdrawal is not None, "the next start goes on with it"


def test_stop_in_the_midst_of_it_waits_for_nobody(tmp_path: Path) -> None:
    """As from a signal handler, or the host's own `on_control`."""
    with Run(tmp_path) as run:
        began_s: list[float] = []

        def stops() -> None:
            began_s.append(time.monotonic())
            run.collector.stop()
            began_s.append(time.monotonic())

        run.collector._controls._decide("pause", stops)
        assert began_s[1] - began_s[0] < limits.STOP_TIMEOUT_S - limits.STOP_RESERVE_S
