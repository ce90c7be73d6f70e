"""`mcilib status`: who collects what, whether it is captured now and why not, what waits, was sent, what it cost."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mcilib.cli._output import one_line, print_json, print_rows
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.errors import GrantError, SpoolError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "status",
        help="show who collects what, whether it is captured now, what waits, was sent, what it cost",
        description="""\
Shows how things stand in the state folder, whether an agent runs or not: who collects what, whether
anything is captured now and why not, pauses, exemptions and what the operator answered, what waits and
was sent. Changes nothing. What was used is up to ten minutes old; energy is an estimate.""",
        epilog="""\
example:
  mcilib status
  mcilib status --json

exit codes: 0 shown (also when there is no grant); 2 a flag is wrong; 3 the grant cannot be read;
6 the spool, or what you have decided, cannot be read""",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.cli._language import words_here
    from mcilib.cli._plan import plan_rows
    from mcilib.cli._standing import look
    from mcilib.cli._standing_words import rows, warnings
    from mcilib.cli._used_words import impact_rows, spool_rows

    standing = look(state_dir(settings_of(args)))
    if args.json:
        print_json(standing.to_json())
    else:
        tr = words_here()
        first = list(warnings(standing, tr))
        for line in first:
            print(line)
        if first:
            print()
        print_rows(
            [
                *rows(standing, tr),
                *(plan_rows(standing.plan, tr) if standing.plan is not None else []),
                *spool_rows(standing.spool, tr),
                *impact_rows(standing.impact, tr),
                [tr("State folder:"), one_line(str(standing.folder))],
            ]
        )
    if standing.state.unreadable:
        return SpoolError.exit_code
    return GrantError.exit_code if standing.unreadable else 0
