"""Which options and controls may be ignored without any test noticing: `make dead-controls`, which must find none.

Each mutant (see `mutation.py`) is run against the tests that `assigned.py` names for it, until one fails. They must all
pass without it first. Ends with 1 when a mutant lives, with 2 when something could not be tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from assigned import ASSIGNED

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TEST_S = 60
"""For one test under a mutant: one that hangs has noticed it."""


@dataclass(frozen=True)
class Tried:
    name: str
    fate: str
    """`caught`, `lives`, or `broken`: pytest could not run its tests."""
    by: str
    """The test that noticed."""
    why: str
    """What it said."""
    seconds: float


def pytest(tests: list[str], name: str = "", *options: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(HERE), "MCILIB_DEAD": name, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "--tb=line",
    ]
    return subprocess.run(
        [*command, *options, *tests], cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )  # fmt: skip


def attempt(name: str) -> Tried:
    began_s = time.monotonic()
    done = pytest(list(ASSIGNED[name]), name, "-x", f"--timeout={TEST_S}")
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    said = re.findall(r"^(?:/\S+:\d+: |E +)(.+)$", done.stdout, re.MULTILINE)
    fate = {0: "lives", 1: "caught"}.get(done.returncode, "broken")
    why = said[0] if said else done.stdout[-500:] if fate == "broken" else ""
    tried = Tried(name, fate, failed[0] if failed else "", why, round(time.monotonic() - began_s, 1))
    print(".", end="", file=sys.stderr, flush=True)
    return tried


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME", help="mutants whose name holds this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "-j", type=int, default=(os.cpu_count() or 1) + 1, metavar="N", help="so many side by side"
    )
    args = parser.parse_args()
    names = [name for name in ASSIGNED if args.only is None or args.only in name]
    if not names:
        parser.error(f"no mutant has {args.only!r} in its name")
    tests = sorted({test for name in names for test in ASSIGNED[name]})
    whole = pytest(tests, "", "-n", str(args.j), "--dist", "worksteal")
    if whole.returncode:
        print(whole.stdout[-3000:], "these tests fail without any mutant", sep="\n", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(args.j) as pool:
        tried = list(pool.map(attempt, names))
    print(file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(one) for one in tried], indent=1))
    else:
        width = max(map(len, names))
        for one in tried:
            print(f"{one.name:<{width}}  {one.fate:<7} {one.seconds:5.1f} s  {one.by}")
            if one.fate == "broken":
                print(one.why)
        count = {fate: sum(one.fate == fate for one in tried) for fate in ("caught", "lives", "broken")}
        print(
            f"{len(tried)} mutants: {count['caught']} caught, {count['lives']} live, {count['broken']} broken"
        )
    return 2 if any(one.fate == "broken" for one in tried) else int(any(one.fate == "lives" for one in tried))


if __name__ == "__main__":
    sys.exit(main())
