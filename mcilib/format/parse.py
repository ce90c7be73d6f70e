"""Columns -> rows. The columns may come from anybody: `ValueError` says what is wrong with them. Any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, compress
from math import isfinite
from typing import Any

from mcilib.events import Display, Focus
from mcilib.format.columns import ESCAPE, ESCAPES, escapes
from mcilib.format.metadata import NAME_MAX_BYTES, TIME_MAX_NS, Metadata
from mcilib.format.rare import (
    BUTTON,
    CODE,
    DISPLAY,
    FOCUS,
    GAP,
    KEY,
    KEY_RELEASE,
    LAYOUT,
    POINTING,
    SCROLL,
    Rare,
    plain_number,
)
from mcilib.format.rows import (
    COORDINATE_MAX,
    COUNT_MAX,
    ROWS_MAX,
    SCROLL_MAX,
    TITLE_MAX_BYTES,
    Rows,
    Run,
    apart,
    is_display,
    is_focus,
    tick_range,
    together,
)
from mcilib.format.vocabulary import from_word, is_text

STEP_MAX_NS = 60_000_000_000
"""Of a coarse clock."""
_UNZIGZAG = bytes(((code >> 1) ^ -(code & 1)) & 255 for code in range(256))
_ABOUT = frozenset("MSDPRH")
"""Columns about the batch, read by `Metadata` and by whoever opened the seal."""


def to_rows(columns: Mapping[str, Any], metadata: Metadata) -> Rows:
    """The rows of these columns, in order of time. `columns` as `payload.unpack` gives them."""
    take = Taker(columns)
    rows = Rows()
    dt: Sequence[int] = take.packed("t")
    kinds = take.packed("k")
    if len(dt) + len(kinds) > ROWS_MAX:
        raise ValueError(f"it holds {len(dt) + len(kinds)} rows, more than {ROWS_MAX}")
    dt = _wide_times(take, bytes(dt))
    rows.x, rows.y = _positions(take, len(dt), take.integer("w", 0, 4))
    rows.before = take.sums("i", len(kinds), 0, len(dt))
    if any(later < earlier for earlier, later in zip(rows.before, rows.before[1:], strict=False)):
        raise ValueError("column 'i' goes back")
    steps = list(accumulate(together(dt, take.integers("j", len(kinds)), rows.before)))
    ticks = _ticks(take, steps, metadata.tick_ns)
    ordered = sorted(ticks)
    _within("t", ordered[:1] + ordered[-1:], *tick_range(metadata.anchor, metadata.tick_ns))
    rows.ticks, rows.rare_ticks = apart(ticks, rows.before)
    rows.rare = _rare(take, rows, kinds)
    rows.synthetic = _runs(take, len(dt) + sum(code <= KEY_RELEASE for code in kinds))
    take.refuse_unknown()
    return rows if ticks == ordered else Rows.of(rows.events(metadata), metadata)


class Taker:
    """Takes columns by name, checking type, length and range."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns
        self._taken = set(_ABOUT)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def _take(self, name: str, cls: type, absent: Any) -> Any:
        self._taken.add(name)
        value = self._columns.get(name, absent)
        if type(value) is not cls:
            raise ValueError(f"column {name!r} is not of its type ({cls.__name__})")
        return value

    def packed(self, name: str) -> bytes:
        return bytes(self._take(name, bytes, b""))

    def integer(self, name: str, low: int, high: int) -> int:
        return int(_within(name, [self._take(name, int, 0)], low, high)[0])

    def values(self, name: str, length: int | None = None) -> list[Any]:
        values = self._take(name, list, [])
        if length is not None and len(values) != length:
            raise ValueError(f"column {name!r} has {len(values)} entries where {length} are needed")
        return list(values)

    def integers(
        self, name: str, length: int | None = None, low: int | None = None, high: int | None = None
    ) -> list[int]:
        values = self.values(name, length)
        if not {int}.issuperset(map(type, values)):
            raise ValueError(f"column {name!r} holds something that is no integer")
        return values if low is None or high is None else _within(name, values, low, high)

    def sums(self, name: str, length: int | None, low: int, high: int) -> list[int]:
        """Undoes first differences."""
        return _within(name, list(accumulate(self.integers(name, length))), low, high)

    def places(self, name: str, rows: int) -> list[int]:
        """Numbers of rows, each once: undoes first differences."""
        steps = self.integers(name)
        if min(steps[1:], default=1) < 1:
            raise ValueError(f"column {name!r} does not rise")
        return _within(name, list(accumulate(steps)), 0, rows - 1)

    def numbers(self, name: str, length: int) -> list[int | float]:
        values = self.values(name, length)
        if not {int, float}.issuperset(map(type, values)) or not all(map(isfinite, values)):
            raise ValueError(f"column {name!r} holds something that is no number")
        return [plain_number(value) for value in _within(name, values, -SCROLL_MAX, SCROLL_MAX)]

    def names(self, table: str, index: str, length: int, optional: bool = False) -> list[Any]:
        """One text per row, looked up in the table."""
        texts = self.texts(table, None, NAME_MAX_BYTES, optional)
        if index in self:
            return [texts[n] for n in self.integers(index, length, 0, len(texts) - 1)]
        if length and len(texts) != 1:
            raise ValueError(f"column {table!r} has {len(texts)} entries and there is no {index!r}")
        return texts * length

    def texts(self, name: str, length: int | None, max_bytes: int, optional: bool = False) -> list[Any]:
        return [
            None if optional and word is None else from_word(word, max_bytes)
            for word in self.values(name, length)
        ]

    def titles(self, name: str, length: int) -> list[str | None]:
        """Text as it is: a number stands for no word here."""
        values = self.values(name, length)
        if not all(value is None or is_text(value, TITLE_MAX_BYTES) for value in values):
            raise ValueError(f"column {name!r} holds a title that is no text within its limit")
        return values

    def refuse_unknown(self) -> None:
        for name in self._columns:
            if len(name) == 1 and name not in self._taken:
                raise ValueError(f"column {name!r} is not known: written by a newer version?")


