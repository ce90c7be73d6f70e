"""A pytest fixture for code that embeds mcilib: a running collector on fakes, in the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcilib.collector import Collector
from mcilib.events import Event
from mcilib.reader import Reader
from mcilib.testing.fakes import FakeSource, FakeTransport, example_grant


@dataclass(frozen=True)
class Recording:
    """A running `collector` with fake sources (`pointer`, `keyboard`) and a fake `transport`."""

    collector: Collector
    pointer: FakeSource
    keyboard: FakeSource
    transport: FakeTransport
    folder: Path

    def delivered(self) -> list[Event]:
        """Flushes, and reads back what the transport received."""
        self.collector.flush()
        store = self.folder / "received"
        store.mkdir(exist_ok=True)
        for batch in self.transport.received.values():
            (store / f"{batch.batch_id}.mcib").write_bytes(batch.data)
        return [row.event for row in Reader(store).rows()]


@pytest.fixture
def mcilib_recording(tmp_path: Path) -> Iterator[Recording]:
    """A `Recording` whose collector runs for the length of the test, whatever battery and network are like."""
    pointer, keyboard = FakeSource("pointer", "pointer"), FakeSource("keyboard", "keys")
    transport = FakeTransport()
    state = tmp_path / "mcilib-state"
    with Collector(
        sources=[pointer, keyboard], grant=example_grant(), state_dir=state, transport=transport, policies=()
    ) as collector:
        yield Recording(collector, pointer, keyboard, transport, tmp_path)
