"""The records: one small frozen class per kind of event.

`t_ns` is the event's time on the machine's monotonic clock. `x`, `y` are pixels from the top left corner of
the first display, `+x` right and `+y` down; they can be negative with several displays. `synthetic` says
whether a program made the event (True), a hand (False), or that the system does not tell (None).
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
    synthetic: bool | None = None
    kind: ClassVar[str] = "move"


@dataclass(frozen=True, slots=True)
class Press:
    """A pointer button went down: `left middle right back forward`, or `button<N>` for others."""

    t_ns: int
    x: float
    y: float
    button: str
    synthetic: bool | None = None
    kind: ClassVar[str] = "press"


@dataclass(frozen=True, slots=True)
class Release:
    """A pointer button went up; `button` as in `Press`."""

    t_ns: int
    x: float
    y: float
    button: str
    synthetic: bool | None = None
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
    synthetic: bool | None = None
    kind: ClassVar[str] = "scroll"


@dataclass(frozen=True, slots=True)
class KeyPress:
    """A key went down. `key` is a class or a named shortcut (see `mcilib.privacy`), None at TIMING."""

    t_ns: int
    key: str | None
    synthetic: bool | None = None
    kind: ClassVar[str] = "key_press"


@dataclass(frozen=True, slots=True)
class KeyRelease:
    """A key went up; `key` is what its press said."""

    t_ns: int
    key: str | None
    synthetic: bool | None = None
    kind: ClassVar[str] = "key_release"


@dataclass(frozen=True, slots=True)
class Gap:
    """`source` could not capture for `duration_ns` from `t_ns` on. Why is not said.

    A machine that slept (`suspend`) did so up to `t_ns`: its monotonic clock stood still meanwhile.
    """

    t_ns: int
    duration_ns: int
    source: str
    kind: ClassVar[str] = "gap"


@dataclass(frozen=True, slots=True)
class Display:
    """A display as it is from `t_ns` on, at the start and at each change; without a size it has gone."""

    t_ns: int
    display: int
    """Counts from 0, as the system lists them; no name."""
    x: int
    y: int
    """Its top left corner."""
    width: int
    height: int
    """Pixels, in the same units as event positions."""
    scale: float = 1.0
    """Device pixels per pixel."""
    rotation: int = 0
    """Degrees clockwise: 0, 90, 180 or 270."""
    kind: ClassVar[str] = "display"


@dataclass(frozen=True, slots=True)
class Layout:
    """The keyboard layout in force from `t_ns` on, such as `us` or `de(nodeadkeys)`."""

    t_ns: int
    name: str
    kind: ClassVar[str] = "layout"


@dataclass(frozen=True, slots=True)
class Focus:
    """The window that has the focus from `t_ns` on, and where it is; None where that is not said."""

    t_ns: int
    app: str | None
    title: str | None = None
    x: int | None = None
    y: int | None = None
    width: int | None = None
    height: int | None = None
    kind: ClassVar[str] = "focus"


InputEvent: TypeAlias = Move | Press | Release | Scroll | KeyPress | KeyRelease
PointerEvent: TypeAlias = Move | Press | Release | Scroll
Event: TypeAlias = InputEvent | Gap | Display | Layout | Focus

#: kind -> class, in the order of the kind codes of the batch format. Append only.
EVENT_TYPES: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Move, Press, Release, Scroll, KeyPress, KeyRelease, Gap, Display, Layout, Focus)
}


def event_count(event: Event) -> int:
    """How many events of the system this record stands for (a merged scroll stands for `count`)."""
    return event.count if isinstance(event, Scroll) else 1