def _wide_times(take: Taker, dt: bytes) -> Sequence[int]:
    wide = take.integers("u", dt.count(ESCAPE))
    if not wide:
        return dt
    out = list(dt)
    for found, value in zip(ESCAPES.finditer(dt), wide, strict=True):
        out[found.start()] = ESCAPE + value
    return out


def _positions(take: Taker, moves: int, weight: int) -> tuple[list[int], list[int]]:
    x, y = take.packed("x"), take.packed("y")
    if len(x) != moves or len(y) != moves:
        raise ValueError(f"columns 'x' and 'y' have {len(x)} and {len(y)} entries where {moves} are needed")
    wide_at = escapes(x, y)
    ex, ey = (memoryview(codes.translate(_UNZIGZAG)).cast("b").tolist() for codes in (x, y))
    for at, code in zip(wide_at, take.integers("v", len(wide_at), 0, 2**64), strict=True):
        code += ESCAPE
        (ey if at & 1 else ex)[at >> 1] = (code >> 1) ^ -(code & 1)
    return _placed("x", ex, weight), _placed("y", ey, weight)


def _placed(name: str, errors: list[int], weight: int) -> list[int]:
    """Prediction errors -> positions."""
    if weight == 4:
        errors = list(accumulate(errors))
    elif weight:
        step = 0
        errors = [step := error + (step * weight >> 2) for error in errors]
    return _within(name, list(accumulate(errors)), -COORDINATE_MAX, COORDINATE_MAX)


