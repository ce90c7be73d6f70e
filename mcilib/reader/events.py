"""Rows in order of time, from any number of batches, with only those in memory that overlap."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from mcilib.errors import BatchFormatError
from mcilib.events import Event
from mcilib.format.batch import Batch, decode, read_header
from mcilib.format.header import Header
from mcilib.reader.files import Entry, check_root, load, scan


@dataclass(frozen=True, slots=True)
class Row:
    """One event with the header of its batch and its place there (from 0)."""

    event: Event
    header: Header
    index: int

    @property
    def wall_ns(self) -> int:
        """When it happened, Unix time."""
        return self.header.anchor.to_wall_ns(self.event.t_ns)


class Reader:
    """The batches at `path`: a file, a spool's folder or a receiver's store, at any depth.

    All of them are checked when the first is asked for; what comes later is seen by a new `Reader`. The same
    batch in two places is read once. A damaged or foreign file, and one of an unknown format version, is
    passed to `on_damaged`, kept in `damaged`, and does not keep the rest from being read.

    Order everywhere: device, then boot (by the wall time at which its first batch begins), then monotonic
    time. Memory: an entry of some hundred bytes per batch, and the batches that overlap in time.

    Raises `StoreError` when there is nothing readable at `path`. For one thread at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        on_damaged: Callable[[Path, BatchFormatError], None] | None = None,
    ) -> None:
        self._root = Path(path)
        self._on_damaged = on_damaged
        self._index: list[Entry] | None = None
        self._lost: set[str] = set()  # batches that turned out to be damaged after the scan
        self.damaged: list[tuple[Path, BatchFormatError]] = []
        """What could not be read, complete after a full pass. Offsets count from the start of the file."""
        check_root(self._root)

    def headers(self) -> Iterator[Header]:
        """The header of each batch, in order; payloads are not looked into."""
        for entry in self._entries():
            try:
                yield read_header(load(entry))
            except BatchFormatError as error:
                self._lose(entry, error)

    def batches(self) -> Iterator[Batch]:
        """Each batch, in order of where it begins; one in memory at a time."""
        for entry in self._entries():
            if (batch := self._decode(entry)) is not None:
                yield batch

    def rows(self) -> Iterator[Row]:
        """All rows in order of time; those of the same tick by the batch's sequence and place in it."""
        for _, entries in groupby(self._entries(), key=attrgetter("device", "boot")):
            yield from self._merge(entries)

    def events(self) -> Iterator[Event]:
        """The events of `rows`. Their times compare within one boot of one device only."""
        return (row.event for row in self.rows())

    def batch_ids(self) -> list[str]:
        """Of all batches that can be read, as far as is known, in order."""
        return [entry.batch_id for entry in self._entries()]

    def _entries(self) -> list[Entry]:
        if self._index is None:
            self._index = _in_order(scan(self._root, self._report))
        return [entry for entry in self._index if entry.batch_id not in self._lost]

    def _merge(self, entries: Iterator[Entry]) -> Iterator[Row]:
        """A row leaves as soon as no batch that is still to come can begin before it."""
        # The place among the entries settles all ties, so that streams themselves are never compared.
        heap: list[tuple[int, int, int, int, Row, Iterator[Row]]] = []

        def push(sequence: int, place: int, stream: Iterator[Row]) -> None:
            if (row := next(stream, None)) is not None:
                heapq.heappush(heap, (row.event.t_ns, sequence, place, row.index, row, stream))

        for place, entry in enumerate(entries):
            while heap and heap[0][0] < entry.first_ns:
                _, sequence, earlier, _, row, stream = heapq.heappop(heap)
                yield row
                push(sequence, earlier, stream)
            if (batch := self._decode(entry)) is not None:
                push(entry.sequence, place, _by_time(batch))
        while heap:
            _, sequence, earlier, _, row, stream = heapq.heappop(heap)
            yield row
            push(sequence, earlier, stream)

    def _decode(self, entry: Entry) -> Batch | None:
        try:
            return decode(load(entry))
        except BatchFormatError as error:
            self._lose(entry, error)
            return None

    def _lose(self, entry: Entry, error: BatchFormatError) -> None:
        if entry.batch_id not in self._lost:
            self._lost.add(entry.batch_id)
            self._report(entry.path, BatchFormatError(error.reason, entry.at + error.offset))

    def _report(self, path: Path, error: BatchFormatError) -> None:
        self.damaged.append((path, error))
        if self._on_damaged is not None:
            self._on_damaged(path, error)


def _in_order(entries: Iterator[Entry]) -> list[Entry]:
    by_boot: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        by_boot.setdefault((entry.device, entry.boot), []).append(entry)
    for group in by_boot.values():
        group.sort(key=attrgetter("first_ns", "sequence"))

    def place(key: tuple[str, str]) -> tuple[str, int, str]:
        device, boot = key
        return device, by_boot[key][0].first_wall_ns, boot

    return [entry for key in sorted(by_boot, key=place) for entry in by_boot[key]]


def _by_time(batch: Batch) -> Iterator[Row]:
    rows = [Row(event, batch.header, index) for index, event in enumerate(batch.events)]
    rows.sort(key=lambda row: row.event.t_ns)  # stable; foreign writers may interleave
    return iter(rows)
