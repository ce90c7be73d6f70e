"""Batches: the rows of one stretch of time with their header; built from events, sealed into a frame.

`encode` and `decode` are inverse to each other, to the tick and the pixel.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from mcilib import __version__, limits
from mcilib.clock import ClockAnchor
from mcilib.consent import Grant
from mcilib.errors import BatchFormatError
from mcilib.events import EVENT_TYPES, Event, Move, Scroll, event_count
from mcilib.format.columns import (
    COORDINATE_MAX_PX,
    COUNT_MAX,
    SCROLL_MAX,
    from_columns,
    tick_range,
    to_columns,
    writable,
)
from mcilib.format.frame import ROWS_MAX, pack_frame, unpack_frame
from mcilib.format.frame import read_header as read_header
from mcilib.format.frame import split_frames as split_frames
from mcilib.format.header import Header as Header
from mcilib.protocols import SealedBatch

SOFTWARE = f"mcilib/{__version__} {sys.platform}"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one frame holds. Rows are in the order in which they were written: by time, as we write them."""

    header: Header
    events: tuple[Event, ...]


def encode(batch: Batch, level: int = limits.ZSTD_LEVEL) -> bytes:
    """The frame of a batch. What its header says about its rows is taken from the rows.

    `level` is zstd's, 1 to 22. `ValueError` when a row or a field is beyond what the format can hold. Any
    thread.
    """
    header = batch.header
    anchor, tick_ns = header.anchor, header.tick_ns
    low, high = tick_range(anchor, tick_ns)
    low_ns, high_ns = anchor.monotonic_ns + low * tick_ns, anchor.monotonic_ns + high * tick_ns
    for index, event in enumerate(batch.events):
        if not (writable(event) and low_ns <= event.t_ns <= high_ns):
            raise ValueError(f"row {index} cannot be written")
    header = replace(header, **_about(batch.events, anchor, tick_ns))
    return pack_frame(header, to_columns(batch.events, anchor, tick_ns), level)


def decode(data: bytes) -> Batch:
    """The batch in one frame. Raises `BatchFormatError` and nothing else, whatever the bytes. Any thread."""
    header, columns, start = unpack_frame(data)
    try:
        events = from_columns(columns, header.anchor, header.tick_ns)
        if _about(events, header.anchor, header.tick_ns) != {
            name: getattr(header, name) for name in ("rows", "events", "first_ns", "last_ns")
        }:
            raise ValueError("rows, events or times are not what the header says")
    except ValueError as error:
        raise BatchFormatError(f"payload: {error}", start) from None
    return Batch(header, events)


