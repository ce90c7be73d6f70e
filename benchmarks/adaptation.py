"""Whether the agent adapts to the machine: at once, without wavering, without losing anything, and for how much less.

A real agent (`mcilib run` with pointer, keyboard, displays, windows), input through XTEST into an X server (Xvfb) that
a person could have made, and a real receiver. The parts, each of which `--part` runs alone:

  day      a day of a laptop in some minutes: unplugged, battery low and wavering around the thresholds, power saver,
           charging, a network that is metered, wants somebody to sign in, is gone and comes back. The laptop is
           emulated below the library (battery in /sys, the real upowerd, services of network and power profiles on a
           bus of their own); the receiver has TLS and is behind a proxy that counts. Promised: the plan follows each
           change within 1 s, changes no more often than it should, nothing is sent while nothing may be, and every
           event that was injected is in the store, in the spool or in the coverage of the batches. `--plot` draws it
  drain    many batches wait, an upload of many requests begins, and in its middle the network becomes metered.
           Promised: no further request with data begins; what is left goes when it is unmetered again; nothing is lost
  budget   the CPU budget: some seconds of input, then three times as much, then as before. The budget is one and a half
           times what the first costs, which is measured before. Aims: below the budget (mean of 3 s) within 10 s, and
           in the mean from then on; at most 50 % above it (mean of 5 s); at most one step up that is taken back.
           Promised: all clicks and keys
  saver    the agent in power saver (read every 0.5 s, path within 8 px) beside a bare pynput listener, in turns.
           Aims: at most 0.06 of its CPU at 1 kHz and 0.10 at 125 Hz. And how many moves and bytes are kept

Needs Linux and Xvfb; all but budget need umockdev, upower, python3-dbusmock and dbus-daemon, and are left out without.
Takes 16 minutes. CPU is read in /proc, from outside. Ends with 1 when a promise is broken; never because of CPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import cpu_budget
import laptop_day
import plot
import saver_cost
from rig import arguments, machine, remark, show, shown, table

from mcilib.testing.laptop import missing_parts

PARTS = ("day", "drain", "budget", "saver")
LAPTOP = ("day", "drain", "saver")
"""Parts that need one."""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (may be given again)")
    parser.add_argument(
        "--phase", type=float, metavar="SECONDS", help="of each phase of the day (default 25, quick 1.5)"
    )
    parser.add_argument("--rounds", type=int, help="pairs of turns in power saver (default 5, quick 1)")
    parser.add_argument(
        "--seconds", type=float, help="of each load: in power saver 6, a quarter of the budget's (quick 0.5)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the input (default %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the day")
    args = parser.parse_args()
    quick = args.quick
    phase_s = args.phase or (1.5 if quick else 25.0)
    parts = list(args.part or PARTS)
    if missing := missing_parts():
        remark(f"no {', '.join(p for p in parts if p in LAPTOP)}: not installed: {', '.join(missing)}")
        parts = [part for part in parts if part not in LAPTOP]
    result: dict[str, Any] = {"machine": machine(), "seed": args.seed}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "day" in parts:
            result["day"] = laptop_day.day(folder / "day", phase_s, args.seed)
        if "drain" in parts:
            events, quiet_s = (3_000, 2.0) if quick else (8_000, 4.0)
            result["drain"] = laptop_day.drain(folder / "drain", events, quiet_s, args.seed)
        if "budget" in parts:
            base_hz, seconds = (250.0, 0.5) if quick else (1_000.0, 10.0)
            result["budget"] = cpu_budget.run(folder / "budget", base_hz, args.seconds or seconds, args.seed)
        if "saver" in parts:
            seconds = args.seconds or (0.5 if quick else 6.0)
            result["saver"] = saver_cost.run(
                folder / "saver", args.rounds or (1 if quick else 5), seconds, args.seed
            )
    if args.plot is not None and "day" in result:
        args.plot.write_text(picture(result["day"]), encoding="utf-8")
    result["wrong"] = [
        f"{part}: {words}" for part in PARTS for words in result.get(part, {}).get("wrong", ())
    ]
    show(result, text(result), as_json=args.json)
    for words in result["wrong"]:
        remark(f"WRONG: {words}")
    return 1 if result["wrong"] else 0


# --- the day as a picture -----------------------------------------------------------------------------------

MOTIONS, UPLOADS = ("none", "endpoints", "thinned", "full"), ("none", "control", "scheduled")


def picture(day: Mapping[str, Any]) -> str:
    samples, history = day["samples"], day["history"]
    end_s = samples[-1]["at_s"]
    rates = list(per_second(samples))
    return plot.over_time(
        "A laptop's day in short: what the agent makes of it",
        end_s,
        [(phase["begin_s"], phase["phase"]) for phase in day["phases"]],
        [
            plot.Panel("read every, s", lever(history, "read_interval_s", 0.1), steps=True),
            plot.Panel("motion", [(t, MOTIONS.index(v)) for t, v in lever(history, "motion", "full")], MOTIONS),
            plot.Panel("upload", [(t, UPLOADS.index(v)) for t, v in lever(history, "upload", "scheduled")], UPLOADS),
            plot.Panel("CPU, % of a core", [(t, 100 * cpu) for t, cpu, _ in rates]),
            plot.Panel("KiB on the wire", [(s["at_s"], (s["up"] + s["down"]) / 1024) for s in samples], steps=True),
        ],
    )  # fmt: skip


def lever(history: list[dict[str, Any]], name: str, usual: Any) -> list[tuple[float, Any]]:
    return [(max(0.0, change["at_s"]), change["levers"].get(name, usual)) for change in history]


def per_second(samples: list[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """Between two samples: when, CPU as part of a core, bytes a second."""
    return [
        (
            now["at_s"],
            (now["cpu_s"] - before["cpu_s"]) / (now["at_s"] - before["at_s"]),
            (now["up"] + now["down"] - before["up"] - before["down"]) / (now["at_s"] - before["at_s"]),
        )
        for before, now in pairwise(samples)
        if now["at_s"] - before["at_s"] > 0.1
    ]


# --- tables -------------------------------------------------------------------------------------------------


def text(result: Mapping[str, Any]) -> str:
    told = {"day": day_text, "drain": drain_text, "budget": budget_text, "saver": saver_text}
    return "\n\n".join(words(result[part]) for part, words in told.items() if part in result)


def day_text(day: Mapping[str, Any]) -> str:
    rows = []
    ends = [*(phase["begin_s"] for phase in day["phases"][1:]), float("inf")]
    for phase, end_s in zip(day["phases"], ends, strict=True):
        part = [s for s in day["samples"] if phase["begin_s"] <= s["at_s"] < end_s]
        cpu = (
            (part[-1]["cpu_s"] - part[0]["cpu_s"]) / max(part[-1]["at_s"] - part[0]["at_s"], 1e-9)
            if part
            else 0.0
        )
        followed = [f"{step['after_s'] * 1e3:.0f}" for step in phase["steps"] if step["after_s"] is not None]
        levers = ", ".join(f"{name} {value}" for name, value in phase["levers"].items()) or "as configured"
        steps = ", ".join(step["step"] for step in phase["steps"])
        rows.append([
            phase["phase"], steps, ", ".join(followed), levers, f"{cpu:.2%}", f"{phase['sent_bytes']:,}",
        ])  # fmt: skip
    head = ["phase", "what happens", "plan after, ms", "lowered", "CPU of a core", "bytes sent"]
    found = day["account"]
    return "\n".join([
        table(head, rows),
        f"The plan changed {day['changes']} times, {day['expected_changes']} were due. {account_text(found)}",
    ])  # fmt: skip


def account_text(found: Mapping[str, Any]) -> str:
    return (
        f"Injected {sum(found['injected'].values()):,}; missing {found['missing'] or 'none'}; thinned "
        f"{found['thinned']:,}, coalesced {found['coalesced']:,}, dropped {found['dropped'] or 'none'}."
    )


def drain_text(drain: Mapping[str, Any]) -> str:
    stopped = drain["steps"][1]
    rows = [[
        f"{drain['waiting_batches']:,}", f"{drain['requests_before']:,}", f"{(stopped['after_s'] or 0) * 1e3:.0f}",
        f"{drain['requests_after']:,}", f"{drain['waiting_when_stopped']:,}", f"{drain['requests']:,}",
        "all" if drain["all_sent"] else "not all",
    ]]  # fmt: skip
    head = [
        "batches waiting", "requests until metered", "plan after, ms", "requests after that", "batches kept back",
        "requests in all", "sent when unmetered",
    ]  # fmt: skip
    return f"{table(head, rows)}\n{account_text(drain['account'])}"


def budget_text(budget: Mapping[str, Any]) -> str:
    rows = [
        [phase, f"{budget['rates_hz'][phase]:,.0f} Hz", f"{free:.3%}", f"{budget['costs'][phase]:.3%}"]
        for phase, free in budget["free"].items()
    ]
    aims = [
        [name, "never" if found is None else f"{found:.2f}", f"at most {most:g}",
         "yes" if found is not None and found <= most else "no"]
        for name, found, most in (
            ("s until the mean of 3 s is below the budget", budget["settled_s"], cpu_budget.SETTLED_S),
            ("highest mean of 5 s, of the budget", budget["highest"], 1 + cpu_budget.OVERSHOOT_RATIO),
            (f"mean from {cpu_budget.SETTLED_S:g} s on, of the budget", budget["after"], 1.0),
            ("steps up that were taken back", budget["taken_back"], cpu_budget.TAKEN_BACK),
        )
    ]  # fmt: skip
    plans = [
        f"{change['at_s']:.1f} s: "
        + (", ".join(f"{name} {value}" for name, value in change["levers"].items()) or "as configured")
        for change in budget["history"]
    ]
    return "\n".join([
        table(["load", "moves", "CPU without a budget", f"with one of {budget['budget']:.3%}"], rows), "",
        table(["aim", "found", "wanted", "reached"], aims), "", "Plans: " + "; ".join(plans) + ".",
        f"Clicks and keys missing: {budget['account']['missing'] or 'none'}.",
    ])  # fmt: skip


def saver_text(saver: Mapping[str, Any]) -> str:
    rows = []
    for load, sides in saver["loads"].items():
        kept = saver["kept"][load]
        most = saver_cost.AIMS[load.partition(",")[0]]
        rows.append([
            load, *(shown(sides[side]["cpu_us_per_event"], 2) for side in ("bare", "ours")),
            shown(sides["ratio"]["cpu_us_per_event"], 3), f"{most:.2f}", shown(sides["ours"]["wakeups_per_s"], 1),
            f"{kept['kept_ratio']:.1%}", f"{kept['bytes_per_event']:.2f}",
        ])  # fmt: skip
    head = [
        "", "bare listener, us per event", "in power saver", "ratio", "aim", "wake-ups/s", "moves kept",
        "bytes per event",
    ]  # fmt: skip
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
