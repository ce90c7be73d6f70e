"""Batches and rows in order, from any number of files, with one batch in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from mcilib.errors import BatchFormatError, SealError
from mcilib.events import Event
from mcilib.format.batch import Batch, Metadata, decode, read_header
from mcilib.format.header import Header
from mcilib.reader.files import Entry, Report, check_root, load, scan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One event, the batch that it is in, and its place there (from 0)."""

    event: Event
    batch: Batch
    index: int

    @property
    def header(self) -> Header:
        return self.batch.header

    @property
    def metadata(self) -> Metadata:
        return self.batch.metadata

    @property
    def wall_ns(self) -> int:
        """When it happened, Unix time. A step of the wall clock shows in it; `event.t_ns` has none."""
        return self.batch.metadata.anchor.to_wall_ns(self.event.t_ns)


class Reader:
    """The batches at `path`: a file, a spool's folder or a receiver's store, at any depth.

    **Order** everywhere: device, sequence of the batch, row in the batch. The same batch in two places is
    read once, from the first copy that is sound. All files are checked when the first batch is asked for; what
    comes later is seen by a new `Reader`.

    **What cannot be read** never ends an iteration. A damaged or foreign file, and one of an unknown format
    version, is passed to `on_damaged` and kept in `damaged`. A batch that none of `identities` (age secret
    keys, `AGE-SECRET-KEY-1...`) opens is kept in `sealed`. The rest is read.

    Memory: an entry of a few hundred bytes per batch, and one batch. Raises `StoreError` when there is nothing
    readable at `path`. For one thread at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        identities: Sequence[str] = (),
        on_damaged: Report | None = None,
    ) -> None:
        self._root = Path(path)
        self._identities = tuple(identities)
        self._on_damaged = on_damaged
        self._index: list[Entry] | None = None
        self._copies: dict[str, list[Entry]] = {}  # by batch id: where else it lies
        self._bad: set[Entry] = set()  # copies that turned out to be damaged after the index was made
        self._lost: dict[str, str] = {}  # id of a batch of which no copy can be read -> "damaged" or "sealed"
        self.damaged: list[tuple[Path, BatchFormatError]] = []
        """What is no batch, complete after a full pass. Offsets count from the start of the file."""
        self.sealed: list[tuple[Path, SealError]] = []
        """What none of the identities opens, complete after a full pass."""
        check_root(self._root)

    def headers(self) -> Iterator[Header]:
        """The header of each batch, in order, of sealed ones too; payloads are not looked into."""
        for entry in self.index():
            if self._lost.get(entry.batch_id) != "damaged":
                header = self._open(entry, lambda data, _: read_header(data))
                if header is not None:
                    yield header

    def batches(self) -> Iterator[Batch]:
        """Each batch that can be read, in order; one in memory at a time."""
        return (batch for _, batch in self._opened(decode) if batch is not None)

    def rows(self) -> Iterator[Row]:
        """All rows in order."""
        for batch in self.batches():
            for index, event in enumerate(batch.events):
                yield Row(event, batch, index)

    def events(self) -> Iterator[Event]:
        """The events of `rows`. Their times compare within one boot of one device only."""
        for batch in self.batches():
            yield from batch.events

    def batch_ids(self) -> list[str]:
        """Of all batches that can be read, as far as is known, in order."""
        return [entry.batch_id for entry in self.index() if entry.batch_id not in self._lost]

    def index(self) -> list[Entry]:
        """Where each batch lies, in order, whether or not it can be opened."""
        if self._index is None:
            first: dict[str, Entry] = {}
            for entry in scan(self._root, self._report):
                one = first.setdefault(entry.batch_id, entry)
                if one is not entry and (one.device, one.sequence) == (entry.device, entry.sequence):
                    self._copies.setdefault(entry.batch_id, []).append(entry)
            self._index = sorted(first.values(), key=attrgetter("device", "sequence", "batch_id"))
        return self._index

    def _opened(self, how: Callable[[bytes, Sequence[str]], T]) -> Iterator[tuple[Entry, T | None]]:
        """Each entry of the index with what `how` (frame, identities) makes of it; None: it cannot be read."""
        for entry in self.index():
            yield entry, None if entry.batch_id in self._lost else self._open(entry, how)

    def _why_lost(self, entry: Entry) -> str:
        """`damaged` or `sealed`, for one that could not be read."""
        return self._lost[entry.batch_id]

    def _open(self, entry: Entry, how: Callable[[bytes, Sequence[str]], T]) -> T | None:
        """From the first of its copies that can be read."""
        sealed: list[tuple[Path, SealError]] = []
        for copy in (entry, *self._copies.get(entry.batch_id, ())):
            if copy in self._bad:
                continue
            try:
                return how(load(copy), self._identities)
            except BatchFormatError as error:
                self._bad.add(copy)
                self._report(copy.path, BatchFormatError(error.reason, copy.at + error.offset))
            except SealError as error:
                sealed.append((copy.path, error))
        self._lost[entry.batch_id] = "sealed" if sealed else "damaged"
        self.sealed += sealed
        return None

    def _report(self, path: Path, error: BatchFormatError) -> None:
        self.damaged.append((path, error))
        if self._on_damaged is not None:
            self._on_damaged(path, error)
