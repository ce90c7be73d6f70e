"""What one frame holds, as a dict that becomes JSON or the lines that `mcilib batch show` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mcilib.cli._output import count, one_line, size
from mcilib.errors import BatchFormatError, SealError

COLUMNS = {
    "M": "clocks, boot, tick, software, coverage",
    "S": "sources and their clocks",
    "by": "what the sources were heard with",
    "audit": "the head of the participant's audit log",
    "D": "dropped events by cause",
    "P": "the plan",
    "R": "why that plan",
    "H": "which header the seal belongs to",
    "x": "moves: x, as error of the prediction",
    "y": "moves: y",
    "t": "moves: time since the row before",
    "v": "moves: x and y that take more than a byte",
    "u": "moves: times that take more than a byte",
    "w": "moves: weight of the prediction",
    "C": "step of a coarse clock",
    "h": "rows off that step: which",
    "r": "rows off that step: by how much",
    "k": "other rows: kind",
    "i": "other rows: moves before them",
    "j": "other rows: time since the row before",
    "a": "where no move led: which rows",
    "p": "where no move led: x",
    "q": "where no move led: y",
    "B": "names of buttons",
    "b": "button of each press and release",
    "E": "names of keys",
    "e": "key of each press and release",
    "s": "scroll: dy",
    "d": "scroll: dx",
    "c": "scroll: count of steps",
    "l": "gap: duration",
    "G": "names of sources of gaps",
    "g": "gap: source",
    "Y": "displays",
    "L": "keyboard layouts",
    "A": "focus: application",
    "T": "focus: title",
    "W": "focus: place of the window",
    "z": "made by a program or a hand",
}
"""What the columns of version 1 are, for people. `docs/spec/batch-format.md` has the full story."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def describe(frame: bytes, identities: Sequence[str], rows: int) -> dict[str, Any]:
    """One frame. What is known is there: where the payload cannot be read, `error` says why.

    Raises `BatchFormatError` where not even the header can be read.
    """
    from mcilib.format.batch import decode, open_payload
    from mcilib.format.frame import unpack_frame

    opened = unpack_frame(frame)
    header = opened.header
    found: dict[str, Any] = {
        "version": opened.version,
        "bytes": len(frame),
        "header": {
            "batch": header.batch_id, "device": header.device, "sequence": header.sequence,
            "participant": header.participant, "grant": header.grant, "key_ids": header.key_ids,
        },
        "header_bytes": len(opened.head),
        "payload_bytes": len(opened.payload),
        "sealed": header.sealed,
    }  # fmt: skip
    try:
        batch = decode(frame, identities)
        raw = open_payload(frame, identities)
    except BatchFormatError as error:
        return found | {"error": {"kind": "damaged", "reason": error.reason, "offset": error.offset}}
    except SealError as error:
        return found | {"error": {"kind": "sealed", "reason": error.problem, "next_step": error.next_step}}
    return found | _metadata(batch) | _rows(batch, rows) | _columns(raw, opened.version)


def _metadata(batch: Any) -> dict[str, Any]:
    metadata, coverage = batch.metadata, batch.metadata.coverage
    return {
        "metadata": {
            "wall_ns": metadata.anchor.wall_ns, "monotonic_ns": metadata.anchor.monotonic_ns,
            "boot": metadata.boot, "tick_ns": metadata.tick_ns, "quanta_per_px": metadata.quanta_per_px,
            "software": metadata.software, "platform": metadata.platform,
            "clocks": dict(metadata.clocks), "backends": dict(metadata.backends),
            "levers": dict(metadata.levers), "reasons": metadata.reasons, "audit": metadata.audit,
        },
        "coverage": {
            "seen": batch.seen, "kept": batch.kept, "coalesced": coverage.coalesced,
            "thinned": coverage.thinned, "excluded": coverage.excluded, "dropped": dict(coverage.dropped),
            "not_collected_ns": coverage.not_collected_ns,
        },
    }  # fmt: skip


def _rows(batch: Any, most: int) -> dict[str, Any]:
    from mcilib.reader import Row
    from mcilib.reader.fields import own_fields

    events = batch.events
    kinds: dict[str, int] = {}
    for event in events:
        kinds[event.kind] = kinds.get(event.kind, 0) + 1
    times = [Row(events[index], batch, index).wall_ns for index in (0, -1)] if events else [None, None]
    return {
        "rows": len(events),
        "kinds": kinds,
        "first_ns": times[0],
        "last_ns": times[1],
        "first_rows": [
            {"t_ns": Row(event, batch, index).wall_ns, "kind": event.kind, **own_fields(event)}
            for index, event in enumerate(events[:most])
        ],
    }


