"""How large is an event, and what does it cost to write and read it: mcilib beside other formats.

Bytes and CPU per ORIGINAL event: one that the system gave, whether it became a row of its own or not (moves to
the pixel where the pointer already is, and scroll steps that join the row before, do not).

Ours (ticks of 1 ms, whole pixels, key classes; LEVEL is zstd's: 3, 19 and `default`)
  mcilib-LEVEL         batches of 2,000 rows: the compressed payload, which is the columns and all that describes
                       them, clocks and coverage included. Like the others it carries no ids.
  mcilib-frame-LEVEL   the same batches as files: with header, ids and checksum
  mcilib-events-LEVEL  batches of 2,000 original events instead, which is what the others get
  mcilib-field-60s     as they lie in the spool: closed 60 s (300 s) after their first event or at the default
  mcilib-field-300s    number of rows, sealed to two recipients, whole files

Others (the same events to the same precision, 2,000 in a batch, nothing folded; they carry no ids)
  json-lines, json-gzip (level 6), msgpack-zstd-3 and -19 (rows as arrays), msgspec-zstd (tagged structs),
  parquet-zstd (DELTA_BINARY_PACKED), arrow-ipc-zstd, and differences-zstd-3 and -19: first differences of all
  columns as MessagePack lists, which is what version 0 of our format was. No level said: our default.
  parquet-zstd-whole   one file at level 19 for the whole trace: what Parquet is good at
  zpaq, zpaq-net       zpaq -m5 (context mixing, a practical floor) over those differences of the whole trace: the
                       archive, and the archive less what one of a single byte takes

CPU is process time, the best of several rounds in which all take turns. Encoding starts from what the format
itself takes (a filled open batch, a list of dicts, arrays or structs, a dict of columns) and ends with bytes.

A trace with fractions of a pixel is measured at 1 px and once more, as NAME@1/256px, at 1/256 px. The geometric
means are over pointer traces and over keyboard traces, those second views left out. Without TRACE: synthetic,
seeded traces, so that the sizes come out the same everywhere.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rivals
import traces
from rig import arguments, remark, show, table

from mcilib import Grant, limits
from mcilib.clock import ClockAnchor
from mcilib.errors import McilibError
from mcilib.events import Event, KeyPress, KeyRelease
from mcilib.format.batch import decode, decode_rows
from mcilib.format.frame import unpack_frame
from mcilib.format.open_batch import OpenBatch

BATCH_ROWS = 2_000
LEVELS = {"3": 3, "19": 19, "default": limits.ZSTD_LEVEL}
AGES_S = (60, 300)
FINE = 256
"""Quanta per pixel where the system gives fractions."""
ROUNDS = 5
WALL_NS = 1_750_000_000_000_000_000
BOOT = "0123456789abcdef"


@dataclass(frozen=True)
class Trace:
    name: str
    events: Sequence[Event]
    quanta_per_px: int = 1

    @property
    def source(self) -> str:
        return "keyboard" if isinstance(self.events[0], KeyPress | KeyRelease) else "pointer"


def views(name: str, events: Sequence[Event]) -> Iterator[Trace]:
    """The trace in whole pixels and, where it has fractions, once more in fractions."""
    yield Trace(name, events)
    if any(not float(getattr(event, "x", 0)).is_integer() for event in events):
        yield Trace(f"{name}@1/{FINE}px", events, FINE)


# --- ours ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filled:
    """A batch at its end, and the events that it was given."""

    batch: OpenBatch
    events: list[Event]
    again: Callable[[], OpenBatch]
    """The batch as it was at its beginning."""


def batches(
    trace: Trace, max_rows: int, max_age_s: float = math.inf, max_given: float = math.inf
) -> Iterator[Filled]:
    """As the recorder makes and closes them; or at so many events given to it, rows or not."""
    phase_ns: int | None = None
    filled: Filled | None = None
    for event in trace.events:
        pointer_at = None
        if filled is not None:
            batch, given = filled.batch, filled.events
            old = event.t_ns - given[0].t_ns >= max_age_s * 1e9 and event.t_ns > (batch.growing_until_ns or 0)
            if not old and len(given) < max_given and batch.add(event):
                given.append(event)
                continue
            phase_ns, pointer_at = batch.align(phase_ns), batch.pointer_at
            yield filled
        anchor = ClockAnchor(event.t_ns, WALL_NS + event.t_ns)
        again = partial(OpenBatch, anchor, max_rows, quanta_per_px=trace.quanta_per_px, pointer_at=pointer_at)
        filled = Filled(again(), [event], again)
        filled.batch.add(event)
    if filled is not None:
        filled.batch.align(phase_ns)
        yield filled


def fill(filled: Iterable[Filled]) -> None:
    """The same once more, for the time it takes."""
    for one in filled:
        add = one.again().add
        for event in one.events:
            add(event)


@cache
def grant() -> Grant:
    return Grant.give(operator="mcilib benchmarks", purpose="measuring", scopes=("pointer", "keys"))


@cache
def recipients() -> tuple[str, str]:
    """Two new age keys: operator and participant."""
    x25519 = import_module("pyrage").x25519
    return str(x25519.Identity.generate().to_public()), str(x25519.Identity.generate().to_public())


def seal(trace: Trace, filled: Iterable[Filled], level: int, to: Sequence[str] = ()) -> list[bytes]:
    """The batches as files."""
    clocks = {trace.source: "x11"}
    return [
        one.batch.seal(
            sequence=number, grant=grant(), boot=BOOT, clocks=clocks, level=level, recipients=to
        ).data
        for number, one in enumerate(filled, start=1)
    ]  # fmt: skip


def count(frames: Iterable[bytes]) -> tuple[int, int]:
    """Rows, and original events: what was written says itself."""
    rows = events = 0
    for frame in frames:
        batch = decode(frame)
        if batch.metadata.coverage.dropped:
            raise SystemExit("wire_size.py: the trace has events that the format cannot hold")
        rows += len(batch.events)
        events += batch.seen
    return rows, events


def payload_bytes(frames: Iterable[bytes]) -> int:
    return sum(len(unpack_frame(frame).payload) for frame in frames)


# --- figures ------------------------------------------------------------------------------------------------


def measure(trace: Trace, rounds: int) -> dict[str, Any]:
    total = len(trace.events)
    full = list(batches(trace, BATCH_ROWS))
    frames = {name: seal(trace, full, level) for name, level in LEVELS.items()}
    row_count, event_count = count(frames["default"])
    if event_count != total:
        raise SystemExit(f"wire_size.py: {trace.name} has {total} events, what was written {event_count}")
    of_events = list(batches(trace, limits.BATCH_EVENTS_CAP, max_given=BATCH_ROWS))
    sizes: dict[str, float] = {}
    for name, level in LEVELS.items():
        sizes[f"mcilib-{name}"] = payload_bytes(frames[name])
        sizes[f"mcilib-frame-{name}"] = sum(map(len, frames[name]))
        sizes[f"mcilib-events-{name}"] = payload_bytes(seal(trace, of_events, level))
    per_batch = {f"{BATCH_ROWS} rows": len(full)}
    for age_s in AGES_S:
        field = list(batches(trace, limits.BATCH_MAX_EVENTS, age_s))
        per_batch[f"{age_s} s"] = len(field)
        if find_spec("pyrage"):
            sealed = seal(trace, field, limits.ZSTD_LEVEL, recipients())
            sizes[f"mcilib-field-{age_s}s"] = sum(map(len, sealed))

    works: dict[str, Callable[[], object]] = {"mcilib-add": partial(fill, full)}
    works |= {f"mcilib-encode-{name}": partial(seal, trace, full, level) for name, level in LEVELS.items()}
    works["mcilib-decode-columns"] = partial(each, decode_rows, frames["default"])
    works["mcilib-decode-events"] = partial(each, decode, frames["default"])

    plain = [
        rivals.rows_of(trace.events[at : at + BATCH_ROWS], trace.quanta_per_px)
        for at in range(0, total, BATCH_ROWS)
    ]
    for name, codec in rivals.codecs().items():
        prepared = [codec.prepare(rows) for rows in plain]
        encoded = [codec.encode(rows) for rows in prepared]
        sizes[name] = sum(map(len, encoded))
        works[f"{name}-encode"] = partial(each, codec.encode, prepared)
        works[f"{name}-decode"] = partial(each, codec.decode, encoded)
    sizes |= rivals.whole_trace(rivals.rows_of(trace.events, trace.quanta_per_px))
    return {
        "trace": trace.name,
        "source": trace.source,
        "quanta_per_px": trace.quanta_per_px,
        "events": event_count,
        "rows": row_count,
        "seconds": (trace.events[-1].t_ns - trace.events[0].t_ns) / 1e9,
        "batches": per_batch,
        "bytes_per_event": {name: size / total for name, size in sizes.items()},
        "cpu_us_per_event": {name: us / total for name, us in cpu_us(works, rounds).items()},
    }


def each(work: Callable[[Any], object], values: Iterable[Any]) -> None:
    for value in values:
        work(value)


def cpu_us(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU time of each, the best of some rounds in which they take turns: others on the machine only add to it."""
    best = dict.fromkeys(works, math.inf)
    gc.collect()
    gc.freeze()  # the traces in memory are not looked through again and again
    for _ in range(rounds):
        for name, work in works.items():
            began_ns = time.process_time_ns()
            work()
            best[name] = min(best[name], (time.process_time_ns() - began_ns) / 1e3)
    gc.unfreeze()
    return best


