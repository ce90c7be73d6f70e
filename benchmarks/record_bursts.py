"""How many of a program's injected moves X RECORD delivers, unpaced and paced.

Sends moves through XTEST as fast as the connection takes them, then with a `sync` after every 20, and counts
what a PointerSource in this process hears. What is missing was dropped by the X server, before any client could
count it (docs/decisions/0008-paced-input.md). Needs Linux and Xvfb.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from mcilib import PointerSource
from mcilib.testing.fakes import ListSink
from mcilib.testing.xvfb import VirtualDisplay

QUIET_S = 0.5
"""This long without an event, and the rest will not come."""


def one_run(moves: int, sync_every: int | None) -> dict[str, float | int | None]:
    with VirtualDisplay() as display:
        os.environ["DISPLAY"] = display.display
        sink, source = ListSink(moves), PointerSource()
        source.start(sink)
        began_s = time.perf_counter()
        for n in range(moves):
            display.move(n % display.width_px, n // display.width_px)
            if sync_every and n % sync_every == 0:
                display.sync()
        display.sync()
        rate = moves / (time.perf_counter() - began_s)
        heard = -1
        while heard < len(sink.events):
            heard = len(sink.events)
            time.sleep(QUIET_S)
        source.stop()
    heard = len(sink.events)
    return {"sync_every": sync_every, "moves": moves, "per_s": round(rate), "lost": moves - heard}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="one short run of each kind, to see that all works"
    )
    parser.add_argument("--moves", type=int, help="per run (default 20000, quick 1000)")
    parser.add_argument("--rounds", type=int, help="runs of each kind (default 5, quick 1)")
    args = parser.parse_args()
    args.moves = args.moves or (1_000 if args.quick else 20_000)
    args.rounds = args.rounds or (1 if args.quick else 5)
    runs = [one_run(args.moves, every) for _ in range(args.rounds) for every in (None, 20)]
    if args.json:
        print(json.dumps(runs))
        return
    print(f"{'sync':<10}{'moves':>8}{'per s':>9}{'lost':>7}{'%':>7}")
    for run in runs:
        every, lost = run["sync_every"], run["lost"] or 0
        name = f"every {every}" if every else "never"
        print(f"{name:<10}{run['moves']:>8}{run['per_s']:>9}{lost:>7}{100 * lost / args.moves:>7.2f}")


if __name__ == "__main__":
    main()
