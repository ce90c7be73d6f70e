"""Rows <-> columns of first differences. Pure; what a column holds is said in `docs/spec/`.

`writable` accepts exactly the events that `from_columns` would give back, so nothing that was let into a
batch can make it unreadable. All functions may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from math import isfinite
from operator import sub
from typing import Any, TypeAlias

from mcilib.clock import ClockAnchor
from mcilib.events import EVENT_TYPES, Event, Gap, KeyPress, KeyRelease, Move, Press, Release, Scroll

Columns: TypeAlias = dict[str, list[Any]]

TIME_MAX_NS = 2**63 - 1
"""Times, wall and monotonic, are signed 64 bit: what Parquet and every other reader can hold (until 2262)."""

COORDINATE_MAX_PX = 2**31 - 1
SCROLL_MAX = 2**53
"""Largest |dx|, |dy|: integers are exact as 64 bit floats up to here."""
COUNT_MAX = 2**31 - 1
TEXT_MAX_BYTES = 128
"""Of one button, key or source name in UTF-8. The longest shortcut that can be named today takes 37."""

_TYPES = tuple(EVENT_TYPES.values())
_CODE: dict[type, int] = {cls: code for code, cls in enumerate(_TYPES)}
_MOVE, _PRESS, _SCROLL, _GAP = (_CODE[cls] for cls in (Move, Press, Scroll, Gap))
_BUTTON_CODES = frozenset(_CODE[cls] for cls in (Press, Release))
_POINTER_CODES = frozenset(_CODE[cls] for cls in (Move, Press, Release, Scroll))
_KEY_CODES = frozenset(_CODE[cls] for cls in (KeyPress, KeyRelease))


def tick_range(anchor: ClockAnchor, tick_ns: int) -> tuple[int, int]:
    """First and last tick that a batch with this anchor can hold, so that both clocks stay in 64 bit."""
    if tick_ns < 1:
        raise ValueError(f"a tick of {tick_ns} ns")
    ahead = max(anchor.monotonic_ns, anchor.wall_ns)
    behind = min(anchor.monotonic_ns, anchor.wall_ns)
    return (-TIME_MAX_NS - behind) // tick_ns + 1, (TIME_MAX_NS - ahead) // tick_ns


def writable(event: object) -> bool:
    """Can this event be written, apart from its time? False for NaN, absurd sizes and unknown classes."""
    try:
        match event:
            case Move():
                return _is_pixel(event.x) and _is_pixel(event.y)
            case Press() | Release():
                return _is_pixel(event.x) and _is_pixel(event.y) and _is_text(event.button)
            case Scroll():
                return (
                    _is_pixel(event.x)
                    and _is_pixel(event.y)
                    and -SCROLL_MAX <= event.dx <= SCROLL_MAX
                    and -SCROLL_MAX <= event.dy <= SCROLL_MAX
                    and 1 <= event.count <= COUNT_MAX
                )
            case KeyPress() | KeyRelease():
                return event.key is None or _is_text(event.key)
            case Gap():
                return 0 <= event.duration_ns <= TIME_MAX_NS and _is_text(event.source)
    except TypeError:  # a coordinate that is not a number, from somebody else's source
        return False
    return False


def to_columns(events: Sequence[Event], anchor: ClockAnchor, tick_ns: int) -> Columns:
    """The columns of these rows, in this order; empty ones are left out.

    Times round to the nearest tick, coordinates to the nearest pixel. Every event must be `writable` and
    within `tick_range`; `ValueError` for a class that the format does not know.
    """
    try:
        codes = [_CODE[type(event)] for event in events]
    except KeyError as error:
        raise ValueError(f"{error.args[0].__name__} is not an event that the format knows") from None
    zero_ns = anchor.monotonic_ns - tick_ns // 2
    rows: list[Any] = list(events)
    only_motion = codes.count(_MOVE) == len(rows)  # as in most batches
    pointer = rows if only_motion else [r for r, c in zip(rows, codes, strict=True) if c in _POINTER_CODES]
    columns: Columns = {
        "kind": codes,
        "t": _differences(_plain_ints([(row.t_ns - zero_ns) // tick_ns for row in rows])),
        "x": _differences(_pixels([row.x for row in pointer])),
        "y": _differences(_pixels([row.y for row in pointer])),
    }
    if not only_motion:
        scrolls = [row for row, code in zip(rows, codes, strict=True) if code == _SCROLL]
        gaps = [row for row, code in zip(rows, codes, strict=True) if code == _GAP]
        columns["dx"] = [_plain_number(row.dx) for row in scrolls]
        columns["dy"] = [_plain_number(row.dy) for row in scrolls]
        columns["count"] = _plain_ints([row.count for row in scrolls])
        columns["duration"] = _plain_ints([row.duration_ns for row in gaps])
        for name, texts in (
            ("button", [row.button for row, c in zip(rows, codes, strict=True) if c in _BUTTON_CODES]),
            ("key", [row.key for row, c in zip(rows, codes, strict=True) if c in _KEY_CODES]),
            ("source", [row.source for row in gaps]),
        ):
            columns[f"{name}s"], columns[name] = _table(texts)
    return {name: values for name, values in columns.items() if values}


def from_columns(columns: Mapping[str, list[Any]], anchor: ClockAnchor, tick_ns: int) -> tuple[Event, ...]:
    """The rows of these columns. `ValueError` says what is wrong with untrusted ones.

    `columns` must hold lists of integers, floats, strings and None only, of bounded length.
    """
    column = _Untrusted(columns)
    kinds = column.ints("kind", len(columns.get("kind", ())), 0, len(_TYPES) - 1)
    ticks = column.sums("t", len(kinds), *tick_range(anchor, tick_ns))
    of_kind = [kinds.count(code) for code in range(len(_TYPES))]
    pointers, buttons, keys = (
        sum(of_kind[c] for c in g) for g in (_POINTER_CODES, _BUTTON_CODES, _KEY_CODES)
    )
    scrolls, gaps = of_kind[_SCROLL], of_kind[_GAP]
    x = iter(column.sums("x", pointers, -COORDINATE_MAX_PX, COORDINATE_MAX_PX))
    y = iter(column.sums("y", pointers, -COORDINATE_MAX_PX, COORDINATE_MAX_PX))
    button = iter(column.texts("button", buttons))
    dx, dy = iter(column.numbers("dx", scrolls)), iter(column.numbers("dy", scrolls))
    count = iter(column.ints("count", scrolls, 1, COUNT_MAX))
    key = iter(column.texts("key", keys, optional=True))
    duration = iter(column.ints("duration", gaps, 0, TIME_MAX_NS))
    source = iter(column.texts("source", gaps))
    column.refuse_unknown()

    events: list[Event] = []
    for code, tick in zip(kinds, ticks, strict=True):
        t_ns = anchor.monotonic_ns + tick * tick_ns
        if code == _MOVE:
            events.append(Move(t_ns, next(x), next(y)))
        elif code in _BUTTON_CODES:
            events.append((Press if code == _PRESS else Release)(t_ns, next(x), next(y), next(button)))
        elif code == _SCROLL:
            events.append(Scroll(t_ns, next(x), next(y), next(dx), next(dy), next(count)))
        elif code == _GAP:
            events.append(Gap(t_ns, next(duration), next(source)))
        else:
            events.append((KeyPress if code == _CODE[KeyPress] else KeyRelease)(t_ns, next(key)))
    return tuple(events)


class _Untrusted:
    """Reads columns that anybody may have written; `ValueError` names the column."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self._columns = columns
        self._known: set[str] = set()

    def _take(self, name: str, length: int | None, types: set[type]) -> list[Any]:
        self._known.add(name)
        values = self._columns.get(name, [])
        if length is not None and len(values) != length:
            raise ValueError(f"column {name!r} has {len(values)} entries where the kinds ask for {length}")
        if not types.issuperset(map(type, values)):
            raise ValueError(f"column {name!r} holds a value of a wrong type")
        return values

    def ints(self, name: str, length: int, low: int, high: int) -> list[int]:
        return _within(name, self._take(name, length, {int}), low, high)

    def sums(self, name: str, length: int, low: int, high: int) -> list[int]:
        """Undoes first differences."""
        return _within(name, list(accumulate(self._take(name, length, {int}))), low, high)

    def numbers(self, name: str, length: int) -> list[int | float]:
        values = self._take(name, length, {int, float})
        if not all(map(isfinite, values)):
            raise ValueError(f"column {name!r} holds a value that is not a number")
        return [_plain_number(value) for value in _within(name, values, -SCROLL_MAX, SCROLL_MAX)]

    def texts(self, name: str, length: int, optional: bool = False) -> list[Any]:
        """Looks indices up in the table of strings; only `optional` ones may be None."""
        table = self._take(f"{name}s", None, {str, type(None)} if optional else {str})
        return [table[index] for index in self.ints(name, length, 0, len(table) - 1)]

    def refuse_unknown(self) -> None:
        if unknown := self._columns.keys() - self._known:
            raise ValueError(f"{len(unknown)} column(s) of an unknown name")


