"""The records: one small frozen class per kind of event.

`t_ns` is the event's time on the machine's monotonic clock. `x`, `y` are pixels from the top left corner of
the first display, `+x` right and `+y` down; they can be negative with several displays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Move:
    """The pointer moved to (x, y)."""

    t_ns: int
    x: float
    y: float
    kind: ClassVar[str] = "move"


@dataclass(frozen=True, slots=True)
class Press:
    """A pointer button went down: `left middle right back forward`, or `button<N>` for others."""

    t_ns: int
    x: float
    y: float
    button: str
    kind: ClassVar[str] = "press"


@dataclass(frozen=True, slots=True)
class Release:
    """A pointer button went up; `button` as in `Press`."""

    t_ns: int
    x: float
    y: float
    button: str
    kind: ClassVar[str] = "release"


@dataclass(frozen=True, slots=True)
class Scroll:
    """`count` scroll steps that add up to (dx, dy); +dy is away from the person, +dx to the right."""

    t_ns: int
    x: float
    y: float
    dx: float
    dy: float
    count: int = 1
    kind: ClassVar[str] = "scroll"


@dataclass(frozen=True, slots=True)
class KeyPress:
    """A key went down. `key` is a class or a named shortcut (see `mcilib.privacy`), None at TIMING."""

    t_ns: int
    key: str | None
    kind: ClassVar[str] = "key_press"


@dataclass(frozen=True, slots=True)
class KeyRelease:
    """A key went up; `key` is what its press said."""

    t_ns: int
    key: str | None
    kind: ClassVar[str] = "key_release"


@dataclass(frozen=True, slots=True)
class Gap:
    """`source` could not capture for `duration_ns` from `t_ns` on. Why is not said."""

    t_ns: int
    duration_ns: int
    source: str
    kind: ClassVar[str] = "gap"


Event: TypeAlias = Move | Press | Release | Scroll | KeyPress | KeyRelease | Gap

#: kind -> class, in the order of the kind codes of the batch format. Append only.
EVENT_TYPES: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Move, Press, Release, Scroll, KeyPress, KeyRelease, Gap)
}


def event_count(event: Event) -> int:
    """How many events of the system this record stands for (a merged scroll stands for `count`)."""
    return event.count if isinstance(event, Scroll) else 1
