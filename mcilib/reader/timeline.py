"""What is there of each device, what is not, and what happened to its clocks: one part after the other.

Each part is said when it is known and never changed by what follows. So the first batches of a device read as
the beginning of its timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from mcilib import limits
from mcilib.events import Gap
from mcilib.format.batch import Batch, decode
from mcilib.reader.events import Reader, Row


@dataclass(frozen=True, slots=True)
class Boot:
    """The machine has started, or the device begins here: its monotonic times compare from here on."""

    device: str
    sequence: int
    """Of the batch that comes next."""
    boot: str


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The wall clock has moved against the monotonic one since the batch before: somebody set it, or (forward)
    the machine was suspended."""

    device: str
    sequence: int
    """Of the batch that comes next, the first one on the new time."""
    by_ns: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Batches that are not among those that are read here."""

    device: str
    sequence: int
    """Of the first one that is missing."""
    last: int
    """Of the last one."""
    cause: str
    """`missing`: not at this place, or so damaged that nobody can tell whose it is. `damaged`. `sealed`: to other
    keys."""

    @property
    def batches(self) -> int:
        return self.last - self.sequence + 1


@dataclass(frozen=True, slots=True)
class Segment:
    """One batch that is here."""

    batch: Batch

    @property
    def device(self) -> str:
        return self.batch.header.device

    @property
    def sequence(self) -> int:
        return self.batch.header.sequence

    @property
    def begin_ns(self) -> int:
        """Monotonic time of its first row; of its anchor where there is none."""
        return self.batch.events[0].t_ns if self.batch.events else self.batch.metadata.anchor.monotonic_ns

    @property
    def end_ns(self) -> int:
        """Monotonic time of its last row. That no row follows for a while says that nothing happened, apart from the
        next one's `pause_ns`."""
        return self.batch.events[-1].t_ns if self.batch.events else self.begin_ns

    @property
    def begin_wall_ns(self) -> int:
        return self.batch.metadata.anchor.to_wall_ns(self.begin_ns)

    @property
    def end_wall_ns(self) -> int:
        return self.batch.metadata.anchor.to_wall_ns(self.end_ns)

    @property
    def pause_ns(self) -> int:
        """Of the time between the batch before and this one, that in which nothing was to be collected, as while the
        session is locked."""
        return self.batch.metadata.coverage.not_collected_ns

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """When a source could not capture."""
        return tuple(event for event in self.batch.events if isinstance(event, Gap))

    def rows(self) -> Iterator[Row]:
        return (Row(event, self.batch, index) for index, event in enumerate(self.batch.events))


Part: TypeAlias = Boot | ClockStep | Hole | Segment


@dataclass(slots=True)
class Totals:
    """What the parts of one device add up to. Counts are of events of the system unless they say otherwise."""

    segments: int = 0
    rows: int = 0
    seen: int = 0
    """Whatever became of them."""
    kept: int = 0
    """Those that the rows stand for."""
    coalesced: int = 0
    thinned: int = 0
    excluded: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By cause."""
    not_collected_ns: int = 0
    """Time in which nothing was to be collected."""
    gap_ns: dict[str, int] = field(default_factory=dict)
    """By source: time in which it could not capture."""
    holes: dict[str, int] = field(default_factory=dict)
    """Batches that are not here, by cause."""
    boots: int = 0
    clock_steps: int = 0

    def add(self, part: Part) -> None:
        match part:
            case Boot():
                self.boots += 1
            case ClockStep():
                self.clock_steps += 1
            case Hole():
                _count(self.holes, part.cause, part.batches)
            case Segment():
                self._add(part)

    def _add(self, segment: Segment) -> None:
        batch, said = segment.batch, segment.batch.metadata.coverage
        self.segments += 1
        self.rows += len(batch.events)
        self.seen += batch.seen
        self.kept += batch.kept
        self.coalesced += said.coalesced
        self.thinned += said.thinned
        self.excluded += said.excluded
        self.not_collected_ns += said.not_collected_ns
        for cause, events in said.dropped.items():
            _count(self.dropped, cause, events)
        for gap in segment.gaps:
            _count(self.gap_ns, gap.source, gap.duration_ns)


def _count(counts: dict[str, int], name: str, more: int) -> None:
    counts[name] = counts.get(name, 0) + more


def timeline(reader: Reader) -> Iterator[Part]:
    """The parts of each device in order; devices one after the other. One batch in memory at a time.

    Before a `Segment` come, as far as they apply, `Hole`s, then a `Boot` (always before the first one) or a
    `ClockStep`. Numbers begin at 1, so a store without the first batches begins with a hole. Where two batches
    have the same number (a state folder that was put back from a copy) both are read, in order of their ids.
    """
    device, due, before = "", 1, None
    for entry, batch in reader._opened(decode):
        if entry.device != device:
            device, due, before = entry.device, 1, None
        if entry.sequence > due:
            yield Hole(device, due, entry.sequence - 1, "missing")
        due = max(due, entry.sequence + 1)
        if batch is None:
            yield Hole(device, entry.sequence, entry.sequence, reader._why_lost(entry))
            continue
        yield from _clocks(before, batch)
        yield Segment(batch)
        before = batch


def _clocks(before: Batch | None, batch: Batch) -> Iterator[Boot | ClockStep]:
    device, sequence, now = batch.header.device, batch.header.sequence, batch.metadata
    if before is None or before.metadata.boot != now.boot:
        yield Boot(device, sequence, now.boot)
        return
    by_ns = now.anchor.to_wall_ns(0) - before.metadata.anchor.to_wall_ns(0)
    if abs(by_ns) > limits.WALL_STEP_NS:  # less is how clocks are kept right
        yield ClockStep(device, sequence, by_ns)


def coverage(parts: Iterable[Part]) -> dict[str, Totals]:
    """The totals of each device of `timeline(reader)`, or of any part of it."""
    totals: dict[str, Totals] = {}
    for part in parts:
        totals.setdefault(part.device, Totals()).add(part)
    return totals