# --- for people ---------------------------------------------------------------------------------------------


def size(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: float(result["bytes_per_event"][name])


def cpu(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: float(result["cpu_us_per_event"][name])


def ratio(name: str, of: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: size(name)(result) / size(of)(result)


#: Title -> heading of each column, and its figure.
TABLES: dict[str, list[tuple[str, Callable[[dict[str, Any]], float]]]] = {
    "mcilib: bytes per event, and CPU (us) per event at the default level": [
        ("level 3", size("mcilib-3")),
        ("level 19", size("mcilib-19")),
        ("default", size("mcilib-default")),
        ("add", cpu("mcilib-add")),
        ("encode", cpu("mcilib-encode-default")),
        ("decode", cpu("mcilib-decode-columns")),
        ("files", size("mcilib-frame-default")),
        ("300 s, sealed", size("mcilib-field-300s")),
        (": default", ratio("mcilib-field-300s", "mcilib-default")),
        ("60 s, sealed", size("mcilib-field-60s")),
    ],
    "Bytes per event beside other formats": [
        ("mcilib", size("mcilib-default")),
        ("2,000 events", size("mcilib-events-default")),
        ("JSON lines", size("json-lines")),
        ("JSON + gzip", size("json-gzip")),
        ("msgpack + zstd-3", size("msgpack-zstd-3")),
        ("zstd-19", size("msgpack-zstd-19")),
        ("msgspec + zstd", size("msgspec-zstd")),
        ("Parquet", size("parquet-zstd")),
        ("one file", size("parquet-zstd-whole")),
        ("Arrow IPC", size("arrow-ipc-zstd")),
        ("differences, zstd-19", size("differences-zstd-19")),
    ],
    "Bytes per event beside zpaq -m5 over the whole trace": [
        ("mcilib, level 19", size("mcilib-19")),
        ("zpaq", size("zpaq")),
        ("mcilib : zpaq", ratio("mcilib-19", "zpaq")),
        ("zpaq, net", size("zpaq-net")),
        ("mcilib : net", ratio("mcilib-19", "zpaq-net")),
    ],
    "CPU, us per event": [
        ("mcilib: add", cpu("mcilib-add")),
        ("encode, level 3", cpu("mcilib-encode-3")),
        ("default", cpu("mcilib-encode-default")),
        ("19", cpu("mcilib-encode-19")),
        ("decode", cpu("mcilib-decode-columns")),
        ("to events", cpu("mcilib-decode-events")),
        ("msgspec + zstd: encode", cpu("msgspec-zstd-encode")),
        ("decode", cpu("msgspec-zstd-decode")),
        ("Arrow IPC: encode", cpu("arrow-ipc-zstd-encode")),
        ("decode", cpu("arrow-ipc-zstd-decode")),
        ("Parquet: encode", cpu("parquet-zstd-encode")),
        ("decode", cpu("parquet-zstd-decode")),
    ],
}  # fmt: skip


def text(results: Sequence[dict[str, Any]]) -> str:
    parts = []
    for title, every in TABLES.items():
        columns = [(head, figure) for head, figure in every if has(figure, results[0])]
        if len(columns) < 3:  # only ours is left
            continue
        rows = [
            [result["trace"], f"{result['events']:,}", *(shown(figure(result)) for _, figure in columns)]
            for result in results
        ]
        for source, group in groups(results).items():
            means = [shown(statistics.geometric_mean(map(figure, group))) for _, figure in columns]
            rows.append([f"geometric mean, {source}", "", *means])
        parts.append(f"{title}\n\n{table(['trace', 'events', *(head for head, _ in columns)], rows)}")
    return "\n\n".join(parts)


def shown(figure: float) -> str:
    """Three digits."""
    return f"{figure:.{3 if figure < 1 else 2 if figure < 10 else 1}f}"


def has(figure: Callable[[dict[str, Any]], float], result: dict[str, Any]) -> bool:
    try:
        figure(result)
    except KeyError:
        return False
    return True


def groups(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The traces over which means are taken, by source."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["quanta_per_px"] == 1:
            found.setdefault(result["source"], []).append(result)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "trace",
        nargs="*",
        type=Path,
        help="CSV file, .csv or .csv.gz, with the columns t_ns,kind,x,y,button or t_ns,kind,key",
    )
    args = parser.parse_args()
    try:
        given = {traces.name_of(path): traces.read(path) for path in args.trace}
    except McilibError as error:
        raise SystemExit(f"wire_size.py: {error}") from None
    if len(given) < len(args.trace):
        raise SystemExit("wire_size.py: two traces have the same name. Rename one of the files.")
    for words in [*rivals.missing(), *([] if find_spec("pyrage") else ["no pyrage (pip install pyrage)"])]:
        remark(f"left out: {words}")
    results = []
    for name, events in (given or traces.synthetic(0.1 if args.quick else 1.0)).items():
        for trace in views(name, events):
            remark(f"{trace.name}: {len(events):,} events ...")
            results.append(measure(trace, 2 if args.quick else ROUNDS))
    show(results, text(results), as_json=args.json)


if __name__ == "__main__":
    main()