def _within(name: str, values: list[Any], low: int, high: int) -> list[Any]:
    if values and not (low <= min(values) and max(values) <= high):
        raise ValueError(f"column {name!r} holds a value out of range")
    return values


def _differences(values: list[int]) -> list[int]:
    return list(map(sub, values, chain((0,), values)))


def _table(texts: Iterable[str | None]) -> tuple[list[str | None], list[int]]:
    """Distinct strings in order of appearance, and each string's place among them."""
    place: dict[str | None, int] = {}
    indices = [place.setdefault(text, len(place)) for text in texts]
    return list(place), indices


def _plain_ints(values: list[Any]) -> list[int]:
    """Somebody else's source may emit numpy integers, which msgpack refuses."""
    return values if {int}.issuperset(map(type, values)) else [int(value) for value in values]


def _pixels(values: list[Any]) -> list[int]:
    return values if {int}.issuperset(map(type, values)) else [round(float(value)) for value in values]


def _plain_number(value: Any) -> int | float:
    whole = int(value)
    return whole if whole == value else float(value)


def _is_pixel(value: float) -> bool:
    return -COORDINATE_MAX_PX <= value <= COORDINATE_MAX_PX  # False for NaN


def _is_text(text: Any) -> bool:
    try:
        return isinstance(text, str) and len(text.encode()) <= TEXT_MAX_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False
