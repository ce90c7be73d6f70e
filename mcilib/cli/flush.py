"""`mcilib flush`: the running agent uploads now what waits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mcilib import limits
from mcilib.cli._control import ask_agent
from mcilib.cli._output import count, print_json
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.errors import DeliveryError, NoAgent

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers

_MORE_S = 5.0
"""Beyond the upload, for the answer."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "flush",
        help="let the running agent upload now what waits",
        description="""\
The agent that runs on this folder commits what it has captured so far and uploads all that waits,
whatever the schedule says. Batches that are held (`mcilib hold`) stay. Without an agent, `mcilib run
--drain` uploads.""",
        epilog="""\
example:
  mcilib flush
  mcilib flush --json

exit codes: 0 nothing waits any more; 2 a flag is wrong; 5 something still waits; 6 the folder cannot be
used; 9 no agent runs, or it cannot be asked""",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    folder = state_dir(settings_of(args))
    wait_s = limits.FLUSH_TIMEOUT_S
    found = ask_agent(folder, "flush", {"timeout_s": wait_s}, timeout_s=wait_s + _MORE_S)
    if found is None:
        raise NoAgent(
            f"No agent runs on {folder}", "`mcilib run --drain` uploads what waits, without capturing."
        )
    if args.json:
        print_json(dict(found))
        return 0 if found["delivered"] else DeliveryError.exit_code
    if not found["delivered"]:
        unwritten = "no answer" if found["committed"] else "what was captured last could not be written"
        raise DeliveryError(
            f"{count(found['waiting_batches'], 'batch')} still on this device: {found['detail'] or unwritten}",
            "The agent tries again by itself; `mcilib status` shows what waits, and what was lost if anything was.",
        )
    print("Uploaded: nothing waits any more.")
    return 0