class OpenBatch:
    """The batch that is being filled. Pure: no clock, no I/O. One thread; the properties from any.

    Takes anything up to `ROWS_MAX` rows, `full` says when to seal. Nothing is raised for an event that
    cannot be written (NaN, a name of a kilobyte): it is counted in `invalid` and, when sealed, in the
    coverage as dropped.
    """

    __slots__ = (
        "anchor",
        "tick_ns",
        "_max_events",
        "_first_ns",
        "_last_ns",
        "_rows",
        "_captured",
        "_invalid",
    )

    def __init__(
        self,
        anchor: ClockAnchor,
        max_events: int = limits.BATCH_MAX_EVENTS,
        tick_ns: int = limits.TICK_NS,
    ) -> None:
        if not 1 <= max_events <= ROWS_MAX:
            raise ValueError(f"max_events is {max_events}, not 1 to {ROWS_MAX}")
        self.anchor = anchor
        self.tick_ns = tick_ns
        self._max_events = max_events
        low, high = tick_range(anchor, tick_ns)
        self._first_ns = anchor.monotonic_ns + low * tick_ns
        self._last_ns = anchor.monotonic_ns + high * tick_ns
        self._rows: list[Event] = []
        self._captured = dict.fromkeys(EVENT_TYPES, 0)
        self._invalid = 0

    def add(self, event: Event) -> None:
        """Takes one event. A scroll may become part of the row before it (see `limits.SCROLL_MERGE_NS`)."""
        try:
            if type(event) is Move:  # nearly all of them
                if (
                    self._first_ns <= event.t_ns <= self._last_ns
                    and -COORDINATE_MAX_PX <= event.x <= COORDINATE_MAX_PX
                    and -COORDINATE_MAX_PX <= event.y <= COORDINATE_MAX_PX
                ):
                    self._rows.append(event)
                    self._captured["move"] += 1
                    return
            elif writable(event) and self._first_ns <= event.t_ns <= self._last_ns:
                if not (type(event) is Scroll and self._fold(event)):
                    self._rows.append(event)
                self._captured[event.kind] += int(event_count(event))
                return
        except TypeError:  # a time or coordinate that is not a number, from somebody else's source
            pass
        self._invalid += 1

    def _fold(self, step: Scroll) -> bool:
        row = self._rows[-1] if self._rows else None
        if (
            type(row) is Scroll
            and 0 <= step.t_ns - row.t_ns <= limits.SCROLL_MERGE_NS
            and (row.x, row.y) == (step.x, step.y)
            and _sign(row.dx) == _sign(step.dx)
            and _sign(row.dy) == _sign(step.dy)
        ):
            dx, dy, count = row.dx + step.dx, row.dy + step.dy, row.count + step.count
            if max(abs(dx), abs(dy)) <= SCROLL_MAX and count <= COUNT_MAX:
                self._rows[-1] = Scroll(row.t_ns, row.x, row.y, dx, dy, count)
                return True
        return False

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    @property
    def full(self) -> bool:
        return len(self._rows) >= self._max_events

    @property
    def captured(self) -> dict[str, int]:
        """Events by kind, without kinds of which there were none. Merged scrolls count all their steps."""
        return {kind: count for kind, count in self._captured.copy().items() if count}

    @property
    def event_count(self) -> int:
        return sum(self._captured.copy().values())

    @property
    def invalid(self) -> int:
        """Events that the format cannot hold."""
        return self._invalid

    def seal(
        self,
        *,
        sequence: int,
        grant: Grant,
        boot: str,
        sources: Mapping[str, str],
        coverage: Mapping[str, Any],
        level: int = limits.ZSTD_LEVEL,
        batch_id: str | None = None,
    ) -> SealedBatch:
        """The rows, put in order of time, as a frame. The batch stays as it is: it may be sealed again.

        `boot` as `mcilib.clock.boot_id`, `sources` by name with their clock, `coverage` as in `Header`
        (nothing dropped or excluded where it does not say), `batch_id` 32 hex digits, random by default.
        `ValueError` when one of them is not of that form.
        """
        rows = sorted(self._rows, key=attrgetter("t_ns"))  # sources interleave
        first_ns, last_ns = (rows[0].t_ns, rows[-1].t_ns) if rows else [self.anchor.monotonic_ns] * 2
        dropped = dict(coverage.get("dropped", {}))
        if self._invalid:
            dropped["invalid"] = dropped.get("invalid", 0) + self._invalid
        batch_id = batch_id or uuid.uuid4().hex
        header = Header(
            batch_id=batch_id,
            device=grant.device,
            participant=grant.participant,
            sequence=sequence,
            boot=boot,
            anchor=self.anchor,
            tick_ns=self.tick_ns,
            grant=grant.digest,
            software=SOFTWARE,
            sources=sources,
            rows=len(rows),
            events=self.event_count,
            first_ns=_whole_ticks(first_ns, self.anchor, self.tick_ns),
            last_ns=_whole_ticks(last_ns, self.anchor, self.tick_ns),
            coverage={"excluded": 0, **coverage, "dropped": dropped},
        )
        return SealedBatch(
            batch_id, sequence, pack_frame(header, to_columns(rows, self.anchor, self.tick_ns), level)
        )


def _about(rows: Sequence[Event], anchor: ClockAnchor, tick_ns: int) -> dict[str, Any]:
    """What a header says about its rows; without any, both times are the anchor's."""
    times = [row.t_ns for row in rows] or [anchor.monotonic_ns]
    return {
        "rows": len(rows),
        "events": len(rows) + sum(int(row.count) - 1 for row in rows if type(row) is Scroll),
        "first_ns": _whole_ticks(min(times), anchor, tick_ns),
        "last_ns": _whole_ticks(max(times), anchor, tick_ns),
    }


def _whole_ticks(t_ns: int, anchor: ClockAnchor, tick_ns: int) -> int:
    """The time that will be read back: the nearest whole number of ticks from the anchor."""
    return anchor.monotonic_ns + int(t_ns - anchor.monotonic_ns + tick_ns // 2) // tick_ns * tick_ns


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
