"""Export: one JSON object per line, or Parquet. The same fields in both, in the order of `Reader.rows`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from mcilib.errors import ConfigError, StoreError
from mcilib.events import Gap, KeyPress, KeyRelease, Move, Press, Release, Scroll, event_count
from mcilib.reader.events import Reader, Row

_ROW_GROUP_ROWS = 65_536
"""Rows held while Parquet is written: some 30 MB as Python values."""

FIELDS = (
    "t_ns", "kind", "x", "y", "button", "dx", "dy", "count", "key", "duration_ns", "source",
    "device", "batch", "seq", "i",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    counts: Mapping[str, int]
    """Events of the system by kind: a merged scroll counts all its steps."""
    batches: frozenset[str]
    """Ids of all batches that were read, also of those without a row."""


class _Tally:
    """Counts rows while they pass."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rows = 0
        self._counts: dict[str, int] = {}

    def rows(self) -> Iterator[Row]:
        for row in self._reader.rows():
            self._rows += 1
            kind = row.event.kind
            self._counts[kind] = self._counts.get(kind, 0) + event_count(row.event)
            yield row

    def result(self) -> Exported:
        return Exported(self._rows, self._counts, frozenset(self._reader.batch_ids()))


def write_jsonl(reader: Reader, file: TextIO) -> Exported:
    """Writes one JSON object (ASCII) per row: `FIELDS`, of each kind only those that apply.

    `t_ns` is wall clock. Errors of `file` pass through.
    """
    tally = _Tally(reader)
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    for row in tally.rows():
        file.write(encode(record(row)) + "\n")
    return tally.result()


def write_parquet(reader: Reader, path: str | os.PathLike[str]) -> Exported:
    """Writes a Parquet file (zstd) with the columns `FIELDS`, null where one does not apply.

    `path` appears (mode 0600) when all is written; until then, or when that fails, it is as it was. Needs
    pyarrow (`ConfigError` without). `StoreError` when `path` cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("Parquet needs pyarrow", "pip install 'mcilib[arrow]', or export jsonl.") from None
    schema = _schema(pa)
    tally = _Tally(reader)
    with (
        appearing(path) as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        rows = tally.rows()
        while records := [record(row) for row in islice(rows, _ROW_GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(records, schema))
    return tally.result()


@contextlib.contextmanager
def appearing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write in place of `path`, which has it when all is written; until then it is as it was.

    Only its owner may read it (0600): it holds what a person did. `StoreError` when it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():  # a device or a pipe is not to be replaced
        raise StoreError(f"{target} cannot be written (it is no ordinary file)", "Choose another place.")
    temporary: Path | None = None
    try:
        number, name = tempfile.mkstemp(".tmp", f".{target.name}.", target.parent)  # 0600, never a link
        os.close(number)
        temporary = Path(name)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written ({error.strerror or error})", "Choose another place, or make room."
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def record(row: Row) -> dict[str, Any]:
    """One row as `write_jsonl` writes it: plain values, fields in the order of `FIELDS`."""
    event, header = row.event, row.header
    fields: dict[str, Any] = {"t_ns": row.wall_ns, "kind": event.kind}
    match event:
        case Move():
            fields |= {"x": event.x, "y": event.y}
        case Press() | Release():
            fields |= {"x": event.x, "y": event.y, "button": event.button}
        case Scroll():
            fields |= {"x": event.x, "y": event.y, "dx": event.dx, "dy": event.dy, "count": event.count}
        case KeyPress() | KeyRelease():
            fields["key"] = event.key
        case Gap():
            fields |= {"duration_ns": event.duration_ns, "source": event.source}
    return fields | {
        "device": header.device, "batch": header.batch_id, "seq": header.sequence, "i": row.index,
    }  # fmt: skip


def _schema(pa: Any) -> Any:
    """Coordinates are floats here, as the format may come to keep fractions of a pixel."""
    name = pa.dictionary(pa.int32(), pa.string())
    types = {
        "t_ns": pa.int64(), "kind": name, "x": pa.float64(), "y": pa.float64(), "button": name,
        "dx": pa.float64(), "dy": pa.float64(), "count": pa.int64(), "key": name,
        "duration_ns": pa.int64(), "source": name, "device": name, "batch": name,
        "seq": pa.int64(), "i": pa.int64(),
    }  # fmt: skip
    return pa.schema([(field, types[field]) for field in FIELDS])
