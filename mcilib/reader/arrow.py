"""Arrow and Parquet: the same fields as JSON lines, filled from columns without a record for each row."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from mcilib.errors import ConfigError
from mcilib.events import EVENT_TYPES, Event
from mcilib.format.batch import Metadata, decode_rows
from mcilib.format.rare import KEY_RELEASE, MOVE
from mcilib.format.rows import Rows, together
from mcilib.reader.events import Reader
from mcilib.reader.export import Exported, Tally, appearing
from mcilib.reader.fields import FIELDS, own_fields
from mcilib.reader.files import Entry

_ROW_GROUP_ROWS = 131_072
"""Rows of one group in a Parquet file, and held while it is written, at 100 bytes or so each: large enough to
compress well, small enough to be skipped by who looks for one device or one hour."""

_ALWAYS = frozenset(FIELDS[:2]) | frozenset(FIELDS[-7:])
"""Columns without nulls."""

SORTED_BY = ("device", "seq", "i")
"""How rows are ordered everywhere, as the Parquet file says of itself."""

_ZSTD_LEVEL = 9
"""A sixth smaller than at pyarrow's own level, for no more time than Parquet takes anyway."""

_KINDS = list(EVENT_TYPES)


def to_arrow(reader: Reader) -> Any:
    """A `pyarrow.RecordBatchReader`: the rows as record batches, in order, one batch of ours in memory at a
    time; it can be iterated, and most engines take it as it is. Columns are `FIELDS`, null where one does not
    apply.

    Needs pyarrow (`ConfigError` without). What cannot be read is told by the reader, as everywhere.
    """
    pa = _pyarrow()
    schema = arrow_schema()
    return pa.RecordBatchReader.from_batches(schema, _record_batches(pa, schema, reader, Tally()))


def read_arrow(reader: Reader) -> Any:
    """All rows as one `pyarrow.Table`, at some 100 bytes per row. Otherwise as `to_arrow`."""
    return to_arrow(reader).read_all().unify_dictionaries()


def arrow_schema() -> Any:
    """The `pyarrow.Schema` of `FIELDS`. Coordinates are floats: some systems give fractions of a pixel."""
    pa = _pyarrow()
    name = pa.dictionary(pa.int32(), pa.string())
    types = {
        "t_ns": pa.int64(), "kind": pa.dictionary(pa.int8(), pa.string()),
        "x": pa.float64(), "y": pa.float64(), "button": name, "dx": pa.float64(), "dy": pa.float64(),
        "count": pa.int64(), "key": name, "synthetic": pa.bool_(),
        "duration_ns": pa.int64(), "source": name,
        "display": pa.int32(), "width": pa.int32(), "height": pa.int32(), "scale": pa.float64(),
        "rotation": pa.int32(), "layout": name, "app": name, "title": name,
        "monotonic_ns": pa.int64(), "boot": name, "participant": name, "device": name, "batch": name,
        "seq": pa.int64(), "i": pa.int32(),
    }  # fmt: skip
    return pa.schema([pa.field(field, types[field], field not in _ALWAYS) for field in FIELDS])


def write_parquet(reader: Reader, path: str | os.PathLike[str]) -> Exported:
    """Writes a Parquet file (zstd) with the columns `FIELDS`, null where one does not apply.

    Rows are in order of device, sequence and row, and the file says so; with the statistics of each row group
    and page, an engine skips what it was not asked for. `path` appears (mode 0600) when all is written; until
    then, or when that fails, it is as it was. Needs pyarrow (`ConfigError` without). `StoreError` when `path`
    cannot be written.
    """
    pa = _pyarrow()
    from pyarrow import parquet

    schema = arrow_schema()
    tally = Tally()
    options = {
        "compression": "zstd",
        "compression_level": _ZSTD_LEVEL,
        "sorting_columns": parquet.SortingColumn.from_ordering(
            schema, [(field, "ascending") for field in SORTED_BY]
        ),
        "write_page_index": True,
        "use_dictionary": [field for field in FIELDS if field not in _ENCODINGS],
        "column_encoding": _ENCODINGS,
    }
    with appearing(path) as temporary, parquet.ParquetWriter(temporary, schema, **options) as writer:
        for group in _grouped(_record_batches(pa, schema, reader, tally)):
            writer.write_table(pa.Table.from_batches(group, schema).unify_dictionaries())
    return tally.result(reader)


