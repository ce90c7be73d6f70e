"""Rare rows: everything that is no pointer move, as lists of what their columns say. Any thread.

Records are made of them only when somebody asks: most of what reads a batch does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from mcilib.events import (
    EVENT_TYPES,
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    KeyRelease,
    Layout,
    Press,
    Release,
    Scroll,
)

CODE: dict[type, int] = {cls: code for code, cls in enumerate(EVENT_TYPES.values())}
"""Kind codes of the format, by class."""
MOVE, PRESS, RELEASE, SCROLL, KEY_PRESS, KEY_RELEASE, GAP, DISPLAY, LAYOUT, FOCUS = CODE.values()


def _table(first: int, last: int) -> bytes:
    """For `bytes.translate`: 1 for the kinds from `first` to `last`, 0 for all others."""
    return bytes(first <= code <= last for code in range(256))


POINTING, BUTTON, KEY = _table(PRESS, SCROLL), _table(PRESS, RELEASE), _table(KEY_PRESS, KEY_RELEASE)
"""Kinds that share columns: those with a position, with a button, with a key."""
_SCROLLS, _GAPS, _DISPLAYS, _LAYOUTS, _FOCUSES = (
    _table(code, code) for code in (SCROLL, GAP, DISPLAY, LAYOUT, FOCUS)
)


@dataclass(slots=True)
class Rare:
    """Rows that are no moves. Lists of one entry per row of the kinds that have such a thing, in order of rows."""

    kinds: bytes = b""
    """Per row: its code."""
    x: list[int] = field(default_factory=list)
    """Per press, release and scroll, in quanta."""
    y: list[int] = field(default_factory=list)
    buttons: list[str] = field(default_factory=list)
    """Per press and release."""
    keys: list[str | None] = field(default_factory=list)
    """Per key press and release."""
    dx: list[int | float] = field(default_factory=list)
    """Per scroll."""
    dy: list[int | float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    durations_ns: list[int] = field(default_factory=list)
    """Per gap."""
    sources: list[str] = field(default_factory=list)
    displays: list[tuple[Any, ...]] = field(default_factory=list)
    """The fields of each `Display` after its time."""
    layouts: list[str] = field(default_factory=list)
    focuses: list[tuple[Any, ...]] = field(default_factory=list)
    """The fields of each `Focus` after its time."""

    def __len__(self) -> int:
        return len(self.kinds)

    @classmethod
    def of(cls, events: Sequence[Event], quanta_per_px: int) -> Rare:
        """What these rows will be read back as: plain numbers, whole quanta. All must be `rows.writable`."""
        kinds = bytes(map(CODE.__getitem__, map(type, events)))

        def among(table: bytes) -> list[Any]:
            return list(compress(events, kinds.translate(table)))

        pointing, scrolls, gaps = among(POINTING), among(_SCROLLS), among(_GAPS)
        return cls(
            kinds,
            _all_to_quanta([event.x for event in pointing], quanta_per_px),
            _all_to_quanta([event.y for event in pointing], quanta_per_px),
            buttons=[event.button for event in among(BUTTON)],
            keys=[event.key for event in among(KEY)],
            dx=[plain_number(event.dx) for event in scrolls],
            dy=[plain_number(event.dy) for event in scrolls],
            counts=[int(event.count) for event in scrolls],
            durations_ns=[int(event.duration_ns) for event in gaps],
            sources=[event.source for event in gaps],
            displays=[
                (
                    int(event.display), int(event.x), int(event.y), int(event.width), int(event.height),
                    float(event.scale), int(event.rotation),
                )
                for event in among(_DISPLAYS)
            ],
            layouts=[event.name for event in among(_LAYOUTS)],
            focuses=[
                (
                    event.app, event.title,
                    *(None if v is None else int(v) for v in (event.x, event.y, event.width, event.height)),
                )
                for event in among(_FOCUSES)
            ],
        )  # fmt: skip

    def events(self, times_ns: Sequence[int], quanta_per_px: int) -> list[Event]:
        """As records, given the time of each row."""
        kinds = self.kinds
        pointing, buttons, keys = (
            bytes(compress(kinds, kinds.translate(of))) for of in (POINTING, BUTTON, KEY)
        )
        xs, ys = to_px(self.x, quanta_per_px), to_px(self.y, quanta_per_px)

        def of(code: int, values: Iterable[Any], codes: bytes) -> Iterable[Any]:
            return compress(values, map(code.__eq__, codes))

        def at(code: int) -> Iterable[int]:
            return of(code, times_ns, kinds)

        def pointer(code: int) -> tuple[Iterable[Any], ...]:
            return at(code), of(code, xs, pointing), of(code, ys, pointing)

        made: dict[int, Iterator[Event]] = {
            PRESS: map(Press, *pointer(PRESS), of(PRESS, self.buttons, buttons)),
            RELEASE: map(Release, *pointer(RELEASE), of(RELEASE, self.buttons, buttons)),
            SCROLL: map(Scroll, *pointer(SCROLL), self.dx, self.dy, self.counts),
            KEY_PRESS: map(KeyPress, at(KEY_PRESS), of(KEY_PRESS, self.keys, keys)),
            KEY_RELEASE: map(KeyRelease, at(KEY_RELEASE), of(KEY_RELEASE, self.keys, keys)),
            GAP: map(Gap, at(GAP), self.durations_ns, self.sources),
            DISPLAY: (
                Display(t_ns, *values) for t_ns, values in zip(at(DISPLAY), self.displays, strict=True)
            ),
            LAYOUT: map(Layout, at(LAYOUT), self.layouts),
            FOCUS: (Focus(t_ns, *values) for t_ns, values in zip(at(FOCUS), self.focuses, strict=True)),
        }
        return [next(made[code]) for code in kinds]


def to_quanta(place: float, quanta_per_px: int) -> int:
    """To the nearest, exactly; halves to even, as `round`."""
    if type(place) is int:
        return place * quanta_per_px
    place = float(place)
    if quanta_per_px & (quanta_per_px - 1) == 0:  # a power of two, by which a product is exact
        return round(place * quanta_per_px)
    numerator, denominator = place.as_integer_ratio()
    whole, rest = divmod(numerator * quanta_per_px, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def to_px(places: list[int], quanta_per_px: int) -> Sequence[float]:
    return places if quanta_per_px == 1 else [place / quanta_per_px for place in places]


def plain_number(value: Any) -> int | float:
    """An integer where the value is whole, so that equal steps are written alike."""
    whole = int(value)
    return whole if whole == value else float(value)


def _all_to_quanta(places: list[float], quanta_per_px: int) -> list[int]:
    if quanta_per_px == 1 and {int}.issuperset(map(type, places)):
        return places  # type: ignore[return-value]
    return [to_quanta(place, quanta_per_px) for place in places]
