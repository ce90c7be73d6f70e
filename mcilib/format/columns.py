"""Rows -> columns, as `docs/spec/batch-format.md` describes them. Pure; any thread.

What an encoder may choose freely (the clock step, the weight of the predictor) is chosen here from the rows
alone, so that the same rows always give the same columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, compress, repeat
from operator import itemgetter, ne, or_, sub
from typing import Any, TypeAlias

import msgpack
import zstandard

from mcilib.events import KeyPress, KeyRelease, Press, Release
from mcilib.format.rows import (
    CODE,
    DISPLAY,
    FOCUS,
    GAP,
    LAYOUT,
    SCROLL,
    Rows,
    Run,
    apart,
    plain_number,
    to_quanta,
)
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

_ZIGZAG = {value: value << 1 if value >= 0 else ~(value << 1) for value in range(-127, 128)}
_TRIAL_MOVES = 256
_PROBES = 64
_PROBES_MIN = 8


def to_columns(rows: Rows, tick_ns: int, quanta_per_px: int) -> Columns:
    """The columns of these rows in the order in which they are written, without those that are left out."""
    columns: Columns = {}
    ticks, clock = _without_clock_step(rows, tick_ns)
    dt, rare_dt = apart(differences(ticks), rows.before)
    if rows.ticks:
        _move_columns(columns, dt, rows.x, rows.y)
    columns |= clock
    if rows.rare:
        _rare_columns(columns, rows, rare_dt, quanta_per_px)
    if rows.synthetic:
        columns["z"] = _runs(rows.synthetic)
    return columns


def differences(values: Sequence[int]) -> list[int]:
    """First differences, the first one from 0."""
    return list(map(sub, values, chain((0,), values)))


# --- times --------------------------------------------------------------------------------------------------


def _without_clock_step(rows: Rows, tick_ns: int) -> tuple[list[int], Columns]:
    """Ticks of all rows in order or, if all come from a coarse clock, its steps, with the columns that say so."""
    ticks = rows.all_ticks()
    probes = ticks[:: max(1, len(ticks) // _PROBES)]
    if len(probes) < _PROBES_MIN:
        return ticks, {}
    for step_ns in CLOCK_STEPS_NS:
        if (middle_ns := _phase(probes, tick_ns, step_ns)) is not None:
            return _steps(ticks, tick_ns, step_ns, middle_ns)
    return ticks, {}


def _phase(probes: Sequence[int], tick_ns: int, step_ns: int) -> int | None:
    """Where in a step the times sit, if nine of ten sit within a tick of each other."""
    offsets = [tick * tick_ns % step_ns for tick in probes]
    turn = step_ns // 2 - offsets[0]
    turned = sorted([(offset + turn) % step_ns for offset in offsets])
    middle = turned[len(turned) // 2]
    near = sum([abs(offset - middle) * 9 <= tick_ns * 5 for offset in turned])
    return middle - turn if near * 10 > len(probes) * 9 else None


def _steps(ticks: list[int], tick_ns: int, step_ns: int, middle_ns: int) -> tuple[list[int], Columns]:
    """Steps of the clock: tick = floor((step * step_ns + base_ns) / tick_ns), plus corrections of some rows."""
    shift = step_ns // 2 - middle_ns  # so that no time lies near the edge between two steps
    shifted = [tick * tick_ns + shift for tick in ticks]
    steps = [ns // step_ns for ns in shifted]
    late = [ns % step_ns - shift for ns in shifted]
    base_ns = _base(late, tick_ns)
    columns: Columns = {"C": [step_ns, base_ns]}
    if not (max(late) <= base_ns < min(late) + tick_ns):
        wrong = [(base_ns - one) // tick_ns for one in late]
        rows = [row for row, by in enumerate(wrong) if by]
        if len(rows) * 10 > len(ticks):
            return ticks, {}
        columns["h"], columns["r"] = differences(rows), [-wrong[row] for row in rows]
    return steps, columns


def _base(late: Sequence[int], tick_ns: int) -> int:
    """The base that is right for most rows: for one that is `late`, all from there to a tick later are."""
    low, high = min(late), max(late)
    if high - low >= tick_ns:
        ordered = sorted(late)
        first, most = 0, 0
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
    ex, ey = _errors(dx, weight), _errors(dy, weight)
    x, y = _zigzag(ex), _zigzag(ey)
    try:
        t = bytes(dt)
    except ValueError:
        t = bytes([d if 0 <= d < ESCAPE else ESCAPE for d in dt])
    columns |= {"x": x, "y": y, "t": t}
    if wide := _wide(x, y, ex, ey):
        columns["v"] = wide
    if ESCAPE in t:
        columns["u"] = [dt[found.start()] - ESCAPE for found in ESCAPES.finditer(t)]
    if weight:
        columns["w"] = weight


def _errors(steps: list[int], weight: int) -> list[int]:
    """What is left of the steps when each is predicted as weight / 4 of the step before."""
    if weight == 0:
        return steps
    if weight == 4:
        return differences(steps)
    return [step - (before * weight >> 2) for step, before in zip(steps, chain((0,), steps))]  # noqa: B905


def _zigzag(values: list[int]) -> bytes:
    """Zigzag codes of -127 to 127; an escape for every other value."""
    return bytes(map(_ZIGZAG.get, values, repeat(ESCAPE)))


def _wide(x: bytes, y: bytes, ex: list[int], ey: list[int]) -> list[int]:
    """The values at the escapes: by move, x before y; zigzag, less 255."""
    if ESCAPE not in x and ESCAPE not in y:
        return []
    values = [ey[at >> 1] if at & 1 else ex[at >> 1] for at in escapes(x, y)]
    return [(value << 1 if value >= 0 else ~(value << 1)) - ESCAPE for value in values]


def escapes(x: bytes, y: bytes) -> list[int]:
    """Twice the move's number for each escape in x, that plus one for each in y; rising."""
    return sorted(
        [2 * found.start() for found in ESCAPES.finditer(x)]
        + [2 * found.start() + 1 for found in ESCAPES.finditer(y)]
    )


