"""`mcilib forget`: deletes what was captured in the last minutes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mcilib import limits
from mcilib.cli._control import agreed, control, touched
from mcilib.cli._language import words_here
from mcilib.cli._output import in_batches, print_json
from mcilib.cli._parser import add_options, duration, settings_of, state_dir
from mcilib.language import lasting

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "forget",
        help="delete what was captured in the last minutes, here and at the receiver",
        description="""\
Deletes every batch that holds something of the last TIME, and what is not in a batch yet. A batch cannot
be cut: it goes as a whole, also with what is older. For batches that have left this device already, or
are on their way, the receiver is asked to delete them; the request stays here until it has confirmed.
Nothing brings them back.

Says how many batches that are and asks for a yes, unless --yes is given.""",
        epilog="""\
example:
  mcilib forget 10m
  mcilib forget 2h --yes

exit codes: 0 done, or not done because the answer was not yes; 2 a flag is wrong, or there is no terminal
to ask on; 3 there is no grant; 6 something may still be on the disk; 9 the agent cannot be asked""",
    )
    parser.add_argument(
        "last_s",
        type=duration(1, limits.FORGET_CAP_S),
        metavar="TIME",
        help="how far back: 90s, 10m, 30d at most",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    here, gone = touched(state_dir(settings), args.last_s)
    tr = words_here()
    question = tr(
        "Of the last {time}, {batches} on this device and all that is not in a batch yet are deleted."
    )
    question = question.format(time=lasting(args.last_s, tr), batches=in_batches(here, tr))
    if gone:
        question += " " + tr("The receiver is asked to delete {batches}.").format(
            batches=in_batches(gone, tr)
        )
    if not agreed(question, args.yes, tr):
        if args.json:
            print_json({"done": False, "batches": 0, "events": 0, "asked": 0})
        else:
            print(tr("Nothing is deleted."))
        return 0
    answer = control(settings, "forget", {"last_s": args.last_s})
    if args.json:
        print_json({"done": True, **answer.values, "running": answer.running})
        return 0
    batches, events, asked = (answer.values[name] for name in ("batches", "events", "asked"))
    more = tr.many("{n} event that was in none yet", "{n} events that were in none yet", events)
    deleted = tr("Deleted: {batches} on this device, and {events}.")
    print(deleted.format(batches=in_batches(batches, tr), events=more.format(n=tr.number(events))))
    if asked:
        print(tr("The receiver is asked to delete what it has of that; the request stays here until it has."))
    return 0
