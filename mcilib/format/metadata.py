"""What a batch says about its rows: clocks, units, where they come from, what is not among them, and why."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mcilib import __version__
from mcilib.clock import ClockAnchor
from mcilib.format.vocabulary import BY_NUMBERS, BY_WORDS, from_word, is_text, to_word

TIME_MAX_NS = 2**63 - 1
"""Times, wall and monotonic, are signed 64 bit: what Parquet and every other reader can hold (until 2262)."""
TICK_MAX_NS = 60_000_000_000
QUANTA_MAX_PER_PX = 256
NAME_MAX_BYTES = 128
"""Of one name in UTF-8: a source, a cause, a lever, a button. The longest shortcut of today takes 37."""
REASON_MAX_BYTES = 256
LEVERS_MAX = 32
"""Of levers, reasons, sources and causes of loss each."""

Lever: TypeAlias = int | float | str | bool | None
_BOOT, _DIGEST = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was seen, or not collected, since the batch before, and is not among the rows. Counts of events."""

    coalesced: int = 0
    """Moves to the place where the pointer already was."""
    thinned: int = 0
    """Moves left out within the tolerance of the plan."""
    excluded: int = 0
    """Not allowed by the grant, or by an exemption or exclusion; nothing of them was kept."""
    not_collected_ns: int = 0
    """Time in which nothing was to be collected (a pause). Times in which a source failed are gap rows."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Seen and lost, by cause."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is needed to understand the rows of one batch."""

    anchor: ClockAnchor
    """One moment on both clocks; times of rows are whole ticks from it."""
    boot: str
    """16 hex digits: monotonic times compare within one boot of one device."""
    tick_ns: int
    """Unit of the times of rows, 1 to 60 s."""
    quanta_per_px: int = 1
    """Positions are kept to this part of a pixel, 1 to 256."""
    software: str = f"mcilib/{__version__}"
    """What wrote it: `name/version`."""
    platform: str = sys.platform
    clocks: Mapping[str, str] = field(default_factory=dict)
    """Source -> where its event times come from (`x11`, `callback`, `trace`)."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """Source -> what it was heard with (`xrecord`, `pynput`, `x11`, `trace`), of those in `clocks` that say so."""
    coverage: Coverage = Coverage()
    levers: Mapping[str, Lever] = field(default_factory=dict)
    """The plan in force, as far as it differs from collecting everything: lever -> value."""
    reasons: tuple[str, ...] = ()
    """Why that plan, in words."""
    audit: str = ""
    """SHA-256 of the last line of the participant's audit log then, 64 hex digits; empty: not said."""

    def times_ns(self, ticks: Iterable[int]) -> list[int]:
        """Monotonic times, given ticks from the anchor."""
        zero_ns, tick_ns = self.anchor.monotonic_ns, self.tick_ns
        return [zero_ns + tick * tick_ns for tick in ticks]

    def to_wire(self) -> dict[str, Any]:
        """The columns that are written, empty ones left out. `ValueError` when a value cannot be written."""
        coverage = self.coverage
        if not self.backends.keys() <= self.clocks.keys():
            raise ValueError("'backends' names a source that 'clocks' does not")
        if not _BOOT.fullmatch(self.boot):
            raise ValueError("boot is not 16 lower-case hex digits")
        version = self.software.removeprefix("mcilib/")
        about = [
            self.anchor.monotonic_ns,
            self.anchor.wall_ns,
            bytes.fromhex(self.boot),
            self.tick_ns,
            self.software if "/" in version else version,
            to_word(self.platform),
            self.quanta_per_px,
            coverage.coalesced,
            coverage.excluded,
            coverage.thinned,
            coverage.not_collected_ns,
        ]
        while about[-1] == _DEFAULTS.get(len(about)):
            about.pop()
        wire: dict[str, Any] = {
            "M": about,
            "S": [to_word(text) for pair in self.clocks.items() for text in pair],
            "by": [
                to_word(self.backends[source], BY_NUMBERS) if source in self.backends else None
                for source in (self.clocks if self.backends else ())
            ],
            "D": [part for cause, count in coverage.dropped.items() for part in (to_word(cause), count)],
            "P": [part for lever, value in self.levers.items() for part in (to_word(lever), value)],
            "R": list(self.reasons),
        }
        if self.audit and not _DIGEST.fullmatch(self.audit):
            raise ValueError("audit is not 64 lower-case hex digits")
        wire = {name: values for name, values in wire.items() if values}
        if self.audit:
            wire["audit"] = bytes.fromhex(self.audit)
        Metadata.from_wire(wire)  # what is written can be read
        return wire

    @classmethod
    def from_wire(cls, columns: Mapping[str, Any]) -> Metadata:
        """`ValueError` names what is missing or wrong. Entries of "M" beyond those known are ignored."""
        about = _column(columns, "M")
        if len(about) < 6:
            raise ValueError("column 'M' has fewer than six entries")
        about += [_DEFAULTS[n] for n in range(len(about) + 1, 12)]
        anchor = ClockAnchor(
            _integer("monotonic_ns", about[0], -TIME_MAX_NS), _integer("wall_ns", about[1], -TIME_MAX_NS)
        )
        if type(about[2]) is not bytes or len(about[2]) != 8:
            raise ValueError("boot is not 8 bytes")
        software = _text("the software", about[4], REASON_MAX_BYTES)
        clocks = {name: from_word(clock, NAME_MAX_BYTES) for name, clock in _pairs(columns, "S")}
        return cls(
            anchor=anchor,
            boot=about[2].hex(),
            tick_ns=_integer("tick_ns", about[3], 1, TICK_MAX_NS),
            software=software if "/" in software else f"mcilib/{software}",
            platform=from_word(about[5], NAME_MAX_BYTES),
            quanta_per_px=_integer("quanta_per_px", about[6], 1, QUANTA_MAX_PER_PX),
            clocks=clocks,
            backends=_backends(columns, clocks),
            coverage=Coverage(
                coalesced=_integer("coalesced", about[7]),
                excluded=_integer("excluded", about[8]),
                thinned=_integer("thinned", about[9]),
                not_collected_ns=_integer("not_collected_ns", about[10]),
                dropped={cause: _integer("a count of 'D'", n) for cause, n in _pairs(columns, "D")},
            ),
            levers={lever: _lever(value) for lever, value in _pairs(columns, "P")},
            reasons=_reasons(_column(columns, "R")),
            audit=_audit(columns),
        )


