"""What a person did, as records for training: one for each motion, click, drag, scrolling and run of keys.

Every row of the pointer and the keyboard is in exactly one of them (`rows` counts them), but for a release
whose press is not there, which is in none. Times within an action are nanoseconds from its beginning, on the
monotonic clock: no step of the wall clock shows in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mcilib.events import Display, Focus


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the screen, in pixels as the events have it, and what is known to be there."""

    x: float
    y: float
    display: Display | None = None
    """The display that it is on (the lowest number of several); None: not on one that was told."""
    window: Focus | None = None
    """The focused window, when the point is inside it; None also where no window's place was told."""

    @property
    def on_display(self) -> tuple[float, float] | None:
        """From the display's top left corner."""
        return None if self.display is None else (self.x - self.display.x, self.y - self.display.y)

    @property
    def in_window(self) -> tuple[float, float] | None:
        """From the window's top left corner."""
        window = self.window
        if window is None or window.x is None or window.y is None:
            return None
        return self.x - window.x, self.y - window.y


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    device: str
    boot: str
    seq: int
    """Of the batch with its first row."""
    i: int
    """Of that row."""
    rows: int
    """Of all that it stands for."""
    t_ns: int
    """When it began: wall clock, Unix time."""
    monotonic_ns: int
    """The same on the monotonic clock."""
    duration_ns: int
    focus: Focus | None = None
    """The focused window when it began; None: not told."""
    layout: str | None = None
    """The keyboard layout when it began; None: not told."""
    synthetic: bool | None = None
    """A program did it (True), a hand (False); None: not known, or both."""
    whole: bool = True
    """False where its beginning or end is not there: a hole, a gap or the end of the data cuts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion(_Common):
    """The pointer moved, with no button down and no pause longer than `MOTION_PAUSE_NS`."""

    at_ns: tuple[int, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    kind: ClassVar[str] = "motion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Click(_Common):
    """A button went down and up at one place, `count` times: 2 is a double click, 3 a triple one."""

    button: str
    count: int
    place: Place
    """Where it went down first."""
    at_ns: tuple[int, ...]
    """Of each press."""
    held_ns: tuple[int | None, ...]
    """How long after each press its release came; None: it is not there."""
    keys_down: tuple[str | None, ...] = ()
    """Keys that were held, as far as their presses are there."""
    kind: ClassVar[str] = "click"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drag(_Common):
    """The pointer moved with a button down: the way from the press to the release, both included."""

    button: str
    begin: Place
    end: Place
    at_ns: tuple[int, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    keys_down: tuple[str | None, ...] = ()
    kind: ClassVar[str] = "drag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrolling(_Common):
    """Scroll steps in one direction at one place, with no pause longer than `SCROLL_PAUSE_NS`."""

    place: Place
    dx: float
    dy: float
    """In all; +dy is away from the person."""
    count: int
    """Steps."""
    keys_down: tuple[str | None, ...] = ()
    kind: ClassVar[str] = "scrolling"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRun(_Common):
    """Key presses one after the other, with no pause longer than `KEY_PAUSE_NS`, no click and no scrolling
    among them and no change of application."""

    keys: tuple[str | None, ...]
    """Class or shortcut of each, as in `KeyPress`."""
    at_ns: tuple[int, ...]
    held_ns: tuple[int | None, ...]
    """How long each was down, also where the next one went down first. Of several keys of the same class that
    are down at once, the one that went down first is taken to come up first. None: its release is not there."""
    kind: ClassVar[str] = "key_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Here something may be missing. What was under way is cut."""

    device: str
    boot: str
    seq: int
    """Of the batch that comes next, or that says so."""
    cause: str
    """`start` of a device, another `boot`, a `hole` (batches that are not here), a `pause` (nothing was to be
    collected) or a `gap` (a source could not capture)."""
    t_ns: int
    monotonic_ns: int
    duration_ns: int | None = None
    """Of a pause (somewhere before) or a gap."""
    source: str | None = None
    """Of a gap. It cuts what that source gives; any other than `pointer` and `keyboard` cuts both."""
    batches: int | None = None
    """How many a hole lacks."""
    kind: ClassVar[str] = "break"


Action: TypeAlias = Motion | Click | Drag | Scrolling | KeyRun


def as_json(item: Action | Break) -> dict[str, Any]:
    """Plain values: the fields by name; places, focus and layout flat; without what is not known."""
    match item:
        case Break():
            own: dict[str, Any] = {
                "cause": item.cause, "source": item.source, "batches": item.batches,
            }  # fmt: skip
        case Motion():
            own = {"at_ns": item.at_ns, "x": item.x, "y": item.y}
        case Click():
            own = {
                "button": item.button, "count": item.count, **_flat(item.place),
                "at_ns": item.at_ns, "held_ns": item.held_ns, "keys_down": item.keys_down,
            }  # fmt: skip
        case Drag():
            own = {
                "button": item.button, **_flat(item.begin, "begin_"), **_flat(item.end, "end_"),
                "at_ns": item.at_ns, "x": item.x, "y": item.y, "keys_down": item.keys_down,
            }  # fmt: skip
        case Scrolling():
            own = {
                **_flat(item.place), "dx": item.dx, "dy": item.dy, "count": item.count,
                "keys_down": item.keys_down,
            }  # fmt: skip
        case KeyRun():
            own = {"keys": item.keys, "at_ns": item.at_ns, "held_ns": item.held_ns}
    fields = {"t_ns": item.t_ns, "kind": item.kind, "duration_ns": item.duration_ns, **own}
    if not isinstance(item, Break):
        focus = item.focus
        fields |= {
            "app": focus and focus.app, "title": focus and focus.title, "layout": item.layout,
            "synthetic": item.synthetic, "whole": item.whole, "rows": item.rows, "i": item.i,
        }  # fmt: skip
    fields |= {
        "monotonic_ns": item.monotonic_ns, "boot": item.boot, "device": item.device, "seq": item.seq,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


def _flat(place: Place, prefix: str = "") -> dict[str, Any]:
    display, (window_x, window_y) = place.display, place.in_window or (None, None)
    display_x, display_y = place.on_display or (None, None)
    fields = {
        "x": place.x, "y": place.y, "display": display and display.display,
        "display_x": display_x, "display_y": display_y,
        "display_width": display and display.width, "display_height": display and display.height,
        "window_x": window_x, "window_y": window_y,
    }  # fmt: skip
    return {prefix + name: value for name, value in fields.items()}
