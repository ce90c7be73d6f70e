"""`mcilib hold`: batches rest on this device before they go."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mcilib import limits
from mcilib.cli._control import NO_AGENT, control
from mcilib.cli._language import words_here
from mcilib.cli._output import print_json
from mcilib.cli._parser import add_options, duration, settings_of
from mcilib.language import lasting

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "hold",
        help="let batches rest on this device before they go, to look at them first",
        description="""\
From now on each batch rests on this device for TIME before it is sent, so that you can look at it
(`mcilib inspect`) and delete it (`mcilib forget`) first. `off` ends that; where the operator has set a
time too, the longer one holds.""",
        epilog="""\
example:
  mcilib hold 24h
  mcilib hold off

exit codes: 0 done; 2 a flag is wrong; 3 there is no grant; 6 it could not be
recorded; 9 the agent cannot be asked""",
    )
    parser.add_argument("hold_s", type=_time, metavar="TIME", help="how long: 90s, 8h, 7d at most; or off")
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _time(text: str) -> float:
    if text == "off":
        return 0.0
    return duration(1, limits.HOLD_CAP_S)(text)


def run(args: argparse.Namespace) -> int:
    answer = control(settings_of(args), "hold", {"hold_s": args.hold_s})
    hold_s = float(answer.values["hold_s"])
    if args.json:
        print_json({"hold_s": hold_s, "running": answer.running})
        return 0
    tr = words_here()
    if hold_s:
        text = tr("Held: each batch rests here for {time} before it goes. `mcilib inspect` shows them.")
        print(text.format(time=lasting(hold_s, tr)))
    else:
        print(tr("Not held: batches go with the next upload."))
    if not answer.running:
        print(tr(NO_AGENT))
    return 0
