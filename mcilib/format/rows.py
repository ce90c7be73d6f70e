"""Rows: events in order of time, moves apart from everything else, times in ticks and places in quanta.

This is what is written and what is read; `columns` turns it into the columns of a payload, `parse` the other
way. `writable` accepts exactly the events that can be read back. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from mcilib.clock import ClockAnchor
from mcilib.events import (
    EVENT_TYPES,
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    KeyRelease,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
)
from mcilib.format.metadata import NAME_MAX_BYTES, TIME_MAX_NS, Metadata
from mcilib.format.vocabulary import is_text

ROWS_MAX = 65_536
"""Rows of one batch: thirteen times the default, and what keeps hostile columns below the stated memory."""
COORDINATE_MAX = 2**31 - 1
"""Of a position in quanta, and of a place or size in pixels."""
SCROLL_MAX = 2**53
"""Largest |dx|, |dy|: integers are exact as 64 bit floats up to here."""
COUNT_MAX = 2**31 - 1
TITLE_MAX_BYTES = 512
"""Of a window's title in UTF-8."""
SCALE_MAX = 64
DISPLAY_MAX = 255
ROTATIONS = (0, 90, 180, 270)

CODE: dict[type, int] = {cls: code for code, cls in enumerate(EVENT_TYPES.values())}
"""Kind codes of the format, by class."""
MOVE, PRESS, RELEASE, SCROLL, KEY_PRESS, KEY_RELEASE, GAP, DISPLAY, LAYOUT, FOCUS = CODE.values()

T = TypeVar("T")
Run: TypeAlias = "tuple[int, bool | None]"
"""From this input row (kinds 0 to 5, counted from 0) on, `synthetic` has this value."""


