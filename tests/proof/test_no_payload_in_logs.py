"""Parts that fail tell that they do, and never with what they were given: neither their own words nor a traceback's."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from waiting import until

from mcilib.collector import Collector
from mcilib.consent import ExemptScope
from mcilib.events import Event, Focus, KeyPress, Move
from mcilib.format.seal import generate
from mcilib.protocols import ControlRecord, Reply, SealedBatch
from mcilib.sources.keyboard import KeyboardSource
from mcilib.testing.fakes import FakeResources, FakeSession, FakeSource, FakeTransport, example_grant
from mcilib.testing.xvfb import VirtualDisplay

CANARY = "zq3canary7title"


def fail(*_: object) -> NoReturn:
    raise ValueError(f"cannot do {CANARY}")


class FailingTransport(FakeTransport):
    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        fail(batches)

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        fail(records)

    def close(self) -> None:
        fail()


class FailingSession(FakeSession):
    fails = False

    @property
    def away(self) -> str | None:
        return fail() if self.fails else None


class FailingSource(FakeSource):
    """Fails when it is started again, and when it stops."""

    started = 0

    def start(self, sink: Any) -> None:
        self.started += 1
        if self.started == 2:
            fail()
        super().start(sink)

    def stop(self) -> None:
        super().stop()
        fail()


class Seen:
    def show(self, notice: object, /) -> bool:
        return True


def policy_that_fails(*_: object) -> Any:
    raise ValueError("it is given no payload, so its words may be told")


def test_whatever_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    keys: list[str] = [generate()[1]]
    source, session = FailingSource("window", "titles"), FailingSession()
    collector = Collector(
        sources=[source], grant=example_grant("titles"), state_dir=tmp_path / "state", transport=FailingTransport(),
        recipients=lambda: keys or fail(), resources=FakeResources(), session=session, policies=[policy_that_fails],
        indicator=Seen(), on_control=fail, batch_max_age_s=600,
    )  # fmt: skip
    collector.start()
    tell(source, 3)
    collector.request_exemption(ExemptScope(apps=(CANARY,)), "personal", f"about {CANARY}")
    collector.flush(2)
    collector.withdraw_exemption(collector.decisions.exemptions[0].exemption_id)
    collector.pause(60)
    collector.resume()
    until(lambda: source.started >= 3, what="it is started again after it has failed")
    tell(source, 3)
    source.feed(Focus(time.monotonic_ns(), CANARY, CANARY * 100), KeyPress(time.monotonic_ns(), CANARY * 100))
    source.feed(Move(time.monotonic_ns(), CANARY, 2), CANARY)  # type: ignore[arg-type]
    keys.clear()
    assert not collector.commit()
    keys.append("no key at all: " + CANARY)
    assert not collector.commit()
    session.fails = True
    session.become("locked")
    with caplog.at_level(logging.DEBUG):
        said = repr(collector.health()) + repr(collector.statistics())
    collector.stop()
    out, err = capfd.readouterr()
    assert caplog.records, "it says nothing at all"
    assert "ValueError" in caplog.text
    for place, text in (("log", caplog.text), ("health and statistics", said), ("output", out + err)):
        assert CANARY not in text, (place, text[max(0, text.find(CANARY) - 200) :][:300])
    assert not any(record.exc_info for record in caplog.records if CANARY in str(record.exc_info))


def tell(source: FakeSource, rows: int) -> None:
    for n in range(rows):
        source.feed(Focus(time.monotonic_ns(), CANARY, f"{CANARY} {n}"))


@pytest.mark.x11
@pytest.mark.parametrize("backend", ["xrecord", "pynput"])
def test_a_key_that_cannot_be_read(
    backend: str, xserver: VirtualDisplay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the midst of reading keys may have one in its words. So may one of who is told of them."""
    caplog.set_level(logging.DEBUG)

    class Sink:
        told = 0
        room = 100

        def emit(self, event: Event, /) -> bool:
            self.told += 1
            fail()

        def emit_all(self, events: Sequence[Event], /) -> int:
            return sum(map(self.emit, events))

    source, sink = KeyboardSource(backend=backend), Sink()
    source.start(sink)
    xserver.tap(xserver.keycode("a"))
    xserver.sync()
    until(lambda: sink.told, what="a key is told")
    monkeypatch.setattr(KeyboardSource, "_label", fail)
    xserver.tap(xserver.keycode("b"))
    xserver.sync()
    until(lambda: "ValueError" in caplog.text, what="it is said that it failed")
    source.stop()
    assert CANARY not in caplog.text
