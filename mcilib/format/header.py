"""The header of a batch: whose it is, which one it is, and what it says about its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcilib.clock import ClockAnchor
from mcilib.format.columns import TIME_MAX_NS, tick_range

_TICK_MAX_NS = 60_000_000_000
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_TEXT_MAX_BYTES = 256


@dataclass(frozen=True, slots=True)
class Header:
    """What a receiver may know of a batch without looking at its rows. Ids and digests are hex digits."""

    batch_id: str
    """32 digits, a random UUID."""
    device: str
    """32 digits, as in the grant."""
    participant: str
    """32 digits, the pseudonym of the grant."""
    sequence: int
    """Of the batch in its spool: 1, 2, 3 ..."""
    boot: str
    """16 digits: monotonic times compare within one boot of one device."""
    anchor: ClockAnchor
    """One moment on both clocks; times of rows are ticks from it."""
    tick_ns: int
    """What times are rounded to."""
    grant: str
    """64 digits, the digest of the grant under which all of this was captured."""
    software: str
    """What wrote it: `mcilib/0.1.0 linux`."""
    sources: Mapping[str, str]
    """Source name -> where its event times come from (`x11`, `callback`, `trace`)."""
    rows: int
    events: int
    """Events of the system: a merged scroll counts all its steps."""
    first_ns: int
    """Least and (`last_ns`) greatest monotonic time of a row, in whole ticks from the anchor."""
    last_ns: int
    coverage: Mapping[str, Any]
    """What was seen and is not in it, since the previous batch: `dropped` {cause: events} and `excluded`
    events. Later versions may add counts and maps of counts."""

    def to_wire(self) -> dict[str, Any]:
        """The map that is written. `ValueError` when a field is beyond what the format can hold."""
        wire = {
            "batch": _bytes(self.batch_id),
            "device": _bytes(self.device),
            "participant": _bytes(self.participant),
            "sequence": self.sequence,
            "boot": _bytes(self.boot),
            "monotonic_ns": self.anchor.monotonic_ns,
            "wall_ns": self.anchor.wall_ns,
            "tick_ns": self.tick_ns,
            "grant": _bytes(self.grant),
            "software": self.software,
            "sources": dict(self.sources),
            "rows": self.rows,
            "events": self.events,
            "first": (self.first_ns - self.anchor.monotonic_ns) // max(self.tick_ns, 1),
            "last": (self.last_ns - self.anchor.monotonic_ns) // max(self.tick_ns, 1),
            "coverage": {k: dict(v) if isinstance(v, Mapping) else v for k, v in self.coverage.items()},
        }
        Header.from_wire(wire)  # what is written can be read
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Header:
        """`ValueError` names the field that is missing or wrong. Unknown fields are ignored."""
        field = _Fields(wire)
        anchor = ClockAnchor(
            field.integer("monotonic_ns", -TIME_MAX_NS), field.integer("wall_ns", -TIME_MAX_NS)
        )
        tick_ns = field.integer("tick_ns", 1, _TICK_MAX_NS)
        low, high = tick_range(anchor, tick_ns)
        first = field.integer("first", low, high)
        rows = field.integer("rows", 0)
        return cls(
            batch_id=field.hex("batch", 16),
            device=field.hex("device", 16),
            participant=field.hex("participant", 16),
            sequence=field.integer("sequence", 0),
            boot=field.hex("boot", 8),
            anchor=anchor,
            tick_ns=tick_ns,
            grant=field.hex("grant", 32),
            software=field.text("software"),
            sources=field.texts("sources"),
            rows=rows,
            events=field.integer("events", rows),
            first_ns=anchor.monotonic_ns + first * tick_ns,
            last_ns=anchor.monotonic_ns + field.integer("last", first, high) * tick_ns,
            coverage=field.coverage("coverage"),
        )


class _Fields:
    """Takes fields of a map that anybody may have written."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self._wire = wire

    def _take(self, name: str) -> Any:
        try:
            return self._wire[name]
        except KeyError:
            raise ValueError(f"{name!r} is missing") from None

    def integer(self, name: str, low: int, high: int = TIME_MAX_NS) -> int:
        value = self._take(name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name!r} is not an integer in its range")
        return value

    def hex(self, name: str, length: int) -> str:
        value = self._take(name)
        if type(value) is not bytes or len(value) != length:
            raise ValueError(f"{name!r} is not {length} bytes ({2 * length} hex digits)")
        return value.hex()

    def text(self, name: str) -> str:
        value = self._take(name)
        if not _is_text(value):
            raise ValueError(f"{name!r} is not text of at most {_TEXT_MAX_BYTES} bytes")
        return str(value)

    def texts(self, name: str) -> dict[str, str]:
        value = self._take(name)
        if type(value) is not dict or not all(_is_text(k) and _is_text(v) for k, v in value.items()):
            raise ValueError(f"{name!r} is not a map of texts")
        return value

    def coverage(self, name: str) -> dict[str, Any]:
        value = self._take(name)
        if (
            type(value) is not dict
            or not all(_is_text(key) and (_is_count(v) or _is_counts(v)) for key, v in value.items())
            or not _is_counts(value.get("dropped"))
            or not _is_count(value.get("excluded"))
        ):
            raise ValueError(f"{name!r} is not what was dropped, by cause, and how much was excluded")
        return value


def _is_text(value: Any) -> bool:
    try:
        return type(value) is str and len(value.encode()) <= _TEXT_MAX_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= TIME_MAX_NS


def _is_counts(value: Any) -> bool:
    return type(value) is dict and all(_is_text(key) and _is_count(n) for key, n in value.items())


def _bytes(digits: str) -> bytes:
    if not _HEX.fullmatch(digits):
        raise ValueError("an id or digest is not lower-case hex digits")
    return bytes.fromhex(digits)