def _columns(raw: bytes, version: int) -> dict[str, Any]:
    """What each column takes: as MessagePack, and how much smaller the batch would be without it."""
    from mcilib import limits
    from mcilib.format import payload

    columns = payload.unpack(raw, longer_names=version == 0)

    def compressed(names: Sequence[str]) -> int:
        packed = payload.pack({name: columns[name] for name in names})
        return len(payload.compress(packed, limits.ZSTD_LEVEL))

    names = list(columns)
    whole = compressed(names)
    return {
        "uncompressed_bytes": len(raw),
        "compressed_bytes": whole,
        "columns": [
            {
                "name": name,
                "what": COLUMNS.get(name, "") if version else "",
                "bytes": len(payload.pack({name: columns[name]})) - 1,  # without the map around it
                "share_bytes": whole - compressed([other for other in names if other != name]),
            }
            for name in names
        ],
    }


# --- for people -----------------------------------------------------------------------------------------------


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The frame as a person reads it; the error is said elsewhere."""
    header = found["header"]
    keys = header["key_ids"]
    sealed = f"to {count(len(keys), 'key')}: {' '.join(keys)}" if keys else "no, it can be read by anybody"
    yield from _table(
        ("batch", header["batch"]),
        ("device", header["device"]),
        ("sequence", f"{header['sequence']:,}"),
        ("participant", header["participant"]),
        ("grant", header["grant"]),
        ("sealed", sealed),
        ("format", f"version {found['version']}"),
        (
            "frame",
            f"{size(found['bytes'])}: header {found['header_bytes']:,}, payload {found['payload_bytes']:,}",
        ),
    )
    if "error" in found:
        return
    yield from ("", *_about(found["metadata"]), "", *_covered(found), "", *_first(found), *_sizes(found))


def _about(metadata: dict[str, Any]) -> Iterator[str]:
    quanta = metadata["quanta_per_px"]
    yield from _table(
        ("anchor", f"{_moment(metadata['wall_ns'])} = {metadata['monotonic_ns'] / 1e9:,.6f} s monotonic"),
        ("boot", metadata["boot"]),
        ("tick", _span(metadata["tick_ns"])),
        ("positions", f"to 1/{quanta} px" if quanta > 1 else "to 1 px"),
        ("written by", f"{metadata['software']} on {metadata['platform']}"),
        ("clocks", _pairs(metadata["clocks"]) or "not said"),
        ("backends", _pairs(metadata["backends"]) or "not said"),
        ("plan", _pairs(metadata["levers"]) or "collect everything"),
        *(("because", reason) for reason in metadata["reasons"]),
        *([("audit log", metadata["audit"])] if metadata["audit"] else []),
    )


def _covered(found: dict[str, Any]) -> Iterator[str]:
    coverage = found["coverage"]
    left_out = {name: coverage[name] for name in ("coalesced", "thinned", "excluded") if coverage[name]}
    yield from _table(
        ("rows", f"{found['rows']:,}" + (f" ({_counts(found['kinds'])})" if found["rows"] else "")),
        ("events", f"{coverage['seen']:,} seen, {coverage['kept']:,} kept"),
        ("left out", _counts(left_out) or "none"),
        ("dropped", _counts(coverage["dropped"]) or "none"),
        (
            "not collected",
            _span(coverage["not_collected_ns"]) if coverage["not_collected_ns"] else "no pause",
        ),
    )
    if found["rows"]:
        span = _span(found["last_ns"] - found["first_ns"])
        yield from _table(("first row", _moment(found["first_ns"])), ("last row", f"{span} later"))


def _first(found: dict[str, Any]) -> Iterator[str]:
    if not found["first_rows"]:
        return
    yield f"First {count(len(found['first_rows']), 'row')}, times in seconds from the first:"
    cells = [
        (
            f"{index}",
            f"{(row['t_ns'] - found['first_ns']) / 1e9:.3f}",
            row["kind"],
            one_line(_pairs({name: value for name, value in row.items() if name not in ("t_ns", "kind")})),
        )
        for index, row in enumerate(found["first_rows"])
    ]
    yield from aligned([("row", "time", "kind", ""), *cells], right=(0, 1))
    yield ""


def _sizes(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Columns: {found['uncompressed_bytes']:,} bytes of MessagePack, {found['compressed_bytes']:,} compressed. "
        "Share: how much smaller it would be without the column."
    )
    cells = [
        (one_line(column["name"]), f"{column['bytes']:,}", f"{column['share_bytes']:,}", column["what"])
        for column in found["columns"]
    ]
    yield from aligned([("column", "bytes", "share", ""), *cells], right=(1, 2))


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Columns as wide as their widest cell, those in `right` flush right; the last one runs free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _table(*rows: tuple[str, str]) -> Iterator[str]:
    for name, value in rows:
        yield f"{name + ':':15}{one_line(value)}"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_word(value)}" for name, value in values.items())


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return f'"{text}"' if " " in text or not text else text


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in values.items())


def _moment(wall_ns: int) -> str:
    """`2025-06-15 15:06:40.000 UTC`"""
    moment = _EPOCH + timedelta(microseconds=wall_ns // 1000)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"


def _span(ns: int) -> str:
    """`1 ms`, `2.5 s`, `12 min 3.0 s`."""
    if ns < 1_000_000_000:
        return f"{ns / 1e6:g} ms"
    minutes, s = divmod(ns / 1e9, 60)
    return f"{minutes:,.0f} min {s:.1f} s" if minutes else f"{s:g} s"
