"""`mcilib doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from mcilib.cli._output import print_json
from mcilib.cli._parser import add_options, settings_of, state_dir

if TYPE_CHECKING:
    from mcilib.cli._checks import Finding
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check display, permissions, clock, endpoint, versions: what works, what to do",
        description="""\
Checks everything that `mcilib run` needs and changes nothing. A check that could not run is `unknown`, which
is not the same as `ok`. The display is asked in a process of its own, since one that hangs would hang it.""",
        epilog="""\
example:
  mcilib doctor --endpoint https://collect.example.org --token-file token

exit codes: 0 nothing failed; 1 something failed; 2 a flag is wrong""",
    )
    add_options(
        parser,
        "agent.state",
        "seal.recipients_file",
        "upload.endpoint",
        "upload.token_file",
        "upload.ca_file",
        "upload.client_cert",
        "upload.client_key",
        "upload.proxy",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.cli._checks import examine

    settings = settings_of(args)
    findings: list[Finding] = []
    for finding in examine(settings, state_dir(settings)):
        findings.append(finding)
        if not args.json:
            print(f"{finding.state:<8} {finding.check:<11} {finding.what}", flush=True)
            if finding.todo:
                print(f"{'':<20} -> {finding.todo}", flush=True)
    failed = [finding.check for finding in findings if finding.state == "failed"]
    if args.json:
        print_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        print(f"\nFailed: {', '.join(failed)}." if failed else "\nNothing failed.")
    return 1 if failed else 0
