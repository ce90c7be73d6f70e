"""Bytes per event as they lie in the spool, beside JSON lines and JSON + gzip.

The same batches in all three: closed at 5,000 rows or 60 s after their first event, as the defaults say, and
whole files with their headers. JSON holds the same rows with the same precision (1 ms, whole pixels, key
classes) and nothing of the header; gzip (level 6) compresses each batch on its own.

Traces: synthetic ones by default, or files (`t_ns,kind,x,y,button` or `t_ns,kind,key`, .csv or .csv.gz).
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import traces
from rig import arguments, remark, show, table

from mcilib import Grant, ReplaySource, limits
from mcilib.clock import ClockAnchor
from mcilib.events import Event, event_count
from mcilib.format.batch import OpenBatch, decode
from mcilib.protocols import SealedBatch

WALL_NS = 1_750_000_000_000_000_000


class Everything:
    """A sink that keeps all."""

    room = 1

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event, /) -> bool:
        self.events.append(event)
        return True


def read_trace(path: Path) -> list[Event]:
    """As fast as it can be read; times are the trace's own."""
    source, sink = ReplaySource(path, speed=None), Everything()
    source.start(sink)
    source.wait()
    source.stop()
    if not source.health().ok:
        raise SystemExit(source.health().problems[0].message)
    return sink.events


def batches(events: list[Event], max_age_s: float) -> Iterator[OpenBatch]:
    """As the recorder makes them."""
    batch: OpenBatch | None = None
    first_ns = 0
    for event in events:
        if batch is not None and (batch.full or event.t_ns - first_ns >= max_age_s * 1e9):
            yield batch
            batch = None
        if batch is None:
            first_ns = event.t_ns
            batch = OpenBatch(ClockAnchor(event.t_ns, WALL_NS))
        batch.add(event)
    if batch is not None:
        yield batch


def json_lines(sealed: SealedBatch) -> bytes:
    """The rows of a batch, one object each, times in ms since the batch began."""
    batch = decode(sealed.data)
    lines = []
    for event in batch.events:
        row = {"t_ms": (event.t_ns - batch.header.first_ns) // 1_000_000, "kind": event.kind, **asdict(event)}
        del row["t_ns"]
        lines.append(json.dumps(row, separators=(",", ":")))
    return "\n".join(lines).encode()


def measure(events: list[Event], max_age_s: float = limits.BATCH_MAX_AGE_S) -> dict[str, Any]:
    grant = Grant.give(operator="mcilib benchmarks", purpose="measuring", scopes=("pointer", "keys"))
    sizes, plain, zipped, seconds = [], 0, 0, 0.0
    for number, batch in enumerate(batches(events, max_age_s), start=1):
        began_s = time.perf_counter()
        sealed = batch.seal(
            sequence=number, grant=grant, boot="0" * 16,
            sources={"pointer": "callback", "keyboard": "callback"}, coverage={},
        )  # fmt: skip
        seconds += time.perf_counter() - began_s
        sizes.append(len(sealed.data))
        lines = json_lines(sealed)
        plain += len(lines)
        zipped += len(gzip.compress(lines, 6))
    count = sum(map(event_count, events))
    return {
        "events": count,
        "seconds": (events[-1].t_ns - events[0].t_ns) / 1e9,
        "batches": len(sizes),
        "median_batch_bytes": statistics.median(sizes),
        "mcilib": sum(sizes) / count,
        "json_lines": plain / count,
        "json_gzip": zipped / count,
        "seal_us_per_event": seconds * 1e6 / count,
    }


def synthetic(share: float) -> dict[str, list[Event]]:
    """Each seeded: the same everywhere."""
    return {
        "pointer, office, 60 Hz": traces.pointer(1800 * share, 60, seed=1),
        "pointer, 125 Hz": traces.pointer(600 * share, 125, seed=2),
        "pointer, 1 kHz": traces.pointer(120 * share, 1000, seed=3),
        "typing": traces.typing(1800 * share, seed=4),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("trace", nargs="*", type=Path, help="traces to use instead of the synthetic ones")
    args = parser.parse_args()
    given = {path.name.removesuffix(".gz").removesuffix(".csv"): path for path in args.trace}
    made = synthetic(0.1 if args.quick else 1.0) if not given else {}
    result = {}
    for name in given or made:
        remark(f"bytes per event, {name} ...")
        result[name] = measure(read_trace(given[name]) if given else made[name])
    show({"traces": result}, text(result), as_json=args.json)


def text(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{r['events']:,}",
            f"{r['batches']:,}",
            f"{r['median_batch_bytes']:,.0f}",
            f"{r['mcilib']:.2f}",
            f"{r['json_gzip']:.2f}",
            f"{r['json_lines']:.1f}",
            f"{r['seal_us_per_event']:.2f}",
        ]
        for name, r in result.items()
    ]
    head = [
        "trace",
        "events",
        "batches",
        "bytes per batch",
        "mcilib",
        "JSON+gzip",
        "JSON lines",
        "us to seal",
    ]
    return table(head, rows)


if __name__ == "__main__":
    main()
