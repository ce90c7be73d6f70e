"""The headline figures in under six minutes: is all received, what does it cost, how large is it, does it adapt.

Runs a short gate.py, end_to_end.py in full, wire_size.py in full, agent_cost.py with fewer rounds and a shorter silence
than on its own, a short day and an upload that is stopped of adaptation.py, and half a minute each of battery_impact.py
and network_impact.py: long enough to see that all is counted and each state of the machine followed, too short for
their figures. Ends with 1 when anything injected was not received, or a state was not followed, or nothing was to be
sent and was; never because of time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import adaptation
import agent_cost
import end_to_end
import gate
import impact
import wire_size
from rig import arguments, machine, remark, show

HERE = Path(__file__).parent

SHORT = {
    "gate": ["--quick"],
    "end_to_end": [],
    "wire_size": [],
    "agent_cost": ["--rounds", "3", "--seconds", "4", "--idle", "20"],
    "adaptation": ["--phase", "4"],
    "battery_impact": ["--minutes", "0.5"],
    "network_impact": ["--minutes", "0.5"],
}
ALWAYS = {"adaptation": ["--part", "day", "--part", "drain"]}


def text(results: dict[str, Any]) -> str:
    parts = {
        "What the consent gate costs, short": gate.text(results["gate"]["gate"]),
        "Injected and received": end_to_end.text(results["end_to_end"]["scenarios"]),
        "How large is an event": wire_size.text(results["wire_size"]),
        "What the agent costs": agent_cost.text(results["agent_cost"]),
        "How a plan follows the machine": adaptation.text(results["adaptation"])
        or "No laptop can be emulated here.",
        "What agents take from a battery, very short": impact.text(results["battery_impact"]),
        "What agents send, very short": impact.text(results["network_impact"]),
    }
    return "\n\n".join(f"{title}\n\n{table}" for title, table in parts.items())


def main() -> int:
    args = arguments(__doc__).parse_args()
    code = 0
    results: dict[str, Any] = {"machine": machine()}
    for name, flags in SHORT.items():
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            "--json",
            *ALWAYS.get(name, []),
            *(["--quick"] if args.quick else flags),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if not done.stdout:
            remark(f"{name}.py ended with {done.returncode} and no figures")
            return done.returncode or 1
        code = max(code, done.returncode)
        results[name] = json.loads(done.stdout)
    show(results, text(results), as_json=args.json)
    return code


if __name__ == "__main__":
    sys.exit(main())
