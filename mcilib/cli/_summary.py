"""What an agent says while it runs, and when it ends."""

from __future__ import annotations

from mcilib.cli._output import count, print_rows
from mcilib.cli._plan import lever_words
from mcilib.collector import Collector
from mcilib.events import EVENT_TYPES
from mcilib.statistics import SpoolStatistics, Statistics


def status_line(collector: Collector, passed_s: float) -> str:
    now = collector.statistics()
    events = count(sum(now.capture.captured.values()), "event")
    trouble = "".join(f" {p.part}: {p.message}. {p.next_step}" for p in collector.health().problems)
    waiting = count(now.spool.waiting_batches, "batch")
    held = f" Nothing is collected: {collector.held}." if collector.held else ""
    plan = f" {lever_words(now.plan.levers)}: {'; '.join(now.plan.reasons)}." if now.plan.levers else ""
    return f"{passed_s / 60:.0f} min: {events} captured, {waiting} waiting.{plan}{held}{trouble}"


def summary(run: Statistics, before: SpoolStatistics, after: SpoolStatistics, reason: str) -> None:
    """What this run came to."""
    capture = run.capture
    kinds = ", ".join(
        f"{capture.captured[kind]:,} {kind}" for kind in EVENT_TYPES if capture.captured.get(kind)
    )
    events = count(sum(capture.captured.values()), "event")
    rows = [["Captured:", f"{events} ({kinds})" if kinds else events]]
    dropped = {cause: number for cause, number in capture.dropped.items() if number}
    if dropped:
        rows.append(["Dropped:", ", ".join(f"{count(n, 'event')} ({cause})" for cause, n in dropped.items())])
    if capture.excluded:
        rows.append(["Not kept:", f"{count(capture.excluded, 'event')} that the grant does not allow"])
    if capture.gap_count:
        rows.append(
            [
                "Gaps:",
                f"{count(capture.gap_count, 'gap')}, {capture.gap_s:.1f} s in which a source could not see",
            ]
        )
    waiting = count(after.waiting_batches, "batch")
    if after.waiting_batches:
        waiting += f"{f' ({reason})' if reason else ''}. Upload with `mcilib run --drain`."
    rows += [
        ["Committed:", count(after.committed_batches - before.committed_batches, "batch")],
        ["Delivered:", count(after.delivered_batches - before.delivered_batches, "batch")],
        ["Waiting:", waiting],
    ]
    lost = sum(after.lost.values()) - sum(before.lost.values())
    if lost:
        rows.append(["Lost:", f"{count(lost, 'batch')}. `mcilib status` tells why."])
    print_rows(rows)
