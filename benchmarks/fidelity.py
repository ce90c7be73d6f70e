"""What thinning of the pointer's motion saves in bytes, and what of the path it costs: mcilib beside a rate cap.

Bytes are of whole batches in the real format, at the default level, closed at the default number of rows or 300 s
after their first event, per ORIGINAL event: one that the system gave. Ticks of 1 ms, whole pixels.

The true path is that of all rows without a plan: straight between rows of the pointer at most 100 ms apart, resting
over longer gaps. The error at a sample is the larger of |dx| and |dy| in px between it and the path that is rebuilt
from what was kept, at its time and place in the order of its tick. The figures of a path are over all samples that
are rows without a plan; `gaps` is the largest error at any moment between two of them.

  thinned N px   `Motion.THINNED` with that tolerance; the path is rebuilt by the rule above
  at most N Hz   a rate cap keeps the last, or else the first, move in each period, and all that is no move. The path
                 is rebuilt by the rule above, or with straight lines alone, or with rests over gaps of more than one
                 and a half periods. Of these six the one with the lowest 99th percentile counts, for each rate anew.
  no plan        moves to the pixel where the pointer already is are left out, and nothing else

The headline, `ratio`, is the 99th percentile of the cap's error over that of thinning at equal bytes: that of the cap
between two rates is interpolated in logarithms of both. Below its lowest rate the cap is taken to be as good as
there, and no error to be below 1 px. `nearest` is the same with a more lenient error: where samples share a tick, from
the nearest of them, since a cap keeps one of them at most.

Without --traces: synthetic, seeded ones.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import traces
from rig import arguments, remark, show, table
from wire_size import BOOT, WALL_NS, grant

from mcilib import limits
from mcilib.clock import ClockAnchor
from mcilib.events import Event, Move, Press, Release, Scroll, event_count
from mcilib.format.open_batch import OpenBatch
from mcilib.policy.plan import Motion
from mcilib.sampler import ThinnedBatch

TOLERANCES_PX = (1, 2, 4, 8, 16)
RATES_HZ = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80, 125, 250)
QUICK_HZ = (1, 4, 10, 20, 40, 80)
AGE_NS = 300 * 10**9
REST = limits.REST_NS // limits.TICK_NS
FLOOR_PX = 1.0
"""An error of the cap below this counts as this."""

Point: TypeAlias = "tuple[int, int, int]"
"""Tick, x and y."""


@dataclass(frozen=True)
class Result:
    """One way to keep less of one trace."""

    way: str
    value: float
    """Tolerance in px, or rate in Hz."""
    kept: float
    """Share of the moves that are rows without a plan."""
    bytes_per_event: float
    median_px: float
    p99_px: float
    max_px: float
    gaps_px: float
    nearest_p99_px: float


def ticked(events: Sequence[Event]) -> list[Event]:
    """In ticks and whole pixels; the n-th of a tick is n ns late, so that times tell them apart."""
    out: list[Event] = []
    tick, number = -1, 0
    for event in events:
        mine = event.t_ns // limits.TICK_NS
        tick, number = mine, (number + 1 if mine == tick else 0)
        t_ns = tick * limits.TICK_NS + number
        if isinstance(event, _PLACED):
            out.append(replace(event, t_ns=t_ns, x=round(event.x), y=round(event.y)))
        else:
            out.append(replace(event, t_ns=t_ns))
    return out


_PLACED = Move | Press | Release | Scroll


def points(events: Sequence[Event]) -> list[Point]:
    return [
        (event.t_ns // limits.TICK_NS, int(event.x), int(event.y))
        for event in events
        if isinstance(event, _PLACED)
    ]


# --- what is kept -------------------------------------------------------------------------------------------


def write(events: Sequence[Event], make: Callable[..., OpenBatch]) -> tuple[set[int], int]:
    """In batches; the times of the events that are rows, and the bytes of the files."""
    waiting, batches = deque(events), list[OpenBatch]()
    due_ns, at = -(2**62), None
    while waiting:
        event = waiting[0]
        if event.t_ns >= due_ns:
            if batches:
                at = batches[-1].pointer_at
            batches.append(make(ClockAnchor(event.t_ns, WALL_NS + event.t_ns), pointer_at=at))
            batches[-1].align(0)
            due_ns = event.t_ns + AGE_NS
        batch = batches[-1]
        if isinstance(batch, ThinnedBatch) and batch.take_moves(waiting, len(waiting), 0, due_ns):
            continue
        if batch.add(event):
            waiting.popleft()
        else:
            due_ns = event.t_ns
    size, kept = 0, set[int]()
    for number, batch in enumerate(batches, start=1):
        clocks = {"pointer": "x11"}
        size += len(batch.seal(sequence=number, grant=grant(), boot=BOOT, clocks=clocks).data)
        kept |= {*batch._t_ns, *(event.t_ns for event in batch._rare)}
    return kept, size


def cap(events: Sequence[Event], rate_hz: float, *, last: bool) -> list[Event]:
    """At most one move in each period, which begins with a move: the last one of it, or the first."""
    period_ns, until_ns = 1e9 / rate_hz, -math.inf
    out: list[Event] = []
    waiting: Event | None = None
    for event in events:
        ends = event.t_ns >= until_ns
        if waiting is not None and (ends or type(event) is not Move):
            out.append(waiting)
            waiting = None
        if type(event) is not Move:
            out.append(event)
        elif last:
            waiting = event
        elif ends:
            out.append(event)
        if ends and type(event) is Move:
            until_ns = event.t_ns + period_ns
    return [*out, waiting] if waiting is not None else out


# --- how far off --------------------------------------------------------------------------------------------


def errors(
    every: Sequence[Point], kept: Sequence[int], rest: float
) -> tuple[list[float], list[float], float]:
    """At each of `every`, given the places in it of those `kept`, with rests over gaps of more than `rest` ticks; the
    same from the nearest sample of its tick; and the largest between them."""
    exact: list[float] = []
    nearest: list[float] = []
    gaps, at = 0.0, -1
    for k, sample in enumerate(every):
        if at + 1 < len(kept) and kept[at + 1] == k:
            at += 1
        begin = every[kept[max(at, 0)]]
        end = every[kept[min(at + 1, len(kept) - 1)]]
        place = sample if at >= 0 and kept[at] == k else way(begin, end, sample[0], rest)
        exact.append(apart(sample, place))
        error = exact[-1]
        for step in (-1, 1) if error else ():
            other = k + step
            while 0 <= other < len(every) and every[other][0] == sample[0]:
                error = min(error, apart(every[other], place))
                other += step
        nearest.append(error)
        if k + 1 < len(every) and every[k + 1][0] > sample[0]:
            for tick in (sample[0], every[k + 1][0]):
                there = way(begin, end, tick, rest)
                gaps = max(gaps, apart(way(sample, every[k + 1], tick, REST), there))
    return exact, nearest, gaps


def way(begin: Point, end: Point, tick: int, rest: float) -> tuple[int, float, float]:
    gap = end[0] - begin[0]
    if gap > rest or gap <= 0 or tick <= begin[0]:
        return begin
    done = (tick - begin[0]) / gap
    return tick, begin[1] + (end[1] - begin[1]) * done, begin[2] + (end[2] - begin[2]) * done


def apart(one: tuple[int, float, float], other: tuple[int, float, float]) -> float:
    return max(abs(one[1] - other[1]), abs(one[2] - other[2]))


def percentile(values: Sequence[float], ratio: float) -> float:
    return sorted(values)[min(len(values) - 1, int(ratio * len(values)))]


# --- one trace ----------------------------------------------------------------------------------------------


def measure(name: str, events: Sequence[Event], *, quick: bool) -> dict[str, Any]:
    original = sum(map(event_count, events))
    events = ticked(events)
    plain = partial(OpenBatch, max_events=limits.BATCH_MAX_EVENTS)
    times, size = write(events, plain)
    rows = [event for event in events if event.t_ns in times]
    every, moves = points(rows), sum(type(row) is Move for row in rows)
    pointing = [row for row in rows if isinstance(row, _PLACED)]

    def result(way: str, value: float, kept_times: set[int], size: int, rest: float) -> Result:
        kept = [n for n, row in enumerate(pointing) if row.t_ns in kept_times]
        exact, nearest, gaps = errors(every, kept, rest)
        left = sum(type(pointing[n]) is Move for n in kept) / moves
        figures = (
            statistics.median(exact),
            percentile(exact, 0.99),
            max(exact),
            gaps,
            percentile(nearest, 0.99),
        )
        return Result(way, value, left, size / original, *figures)

    results = [result("same pixel", 0, times, size, REST)]
    for px in TOLERANCES_PX:
        remark(f"{name}: {px} px")
        make = partial(
            ThinnedBatch, max_events=limits.BATCH_MAX_EVENTS, motion=Motion.THINNED, tolerance_px=px
        )
        results.append(result("thinned", px, *write(events, make), REST))
    caps: list[Result] = []
    for hz in QUICK_HZ if quick else RATES_HZ:
        remark(f"{name}: {hz} Hz")
        ways = []
        for last in (True, False):
            kept_times, size = write(cap(rows, hz, last=last), plain)
            for rest in (REST, math.inf, max(REST, 1500 / hz)):
                ways.append(result("cap", hz, kept_times, size, rest))
        caps.append(min(ways, key=lambda one: one.p99_px))
        lenient = min(ways, key=lambda one: one.nearest_p99_px)
        caps.append(replace(lenient, way="cap, nearest"))
    ratios = {
        str(one.value): {
            "ratio": at_bytes(caps, "cap", one.bytes_per_event) / max(one.p99_px, FLOOR_PX),
            "nearest": at_bytes(caps, "cap, nearest", one.bytes_per_event)
            / max(one.nearest_p99_px, FLOOR_PX),
        }
        for one in results
        if one.way == "thinned"
    }
    return {
        "trace": name,
        "events": original,
        "results": [asdict(one) for one in [*results, *caps]],
        "ratios": ratios,
    }


def at_bytes(results: Sequence[Result], way: str, size: float) -> float:
    """The error of the cap at that size: between the best of what is smaller and the best of what is larger."""
    errors = {
        one.bytes_per_event: max(FLOOR_PX, one.nearest_p99_px if way.endswith("nearest") else one.p99_px)
        for one in results
        if one.way == way
    }
    front: list[tuple[float, float]] = []  # rising in bytes, falling in error
    for bytes_, error in sorted(errors.items()):
        if not front or error < front[-1][1]:
            front.append((bytes_, error))
    after = next((n for n, one in enumerate(front) if one[0] > size), None)
    if after is None or after == 0:
        return front[-1 if after is None else 0][1]
    (small, worse), (large, better) = front[after - 1], front[after]
    share = math.log(size / small) / math.log(large / small)
    return math.exp(math.log(worse) * (1 - share) + math.log(better) * share)


# --- all of them --------------------------------------------------------------------------------------------


def means(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Geometric, by tolerance."""
    return {
        str(px): {
            kind: statistics.geometric_mean([one["ratios"][str(px)][kind] for one in results])
            for kind in ("ratio", "nearest")
        }
        for px in TOLERANCES_PX
    }


