"""A batch names what its sources were heard with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from recording import batches
from waiting import until

from mcilib import Collector, KeyboardSource, Move, PointerSource, Reader, Recorder, ReplaySource
from mcilib.consent import Gate
from mcilib.format.batch import Batch
from mcilib.testing.fakes import FakeSource, MemorySpool, example_grant
from mcilib.testing.xvfb import VirtualDisplay

Q = 24
"""Code of a key."""


def spooled(state: Path) -> list[Batch]:
    """What lies in the spool there, each batch once."""
    return list({row.batch.header.batch_id: row.batch for row in Reader(state / "spool").rows()}.values())


def committed(*sources: Any) -> Batch:
    """The one batch of a recorder of these sources."""
    spool = MemorySpool()
    recorder = Recorder(gate=Gate(example_grant()), spool=spool, sources=sources)
    recorder.start()
    recorder.emit(Move(1, 2, 3))
    recorder.stop()
    [batch] = batches(spool)
    return batch


@pytest.mark.parametrize(
    ("pointer", "keyboard"), [("xrecord", "xrecord"), ("pynput", "pynput"), ("xrecord", "pynput")]
)
def test_real_input_names_what_heard_it(
    tmp_path: Path, xserver: VirtualDisplay, pointer: str, keyboard: str
) -> None:
    sources = PointerSource(backend=pointer), KeyboardSource(backend=keyboard)
    with Collector(grant=example_grant(), sources=sources, state_dir=tmp_path) as collector:
        for n in range(20):
            xserver.move(100 + n, 200)
        xserver.tap(Q)
        xserver.sync()
        wanted = {"layout": 1, "move": 20, "key_press": 1, "key_release": 1}
        until(lambda: collector.statistics().capture.captured == wanted, what="20 moves and a key")
    found = spooled(tmp_path)
    # pynput tells the layout with the first key, and begins a batch with it if moves came before.
    assert len(found) == 1 or (keyboard == "pynput" and len(found) == 2)
    for batch in found:
        assert batch.metadata.backends == {"pointer": pointer, "keyboard": keyboard}
        assert batch.metadata.clocks == {"pointer": "x11", "keyboard": "x11"}
    assert Counter(event.kind for batch in found for event in batch.events) == wanted


def test_a_replay_is_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "pointer.csv"
    trace.write_text("t_ns,kind,x,y,button\n1,move,1,2,\n")
    source = ReplaySource(trace, speed=None)
    with Collector(grant=example_grant(), sources=[source], state_dir=tmp_path / "state"):
        assert source.wait(5)
    [batch] = spooled(tmp_path / "state")
    assert batch.metadata.backends == {"pointer": "trace"}


class _Heard(FakeSource):
    """A source with an attribute `backend`, which the promise does not ask for."""

    def __init__(self, name: str, backend: object) -> None:
        super().__init__(name)
        self.backend = backend


def test_a_source_may_say_nothing() -> None:
    assert committed(FakeSource()).metadata.backends == {}
    batch = committed(FakeSource("first"), _Heard("second", "of mine"), FakeSource("third"))
    assert batch.metadata.backends == {"second": "of mine"}


@pytest.mark.parametrize("other", [None, 7, b"x", ["xrecord"], dict, "x" * 129, "\ud800"], ids=ascii)
def test_an_attribute_that_means_something_else_costs_no_batch(other: object) -> None:
    batch = committed(_Heard("pointer", other), _Heard("keyboard", "x" * 128))
    assert batch.metadata.backends == {"keyboard": "x" * 128}
    assert len(batch.events) == 1
