"""`mcilib withdraw`: ends it, and deletes all."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._control import agreed, control, controls_of, grant_of
from mcilib.cli._language import words_here
from mcilib.cli._output import in_batches, print_json
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import GrantError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.consent import Grant


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "withdraw",
        help="end it: delete all data here, and ask the receiver to delete all",
        description="""\
You take your grant back. Capture stops at once, all data on this device is deleted, and the receiver is
asked to delete everything that came from your pseudonym. No data are sent any more. Until the receiver
has confirmed, the pseudonym, the request, the audit log and counts (batches, bytes, what was used each
day) stay in the state folder, and nothing else; then the pseudonym goes too. The agent sends the request
and then ends. Without an agent `mcilib run` sends it.

It cannot be undone. Should you give a grant again, it has a new pseudonym, which nobody can tie to this
one.""",
        epilog="""\
example:
  mcilib withdraw
  mcilib withdraw --yes

exit codes: 0 done, or not done because the answer was not yes; 2 a flag is wrong, or there is no terminal
to ask on; 3 there is no grant, or you have withdrawn already; 6 something may still be on the disk; 9 the
agent cannot be asked""",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    folder = state_dir(settings)
    grant = _grant_of(folder)
    waiting = DirectorySpool.read_statistics(folder / "spool").waiting_batches
    tr = words_here()
    if grant is not None:
        question = tr(
            "You withdraw from {purpose!r} of {operator}. {batches} on this device and all that is not in a batch yet "
            "are deleted. The receiver is asked to delete all that it has of you. This cannot be undone."
        ).format(purpose=grant.purpose, operator=grant.operator, batches=in_batches(waiting, tr))
    else:
        question = tr(
            "You withdraw from what is collected here. {batches} on this device and all that is not in a batch "
            "yet are deleted. The receiver is asked to delete all that it has of you. This cannot be undone."
        ).format(batches=in_batches(waiting, tr))
    if not agreed(question, args.yes, tr):
        if args.json:
            print_json({"done": False, "batches": 0, "asked": 0})
        else:
            print(tr("Nothing has changed: the grant holds, nothing is deleted."))
        return 0
    answer = control(settings, "withdraw", {}, needs_grant=False)
    if args.json:
        print_json({"done": True, **answer.values, "running": answer.running})
        return 0
    text = tr("Withdrawn: nothing is captured any more. Deleted on this device: {batches}.")
    print(text.format(batches=in_batches(answer.values["batches"], tr)))
    print(tr("The receiver is asked to delete all that came from your pseudonym; no data are sent any more."))
    if answer.running:
        print(tr("The agent sends that request and then ends. `mcilib status` says whether it is confirmed."))
    else:
        print(tr("No agent runs on this folder: `mcilib run` sends the request, and captures nothing."))
    print(tr("A new grant (`mcilib grant`) gets a new pseudonym."))
    return 0


def _grant_of(folder: Path) -> Grant | None:
    """None: it is lost, but not what was collected under it, or an agent runs that has its own."""
    from mcilib.cli._standing import look
    from mcilib.consent.journal import JOURNAL_FILE, BatchJournal

    try:
        return grant_of(folder)
    except GrantError:
        journal = BatchJournal(folder / JOURNAL_FILE)
        if look(folder).has_grant_elsewhere or journal.last_of(controls_of(folder).is_withdrawn):
            return None
        raise
