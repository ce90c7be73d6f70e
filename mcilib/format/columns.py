"""Rows -> columns, as `docs/spec/batch-format.md` describes them. Pure; any thread.

What an encoder may choose freely (the clock step, the weight of the predictor) is chosen here from the rows
alone, so that the same rows always give the same columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import accumulate, chain, compress, islice
from operator import add, itemgetter, ne, sub
from typing import Any, TypeAlias

import msgpack
import zstandard

from mcilib.format.rare import POINTING, plain_number
from mcilib.format.rows import Rows, Run, apart
from mcilib.format.vocabulary import to_word

Columns: TypeAlias = dict[str, "bytes | int | list[Any]"]

ESCAPE = 255
"""In a column of bytes: the value is this plus the next entry of the column of wide values."""
ESCAPES = re.compile(b"\xff")
WEIGHTS = (0, 1, 4)
"""Of the predictor, in quarters; those that an encoder tries. A decoder takes 0 to 4."""
CLOCK_STEPS_NS = (15_600_100, 15_625_000)
"""Steps of coarse clocks that an encoder tries: the two common periods of the timer of Windows (64 Hz, and
what remote desktops show: found in recordings, see `docs/decisions/`)."""

_TRIALS, _TRIALS_MIN = 192, 32
_PROBES, _PROBES_MIN = 64, 8
_KEPT_TICKS = 1024


class _Codes(dict[int, int]):
    """Codes by value; an escape for every value that has none."""

    def __missing__(self, value: int) -> int:
        return ESCAPE


_SHORT = _Codes((value, value) for value in range(ESCAPE))
_ZIGZAG = _Codes((value, value << 1 if value >= 0 else ~(value << 1)) for value in range(-127, 128))


def to_columns(rows: Rows, tick_ns: int) -> Columns:
    """The columns of these rows in the order in which they are written, without those that are left out."""
    columns: Columns = {}
    dt, clock = _times(rows.all_ticks(), tick_ns)
    dt, rare_dt = apart(dt, rows.before)
    if rows.ticks:
        _move_columns(columns, dt, rows.x, rows.y)
    columns |= clock
    if rows.before:
        _rare_columns(columns, rows, rare_dt)
    if rows.synthetic:
        columns["z"] = _runs(rows.synthetic)
    return columns


def differences(values: Sequence[int]) -> list[int]:
    """First differences, the first one from 0."""
    return list(map(sub, values, [0, *values]))


# --- times --------------------------------------------------------------------------------------------------


def _times(ticks: list[int], tick_ns: int) -> tuple[list[int], Columns]:
    """Differences of ticks or, if all come from a coarse clock, of its steps, with the columns that say so."""
    dt = differences(ticks)
    probes = ticks[:: max(1, len(ticks) // _PROBES)]
    if len(probes) >= _PROBES_MIN:
        for step_ns in CLOCK_STEPS_NS:
            if (middle_ns := _phase(probes, tick_ns, step_ns)) is not None:
                return _steps(dt, tick_ns, step_ns, middle_ns) or (dt, {})
    return dt, {}


def _phase(probes: Sequence[int], tick_ns: int, step_ns: int) -> int | None:
    """Where in a step the times sit, if nine of ten sit within a tick of each other."""
    offsets = [tick * tick_ns % step_ns for tick in probes]
    turn = step_ns // 2 - offsets[0]
    turned = sorted([(offset + turn) % step_ns for offset in offsets])
    middle = turned[len(turned) // 2]
    near = sum([abs(offset - middle) * 9 <= tick_ns * 5 for offset in turned])
    return middle - turn if near * 10 > len(probes) * 9 else None


def _steps(dt: list[int], tick_ns: int, step_ns: int, middle_ns: int) -> tuple[list[int], Columns] | None:
    """Differences of the clock's steps, where tick = floor((step * step_ns + base_ns) / tick_ns), plus corrections
    of some rows. None when those are too many."""
    shift = step_ns // 2 - middle_ns  # so that no time lies near the edge between two steps
    first = (dt[0] * tick_ns + shift) // step_ns
    steps_of, late_of = _split(tick_ns, step_ns)
    steps = list(map(steps_of.__getitem__, dt))
    steps[0] = first
    others = islice(map(late_of.__getitem__, dt), 1, None)
    late = list(accumulate(others, initial=dt[0] * tick_ns - first * step_ns))
    low, high = min(late), max(late)
    if low + shift < 0 or high + shift >= step_ns:  # what lies between two steps has led astray
        shifted = [tick * tick_ns + shift for tick in accumulate(dt)]
        steps = differences([ns // step_ns for ns in shifted])
        late = [ns % step_ns - shift for ns in shifted]
        low, high = min(late), max(late)
    if high - low < tick_ns:
        return steps, {"C": [step_ns, (low + high + tick_ns) // 2]}
    base_ns = _base(late, tick_ns)
    wrong = [(base_ns - one) // tick_ns for one in late]
    rows = [row for row, by in enumerate(wrong) if by]
    if len(rows) * 10 > len(dt):
        return None
    return steps, {"C": [step_ns, base_ns], "h": differences(rows), "r": [-wrong[row] for row in rows]}


class _Kept(dict[int, int]):
    """Values of a function, kept where its argument is one that comes again and again: 0 to 1,023."""

    def __init__(self, of: Callable[[int], int]) -> None:
        self._of = of

    def __missing__(self, ticks: int) -> int:
        value = self._of(ticks)
        if 0 <= ticks < _KEPT_TICKS:
            self[ticks] = value
        return value


@lru_cache(maxsize=len(CLOCK_STEPS_NS))
def _split(tick_ns: int, step_ns: int) -> tuple[_Kept, _Kept]:
    """Of so many ticks: the nearest number of steps, and the nanoseconds left."""
    steps_of = _Kept(lambda ticks: (ticks * tick_ns + step_ns // 2) // step_ns)
    return steps_of, _Kept(lambda ticks: ticks * tick_ns - steps_of[ticks] * step_ns)


def _base(late: Sequence[int], tick_ns: int) -> int:
    """The base that is right for most rows: for one that is `late`, all from there to a tick later are."""
    ordered = sorted(late)
    first, most, low, high = 0, 0, ordered[0], ordered[0]
    for last, one in enumerate(ordered):
        while ordered[first] <= one - tick_ns:
            first += 1
        if last - first >= most:
            most, low, high = last - first + 1, ordered[first], one
    return (low + high + tick_ns) // 2


# --- moves --------------------------------------------------------------------------------------------------


def _move_columns(columns: Columns, dt: list[int], xs: list[int], ys: list[int]) -> None:
    dx, dy = differences(xs), differences(ys)
    weight = _weight(dx, dy)
    x, y = _errors(dx, weight), _errors(dy, weight)
    try:
        t = bytes(dt)
    except ValueError:
        t = bytes(map(_SHORT.__getitem__, dt))
    columns |= {"x": x, "y": y, "t": t}
    if wide := _wide(x, y, dx, dy, weight):
        columns["v"] = wide
    if ESCAPE in t:
        columns["u"] = [dt[found.start()] - ESCAPE for found in ESCAPES.finditer(t)]
    if weight:
        columns["w"] = weight


def _errors(steps: list[int], weight: int) -> bytes:
    """Zigzag codes of what is left of the steps when each is predicted as weight / 4 of the step before, or escapes.
    `weight` is of `WEIGHTS`."""
    if weight == 0:
        return bytes(map(_ZIGZAG.__getitem__, steps))
    before = [0, *steps]
    if weight == 4:
        return bytes(map(_ZIGZAG.__getitem__, map(sub, steps, before)))
    errors = [step - (last >> 2) for step, last in zip(steps, before)]  # noqa: B905
    return bytes(map(_ZIGZAG.__getitem__, errors))


def _wide(x: bytes, y: bytes, dx: list[int], dy: list[int], weight: int) -> list[int]:
    """The errors at the escapes: by move, x before y; zigzag, less 255."""
    if ESCAPE not in x and ESCAPE not in y:
        return []
    wide = []
    for at in escapes(x, y):
        steps, move = (dy if at & 1 else dx), at >> 1
        error = steps[move] - ((steps[move - 1] if move else 0) * weight >> 2)
        wide.append((error << 1 if error >= 0 else ~(error << 1)) - ESCAPE)
    return wide


def escapes(x: bytes, y: bytes) -> list[int]:
    """Twice the move's number for each escape in x, that plus one for each in y; rising."""
    return sorted(
        [2 * found.start() for found in ESCAPES.finditer(x)]
        + [2 * found.start() + 1 for found in ESCAPES.finditer(y)]
    )


