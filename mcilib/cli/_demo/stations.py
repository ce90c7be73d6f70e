"""The stations that the demo's data passes, what is seen at each, and whether it is the same."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcilib.cli._demo.children import PYTHON
from mcilib.errors import BatchFormatError, StoreError
from mcilib.events import EVENT_TYPES, KeyPress, event_count
from mcilib.reader import Reader

NOT_INJECTED = frozenset({"gap", "display", "layout"})
"""What sources tell of themselves and of how things are: nobody's hand does it."""


@dataclass(frozen=True, slots=True)
class Station:
    """One place that the data passed: events by kind (a merged scroll counts all its steps), and batch ids."""

    name: str
    counts: Mapping[str, int]
    batches: frozenset[str] | None = None
    """None where batches have no id yet."""


def look_at_spool(spool: Path) -> tuple[Station, Mapping[str, int], int]:
    """What lies in the spool before the upload, what is kept of keys, and the bytes of all batches."""
    keys = Counter(e.key or "timing" for e in Reader(spool).events() if isinstance(e, KeyPress))
    size = sum(path.stat().st_size for path in (spool / "ready").iterdir())
    return read("spooled", spool), dict(keys.most_common()), size


def read(name: str, folder: Path) -> Station:
    reader = Reader(folder)
    counts: Counter[str] = Counter()
    for event in reader.events():
        counts[event.kind] += event_count(event)
    return Station(name, counts, frozenset(reader.batch_ids()))


def export(store: Path, lines: Path) -> Station:
    """What `mcilib export` prints, kept in the file `lines`."""
    with lines.open("w+", encoding="utf-8") as file:
        command = [*PYTHON, "mcilib", "export", str(store), "--format", "jsonl"]
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
        # What is damaged was left out, and shows as a difference.
        if done.returncode not in (0, BatchFormatError.exit_code):
            raise StoreError(f"The export failed: {done.stderr.strip()}", "See `mcilib export --help`.")
        file.seek(0)
        rows = [json.loads(line) for line in file]
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["kind"]] += row.get("count", 1)
    return Station("exported", counts, frozenset(row["batch"] for row in rows))


def differences(stations: Sequence[Station]) -> list[str]:
    """One line for each kind and each batch that is not the same at all stations; empty when all is well."""
    found = []
    for kind in kinds_of(stations):
        told = [s for s in stations if not (s.name == "injected" and kind in NOT_INJECTED)]
        if len({station.counts.get(kind, 0) for station in told}) > 1:
            found.append(f"{kind}: " + ", ".join(f"{s.name} {s.counts.get(kind, 0):,}" for s in told))
    named = [(station.name, station.batches) for station in stations if station.batches is not None]
    for batch in sorted(frozenset().union(*(batches for _, batches in named))):
        missing = [name for name, batches in named if batch not in batches]
        if missing:
            there = [name for name, batches in named if batch in batches]
            found.append(f"batch {batch[:8]}: {' and '.join(there)}, not {' or '.join(missing)}")
    return found


def kinds_of(stations: Iterable[Station]) -> list[str]:
    """The kinds of which there were any, in the format's order."""
    seen = {kind for station in stations for kind, number in station.counts.items() if number}
    return [kind for kind in EVENT_TYPES if kind in seen]