_DEFAULTS: dict[int, int] = {7: 1, 8: 0, 9: 0, 10: 0, 11: 0}
"""What the entries of "M" from the seventh on are when they are left out."""


def _column(columns: Mapping[str, Any], name: str) -> list[Any]:
    values = columns.get(name, [])
    if type(values) is not list:
        raise ValueError(f"column {name!r} is not an array")
    return list(values)


def _pairs(columns: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    values = _column(columns, name)
    if len(values) % 2 or len(values) > 2 * LEVERS_MAX:
        raise ValueError(f"column {name!r} is not pairs, or too many")
    names = [from_word(word, NAME_MAX_BYTES) for word in values[::2]]
    if len(set(names)) < len(names):
        raise ValueError(f"a name appears twice in column {name!r}")
    return zip(names, values[1::2], strict=True)


def _backends(columns: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, str]:
    if "by" not in columns:
        return {}
    words = _column(columns, "by")
    if len(words) != len(sources):
        raise ValueError(f"column 'by' has {len(words)} entries for {len(sources)} sources")
    return {
        source: from_word(word, NAME_MAX_BYTES, BY_WORDS)
        for source, word in zip(sources, words, strict=True)
        if word is not None
    }


def _audit(columns: Mapping[str, Any]) -> str:
    if "audit" not in columns:
        return ""
    digest = columns["audit"]
    if type(digest) is not bytes or len(digest) != 32:
        raise ValueError("column 'audit' is not 32 bytes")
    return digest.hex()


def _integer(what: str, value: object, low: int = 0, high: int = TIME_MAX_NS) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is not an integer in its range")
    return value


def _text(what: str, value: object, max_bytes: int) -> str:
    if not is_text(value, max_bytes):
        raise ValueError(f"{what} is not text of at most {max_bytes} bytes")
    return str(value)


def _lever(value: object) -> Lever:
    match value:
        case None | bool():
            return value
        case int() if -TIME_MAX_NS <= value <= TIME_MAX_NS:
            return value
        case float() if math.isfinite(value):
            return value
        case str() if is_text(value, NAME_MAX_BYTES):
            return value
    raise ValueError("a lever of 'P' has a value that is none")


def _reasons(values: Sequence[Any]) -> tuple[str, ...]:
    if len(values) > LEVERS_MAX or not all(is_text(value, REASON_MAX_BYTES) for value in values):
        raise ValueError("column 'R' is not reasons in words, or too many")
    return tuple(values)
