"""What battery_impact.py and network_impact.py share: options, one run, aims, checks, tables, bars.

Not run by itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plot
import working_day
from agents_beside import BARE, FAIR, NAIVE, NOTHING, OURS, agents, can_trace, side_by_side
from rig import arguments, machine, remark, show, table

from mcilib.resources.energy import BATTERY_J, estimate

WARM_UP_S = 3.0
"""Of the activity, before anything is counted."""
UPLOAD_S = 600.0
"""At most; in a shorter run twice in it."""
DAY_S, ACTIVE_RATIO = 8 * 3_600.0, 0.5
"""A working day, and which part of it somebody types or points without a longer pause: an assumption."""
LOAD_WARNING = 1.0
"""Processes that want a processor, for each, in the last minute: above it figures of CPU are too high, for all."""


@dataclass(frozen=True)
class Aim:
    """One figure of one agent is at most `ratio` times that of another, from the same run."""

    figure: str
    ours: str
    rival: str
    ratio: float


WORDS = {"cpu_s": "CPU", "due_bytes": "bytes sent and waiting", "wire_bytes": "bytes sent"}


def options(words: str | None, states: Sequence[str]) -> argparse.ArgumentParser:
    """What both scripts take."""
    parser = arguments(words)
    parser.add_argument("--minutes", type=float, help="active ones (default 20, quick 0.2)")
    parser.add_argument(
        "--states", default=",".join(states), metavar="NAMES",
        help="of the machine, separated by commas (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--traces", type=Path, metavar="FOLDER", help="recorded activity instead of generated"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the generated activity (default %(default)s)")
    parser.add_argument(
        "--active", type=float, default=ACTIVE_RATIO, metavar="RATIO",
        help="part of a working day of 8 h that is like these minutes; the rest costs nothing (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw bars of CPU and bytes")
    return parser


def main(
    words: str | None, kinds: Sequence[str], states: Sequence[str], aims: Sequence[Aim], title: str
) -> int:
    """The whole script; gives its exit code."""
    parser = options(words, states)
    args = parser.parse_args()
    chosen = args.states.split(",")
    if unknown := set(chosen) - set(states):
        parser.error(f"--states: no {', '.join(sorted(unknown))}; there are {', '.join(states)}")
    minutes = args.minutes if args.minutes is not None else 0.2 if args.quick else 20.0
    if not (minutes * 60 > WARM_UP_S and 0 < args.active <= 1):
        parser.error("--minutes must be more than 0.1, and --active more than 0 and at most 1")
    result = run(kinds, chosen, minutes * 60, args.seed, args.traces, args.active)
    result["aims"] = reached(aims, result["agents"])
    result["wrong"] = wrong(result["agents"])
    if args.plot is not None:
        args.plot.write_text(bars(title, result["agents"]), encoding="utf-8")
    show(result, text(result), as_json=args.json)
    for words_ in result["wrong"]:
        remark(f"WRONG: {words_}")
    return 1 if result["wrong"] else 0


def run(
    kinds: Sequence[str], states: Sequence[str], seconds: float, seed: int, folder: Path | None, active: float
) -> dict[str, Any]:
    day = working_day.make(seconds, seed=seed, traces_in=folder)
    warm_up, rest = day.split(WARM_UP_S)
    if not rest.acts:
        raise SystemExit("nothing happens in so short a time")
    upload_s = max(1.0, min(UPLOAD_S, seconds / 2))
    compared = agents(kinds, states, traced=can_trace())
    if not can_trace():
        remark("no strace: fsyncs are not counted")
    load = watch_load("at the beginning")
    with tempfile.TemporaryDirectory() as name:
        found, late_s = side_by_side(compared, warm_up, rest, Path(name), upload_s)
    load = max(load, watch_load("at the end"))
    for one in found.values():
        one["energy"] = energy(one, rest.seconds, active)
    return {
        "machine": machine(),
        "activity": {"source": day.source, "seconds": rest.seconds, "events": dict(rest.counts())},
        "warm_up": {"seconds": WARM_UP_S, "events": dict(warm_up.counts())},
        "active_ratio": active,
        "upload_every_s": upload_s,
        "latest_s": late_s,
        "load": load,
        "agents": found,
    }


def watch_load(when: str) -> float:
    """Of the last minute, for each processor."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    if load > LOAD_WARNING:
        remark(f"WARNING: load {load:.2f} per processor {when}: figures of CPU are too high, for all of them")
    return load


# --- energy -------------------------------------------------------------------------------------------------


def energy(one: Mapping[str, Any], seconds: float, active: float) -> dict[str, Any]:
    """Joules of the run, and of a working day with so much of it: an estimate, as `mcilib status` makes it."""
    amounts = {
        **{name: one[name] for name in ("cpu_s", "wakeups", "requests", "fsyncs", "written_bytes")},
        "sent_bytes": one["due_bytes"] + one["tls_bytes"],
    }
    told = estimate(amounts)
    day_j = told.joules / seconds * DAY_S * active
    return {
        "joules": told.joules,
        "band_joules": [told.low_joules, told.high_joules],
        "without": list(told.without),
        "day_joules": day_j,
        "day_ratio": day_j / BATTERY_J,
    }


# --- what is right, and what is wrong -----------------------------------------------------------------------


