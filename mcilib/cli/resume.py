"""`mcilib resume`: ends a pause."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mcilib.cli._control import control
from mcilib.cli._language import words_here
from mcilib.cli._output import print_json
from mcilib.cli._parser import add_options, settings_of

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "resume",
        help="end a pause now",
        description="""\
Ends a pause; nothing when there is none. Says why nothing is captured all the same, if something else
stands in the way: an exemption, a locked screen, a question that you have not answered.""",
        epilog="""\
example:
  mcilib resume

exit codes: 0 there is no pause any more; 2 a flag is wrong; 3 there is no grant; 6 it could not be
recorded; 9 the agent cannot be asked""",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    answer = control(settings_of(args), "resume", {})
    held, tr = answer.values["held"], words_here()
    if args.json:
        print_json({"held": held, "running": answer.running})
    elif held:
        print(tr("There is no pause any more. Still nothing is captured: {why}.").format(why=held))
    elif answer.running:
        print(tr("There is no pause any more: the agent captures again."))
    else:
        print(tr("There is no pause any more. No agent runs on this folder now."))
    return 0