def _weight(dx: list[int], dy: list[int]) -> int:
    """The weight that packs best on a stretch in the middle."""
    start = max(0, (len(dx) - _TRIAL_MOVES) // 2)
    dx, dy = dx[start : start + _TRIAL_MOVES], dy[start : start + _TRIAL_MOVES]
    trial = zstandard.ZstdCompressor(level=1, write_checksum=False)

    def cost(weight: int) -> int:
        ex, ey = _errors(dx, weight), _errors(dy, weight)
        x, y = _zigzag(ex), _zigzag(ey)
        return len(trial.compress(b"".join((x, y, msgpack.packb(_wide(x, y, ex, ey))))))

    return min(WEIGHTS, key=cost)


# --- everything else ----------------------------------------------------------------------------------------


def _rare_columns(columns: Columns, rows: Rows, rare_dt: list[int], quanta_per_px: int) -> None:
    codes = bytes([CODE[type(event)] for event in rows.rare])
    of_kind: list[list[Any]] = [[] for _ in range(len(CODE))]
    for code, event in zip(codes, rows.rare, strict=True):
        of_kind[code].append(event)
    columns |= {"k": codes, "i": differences(rows.before), "j": rare_dt}
    _places(columns, rows, codes, quanta_per_px)
    # Press and release, and the two of a key, share their columns: in the order of rows.
    _named(columns, "B", "b", [event.button for event in rows.rare if isinstance(event, (Press, Release))])
    _named(columns, "E", "e", [event.key for event in rows.rare if isinstance(event, (KeyPress, KeyRelease))])
    if scrolls := of_kind[SCROLL]:
        columns["s"] = [plain_number(event.dy) for event in scrolls]
        if any(event.dx for event in scrolls):
            columns["d"] = [plain_number(event.dx) for event in scrolls]
        if any(event.count != abs(event.dx) + abs(event.dy) for event in scrolls):
            columns["c"] = [int(event.count) for event in scrolls]
    if gaps := of_kind[GAP]:
        columns["l"] = [int(event.duration_ns) for event in gaps]
        _named(columns, "G", "g", [event.source for event in gaps])
    if displays := of_kind[DISPLAY]:
        columns["Y"] = [
            plain_number(value)
            for event in displays
            for value in (
                event.display, event.x, event.y, event.width, event.height, event.scale, event.rotation
            )
        ]  # fmt: skip
    if layouts := of_kind[LAYOUT]:
        columns["L"] = [event.name for event in layouts]
    if focuses := of_kind[FOCUS]:
        columns["A"] = [event.app for event in focuses]
        if any(event.title is not None for event in focuses):
            columns["T"] = [event.title for event in focuses]
        if any(event.x is not None for event in focuses):
            frames = [v for event in focuses for v in (event.x, event.y, event.width, event.height)]
            columns["W"] = [None if v is None else int(v) for v in frames]


def _places(columns: Columns, rows: Rows, codes: bytes, quanta_per_px: int) -> None:
    """A press, release or scroll is where the last move was; what is elsewhere is listed."""
    is_pointer = [code <= SCROLL for code in codes]
    pointer: list[Any] = list(compress(rows.rare, is_pointer))
    if not pointer:
        return
    after = itemgetter(0, 0, *compress(rows.before, is_pointer))  # two more, so that it is always a tuple
    xs = [to_quanta(event.x, quanta_per_px) for event in pointer]
    ys = [to_quanta(event.y, quanta_per_px) for event in pointer]
    off = list(map(or_, map(ne, xs, after([0, *rows.x])[2:]), map(ne, ys, after([0, *rows.y])[2:])))
    if True in off:
        columns["a"] = differences(list(compress(range(len(off)), off)))
        columns["p"], columns["q"] = (differences(list(compress(values, off))) for values in (xs, ys))


def _named(columns: Columns, table: str, index: str, texts: list[str | None]) -> None:
    """Distinct texts in order of appearance, and each one's place among them; without a choice only the table."""
    if texts:
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        columns[table] = [None if text is None else to_word(text) for text in place]
        if len(place) > 1:
            columns[index] = [place[text] for text in texts]


def _runs(runs: Sequence[Run]) -> list[Any]:
    starts = differences([start for start, _ in runs])
    return [part for start, (_, said) in zip(starts, runs, strict=True) for part in (start, said)]