def tables(figures: dict[str, Any]) -> str:
    head = [
        "trace",
        "tolerance",
        "moves kept",
        "bytes per event",
        "median",
        "p99",
        "max",
        "gaps",
        "ratio",
        "nearest",
    ]
    rows = []
    for one in figures["traces"]:
        for result in one["results"]:
            if result["way"] in ("same pixel", "thinned"):
                px = str(result["value"])
                ratios = one["ratios"].get(px)
                rows.append([
                    one["trace"], f"{px} px" if ratios else "no plan", f"{result['kept']:.3f}",
                    f"{result['bytes_per_event']:.3f}",
                    *(f"{result[key]:.2f}" for key in ("median_px", "p99_px", "max_px", "gaps_px")),
                    *([f"{ratios['ratio']:.2f}", f"{ratios['nearest']:.2f}"] if ratios else ["", ""]),
                ])  # fmt: skip
    for px, mean in figures["geometric_mean"].items():
        rows.append([
            "geometric mean", f"{px} px", *[""] * 6, f"{mean['ratio']:.2f}", f"{mean['nearest']:.2f}"
        ])  # fmt: skip
    caps = [
        [
            one["trace"], f"{result['value']:g} Hz", f"{result['kept']:.3f}", f"{result['bytes_per_event']:.3f}",
            *(f"{result[key]:.2f}" for key in ("median_px", "p99_px", "max_px", "gaps_px")),
        ]
        for one in figures["traces"] for result in one["results"] if result["way"] == "cap"
    ]  # fmt: skip
    return table(head, rows) + "\n\n" + table(["trace", "at most", *head[2:8]], caps)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--traces", type=Path, metavar="FOLDER", help="takes pointer_*.csv(.gz) of it")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draws bytes and errors (needs matplotlib)"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="FILE", help="of an earlier --json, instead of measuring"
    )
    args = parser.parse_args()
    if args.figures is not None:
        figures = json.loads(args.figures.read_text())
    else:
        if args.traces is not None:
            files = sorted(args.traces.glob("pointer_*.csv*"))
            if not files:
                parser.error(f"no pointer_*.csv(.gz) in {args.traces}")
            made = {traces.name_of(file): traces.read(file) for file in files}
        else:
            made = traces.synthetic(0.05 if args.quick else 1.0)
            del made["typing"]
        results = [measure(name, events, quick=args.quick) for name, events in made.items()]
        figures = {"traces": results, "geometric_mean": means(results)}
    if args.plot is not None:
        from plot import save

        if code := save(figures, args.plot):
            return code
    show(figures, tables(figures), as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
