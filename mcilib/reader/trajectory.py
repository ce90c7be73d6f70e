"""Rows -> actions: what a person did, in order of when it began, with what was known of the screen then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TextIO, TypeAlias

from mcilib.reader.actions import Action, Break, as_json
from mcilib.reader.events import Reader
from mcilib.reader.hand import Hand
from mcilib.reader.timeline import Boot, Hole, Segment, timeline

Item: TypeAlias = Action | Break


def trajectory(reader: Reader) -> Iterator[Item]:
    """The actions of each device in order of when they began, and the breaks between them. Devices one after
    the other, one batch in memory at a time.

    Displays, focus, and buttons and keys that are down are carried from batch to batch. They are forgotten at
    a hole, at another boot and at a pause, where they may have changed unseen; a gap cuts what its source
    gives. What cannot be read is told by the reader, as everywhere.
    """
    hand: Hand | None = None
    before: list[Hole | Boot] = []
    for part in timeline(reader):
        if isinstance(part, Hole | Boot):
            before = [*(one for one in before if one.device == part.device), part]
        elif isinstance(part, Segment):
            if (cut := _break(hand, before, part)) is not None:
                if hand is not None:
                    yield from hand.end()
                yield cut
                hand = Hand(part.device)
            before = []
            assert hand is not None  # noqa: S101  (the first segment of a device comes after its boot)
            yield from hand.take(part.batch)
    if hand is not None:
        yield from hand.end()


def _break(hand: Hand | None, before: list[Hole | Boot], segment: Segment) -> Break | None:
    """What `before` this segment, or in its coverage, says that something may be missing."""
    pause_ns = segment.batch.metadata.coverage.not_collected_ns
    batches = sum(part.batches for part in before if isinstance(part, Hole))
    if hand is None or hand.device != segment.device:
        cause = "start"
    elif batches:
        cause = "hole"
    elif before:
        cause = "boot"
    elif pause_ns:
        cause = "pause"
    else:
        return None
    return Break(
        device=segment.device,
        boot=segment.batch.metadata.boot,
        seq=segment.sequence,
        cause=cause,
        t_ns=segment.begin_wall_ns,
        monotonic_ns=segment.begin_ns,
        duration_ns=pause_ns or None,
        batches=batches or None,
    )


def write_trajectory(reader: Reader, file: TextIO) -> Mapping[str, int]:
    """Writes one JSON object (ASCII) per item of `trajectory`, as `as_json` gives them; returns how many of each
    kind. Errors of `file` pass through."""
    counts: dict[str, int] = {}
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    for item in trajectory(reader):
        file.write(encode(as_json(item)) + "\n")
        counts[item.kind] = counts.get(item.kind, 0) + 1
    return counts