def _ticks(take: Taker, steps: list[int], tick_ns: int) -> list[int]:
    """Ticks from the anchor: steps of a coarse clock undone."""
    clock = take.integers("C", None, -TIME_MAX_NS, TIME_MAX_NS)
    corrected = take.places("h", len(steps))
    by = take.integers("r", len(corrected))
    if "C" not in take:
        if "h" in take:
            raise ValueError("column 'h' without 'C'")
        return steps
    if len(clock) != 2 or not 1 <= clock[0] <= STEP_MAX_NS:
        raise ValueError("column 'C' is not a step and a base")
    step_ns, base_ns = clock
    ticks = [(step * step_ns + base_ns) // tick_ns for step in steps]
    for row, ticks_more in zip(corrected, by, strict=True):
        ticks[row] += ticks_more
    return ticks


def _rare(take: Taker, rows: Rows, kinds: bytes) -> Rare:
    """The rows that are no moves."""
    if kinds and max(kinds) >= len(CODE):
        raise ValueError(f"kind {max(kinds)} is not known: written by a newer version?")
    if 0 in kinds:
        raise ValueError("a move among the other rows")
    count = [kinds.count(code) for code in range(len(CODE))]
    rare = Rare(kinds)
    rare.x, rare.y = _places(take, rows, kinds)
    rare.buttons = take.names("B", "b", sum(kinds.translate(BUTTON)))
    rare.keys = take.names("E", "e", sum(kinds.translate(KEY)), optional=True)
    titles = take.titles("T", count[FOCUS]) if "T" in take else [None] * count[FOCUS]
    frames = take.values("W", 4 * count[FOCUS]) if "W" in take else [None] * 4 * count[FOCUS]
    rare.dx, rare.dy, rare.counts = _scrolls(take, count[SCROLL])
    rare.durations_ns = take.integers("l", count[GAP], 0, TIME_MAX_NS)
    rare.sources = take.names("G", "g", count[GAP])
    displays = take.values("Y", 7 * count[DISPLAY])
    rare.layouts = take.texts("L", count[LAYOUT], NAME_MAX_BYTES)
    apps = take.texts("A", count[FOCUS], NAME_MAX_BYTES, optional=True)
    rare.displays = [_display(values) for values in _groups(displays, 7)]
    rare.focuses = list(map(_focus, apps, titles, _groups(frames, 4)))
    return rare


def _places(take: Taker, rows: Rows, kinds: bytes) -> tuple[list[int], list[int]]:
    """Of presses, releases and scrolls: where the last move was, but for the exceptions."""
    before = list(compress(rows.before, kinds.translate(POINTING)))
    xs, ys = (list(map([0, *places].__getitem__, before)) for places in (rows.x, rows.y))
    places = take.places("a", len(before))
    elsewhere = (take.sums(name, len(places), -COORDINATE_MAX, COORDINATE_MAX) for name in "pq")
    for place, x, y in zip(places, *elsewhere, strict=True):
        xs[place], ys[place] = x, y
    return xs, ys


def _scrolls(take: Taker, count: int) -> tuple[list[Any], list[Any], list[int]]:
    dys = take.numbers("s", count)
    dxs: list[Any] = take.numbers("d", count) if "d" in take else [0] * count
    if "c" in take:
        return dxs, dys, take.integers("c", count, 1, COUNT_MAX)
    counts = [plain_number(abs(dx) + abs(dy)) for dx, dy in zip(dxs, dys, strict=True)]
    if (
        not {int}.issuperset(map(type, counts))
        or not 1 <= min(counts, default=1) <= max(counts, default=1) <= COUNT_MAX
    ):
        raise ValueError("column 'c' is missing: the scroll steps are not whole")
    return dxs, dys, [int(n) for n in counts]


def _display(values: list[Any]) -> tuple[Any, ...]:
    """The fields of a `Display` after its time."""
    *whole, scale, rotation = values
    if not {int}.issuperset(map(type, (*whole, rotation))) or type(scale) not in (int, float):
        raise ValueError("column 'Y' holds something that is no number")
    fields = (*whole, float(scale), rotation)
    if not is_display(Display(0, *fields)):
        raise ValueError("column 'Y' holds a display out of range")
    return fields


def _focus(app: str | None, title: str | None, frame: list[Any]) -> tuple[Any, ...]:
    """The fields of a `Focus` after its time."""
    fields = (app, title, *frame)
    if not ({int}.issuperset(map(type, frame)) or frame == [None] * 4) or not is_focus(Focus(0, *fields)):
        raise ValueError("column 'W' holds a place that is none")
    return fields


def _groups(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[at : at + size] for at in range(0, len(values), size))


def _runs(take: Taker, inputs: int) -> list[Run]:
    values = take.values("z")
    starts, said = values[::2], values[1::2]
    if len(values) % 2 or not {int}.issuperset(map(type, starts)):
        raise ValueError("column 'z' is not pairs of a row and a word")
    if not all(word is None or type(word) is bool for word in said):
        raise ValueError("column 'z' holds something else than true, false and nil")
    rows = _within("z", list(accumulate(starts)), 0, inputs - 1)
    if min(starts[1:], default=1) < 1:
        raise ValueError("column 'z' goes back")
    return list(zip(rows, said, strict=True))


def _within(name: str, values: list[Any], low: int, high: int) -> list[Any]:
    if values and not (low <= min(values) and max(values) <= high):
        raise ValueError(f"column {name!r} holds a value out of range")
    return values
