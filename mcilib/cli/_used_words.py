"""What waits, was delivered, was lost, and what it cost, in a participant's words: rows of a label and a text. Pure."""

from __future__ import annotations

from mcilib.cli._output import in_batches, size
from mcilib.language import Words, lasting, marked
from mcilib.resources.energy import energy_words, joules
from mcilib.statistics import Impact, ImpactStatistics, SpoolStatistics

LOSS_WORDS = {
    "evicted": marked("evicted, the spool was full"),
    "expired": marked("too old, no receiver took them in time"),
    "rejected": marked("refused by the receiver for good"),
    "damaged": marked("damaged on this disk"),
    "purged": marked("removed on your word"),
}


def spool_rows(statistics: SpoolStatistics, tr: Words) -> list[list[str]]:
    lost = [
        tr("{batches} {why}").format(batches=in_batches(number, tr), why=tr(LOSS_WORDS.get(cause, cause)))
        for cause, number in statistics.lost.items()
        if number
    ]
    waiting = in_batches(statistics.waiting_batches, tr)
    if statistics.waiting_batches:
        waiting = f"{waiting} ({size(statistics.waiting_bytes, tr)})"
    found = [
        [tr("Waiting:"), waiting],
        [tr("Delivered:"), in_batches(statistics.delivered_batches, tr)],
        [tr("Lost:"), "; ".join(lost) or tr("none")],
    ]
    if number := statistics.control_records:
        words = tr.many("{n} message to the receiver", "{n} messages to the receiver", number)
        text = tr("{messages}: requests to delete, for an exemption").format(
            messages=words.format(n=tr.number(number))
        )
        found.insert(1, [tr("To be sent:"), text])
    return found


def impact_rows(statistics: ImpactStatistics, tr: Words) -> list[list[str]]:
    if not statistics.days:
        return []  # nothing is recorded yet
    first = next(iter(statistics.days))
    today = [
        [tr("Used today:"), used_words(statistics.today, tr)],
        [tr("Energy today:"), energy_words(statistics.today.energy, tr)],
    ]
    if statistics.kept == statistics.today:
        return [*today, *_machine_rows(first, statistics.kept, tr)]
    return [
        *today,
        [tr("Used since {day}:").format(day=first), used_words(statistics.kept, tr)],
        [tr("Energy since {day}:").format(day=first), energy_words(statistics.kept.energy, tr)],
        *_machine_rows(first, statistics.kept, tr),
    ]


def used_words(impact: Impact, tr: Words) -> str:
    running = lasting(impact.running_s, tr)
    if impact.cpu_s is None:
        cpu = tr("CPU unknown in {time}").format(time=running)
    else:
        used = f"{tr.number(impact.cpu_s, ',.1f')} s" if impact.cpu_s >= 1 else f"{impact.cpu_s * 1e3:.0f} ms"
        share = tr.number((impact.cpu_ratio or 0.0) * 100, ".2g")
        cpu = tr("{used} of CPU in {time} ({share} % of a core)").format(used=used, time=running, share=share)
    woken, requests, vain = impact.wakeups, sum(impact.requests.values()), impact.undelivered_requests
    wakeups = (
        tr("wake-ups unknown")
        if woken is None
        else tr.many("{n} wake-up", "{n} wake-ups", woken).format(n=tr.number(woken))
    )
    written = tr("{size} written").format(size=size(impact.written_bytes, tr))
    fsyncs = tr.many("{n} fsync", "{n} fsyncs", impact.fsyncs).format(n=tr.number(impact.fsyncs))
    sent = tr("{size} sent").format(size=size(impact.sent_bytes, tr))
    asked = tr.many("{n} request", "{n} requests", requests).format(n=tr.number(requests))
    if vain:
        asked += tr(", {n} in vain").format(n=tr.number(vain))
    return f"{cpu}; {wakeups}; {written}, {fsyncs}; {sent}, {asked}"


def _machine_rows(first: str, impact: Impact, tr: Words) -> list[list[str]]:
    """Measured, and not ours alone: in rows of their own, so that nobody adds them to the estimate."""
    names = {"package": tr("its processor"), "battery": tr("its battery")}
    told = [
        tr("{energy} from {part} in {hours} h").format(
            energy=joules(used, tr), part=names.get(kind, kind), hours=tr.number(seconds / 3_600, ".1f")
        )
        for kind, (used, seconds) in impact.machine.items()
    ]
    words = tr("all programs together, measured: {parts}").format(parts="; ".join(told))
    return [[tr("The machine since {day}:").format(day=first), words]] if told else []