@dataclass(slots=True)
class Rows:
    """The rows of one batch. Lists of one entry per move, and of one per other ("rare") row."""

    ticks: list[int] = field(default_factory=list)
    """Per move: ticks from the anchor, rising."""
    x: list[int] = field(default_factory=list)
    """Per move, in quanta."""
    y: list[int] = field(default_factory=list)
    rare: list[Event] = field(default_factory=list)
    """Every other row; its `t_ns` is in whole ticks from the anchor, its position in whole quanta."""
    before: list[int] = field(default_factory=list)
    """Per rare row: how many moves come before it, rising."""
    rare_ticks: list[int] = field(default_factory=list)
    """Per rare row: ticks from the anchor."""
    synthetic: list[Run] = field(default_factory=list)
    """Runs of equal values; before the first one it is unknown."""

    def __len__(self) -> int:
        return len(self.ticks) + len(self.rare)

    def in_order(self) -> bool:
        """By time, as they are written; what comes from elsewhere need not be."""
        ticks, rare = self.ticks, self.rare_ticks
        if ticks != sorted(ticks) or rare != sorted(rare):
            return False
        padded = [min(ticks[:1] + rare[:1], default=0), *ticks, max(ticks[-1:] + rare[-1:], default=0)]
        return all(
            padded[place] <= tick <= padded[place + 1] for place, tick in zip(self.before, rare, strict=True)
        )

    def all_ticks(self) -> list[int]:
        """Of all rows, in their order."""
        return together(self.ticks, self.rare_ticks, self.before)

    @classmethod
    def of(cls, events: Sequence[Event], metadata: Metadata) -> Rows:
        """The rows of these events, put in order of time and rounded to ticks and quanta.

        `ValueError` when an event cannot be written (see `writable`) or is out of the clock's range.
        """
        anchor, tick_ns, quanta = metadata.anchor, metadata.tick_ns, metadata.quanta_per_px
        low_ns, high_ns = time_range(anchor, tick_ns)
        if len(events) > ROWS_MAX:
            raise ValueError(f"a batch holds at most {ROWS_MAX} rows, not {len(events)}")
        for index, event in enumerate(events):
            if not (writable(event, quanta) and low_ns <= event.t_ns <= high_ns):
                raise ValueError(f"row {index} cannot be written")
        rows, zero_ns = cls(), anchor.monotonic_ns - tick_ns // 2
        # Rounded before it is sorted: what is read back must sort the same.
        timed = [((event.t_ns - zero_ns) // tick_ns, event) for event in events]
        timed.sort(key=lambda pair: pair[0])
        number, synthetic = 0, None
        for tick, event in timed:
            said = getattr(event, "synthetic", synthetic)
            if said is not synthetic:
                rows.synthetic.append((number, said))
                synthetic = said
            number += CODE[type(event)] <= KEY_RELEASE
            if type(event) is Move:
                rows.ticks.append(int(tick))
                rows.x.append(to_quanta(event.x, quanta))
                rows.y.append(to_quanta(event.y, quanta))
            else:
                rows.before.append(len(rows.ticks))
                rows.rare_ticks.append(int(tick))
                rows.rare.append(rounded(event, anchor.monotonic_ns + int(tick) * tick_ns, quanta))
        return rows

    def events(self, metadata: Metadata) -> tuple[Event, ...]:
        """As records."""
        zero_ns, tick_ns, quanta = metadata.anchor.monotonic_ns, metadata.tick_ns, metadata.quanta_per_px
        times = [zero_ns + tick * tick_ns for tick in self.ticks]
        xs: Sequence[float] = self.x if quanta == 1 else [x / quanta for x in self.x]
        ys: Sequence[float] = self.y if quanta == 1 else [y / quanta for y in self.y]
        moves: list[Event] = list(map(Move, times, xs, ys))
        events = together(moves, self.rare, self.before)
        return tuple(self._marked(events) if self.synthetic else events)

    def _marked(self, events: list[Event]) -> list[Event]:
        """With `synthetic` said."""
        inputs = [n for n, event in enumerate(events) if CODE[type(event)] <= KEY_RELEASE]
        ends = [start for start, _ in self.synthetic[1:]] + [len(inputs)]
        for (start, said), end in zip(self.synthetic, ends, strict=True):
            if said is not None:
                for place in inputs[start:end]:
                    events[place] = replace(events[place], synthetic=said)  # type: ignore[arg-type]
        return events


def together(moves: Sequence[T], rare: Sequence[T], before: Sequence[int]) -> list[T]:
    """One value per row in the order of rows, from one per move and one per rare row."""
    if not rare:
        return list(moves)
    out: list[T] = []
    done = 0
    for place, value in zip(before, rare, strict=True):
        out += moves[done:place]
        out.append(value)
        done = place
    out += moves[done:]
    return out


def apart(values: list[int], before: Sequence[int]) -> tuple[list[int], list[int]]:
    """The other way: what belongs to moves, and to rare rows."""
    if not before:
        return values, []
    moves: list[int] = []
    rare: list[int] = []
    done = 0
    for number, place in enumerate(before):
        moves += values[done + number : place + number]
        rare.append(values[place + number])
        done = place
    moves += values[done + len(before) :]
    return moves, rare


def time_range(anchor: ClockAnchor, tick_ns: int) -> tuple[int, int]:
    """First and last monotonic time that a batch with this anchor can hold: both clocks stay in 64 bit."""
    low, high = tick_range(anchor, tick_ns)
    return anchor.monotonic_ns + low * tick_ns, anchor.monotonic_ns + high * tick_ns


def tick_range(anchor: ClockAnchor, tick_ns: int) -> tuple[int, int]:
    """The same, in ticks from the anchor."""
    if tick_ns < 1:
        raise ValueError(f"a tick of {tick_ns} ns")
    ahead = max(anchor.monotonic_ns, anchor.wall_ns)
    behind = min(anchor.monotonic_ns, anchor.wall_ns)
    return -((TIME_MAX_NS + behind) // tick_ns), (TIME_MAX_NS - ahead) // tick_ns


def to_quanta(place: float, quanta_per_px: int) -> int:
    """To the nearest; halves to even, as `round`."""
    if type(place) is int:
        return place * quanta_per_px
    return round(float(place) * quanta_per_px)


def rounded(event: Event, t_ns: int, quanta_per_px: int) -> Event:
    """A rare row as it will be read back: plain numbers, whole quanta, `synthetic` apart."""
    match event:
        case Press() | Release():
            return type(event)(t_ns, _px(event.x, quanta_per_px), _px(event.y, quanta_per_px), event.button)
        case Scroll():
            return Scroll(
                t_ns, _px(event.x, quanta_per_px), _px(event.y, quanta_per_px),
                plain_number(event.dx), plain_number(event.dy), int(event.count),
            )  # fmt: skip
        case KeyPress() | KeyRelease():
            return type(event)(t_ns, event.key)
        case Gap():
            return Gap(t_ns, int(event.duration_ns), event.source)
        case Display():
            return Display(
                t_ns, int(event.display), int(event.x), int(event.y), int(event.width), int(event.height),
                float(event.scale), int(event.rotation),
            )  # fmt: skip
        case Layout():
            return Layout(t_ns, event.name)
        case Focus():
            frame = (event.x, event.y, event.width, event.height)
            whole = (None if v is None else int(v) for v in frame)
            return Focus(t_ns, event.app, event.title, *whole)
    raise ValueError(f"{type(event).__name__} is not an event that the format knows")


def writable(event: object, quanta_per_px: int = 1) -> bool:
    """Can this event be written, apart from its time? False for NaN, absurd sizes and unknown classes."""
    is_writable = _WRITABLE.get(type(event))
    try:
        return is_writable is not None and is_writable(event, quanta_per_px)
    except (TypeError, AttributeError):  # something that is not a number, from somebody else's source
        return False


def is_display(event: Display) -> bool:
    return (
        0 <= event.display <= DISPLAY_MAX
        and all(-COORDINATE_MAX <= v <= COORDINATE_MAX for v in (event.x, event.y))
        and all(0 <= v <= COORDINATE_MAX for v in (event.width, event.height))
        and 0 < event.scale <= SCALE_MAX
        and event.rotation in ROTATIONS
    )


def is_focus(event: Focus) -> bool:
    frame = (event.x, event.y, event.width, event.height)
    return (
        (event.app is None or is_text(event.app, NAME_MAX_BYTES))
        and (event.title is None or is_text(event.title, TITLE_MAX_BYTES))
        and (
            frame == (None,) * 4
            or all(v is not None and -COORDINATE_MAX <= v <= COORDINATE_MAX for v in frame)
        )
    )


def plain_number(value: Any) -> int | float:
    """An integer where the value is whole, so that equal steps are written alike."""
    whole = int(value)
    return whole if whole == value else float(value)


def _is_place(event: Move | Press | Release | Scroll, quanta_per_px: int) -> bool:
    most = COORDINATE_MAX / quanta_per_px  # exactly what is read back, which may be a fraction of a pixel
    return -most <= event.x <= most and -most <= event.y <= most and _is_said(event)  # False for NaN


def _is_said(event: Any) -> bool:
    return event.synthetic is None or type(event.synthetic) is bool


def _is_button(event: Press | Release, quanta_per_px: int) -> bool:
    return _is_place(event, quanta_per_px) and is_text(event.button, NAME_MAX_BYTES)


def _is_scroll(event: Scroll, quanta_per_px: int) -> bool:
    return (
        _is_place(event, quanta_per_px)
        and -SCROLL_MAX <= event.dx <= SCROLL_MAX
        and -SCROLL_MAX <= event.dy <= SCROLL_MAX
        and 1 <= event.count <= COUNT_MAX
    )


def _is_key(event: KeyPress | KeyRelease, _: int) -> bool:
    return _is_said(event) and (event.key is None or is_text(event.key, NAME_MAX_BYTES))


_WRITABLE: dict[type, Callable[[Any, int], bool]] = {
    Move: _is_place,
    Press: _is_button,
    Release: _is_button,
    Scroll: _is_scroll,
    KeyPress: _is_key,
    KeyRelease: _is_key,
    Gap: lambda event, _: 0 <= event.duration_ns <= TIME_MAX_NS and is_text(event.source, NAME_MAX_BYTES),
    Display: lambda event, _: is_display(event),
    Layout: lambda event, _: is_text(event.name, NAME_MAX_BYTES),
    Focus: lambda event, _: is_focus(event),
}


def _px(place: float, quanta_per_px: int) -> float:
    quanta = to_quanta(place, quanta_per_px)
    return quanta if quanta_per_px == 1 else quanta / quanta_per_px
