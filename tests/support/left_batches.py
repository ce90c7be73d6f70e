"""Batches that an agent has left in a state folder, captured when a test wants it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcilib.clock import ClockAnchor, SystemClock
from mcilib.consent import SCOPES, Grant
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.events import Event, KeyPress, Move
from mcilib.format.open_batch import OpenBatch
from mcilib.participant import Participant
from mcilib.protocols import SealedBatch

MOVES: tuple[Event, ...] = (Move(0, 10, 20), Move(5_000_000, 30, 40))
KEYS: tuple[Event, ...] = (KeyPress(0, "letter"),)


def leave(
    state: Path,
    age_s: float = 60.0,
    *,
    events: Sequence[Event] = (*MOVES, *KEYS),
    recipients: Sequence[str] = (),
) -> str:
    """One batch, captured `age_s` ago; its id. Times of `events` count from then."""
    grant = Grant.load(state)
    clock = SystemClock()
    age_ns = int(age_s * 1e9)
    with DirectorySpool(state / "spool", intact=intact_frame) as spool:
        participant = Participant(state, spool)
        participant.open()
        now = participant.now()
        then = replace(now, monotonic_ns=now.monotonic_ns - age_ns, wall_ns=now.wall_ns - age_ns)
        batch = OpenBatch(ClockAnchor(then.monotonic_ns, clock.wall_ns() - age_ns), len(events))
        for event in sorted(events, key=lambda event: event.t_ns):
            batch.add(replace(event, t_ns=then.monotonic_ns + event.t_ns))
        kinds = {event.kind for event in events}
        scopes = [scope for scope in grant.scopes if kinds & set(SCOPES[scope].kinds)]

        def seal(sequence: int) -> SealedBatch:
            made = batch.seal(
                sequence=sequence,
                grant=grant,
                boot="0" * 16,
                clocks={"pointer": "trace"},
                recipients=recipients,
            )
            participant.journal.record(made.batch_id, sequence, then, then, scopes, grant)
            return made

        made = spool.commit(seal)
        participant.journal.sync()
        participant.close()
    return made.batch_id


def waiting(state: Path) -> list[str]:
    """Ids of the batches in the spool, oldest first."""
    return [path.stem.partition("-")[2] for path in sorted((state / "spool" / "ready").glob("*.mcib"))]


def requests(state: Path) -> list[dict[str, Any]]:
    """The control records in the spool, oldest first."""
    return [json.loads(path.read_bytes()) for path in sorted((state / "spool" / "control").glob("*.json"))]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
