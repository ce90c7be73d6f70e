"""A recorder on fakes, and what it has committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcilib import Recorder
from mcilib.consent import Gate, Grant
from mcilib.events import Event
from mcilib.format.batch import Batch, decode
from mcilib.testing.fakes import FakeSource, MemorySpool, example_grant


def recorder(
    spool: MemorySpool | None = None, grant: Grant | None = None, *, started: bool = True, **options: Any
) -> tuple[Recorder, MemorySpool]:
    """A recorder of one source `pointer`. Not `started`, its thread is left out: the test takes its turns."""
    spool = spool if spool is not None else MemorySpool()
    made = Recorder(gate=Gate(grant or example_grant()), spool=spool, sources=[FakeSource()], **options)
    if started:
        made.start()
    else:
        made._running = made._taking = True
    return made, spool


def batches(spool: MemorySpool, identities: Sequence[str] = ()) -> list[Batch]:
    """What was committed, in order of sequence."""
    return [decode(sealed.data, identities) for id_ in spool.waiting() if (sealed := spool.read(id_))]


def rows(spool: MemorySpool) -> list[Event]:
    return [event for batch in batches(spool) for event in batch.events]


def sizes(spool: MemorySpool) -> list[int]:
    return [len(batch.events) for batch in batches(spool)]
