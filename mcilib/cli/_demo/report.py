"""What the demo came to, as a table for people and as JSON."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mcilib.cli._demo.stations import NOT_INJECTED, Station, kinds_of
from mcilib.cli._output import count
from mcilib.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the table shows."""

    display: str
    virtual: bool
    seconds: float
    stations: Sequence[Station]
    batch_bytes: int
    """Of all batches as they lay in the spool."""
    cpu_s: float | None
    wakeups: int | None
    keys: Mapping[str, int]
    """What was kept of the keys that went down."""
    folder: str
    store: str
    read: Sequence[str]
    """Commands that read the data."""
    delete: str
    notes: Sequence[str] = ()
    differences: Sequence[str] = field(default_factory=list)

    @property
    def events(self) -> int:
        return sum(next(s for s in self.stations if s.name == "spooled").counts.values())

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        events = self.events
        return {
            **{name: value for name, value in asdict(self).items() if name != "stations"},
            "counts": {station.name: dict(station.counts) for station in self.stations},
            "batches": {s.name: sorted(s.batches) for s in self.stations if s.batches is not None},
            "events": events,
            "bytes_per_event": _per(self.batch_bytes, events, 3),
            "cpu_us_per_event": _per(self.cpu_s, events / 1e6, 1),
            "wakeups_per_event": _per(self.wakeups, events, 3),
            "same": not self.differences,
        }


def _per(total: float | None, events: float, digits: int) -> float | None:
    return round(total / events, digits) if events and total is not None else None


def table(figures: Figures) -> str:
    """For a terminal of 80 columns; only paths may run over."""
    stations = figures.stations
    names = [station.name for station in stations]
    rule = "  " + "─" * (12 + 12 * len(names))
    lines = ["", _row("events", names), rule]
    for kind in kinds_of(stations):
        lines.append(_row(kind, [_cell(station, kind) for station in stations]))
    totals = [f"{sum(station.counts.values()):,}" for station in stations]
    batches = ["" if s.batches is None else f"{len(s.batches):,}" for s in stations]
    lines += [rule, _row("all", totals), _row("batches", batches), ""]
    if figures.differences:
        lines += ["  NOT the same:", *(f"    {line}" for line in figures.differences), ""]
    else:
        lines += ["  The same everywhere, by kind and by batch id.", ""]
    lines += _facts(figures)
    lines += ["", "  Read it:", *(f"    {command}" for command in figures.read)]
    lines += ["  Delete it:", f"    {figures.delete}"]
    return "\n".join(lines)


def _cell(station: Station, kind: str) -> str:
    is_there = station.name != "injected" or kind not in NOT_INJECTED
    return f"{station.counts.get(kind, 0):,}" if is_there else "-"


def _row(label: str, cells: Sequence[str]) -> str:
    return f"  {label:<12}" + "".join(f"{cell:>12}" for cell in cells).rstrip()


def _facts(figures: Figures) -> list[str]:
    events, seconds = figures.events, figures.seconds
    batches = len(next(s for s in figures.stations if s.name == "spooled").batches or ())
    facts = []
    if events:
        size = f"{figures.batch_bytes:,} bytes in {count(batches, 'batch')}"
        facts.append(("Size", f"{figures.batch_bytes / events:.2f} bytes per event ({size}, as spooled)"))
    if figures.cpu_s is None or figures.wakeups is None:
        facts.append(("CPU, wake-ups", "this system does not tell"))
    else:
        each = f", {figures.cpu_s * 1e6 / events:.0f} us per event" if events else ""
        share = f"{figures.cpu_s / seconds:.1%} of one core{each}"
        facts.append(("CPU", f"{figures.cpu_s:.2f} s while capturing for {seconds:.1f} s: {share}"))
        rate = f"{figures.wakeups / seconds:,.0f} per second"
        each = f", {figures.wakeups / events:.2f} per event" if events else ""
        facts.append(("Wake-ups", f"{figures.wakeups:,} of the collector's threads: {rate}{each}"))
    if figures.keys:
        facts.append(("Keys kept as", ", ".join(f"{key} {number}" for key, number in figures.keys.items())))
    facts += [("Note", note) for note in figures.notes]
    facts.append(("Where it lies", figures.store))
    return [line for name, text in facts for line in _wrapped(name, text)]


def _wrapped(name: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, 62, break_long_words=False, break_on_hyphens=False)
    return [f"  {name if n == 0 else '':<14}{line}" for n, line in enumerate(lines)]


def notes_on(run: Statistics) -> list[str]:
    """What was not kept, and why, if anything."""
    capture = run.capture
    notes = [
        f"{count(number, 'event')} dropped ({cause})" for cause, number in capture.dropped.items() if number
    ]
    if capture.excluded:
        notes.append(f"{count(capture.excluded, 'event')} not allowed by the grant")
    if capture.gap_count:
        notes.append(
            f"{count(capture.gap_count, 'gap')}, {capture.gap_s:.1f} s in which a source could not see"
        )
    if not any(number for kind, number in capture.captured.items() if kind not in NOT_INJECTED):
        notes.append("nothing was typed and nothing moved")
    return notes


def commands(store: Path, folder: Path) -> list[str]:
    """Ready to be pasted."""
    mcilib, beside = f"{sys.executable} -m mcilib", Path(sys.executable).with_name("mcilib")
    if shutil.which("mcilib"):
        mcilib = "mcilib"
    elif beside.exists() and beside.is_relative_to(Path.cwd()):
        mcilib = str(beside.relative_to(Path.cwd()))
    where, parquet = shlex.quote(str(store)), shlex.quote(str(folder / "events.parquet"))
    lines = [f"{mcilib} export {where} --format jsonl | head -n 3"]
    if find_spec("pyarrow") is not None:
        lines.append(f"{mcilib} export {where} --format parquet -o {parquet}")
    return lines
