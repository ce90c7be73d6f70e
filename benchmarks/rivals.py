"""The formats that mcilib is compared with, each as lean as its own library makes it.

All hold the same events with the same precision: whole milliseconds since the first event of the batch, whole
quanta of a pixel, the class of a key. None holds ids, a clock anchor or anything else about the batch.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from operator import sub
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import zstandard

from mcilib import limits
from mcilib.events import EVENT_TYPES, Event

KINDS = list(EVENT_TYPES)
NUMBERS, TEXTS = ("t", "x", "y", "dx", "dy"), ("kind", "button", "key")
Row: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Codec:
    """One way to write a batch. What `prepare` makes of the rows is taken for granted: its time is not counted."""

    prepare: Callable[[Sequence[Row]], Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def rows_of(events: Sequence[Event], quanta_per_px: int) -> list[Row]:
    """One dict for each event, with the fields that its kind has."""
    rows = []
    for event in events:
        row: Row = {"t": (event.t_ns - events[0].t_ns + 500_000) // 1_000_000, "kind": event.kind}
        for name in ("x", "y"):
            if hasattr(event, name):
                row[name] = round(getattr(event, name) * quanta_per_px)
        for name in ("button", "dx", "dy", "key"):
            if hasattr(event, name):
                row[name] = getattr(event, name)
        rows.append(row)
    return rows


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """A list for each field that any row has; None where a row has it not."""
    return {
        name: [row.get(name) for row in rows]
        for name in ("t", "kind", "x", "y", "button", "dx", "dy", "key")
        if any(row.get(name) for row in rows)
    }


def differences(rows: Sequence[Row]) -> bytes:
    """MessagePack of the first differences of every column of numbers: kinds, buttons and keys by their number.

    What zpaq is given for a whole trace; with zstd, what version 0 of our format was.
    """
    columns: dict[str, list[Any]] = {"kind": [KINDS.index(row["kind"]) for row in rows]}
    for name in NUMBERS:
        values = [row[name] for row in rows if name in row]
        columns[name] = list(map(sub, values, [0, *values[:-1]]))
    for name in ("button", "key"):
        values = [row[name] for row in rows if name in row]
        columns[name + "s"] = list(dict.fromkeys(values))
        columns[name] = [columns[name + "s"].index(value) for value in values]
    return bytes(msgpack.packb({name: values for name, values in columns.items() if any(values)}))


# --- codecs -------------------------------------------------------------------------------------------------


def codecs() -> dict[str, Codec]:
    """By name; those whose library is not installed are left out (see `missing`)."""
    found = {
        "json-lines": Codec(list, _json_lines, _from_json_lines),
        "json-gzip": Codec(
            list,
            lambda rows: gzip.compress(_json_lines(rows), 6),
            lambda data: _from_json_lines(gzip.decompress(data)),
        ),
    }
    for level in (3, 19):
        found[f"msgpack-zstd-{level}"] = Codec(_arrays, *_packed(msgpack.packb, msgpack.unpackb, level))
    found |= {f"differences-zstd-{level}": _differences(level) for level in (3, 19)}
    if find_spec("msgspec"):
        found["msgspec-zstd"] = _msgspec(limits.ZSTD_LEVEL)
    if find_spec("pyarrow"):
        found["parquet-zstd"] = Codec(columns_of, _to_parquet, _from_parquet)
        found["arrow-ipc-zstd"] = Codec(columns_of, _to_ipc, _from_ipc)
    return found


def missing() -> list[str]:
    """What is left out here, in words."""
    wanted = {"msgspec": "pip install msgspec", "pyarrow": "pip install pyarrow"}
    words = [f"no {name} ({how})" for name, how in wanted.items() if not find_spec(name)]
    return words + ([] if shutil.which("zpaq") else ["no zpaq (Debian's package of that name)"])


def _packed(
    pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any], level: int
) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """With zstd around it."""
    return (
        lambda value: zstandard.ZstdCompressor(level).compress(pack(value)),
        lambda data: unpack(zstandard.ZstdDecompressor().decompress(data)),
    )


def _json_lines(rows: Sequence[Row]) -> bytes:
    return "\n".join([json.dumps(row, separators=(",", ":")) for row in rows]).encode()


def _from_json_lines(data: bytes) -> list[Row]:
    return [json.loads(line) for line in data.splitlines()]


def _arrays(rows: Sequence[Row]) -> list[list[Any]]:
    """Rows without names, the kind as its number."""
    return [[row["t"], KINDS.index(row["kind"]), *list(row.values())[2:]] for row in rows]


def _differences(level: int) -> Codec:
    return Codec(list, *_packed(differences, _from_differences, level))


def _from_differences(data: bytes) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = msgpack.unpackb(data)
    return columns | {name: list(accumulate(columns[name])) for name in NUMBERS if name in columns}


def _msgspec(level: int) -> Codec:
    """Structs as arrays, tagged with the number of their kind: msgspec's fastest and smallest."""
    msgspec: Any = import_module("msgspec")
    classes = {}
    for kind, fields in {
        "move": (), "press": (("button", str),), "release": (("button", str),), "scroll": (("dx", int), ("dy", int)),
    }.items():  # fmt: skip
        places = [("t", int), ("x", int), ("y", int), *fields]
        classes[kind] = msgspec.defstruct(kind, places, tag=KINDS.index(kind), array_like=True, gc=False)
    for kind in ("key_press", "key_release"):
        keys = [("t", int), ("key", str | None)]
        classes[kind] = msgspec.defstruct(kind, keys, tag=KINDS.index(kind), array_like=True, gc=False)
    union: Any = None
    for struct in classes.values():
        union = struct if union is None else union | struct
    pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(list[union]).decode

    def structs(rows: Sequence[Row]) -> list[Any]:
        return [classes[row["kind"]](**{k: v for k, v in row.items() if k != "kind"}) for row in rows]

    return Codec(structs, *_packed(pack, unpack, level))


