"""JSON lines and Parquet: exactly the fields that are promised, the same rows in both."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path

import pytest
from batches import MS, WALL_NS, batch, one_of_each
from hypothesis import given, settings
from hypothesis import strategies as st

import mcilib.reader.export as export
from mcilib.clock import ClockAnchor
from mcilib.errors import ConfigError, StoreError
from mcilib.events import KeyPress, Move, Scroll
from mcilib.format.batch import encode
from mcilib.reader import Reader, write_jsonl, write_parquet

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "1.mcib").write_bytes(encode(batch(*one_of_each(), sequence=3)))
    return folder


def _lines(store: Path) -> list[str]:
    file = io.StringIO()
    write_jsonl(Reader(store), file)
    return file.getvalue().splitlines()


def _common(index: int) -> str:
    return f'"device":"{"de" * 16}","batch":"{"0b" * 16}","seq":3,"i":{index}}}'


def test_json_lines_to_the_letter(store):
    at = [WALL_NS + 7 * MS * n for n in range(8)]
    assert _lines(store) == [
        f'{{"t_ns":{at[0]},"kind":"move","x":640,"y":400,{_common(0)}',
        f'{{"t_ns":{at[1]},"kind":"press","x":640,"y":400,"button":"left",{_common(1)}',
        f'{{"t_ns":{at[2]},"kind":"release","x":-3,"y":401,"button":"button9",{_common(2)}',
        f'{{"t_ns":{at[3]},"kind":"scroll","x":-3,"y":401,"dx":0,"dy":-5,"count":5,{_common(3)}',
        f'{{"t_ns":{at[4]},"kind":"scroll","x":-3,"y":401,"dx":0.25,"dy":0,"count":1,{_common(4)}',
        f'{{"t_ns":{at[5]},"kind":"key_press","key":"ctrl+c",{_common(5)}',
        f'{{"t_ns":{at[6]},"kind":"key_release","key":null,{_common(6)}',
        f'{{"t_ns":{at[7]},"kind":"gap","duration_ns":600000000000,"source":"pointer",{_common(7)}',
    ]


def test_the_result_counts_events_rows_and_batches(store, tmp_path):
    (store / "empty.mcib").write_bytes(encode(batch(batch_id="ee" * 16)))
    wanted = {"move": 1, "press": 1, "release": 1, "scroll": 6, "key_press": 1, "key_release": 1, "gap": 1}
    for result in (
        write_jsonl(Reader(store), io.StringIO()),
        write_parquet(Reader(store), tmp_path / "x.parquet"),
    ):
        assert result.rows == 8
        assert result.counts == wanted
        assert result.batches == {"0b" * 16, "ee" * 16}


def test_damaged_batches_are_not_counted_as_exported(store):
    (store / "2.mcib").write_bytes(encode(batch(batch_id="ee" * 16))[:-1])
    reader = Reader(store)
    assert write_jsonl(reader, io.StringIO()).batches == {"0b" * 16}
    assert len(reader.damaged) == 1


def test_text_beyond_ascii_is_escaped(tmp_path):
    (tmp_path / "1.mcib").write_bytes(encode(batch(KeyPress(5_000 * MS, "ctrl+é\n\u2028"))))
    (line,) = _lines(tmp_path)
    assert line.isascii()
    assert json.loads(line)["key"] == "ctrl+é\n\u2028"


def test_parquet_holds_the_same(store, tmp_path):
    target = tmp_path / "out.parquet"
    write_parquet(Reader(store), target)
    table = parquet.read_table(target)
    assert tuple(table.column_names) == export.FIELDS
    records = [json.loads(line) for line in _lines(store)]
    assert [{k: v for k, v in row.items() if v is not None or (k == "key" and "key" in line)}
            for row, line in zip(table.to_pylist(), records, strict=True)] == records  # fmt: skip
    assert table.schema.field("t_ns").type == "int64"
    assert {parquet.ParquetFile(target).metadata.row_group(0).column(0).compression} == {"ZSTD"}
    assert [path.name for path in tmp_path.iterdir()] == ["store", "out.parquet"] or not list(
        tmp_path.glob(".*")
    )


def test_parquet_of_nothing_has_the_columns(tmp_path):
    folder = tmp_path / "none"
    folder.mkdir()
    assert write_parquet(Reader(folder), tmp_path / "out.parquet").rows == 0
    assert tuple(parquet.read_table(tmp_path / "out.parquet").column_names) == export.FIELDS


def test_parquet_is_written_in_bounded_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ROW_GROUP_ROWS", 10)
    moves = [Move(5_000 * MS + n * MS, n, n) for n in range(25)]
    (tmp_path / "1.mcib").write_bytes(encode(batch(*moves)))
    write_parquet(Reader(tmp_path), tmp_path / "out.parquet")
    meta = parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [10, 10, 5]
    assert parquet.read_table(tmp_path / "out.parquet")["x"].to_pylist() == [float(n) for n in range(25)]


class _Broken(Exception):
    pass


def test_a_failed_export_leaves_the_old_file_and_no_other(store, tmp_path, monkeypatch):
    target = tmp_path / "out" / "x.parquet"
    target.parent.mkdir()
    target.write_text("as before")

    def broken(row):
        raise _Broken

    monkeypatch.setattr(export, "record", broken)
    with pytest.raises(_Broken):
        write_parquet(Reader(store), target)
    assert target.read_text() == "as before"
    assert list(target.parent.iterdir()) == [target]


def test_where_it_cannot_be_written(store, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        write_parquet(Reader(store), tmp_path / "missing" / "x.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        write_parquet(Reader(store), tmp_path / "folder.parquet")
    assert not list(tmp_path.glob(".*"))


def test_without_pyarrow_it_says_what_to_install(store, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'mcilib\[arrow\]'"):
        write_parquet(Reader(store), tmp_path / "x.parquet")
    assert write_jsonl(Reader(store), io.StringIO()).rows == 8


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(-99, 99), st.floats(-9, 9), st.integers(1, 9)), max_size=30
    ),
    st.integers(-(10**18), 10**18),
)
def test_times_are_wall_clock_integers_and_totals_agree(tmp_path_factory, steps, shift_ns):
    folder = tmp_path_factory.mktemp("store")
    anchor = ClockAnchor(5_000 * MS, WALL_NS + shift_ns)
    events = [Scroll((5_000 + ms) * MS, x, 1, 0, dy, count) for ms, x, dy, count in steps]
    (folder / "1.mcib").write_bytes(encode(batch(*events, anchor=anchor)))
    records = [json.loads(line) for line in _lines(folder)]
    assert sorted(r["t_ns"] for r in records) == sorted(WALL_NS + shift_ns + s[0] * MS for s in steps)
    assert sum(r["count"] for r in records) == sum(s[3] for s in steps)
    assert all(type(r["t_ns"]) is type(r["x"]) is int for r in records)
    write_parquet(Reader(folder), folder / "x.parquet")
    table = parquet.read_table(folder / "x.parquet")
    assert table["t_ns"].to_pylist() == [r["t_ns"] for r in records]
    assert table["dy"].to_pylist() == [r["dy"] for r in records]