_ENCODINGS = {
    "t_ns": "DELTA_BINARY_PACKED", "monotonic_ns": "DELTA_BINARY_PACKED", "i": "DELTA_BINARY_PACKED",
    "x": "BYTE_STREAM_SPLIT", "y": "BYTE_STREAM_SPLIT",
}  # fmt: skip
"""Of columns whose values hardly repeat; with these a file is a third of what dictionaries make of it."""


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ConfigError("Parquet needs pyarrow", "pip install 'mcilib[arrow]', or export jsonl.") from None
    return pyarrow


def _record_batches(pa: Any, schema: Any, reader: Reader, tally: Tally) -> Iterator[Any]:
    for entry, read in reader._opened(decode_rows):
        if read is not None:
            metadata, rows = read
            rare = rows.rare_events(metadata)
            tally.add(rare, len(rows.ticks))
            if len(rows):
                yield _record_batch(pa, schema, entry, metadata, rows, rare)


def _codes(rows: Rows) -> list[int]:
    return together([MOVE] * len(rows.ticks), list(rows.rare.kinds), rows.before)


def _synthetic(rows: Rows) -> list[bool | None]:
    """Of each row; None also for rows that are no input."""
    inputs = [place for place, code in enumerate(_codes(rows)) if code <= KEY_RELEASE]
    said: list[bool | None] = [None] * len(rows)
    ends = [start for start, _ in rows.synthetic[1:]] + [len(inputs)]
    for (start, value), end in zip(rows.synthetic, ends, strict=True):
        for place in inputs[start:end]:
            said[place] = value
    return said


def _grouped(batches: Iterator[Any]) -> Iterator[list[Any]]:
    """Record batches together until they are a row group."""
    group: list[Any] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        if rows >= _ROW_GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _record_batch(
    pa: Any, schema: Any, entry: Entry, metadata: Metadata, rows: Rows, rare: list[Event]
) -> Any:
    """One of our batches. Types are always named: to guess one, pyarrow looks for packages again and again."""
    count, ahead_ns = len(rows), metadata.anchor.to_wall_ns(0)
    times = metadata.times_ns(rows.all_ticks())

    def packed(cls: Any, typecode: str, values: Iterable[int]) -> Any:
        return pa.Array.from_buffers(cls, count, [None, pa.py_buffer(array(typecode, values))])

    def named(names: list[str], indices: Any) -> Any:
        return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()), safe=False)

    zeros = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(bytes(4 * count))])
    columns = {
        "t_ns": packed(pa.int64(), "q", [t_ns + ahead_ns for t_ns in times]),
        "kind": named(_KINDS, packed(pa.int8(), "b", _codes(rows))),
        "monotonic_ns": packed(pa.int64(), "q", times),
        "boot": named([metadata.boot], zeros),
        "participant": named([entry.participant], zeros),
        "device": named([entry.device], zeros),
        "batch": named([entry.batch_id], zeros),
        "seq": packed(pa.int64(), "q", [entry.sequence] * count),
        "i": packed(pa.int32(), "i", range(count)),
    }
    own = [own_fields(event) for event in rare]
    for name in "xy":
        moves: Any = getattr(rows, name)
        if metadata.quanta_per_px != 1:
            moves = [place / metadata.quanta_per_px for place in moves]
        others: Any = [fields.get(name) for fields in own]
        columns[name] = pa.array(together(moves, others, rows.before), pa.float64())
    if rows.synthetic:
        columns["synthetic"] = pa.array(_synthetic(rows), pa.bool_())
    places = [before + number for number, before in enumerate(rows.before)]
    for name in set().union(*own) - {"x", "y"}:
        values: list[Any] = [None] * count
        for place, fields in zip(places, own, strict=True):
            values[place] = fields.get(name)
        columns[name] = pa.array(values, schema.field(name).type)
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
