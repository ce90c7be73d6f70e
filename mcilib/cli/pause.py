"""`mcilib pause`: for a while nothing is captured."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from mcilib import limits
from mcilib.cli._control import NO_AGENT, clock_in, control, iso_time
from mcilib.cli._language import words_here
from mcilib.cli._output import print_json
from mcilib.cli._parser import add_options, duration, settings_of
from mcilib.language import lasting

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "pause",
        help="capture nothing for a while; then it goes on by itself",
        description="""\
From now on nothing is captured, for 15 minutes or the TIME given, 30 minutes at most unless the operator
allows longer; then it goes on by itself, and the agent tells you so. A pause holds over restarts, crashes
and sleep of the machine. A new pause takes the place of one that lasts. What was captured before is not
touched: see `mcilib forget`.

The data say that nothing was collected for so long, and not why.""",
        epilog="""\
example:
  mcilib pause
  mcilib pause 5m

exit codes: 0 paused; 2 a flag is wrong, or that is longer than the operator allows; 3 there is no grant;
6 it could not be recorded; 9 the agent cannot be asked""",
    )
    parser.add_argument(
        "duration_s",
        nargs="?",
        type=duration(1, limits.PAUSE_LONGEST_CAP_S),
        default=limits.PAUSE_S,
        metavar="TIME",
        help="how long: 90s, 5m (default 15m)",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    answer = control(settings_of(args), "pause", {"duration_s": args.duration_s})
    left_s = answer.values["left_s"]
    if args.json:
        until = iso_time(time.time_ns() + int(left_s * 1e9))
        print_json({"left_s": left_s, "until": until, "running": answer.running})
        return 0
    tr = words_here()
    text = tr("Paused: nothing is captured for {time}, until {moment}. `mcilib resume` ends it sooner.")
    print(text.format(time=lasting(left_s, tr), moment=clock_in(left_s)))
    if not answer.running:
        print(tr(NO_AGENT))
    return 0
