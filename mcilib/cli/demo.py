"""`mcilib demo`: the whole path on real input, from the display to the exported lines, on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._output import print_json, say
from mcilib.cli._parser import duration
from mcilib.errors import BatchFormatError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers

VIRTUAL_S, OWN_S = 8.0, 20.0
"""How long is typed and moved, by the demo on its virtual display or by a person on theirs."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="see the whole path on real input: capture, upload, read back, compare",
        description="""\
Starts a receiver on loopback, records a demo grant, collects real keyboard and pointer input, uploads it,
reads it back, and compares what was captured, spooled, received and exported. Nothing leaves this machine.

Without a display that can be used it starts a virtual one (needs Xvfb) and types and moves there by itself.
On your own display nothing is ever injected: there it asks you to type and move.""",
        epilog="""\
example:
  mcilib demo
  mcilib demo --virtual --keep demo/
  mcilib demo --json

exit codes: 0 all the same; 2 a flag is wrong, or the receiver cannot run; 3 the answer was not yes;
4 no usable display and no Xvfb; 5 the upload failed; 6 the folder cannot be used; 7 something differs;
130 interrupted""",
    )
    parser.add_argument(
        "--virtual", action="store_true", help="use a virtual display although there is a real one"
    )
    parser.add_argument(
        "--seconds", type=duration(1, 3_600), metavar="TIME",
        help="how long to type and move (default 8s on a virtual display, 20s on your own)",
    )  # fmt: skip
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="put the data into DIR, new or empty (default a new temporary folder)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for a yes on your own display")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON; remarks go to stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.cli._demo.report import table
    from mcilib.cli._demo.show import Demo, unusable_display

    why = "--virtual" if args.virtual else unusable_display(os.environ)
    words = sys.stderr if args.json else sys.stdout
    seconds = args.seconds or (OWN_S if why is None else VIRTUAL_S)
    with Demo(keep=args.keep, words=words) as demo:
        figures = demo.show(seconds, virtual_because=why, ask=not args.yes)
    if args.json:
        print_json({**figures.as_dict(), "grant": demo.grant_record()})
    else:
        print(table(figures))
    if figures.differences:
        more = f" (and {len(figures.differences) - 1} more)" if len(figures.differences) > 1 else ""
        say(
            f"mcilib: Not the same everywhere: {figures.differences[0]}{more}. The data is kept in {figures.folder}."
        )
        return BatchFormatError.exit_code
    return 0
