"""Batches: the rows of one stretch of time; built from events, compressed, sealed, and read back.

`encode` and `decode` are inverse to each other, to the tick and the quantum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcilib import limits
from mcilib.errors import BatchFormatError, SealError
from mcilib.events import Event, event_count
from mcilib.format import _v0, payload
from mcilib.format.columns import to_columns
from mcilib.format.frame import Frame, binding_of, pack_frame, pack_header, unpack_frame
from mcilib.format.frame import read_header as read_header
from mcilib.format.frame import split_frames as split_frames
from mcilib.format.header import Header as Header
from mcilib.format.metadata import Coverage as Coverage
from mcilib.format.metadata import Metadata as Metadata
from mcilib.format.parse import to_rows
from mcilib.format.rows import Rows
from mcilib.format.seal import key_ids, seal, unseal


@dataclass(frozen=True, slots=True)
class Batch:
    """What one frame holds."""

    header: Header
    metadata: Metadata
    events: tuple[Event, ...]
    """The rows, in order of time."""

    @property
    def kept(self) -> int:
        """Events of the system that the rows stand for: a merged scroll stands for all its steps."""
        return sum(event_count(event) for event in self.events)

    @property
    def seen(self) -> int:
        """Events of the system since the batch before, whatever became of them."""
        coverage = self.metadata.coverage
        lost = sum(coverage.dropped.values())
        return self.kept + coverage.coalesced + coverage.thinned + coverage.excluded + lost


def encode(batch: Batch, level: int = limits.ZSTD_LEVEL, recipients: Sequence[str] = ()) -> bytes:
    """The frame of a batch; its header names the key ids of `recipients` (age public keys), and no others.

    `level` is zstd's, 1 to 22. `ValueError` when a row or a field is beyond what the format can hold,
    `SealError` when it cannot be sealed. Any thread.
    """
    rows = Rows.of(batch.events, batch.metadata)
    return write_frame(batch.header, batch.metadata, rows, level, recipients)


def write_frame(
    header: Header, metadata: Metadata, rows: Rows, level: int, recipients: Sequence[str]
) -> bytes:
    """What `encode` does, given rows."""
    head = pack_header(
        Header(
            header.batch_id, header.participant, header.device, header.grant, header.sequence,
            key_ids(recipients),
        )
    )  # fmt: skip
    columns = to_columns(rows, metadata.tick_ns) | metadata.to_wire()
    if recipients:
        columns["H"] = binding_of(head)
    data = payload.compress(payload.pack(columns), level)
    if recipients:
        return pack_frame(head, seal(data, recipients), sealed=True)
    return pack_frame(head, data)


def decode(data: bytes, identities: Sequence[str] = ()) -> Batch:
    """The batch in one frame, of this format version or of version 0.

    `identities` are age secret keys, for sealed ones. Raises `BatchFormatError` for whatever is no batch,
    `SealError` when none of the keys opens it, and nothing else. Any thread.
    """
    frame = unpack_frame(data)
    metadata, rows = _read(frame, identities)
    return Batch(frame.header, metadata, rows.events(metadata))


def decode_rows(data: bytes, identities: Sequence[str] = ()) -> tuple[Metadata, Rows]:
    """The same without a record for each row: lists of numbers, two to four times as fast."""
    return _read(unpack_frame(data), identities)


def open_payload(data: bytes, identities: Sequence[str] = ()) -> bytes:
    """The uncompressed payload, one MessagePack map. Errors as `decode`; the columns are not checked."""
    return _open(unpack_frame(data), identities)


def _open(frame: Frame, identities: Sequence[str]) -> bytes:
    data = frame.payload
    if frame.header.sealed:
        try:
            data = unseal(data, identities)
        except SealError as error:
            if not error.damaged:
                raise
            raise BatchFormatError(f"payload: {error.problem}", frame.start) from None
    try:
        return payload.decompress(data)
    except ValueError as error:
        raise BatchFormatError(f"payload: {error}", frame.start) from None


def _read(frame: Frame, identities: Sequence[str]) -> tuple[Metadata, Rows]:
    old = frame.version == 0
    try:
        # Nothing holds its 8 MiB while rows are made.
        columns = payload.unpack(_open(frame, identities), longer_names=old)
        if old:
            metadata = _v0.read_metadata(frame.head)
            events = _v0.read_events(columns, metadata)
            _v0.check(frame.head, events, metadata)
            return metadata, Rows.of(events, metadata)
        if (frame.header.sealed or "H" in columns) and columns.get("H") != frame.binding:
            raise ValueError("it belongs to another header: somebody has changed one of them")
        metadata = Metadata.from_wire(columns)
        return metadata, to_rows(columns, metadata)
    except ValueError as error:
        raise BatchFormatError(f"payload: {error}", frame.start) from None