def _weight(dx: list[int], dy: list[int]) -> int:
    """The weight that leaves the fewest distinct errors, judged by some moves from all over the batch: what packs
    best has few. A few moves do not say; of those the packed size does."""
    if len(dx) < _TRIALS_MIN:
        return min(WEIGHTS, key=partial(_packed_bytes, dx, dy))
    every = len(dx) // _TRIALS or 1
    trials = [(steps[1::every], steps[::every]) for steps in (dx, dy)]  # each with the one before it
    distinct = {
        0: sum(len(set(steps)) for steps, _ in trials),
        1: sum(len({step - (before >> 2) for step, before in zip(*pair)}) for pair in trials),  # noqa: B905
        4: sum(len(set(map(sub, *pair))) for pair in trials),
    }
    return min(WEIGHTS, key=distinct.__getitem__)


def _packed_bytes(dx: list[int], dy: list[int], weight: int) -> int:
    x, y = _errors(dx, weight), _errors(dy, weight)
    raw = b"".join((x, y, msgpack.packb(_wide(x, y, dx, dy, weight))))
    return len(zstandard.ZstdCompressor(level=1, write_checksum=False).compress(raw))


# --- everything else ----------------------------------------------------------------------------------------


def _rare_columns(columns: Columns, rows: Rows, rare_dt: list[int]) -> None:
    rare = rows.rare
    columns |= {"k": rare.kinds, "i": differences(rows.before), "j": rare_dt}
    _places(columns, rows)
    _named(columns, "B", "b", rare.buttons)
    _named(columns, "E", "e", rare.keys)
    if rare.dy:
        columns["s"] = rare.dy
        if any(rare.dx):
            columns["d"] = rare.dx
        if any(map(ne, rare.counts, map(add, map(abs, rare.dx), map(abs, rare.dy)))):
            columns["c"] = rare.counts
    if rare.sources:
        columns["l"] = rare.durations_ns
        _named(columns, "G", "g", rare.sources)
    if rare.displays:
        columns["Y"] = list(map(plain_number, chain.from_iterable(rare.displays)))
    if rare.layouts:
        columns["L"] = rare.layouts
    if rare.focuses:
        apps, titles, *frames = zip(*rare.focuses, strict=True)
        columns["A"] = list(apps)
        if titles != (None,) * len(titles):
            columns["T"] = list(titles)
        if frames[0] != (None,) * len(titles):
            columns["W"] = list(chain.from_iterable(zip(*frames, strict=True)))


def _places(columns: Columns, rows: Rows) -> None:
    """A press, release or scroll is where the last move was; what is elsewhere is listed."""
    rare = rows.rare
    if not rare.x:
        return
    # Two more, so that it is always a tuple.
    after = itemgetter(0, 0, *compress(rows.before, rare.kinds.translate(POINTING)))
    off = [
        x != at_x or y != at_y
        for x, y, at_x, at_y in zip(
            rare.x, rare.y, after([0, *rows.x])[2:], after([0, *rows.y])[2:], strict=True
        )
    ]
    if True in off:
        columns["a"] = differences(list(compress(range(len(off)), off)))
        columns["p"], columns["q"] = (differences(list(compress(values, off))) for values in (rare.x, rare.y))


def _named(columns: Columns, table: str, index: str, texts: Sequence[str | None]) -> None:
    """Distinct texts in order of appearance, and each one's place among them; without a choice only the table."""
    if texts:
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        columns[table] = [None if text is None else to_word(text) for text in place]
        if len(place) > 1:
            columns[index] = [place[text] for text in texts]


def _runs(runs: Sequence[Run]) -> list[Any]:
    starts = differences([start for start, _ in runs])
    return [part for start, (_, said) in zip(starts, runs, strict=True) for part in (start, said)]
