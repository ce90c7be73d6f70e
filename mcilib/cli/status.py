"""`mcilib status`: the grant, what is collected now and why, what waits, was delivered, was lost, what it all cost."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mcilib.cli._output import count, print_json, print_rows, size
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.cli._plan import plan_rows
from mcilib.errors import GrantError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.consent import Grant
    from mcilib.statistics import Impact, ImpactStatistics, SpoolStatistics

LOSS_WORDS = {
    "evicted": "evicted, the spool was full",
    "expired": "too old, no receiver took them in time",
    "rejected": "refused by the receiver for good",
    "damaged": "damaged on this disk",
    "purged": "removed on your word",
}


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show the grant, whether an agent runs, what waits, was delivered, was lost, what it cost",
        description="""\
Shows the state of this device, whether an agent runs or not. Changes nothing.
What was used is up to ten minutes old; energy is an estimate.""",
        epilog="""\
example:
  mcilib status
  mcilib status --json

exit codes: 0 shown (also when there is no grant); 2 a flag is wrong; 3 the grant cannot be read;
6 the spool cannot be read""",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.consent import Grant
    from mcilib.delivery.spool import DirectorySpool
    from mcilib.governor import PLAN_FILE, read_plan
    from mcilib.resources.ledger import IMPACT_FILE, ImpactLedger

    folder = state_dir(settings_of(args))
    spool = folder / "spool"
    grant: Grant | None = None
    problem: GrantError | None = None
    try:
        grant = Grant.load(folder)
    except GrantError as error:
        problem = error
    unreadable = problem is not None and (folder / "grant.json").exists()
    statistics = DirectorySpool.read_statistics(spool)
    running = DirectorySpool.owned(spool)
    plan = read_plan(folder / PLAN_FILE) if running else None
    impact = ImpactLedger.read(folder / IMPACT_FILE)
    if args.json:
        print_json(
            {
                "state": str(folder),
                "grant": _grant_json(grant),
                "problem": str(problem) if problem is not None else None,
                "running": running,
                "plan": asdict(plan) if plan is not None else None,
                "spool": asdict(statistics),
                "impact": asdict(impact),
            }
        )
    else:
        for line in _warnings(grant):
            print(f"{line}\n")
        words = (
            f"unreadable. {problem}"
            if unreadable
            else "none. Nothing is collected without one: `mcilib grant`."
        )
        print_rows(
            [
                *(_grant_rows(grant) if grant is not None else [["Grant:", words]]),
                ["Running:", _running_words(running)],
                *(plan_rows(plan) if plan is not None else []),
                *_spool_rows(statistics),
                *_impact_rows(impact),
                ["State:", str(folder)],
            ]
        )
    return GrantError.exit_code if unreadable else 0


def _expired(grant: Grant) -> bool:
    return grant.expired(time.time_ns())


def _grant_json(grant: Grant | None) -> dict[str, Any] | None:
    if grant is None:
        return None
    return {**asdict(grant), "digest": grant.digest, "expired": _expired(grant)}


def _warnings(grant: Grant | None) -> list[str]:
    """What comes first in every status."""
    if grant is not None and grant.given_via == "unattended":
        return ["Unattended: nobody was asked on this device. `mcilib grant` on a terminal asks."]
    return []


def _grant_rows(grant: Grant) -> list[list[str]]:
    end = grant.expires_at or "when you delete it"
    return [
        ["Grant:", f"{grant.operator} may collect {', '.join(grant.scopes)}"],
        ["For:", grant.purpose],
        ["Given:", f"{grant.given_at} via {grant.given_via}"],
        ["Ends:", f"{end} (expired: nothing is collected or sent)" if _expired(grant) else end],
    ]


def _running_words(running: bool) -> str:
    return "yes, an agent records into this folder" if running else "no, nothing is collected now"


def _spool_rows(statistics: SpoolStatistics) -> list[list[str]]:
    lost = [
        f"{count(number, 'batch')} {LOSS_WORDS.get(cause, cause)}"
        for cause, number in statistics.lost.items()
        if number
    ]
    waiting = f"{count(statistics.waiting_batches, 'batch')}"
    return [
        [
            "Waiting:",
            f"{waiting} ({size(statistics.waiting_bytes)})" if statistics.waiting_batches else waiting,
        ],
        ["Delivered:", count(statistics.delivered_batches, "batch")],
        ["Lost:", "; ".join(lost) or "none"],
    ]


def _impact_rows(statistics: ImpactStatistics) -> list[list[str]]:
    from mcilib.resources.energy import energy_words

    if not statistics.days:
        return []  # nothing is recorded yet
    first = next(iter(statistics.days))
    today = [
        ["Used today:", _used_words(statistics.today)],
        ["Energy today:", energy_words(statistics.today.energy)],
    ]
    if statistics.kept == statistics.today:
        return [*today, *_machine_rows(first, statistics.kept)]
    return [
        *today,
        [f"Used since {first}:", _used_words(statistics.kept)],
        [f"Energy since {first}:", energy_words(statistics.kept.energy)],
        *_machine_rows(first, statistics.kept),
    ]


def _used_words(impact: Impact) -> str:
    running = _time_words(impact.running_s)
    if impact.cpu_s is None:
        cpu = f"CPU unknown in {running}"
    else:
        used = f"{impact.cpu_s:,.1f} s" if impact.cpu_s >= 1 else f"{impact.cpu_s * 1e3:.0f} ms"
        cpu = f"{used} of CPU in {running} ({(impact.cpu_ratio or 0.0) * 100:.2g} % of a core)"
    woken = "wake-ups unknown" if impact.wakeups is None else count(impact.wakeups, "wake-up")
    requests = count(sum(impact.requests.values()), "request")
    failed = f", {impact.undelivered_requests:,} in vain" if impact.undelivered_requests else ""
    return (
        f"{cpu}; {woken}; {size(impact.written_bytes)} written, {count(impact.fsyncs, 'fsync')}; "
        f"{size(impact.sent_bytes)} sent, {requests}{failed}"
    )


def _time_words(seconds: float) -> str:
    if seconds >= 3_600:
        return f"{seconds / 3_600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _machine_rows(first: str, impact: Impact) -> list[list[str]]:
    """Measured, and not ours alone: in rows of their own, so that nobody adds them to the estimate."""
    from mcilib.resources.energy import joules

    names = {"package": "its processor", "battery": "its battery"}
    told = [
        f"{joules(used)} from {names.get(kind, kind)} in {seconds / 3_600:.1f} h"
        for kind, (used, seconds) in impact.machine.items()
    ]
    words = f"all programs together, measured: {'; '.join(told)}"
    return [[f"The machine since {first}:", words]] if told else []
