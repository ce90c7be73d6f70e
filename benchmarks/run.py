"""The headline figures in under three minutes: is all received, what does it cost, how large is it.

Runs end_to_end.py in full, wire_size.py in full, and agent_cost.py with fewer rounds and a shorter
silence than on its own. Ends with 1 when anything injected was not received; never because of time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import agent_cost
import end_to_end
import wire_size
from rig import arguments, machine, remark, show

HERE = Path(__file__).parent

SHORT = {
    "end_to_end": [],
    "wire_size": [],
    "agent_cost": ["--rounds", "3", "--seconds", "4", "--idle", "20"],
}


def text(results: dict[str, Any]) -> str:
    parts = {
        "Injected and received": end_to_end.text(results["end_to_end"]["scenarios"]),
        "How large is an event": wire_size.text(results["wire_size"]),
        "What the agent costs": agent_cost.text(results["agent_cost"]),
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