def reached(aims: Sequence[Aim], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each aim whose two agents were there, with the ratio that was found."""
    both = [aim for aim in aims if aim.ours in found and found.get(aim.rival, {}).get(aim.figure)]
    return [
        {
            "what": f"{WORDS[aim.figure]}, {aim.ours} to {aim.rival}",
            "ratio": found[aim.ours][aim.figure] / found[aim.rival][aim.figure],
            "at_most": aim.ratio,
        }
        for aim in both
    ]


def wrong(found: Mapping[str, Any]) -> list[str]:
    """What makes the figures worth nothing: something was not captured, or a state was not followed."""
    said = []
    for name, one in found.items():
        if one.get("missing"):
            said.append(f"{name}: not all that was injected is there; missing {one['missing']}")
        if one.get("dropped"):
            said.append(f"{name}: dropped {one['dropped']}")
        if one.get("not_followed"):
            said.append(f"{name}: {one['not_followed']}")
    return said


# --- told ---------------------------------------------------------------------------------------------------


def text(result: Mapping[str, Any]) -> str:
    """Tables for docs/performance.md."""
    found, activity = result["agents"], result["activity"]
    minutes = activity["seconds"] / 60
    lines = [
        f"{minutes:.1f} active minutes ({activity['source']}): "
        + ", ".join(f"{number:,} {kind}" for kind, number in activity["events"].items())
        + f". mcilib uploads every {result['upload_every_s'] / 60:g} minutes. The latest event was "
        f"{result['latest_s'] * 1e3:.0f} ms late; load {result['load']:.1f} per processor at most."
    ]
    alone_s = found.get(NOTHING, {}).get("x_server_cpu_s")
    rows = [
        [
            name, f"{one['cpu_s']:.2f}", f"{one['cpu_s'] / activity['seconds']:.2%}", f"{one['wakeups']:,}",
            "" if alone_s is None else f"{one['x_server_cpu_s'] - alone_s:+.2f}",
            "not counted" if one["fsyncs"] is None else f"{one['fsyncs']:,}", f"{one['written_bytes'] / 1024:,.0f}",
            f"{one['memory_mib']['rss']:.1f}" if "memory_mib" in one else "",
        ]
        for name, one in found.items() if name != NOTHING
    ]  # fmt: skip
    head = [
        "", "CPU, s", "of a core", "wake-ups", "X server's CPU more, s", "fsyncs", "written, KiB", "resident, MiB",
    ]  # fmt: skip
    lines += [table(head, rows)]
    rows = [
        [
            name, f"{one['requests']:,}", f"{one['connections']:,}", f"{one['wire_bytes']:,}", f"{one['tls_bytes']:,}",
            f"{one['waiting_bytes']:,}",
            "; ".join(
                f"{cause}: {n['requests']}, {n['up']:,} up, {n['down']:,} down" for cause, n in one["causes"].items()
            ),
        ]
        for name, one in found.items() if name not in (NOTHING, BARE)
    ]  # fmt: skip
    head = [
        "", "requests", "connections", "bytes there and back", "TLS would add", "bytes that wait", "by cause",
    ]  # fmt: skip
    lines += [table(head, rows)]
    rows = [
        [
            name, f"{one['energy']['joules']:.1f}",
            "{:.1f} to {:.0f}".format(*one["energy"]["band_joules"]),
            f"{one['energy']['day_joules']:.0f}", f"{one['energy']['day_ratio']:.3%}",
        ]
        for name, one in found.items() if name != NOTHING
    ]  # fmt: skip
    head = ["energy, estimated", "J", "band", f"J of 8 h, {result['active_ratio']:.0%} active", "of 50 Wh"]
    lines += [table(head, rows)]
    rows = [
        [
            name, words(one["plan"]) if one["plan"] else "not told", " then ".join(map(words, one["plans"])),
            f"{sum(one['stored'].values()):,}",
            f"{one['coalesced']:,}", f"{one['thinned']:,}",
            f"{one['not_delivered']:,}", str(one["missing"] or "none"),
        ]
        for name, one in found.items() if "plans" in one
    ]  # fmt: skip
    if rows:
        lines += [
            table(
                [
                    "",
                    "plan in force",
                    "as batches tell it",
                    "stored",
                    "coalesced",
                    "thinned",
                    "moves not asked for",
                    "missing",
                ],
                rows,
            )
        ]
    rows = [
        [
            aim["what"], f"{aim['ratio']:.3f}", f"at most {aim['at_most']:.3f}",
            "yes" if aim["ratio"] <= aim["at_most"] else "no",
        ]
        for aim in result["aims"]
    ]  # fmt: skip
    if rows:
        lines += [table(["aim", "found", "wanted", "reached"], rows)]
    return "\n\n".join(lines)


def words(plan: Mapping[str, Any]) -> str:
    levers = ", ".join(f"{lever} {value}" for lever, value in plan["levers"].items()) or "the usual"
    why = f" ({'; '.join(plan['reasons'])})" if plan["reasons"] else ""
    batches = f", {plan['batches']} batches" if "batches" in plan else ""
    return f"{levers}{why}{batches}"


def bars(title: str, found: Mapping[str, Any]) -> str:
    """CPU and bytes of each agent, as SVG."""
    shown = {name: one for name, one in found.items() if name != NOTHING}
    return plot.bars(
        title,
        {
            "CPU seconds": {name: one["cpu_s"] for name, one in shown.items()},
            "KiB sent and waiting": {
                name: one["due_bytes"] / 1024 for name, one in shown.items() if name != BARE
            },
        },
        ours=tuple(name for name in shown if name.startswith(OURS)),
    )


BATTERY_AIMS = (
    Aim("cpu_s", f"{OURS} battery", BARE, 1 / 8),
    Aim("due_bytes", f"{OURS} battery", NAIVE, 1 / 20),
    Aim("due_bytes", f"{OURS} battery", FAIR, 1 / 3),
)
