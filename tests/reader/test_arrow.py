"""Arrow and Parquet: the rows of JSON lines, in order, in a file that says how it is sorted and can be skipped in."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import pytest
from batches import BATCHES, MS, batch, one_of_each
from hypothesis import given, settings
from stores import frame, frame_v0, key_pair, moves, store

import mcilib.reader.arrow as arrow
from mcilib.errors import ConfigError, StoreError
from mcilib.events import Move
from mcilib.format.batch import encode
from mcilib.reader import Reader, arrow_schema, read_arrow, to_arrow, write_jsonl, write_parquet
from mcilib.reader.fields import FIELDS

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def sample(tmp_path):
    return store(tmp_path / "store", encode(batch(*one_of_each(), sequence=3)), frame(4, 10, 20))


def _lines(store: Path) -> list[dict[str, Any]]:
    """Of JSON lines, without what is null."""
    file = io.StringIO()
    write_jsonl(Reader(store), file)
    return [_told(json.loads(line)) for line in file.getvalue().splitlines()]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def test_the_schema():
    schema = {field.name: (str(field.type), field.nullable) for field in arrow_schema()}
    name, kind = (f"dictionary<values=string, indices={bits}, ordered=0>" for bits in ("int32", "int8"))
    assert schema == {
        "t_ns": ("int64", False), "kind": (kind, False),
        "x": ("double", True), "y": ("double", True), "button": (name, True), "dx": ("double", True),
        "dy": ("double", True), "count": ("int64", True), "key": (name, True), "synthetic": ("bool", True),
        "duration_ns": ("int64", True), "source": (name, True), "display": ("int32", True),
        "width": ("int32", True), "height": ("int32", True), "scale": ("double", True),
        "rotation": ("int32", True), "layout": (name, True), "app": (name, True), "title": (name, True),
        "monotonic_ns": ("int64", False), "boot": (name, False), "participant": (name, False),
        "device": (name, False), "batch": (name, False), "seq": ("int64", False), "i": ("int32", False),
    }  # fmt: skip
    assert tuple(schema) == FIELDS


def test_a_table_holds_what_json_lines_hold(sample):
    table = read_arrow(Reader(sample))
    assert table.schema == arrow_schema()
    assert [_told(row) for row in table.to_pylist()] == _lines(sample)
    table.validate(full=True)


@settings(max_examples=60, deadline=None)
@given(BATCHES)
def test_any_batch_gives_the_rows_of_json_lines(tmp_path_factory, made):
    folder = store(tmp_path_factory.mktemp("store"), encode(made))
    table = read_arrow(Reader(folder))
    table.validate(full=True)
    assert [_told(row) for row in table.to_pylist()] == _lines(folder)


def test_version_0_too(tmp_path):
    folder = store(tmp_path, frame_v0(1), frame(2, 10))
    assert [_told(row) for row in read_arrow(Reader(folder)).to_pylist()] == _lines(folder)


def test_record_batches_come_one_by_one_and_empty_ones_not_at_all(tmp_path):
    store(tmp_path, frame(1, 10, 20), encode(moves(2)), frame(3, 30))
    batches = to_arrow(Reader(tmp_path))
    assert batches.schema == arrow_schema()
    assert [one.num_rows for one in batches] == [2, 1]


def test_what_cannot_be_read_is_told_and_left_out(tmp_path):
    torn = encode(moves(4, 40))[:-1]
    store(tmp_path, frame(1, 10), frame(2, 20, recipients=[key_pair()[1]]), torn, frame(5, 50))
    reader = Reader(tmp_path)
    assert read_arrow(reader)["seq"].to_pylist() == [1, 5]
    assert (len(reader.damaged), len(reader.sealed)) == (1, 1)
    opened = read_arrow(Reader(tmp_path, identities=[key_pair()[0]]))
    assert opened["seq"].to_pylist() == [1, 2, 5]


# --- Parquet ------------------------------------------------------------------------------------------------


def test_parquet_holds_the_table(sample, tmp_path):
    target = tmp_path / "out.parquet"
    result = write_parquet(Reader(sample), target)
    assert parquet.read_table(target).equals(read_arrow(Reader(sample)))
    assert parquet.read_schema(target).equals(arrow_schema())
    assert (result.rows, result.counts["scroll"], result.counts["move"]) == (19, 6, 5)
    assert result.batches == {"0b" * 16, f"{4:030x}d0"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "store"]


def test_parquet_says_how_it_is_sorted_and_is(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "_ROW_GROUP_ROWS", 20)
    frames = [frame(n, *range(7), device=f"d{n % 3}") for n in range(30, 0, -1)]
    store(tmp_path / "store", *frames)
    target = tmp_path / "out.parquet"
    write_parquet(Reader(tmp_path / "store"), target)
    rows = parquet.read_table(target, columns=["device", "seq", "i"]).to_pylist()
    places = [(row["device"], row["seq"], row["i"]) for row in rows]
    assert places == sorted(places)
    assert len(places) == 210
    metadata = parquet.ParquetFile(target).metadata
    schema = arrow_schema()
    for group in range(metadata.num_row_groups):
        ordering, _ = parquet.SortingColumn.to_ordering(schema, metadata.row_group(group).sorting_columns)
        assert ordering == tuple((field, "ascending") for field in ("device", "seq", "i"))


def test_parquet_can_be_skipped_in(tmp_path, monkeypatch):
    """Groups of one device and a stretch of its batches each, and their statistics say so."""
    monkeypatch.setattr(arrow, "_ROW_GROUP_ROWS", 50)
    store(tmp_path / "store", *(frame(n, *range(10), device=f"d{d}") for d in range(2) for n in range(1, 11)))
    target = tmp_path / "out.parquet"
    write_parquet(Reader(tmp_path / "store"), target)
    file = parquet.ParquetFile(target)
    told = []
    for group in range(file.metadata.num_row_groups):
        columns = {
            column.path_in_schema: column
            for column in map(file.metadata.row_group(group).column, range(len(FIELDS)))
        }
        assert all(column.compression == "ZSTD" and column.is_stats_set for column in columns.values())
        assert all(column.has_column_index for column in columns.values())
        device, seq, t = (columns[name].statistics for name in ("device", "seq", "t_ns"))
        told.append((device.min[:2], device.max[:2], seq.min, seq.max))
        assert t.max - t.min == 9 * MS
    assert told == [("d0", "d0", 1, 5), ("d0", "d0", 6, 10), ("d1", "d1", 1, 5), ("d1", "d1", 6, 10)]
    pruned = parquet.read_table(target, filters=[("device", "==", "d1" * 16), ("seq", ">", 8)])
    assert pruned.num_rows == 20


def test_parquet_is_written_in_bounded_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "_ROW_GROUP_ROWS", 20)
    store(tmp_path, *(frame(n, *range(8)) for n in range(1, 9)))
    write_parquet(Reader(tmp_path), tmp_path / "out.parquet")
    metadata = parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [24, 24, 16]


def test_parquet_of_nothing_has_the_columns(tmp_path):
    folder = store(tmp_path / "none")
    assert write_parquet(Reader(folder), tmp_path / "out.parquet").rows == 0
    assert parquet.read_table(tmp_path / "out.parquet").schema.equals(arrow_schema())


class _Broken(Exception):
    pass


def test_a_failed_export_leaves_the_old_file_and_no_other(sample, tmp_path, monkeypatch):
    target = tmp_path / "out" / "x.parquet"
    target.parent.mkdir()
    target.write_text("as before")

    def broken(*args):
        raise _Broken

    monkeypatch.setattr(arrow, "_record_batch", broken)
    with pytest.raises(_Broken):
        write_parquet(Reader(sample), target)
    assert target.read_text() == "as before"
    assert list(target.parent.iterdir()) == [target]


def test_where_it_cannot_be_written(sample, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        write_parquet(Reader(sample), tmp_path / "missing" / "x.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_parquet(Reader(sample), tmp_path / "folder.parquet")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("use", [to_arrow, read_arrow, lambda reader: write_parquet(reader, "x.parquet")])
def test_without_pyarrow_it_says_what_to_install(use, sample, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'mcilib\[arrow\]'"):
        use(Reader(sample))
    assert write_jsonl(Reader(sample), io.StringIO()).rows == 19


def test_moves_of_fractions(tmp_path):
    store(tmp_path, encode(batch(Move(5_000 * MS, 1.5, -0.25), quanta_per_px=256)))
    (row,) = read_arrow(Reader(tmp_path)).to_pylist()
    assert (row["x"], row["y"]) == (1.5, -0.25)