# --- pyarrow ------------------------------------------------------------------------------------------------


@cache
def _arrow() -> Any:
    """pyarrow, in one thread: CPU is what is compared."""
    pyarrow = import_module("pyarrow")
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    return pyarrow


@cache
def _parquet() -> Any:
    return import_module("pyarrow.parquet")


def table_of(columns: Mapping[str, Sequence[Any]], *, dictionaries: bool) -> Any:
    pyarrow = _arrow()
    text = pyarrow.dictionary(pyarrow.int8(), pyarrow.string()) if dictionaries else pyarrow.string()
    return pyarrow.table(
        {
            name: pyarrow.array(values, text if name in TEXTS else pyarrow.int32())
            for name, values in columns.items()
        }
    )


def _to_parquet(columns: Mapping[str, Sequence[Any]], level: int = limits.ZSTD_LEVEL) -> bytes:
    table = table_of(columns, dictionaries=False)
    out = io.BytesIO()
    _parquet().write_table(
        table,
        out,
        compression="zstd",
        compression_level=level,
        use_dictionary=[name for name in TEXTS if name in columns],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in NUMBERS if name in columns},
        write_statistics=False,
        store_schema=False,
    )
    return out.getvalue()


def _from_parquet(data: bytes) -> Any:
    return _parquet().read_table(_arrow().BufferReader(data), use_threads=False)


def _to_ipc(columns: Mapping[str, Sequence[Any]]) -> bytes:
    pyarrow = _arrow()
    table = table_of(columns, dictionaries=True)
    out = io.BytesIO()
    options = pyarrow.ipc.IpcWriteOptions(
        compression=pyarrow.Codec("zstd", limits.ZSTD_LEVEL), use_threads=False
    )
    with pyarrow.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def _from_ipc(data: bytes) -> Any:
    return _arrow().ipc.open_stream(data).read_all()


# --- whole traces -------------------------------------------------------------------------------------------


def whole_trace(rows: Sequence[Row]) -> dict[str, int]:
    """Bytes of one file for the whole trace: Parquet at level 19, and zpaq over the columns of differences."""
    sizes = {}
    if find_spec("pyarrow"):
        sizes["parquet-zstd-whole"] = len(_to_parquet(columns_of(rows), 19))
    if shutil.which("zpaq"):
        sizes["zpaq"] = _zpaq(differences(rows))
        sizes["zpaq-net"] = sizes["zpaq"] - _zpaq(b"0")
    return sizes


def _zpaq(data: bytes) -> int:
    """The size of an archive with one file, made with method 5 (context mixing)."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "f").write_bytes(data)
        command = ["zpaq", "add", "a.zpaq", "f", "-m5", "-t1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return (Path(folder) / "a.zpaq").stat().st_size
