"""`mcilib audit`: what was decided on this device, and when."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._control import grant_of
from mcilib.cli._output import count, one_line, print_json, print_rows, say
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.errors import BatchFormatError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.consent.audit import AuditEntry, AuditLog


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "audit",
        help="show the audit log: what was decided on this device, when, by whom",
        description="""\
Shows the audit log of the state folder: each start and end, each grant, pause, exemption, deletion and
withdrawal, with its time (UTC) and by whom. It holds no content: no programs, notes or titles. Each line
carries the digest of the one before, and each batch the digest of the last one, so that nobody can change
the log later without its being seen; --verify checks that, also against the batches that wait here and
are in clear. Changes nothing; works after a withdrawal too.""",
        epilog="""\
example:
  mcilib audit
  mcilib audit --verify
  mcilib audit --json

exit codes: 0 shown; 2 a flag is wrong; 3 there is no grant and never was; 6 it cannot be read; 7 a line
is missing or was changed (it is named)""",
    )
    add_options(parser, "agent.state")
    parser.add_argument("--verify", action="store_true", help="check the chain of digests; show nothing else")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.consent.audit import AUDIT_FILE, AuditLog

    folder = state_dir(settings_of(args))
    log = AuditLog(folder / AUDIT_FILE)
    if not log.path.exists() and not (folder / "grant.json").exists():
        grant_of(folder)  # says what is missing
    if args.verify:
        return _verify(log, folder, as_json=args.json)
    entries = list(log.entries())
    if args.json:
        print_json({"entries": [asdict(entry) for entry in entries]})
        return 0
    if entries:
        print_rows([_row(entry) for entry in entries])
    say(f"{count(len(entries), 'line')} in {log.path}. `mcilib audit --verify` checks them.")
    return 0


def _verify(log: AuditLog, folder: Path, *, as_json: bool) -> int:
    heads = _heads(folder)
    wrong = log.verify(heads)
    number = sum(1 for _ in log.entries())
    if as_json:
        print_json({"whole": not wrong, "lines": number, "batches": len(heads), "problems": list(wrong)})
    elif not wrong:
        print(f"Whole: {count(number, 'line')}, each follows from the one before.")
        print(
            f"{count(len(heads), 'batch')} on this device and in clear carry a digest of it, each that of a line."
        )
    for problem in wrong:
        say(f"mcilib: {problem}")
    return BatchFormatError.exit_code if wrong else 0


def _heads(folder: Path) -> list[str]:
    """What the batches say that can be read here."""
    from mcilib.reader import Reader

    ready = folder / "spool" / "ready"
    found = [batch.metadata.audit for batch in Reader(ready).batches()] if ready.is_dir() else []
    return [head for head in found if head]


def _row(entry: AuditEntry) -> list[str]:
    """With nothing that a terminal would obey: somebody may have changed the file."""
    facts = ", ".join(f"{name} {value}" for name, value in entry.facts.items())
    return [one_line(text) for text in (entry.at, entry.by, entry.what, facts)]
