"""Rows: events in order of time, moves apart from everything else, times in ticks and places in quanta.

This is what is written and what is read; `columns` turns it into the columns of a payload, `parse` the other
way. `writable` accepts exactly the events that can be read back. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from operator import add
from typing import Any, TypeAlias, TypeVar

from mcilib.clock import ClockAnchor
from mcilib.events import (
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
from mcilib.format.rare import CODE, KEY_RELEASE, Rare, to_px, to_quanta
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
    rare: Rare = field(default_factory=Rare)
    """Every other row."""
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
        every = self.all_ticks()
        rare = list(map(every.__getitem__, map(add, self.before, count())))
        return rare == self.rare_ticks and self.ticks == sorted(self.ticks)

    def all_ticks(self) -> list[int]:
        """Of all rows, in order of time."""
        return sorted(self.ticks + self.rare_ticks)

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
        rows, rare, zero_ns = cls(), list[Event](), anchor.monotonic_ns - tick_ns // 2
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
                rare.append(event)
        rows.rare = Rare.of(rare, quanta)
        return rows

    def events(self, metadata: Metadata) -> tuple[Event, ...]:
        """As records."""
        xs, ys = (to_px(places, metadata.quanta_per_px) for places in (self.x, self.y))
        moves: list[Event] = list(map(Move, metadata.times_ns(self.ticks), xs, ys))
        events = together(moves, self.rare_events(metadata), self.before)
        return tuple(self._marked(events) if self.synthetic else events)

    def rare_events(self, metadata: Metadata) -> list[Event]:
        """Every row that is no move, as a record, with `synthetic` not said."""
        times_ns = metadata.times_ns(self.rare_ticks)
        return self.rare.events(times_ns, metadata.quanta_per_px)

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
