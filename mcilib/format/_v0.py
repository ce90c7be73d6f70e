"""Reads batches of format version 0 (mcilib 0.1). Writes none. See `docs/spec/batch-format-v0.md`.

`ValueError` says what is wrong. The header of version 0, a map, holds what version 1 keeps apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcilib.clock import ClockAnchor
from mcilib.events import Event, Gap, KeyPress, KeyRelease, Move, Press, Release, Scroll, event_count
from mcilib.format.header import Header
from mcilib.format.metadata import NAME_MAX_BYTES, TICK_MAX_NS, TIME_MAX_NS, Coverage, Metadata
from mcilib.format.parse import Taker
from mcilib.format.payload import HEADER_ENTRIES_MAX, unpack_header
from mcilib.format.rare import GAP, KEY_PRESS, MOVE, PRESS, RELEASE, SCROLL
from mcilib.format.rows import COORDINATE_MAX, COUNT_MAX, ROWS_MAX, tick_range
from mcilib.format.vocabulary import is_text

_TEXT_MAX_BYTES = 256


def read_header(head: bytes) -> Header:
    """What version 1 has in clear."""
    wire = _fields(head)
    return Header(
        batch_id=_id(wire, "batch", 16),
        participant=_id(wire, "participant", 16),
        device=_id(wire, "device", 16),
        grant=_id(wire, "grant", 32),
        sequence=_integer(wire, "sequence", 0),
    )


def read_metadata(head: bytes) -> Metadata:
    wire = _fields(head)
    clocks: Any = wire.get("sources")
    coverage: Any = wire.get("coverage")
    coverage = coverage if isinstance(coverage, dict) else {}
    dropped, excluded = coverage.get("dropped"), coverage.get("excluded")
    if not _is_map(clocks, str) or not _is_map(dropped, int) or type(excluded) is not int or excluded < 0:
        raise ValueError("'sources' or 'coverage' is not what it must be")
    software = wire.get("software")
    if not is_text(software, _TEXT_MAX_BYTES):
        raise ValueError("'software' is not text")
    name, _, platform = str(software).partition(" ")
    return Metadata(
        anchor=ClockAnchor(
            _integer(wire, "monotonic_ns", -TIME_MAX_NS), _integer(wire, "wall_ns", -TIME_MAX_NS)
        ),
        boot=_id(wire, "boot", 8),
        tick_ns=_integer(wire, "tick_ns", 1, TICK_MAX_NS),
        software=name,
        platform=platform,
        clocks=clocks,
        coverage=Coverage(excluded=excluded, dropped=dropped),
    )


def read_events(columns: Mapping[str, Any], metadata: Metadata) -> tuple[Event, ...]:
    """The rows in the order in which they were written."""
    take = Taker(columns)
    kinds = take.integers("kind", None, MOVE, GAP)
    if len(kinds) > ROWS_MAX:
        raise ValueError(f"it holds {len(kinds)} rows, more than {ROWS_MAX}")
    ticks = take.sums("t", len(kinds), *tick_range(metadata.anchor, metadata.tick_ns))
    count = [kinds.count(kind) for kind in range(GAP + 1)]
    pointer, buttons, keys = (
        sum(count[: SCROLL + 1]),
        count[PRESS] + count[RELEASE],
        sum(count[KEY_PRESS:GAP]),
    )
    x, y = (iter(take.sums(name, pointer, -COORDINATE_MAX, COORDINATE_MAX)) for name in "xy")
    button = iter(take.names("buttons", "button", buttons) if buttons else ())
    key = iter(take.names("keys", "key", keys, optional=True) if keys else ())
    source = iter(take.names("sources", "source", count[GAP]) if count[GAP] else ())
    dx, dy = (iter(take.numbers(name, count[SCROLL])) for name in ("dx", "dy"))
    steps = iter(take.integers("count", count[SCROLL], 1, COUNT_MAX))
    duration = iter(take.integers("duration", count[GAP], 0, TIME_MAX_NS))
    events: list[Event] = []
    for kind, tick in zip(kinds, ticks, strict=True):
        t_ns = metadata.anchor.monotonic_ns + tick * metadata.tick_ns
        if kind == MOVE:
            events.append(Move(t_ns, next(x), next(y)))
        elif kind in (PRESS, RELEASE):
            events.append((Press if kind == PRESS else Release)(t_ns, next(x), next(y), next(button)))
        elif kind == SCROLL:
            events.append(Scroll(t_ns, next(x), next(y), next(dx), next(dy), next(steps)))
        elif kind == GAP:
            events.append(Gap(t_ns, next(duration), next(source)))
        else:
            events.append((KeyPress if kind == KEY_PRESS else KeyRelease)(t_ns, next(key)))
    return tuple(events)


def check(head: bytes, events: Sequence[Event], metadata: Metadata) -> None:
    """The header says how many rows there are, and from when to when."""
    wire, zero_ns = _fields(head), metadata.anchor.monotonic_ns
    times = [event.t_ns for event in events] or [zero_ns]
    first, last = ((t_ns - zero_ns) // metadata.tick_ns for t_ns in (min(times), max(times)))
    said = [wire.get(name) for name in ("rows", "events", "first", "last")]
    if said != [len(events), sum(map(event_count, events)), first, last]:
        raise ValueError("'rows', 'events', 'first' or 'last' is not what the columns say")


def _fields(head: bytes) -> dict[str, Any]:
    fields = unpack_header(head, HEADER_ENTRIES_MAX)
    if not isinstance(fields, dict):
        raise ValueError("it is not one map")
    return fields


def _id(wire: Mapping[str, Any], name: str, length: int) -> str:
    value = wire.get(name)
    if type(value) is not bytes or len(value) != length:
        raise ValueError(f"{name!r} is not {length} bytes")
    return value.hex()


def _integer(wire: Mapping[str, Any], name: str, low: int, high: int = TIME_MAX_NS) -> int:
    value = wire.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name!r} is not an integer in its range")
    return value


def _is_map(value: object, cls: type) -> bool:
    return type(value) is dict and all(
        is_text(key, NAME_MAX_BYTES)
        and (type(v) is int and v >= 0 if cls is int else is_text(v, NAME_MAX_BYTES))
        for key, v in value.items()
    )
