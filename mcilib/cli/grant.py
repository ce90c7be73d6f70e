"""`mcilib grant`: asks the participant, and records what was agreed to."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._output import print_json, say
from mcilib.cli._parser import add_options, required, settings_of, state_dir
from mcilib.cli._streams import ClosedStream
from mcilib.config.files import read_file
from mcilib.errors import ConfigError, GrantError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.consent import Grant


POLICY_MAX_BYTES = 256 * 1024
"""A hundred pages, which nobody agrees to on a terminal."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "grant",
        help="ask the participant, and record the grant without which nothing is collected",
        description="""\
Shows in full who would collect what and what for, asks for a yes, and records the grant in the state folder.
Nothing is collected without one. An earlier grant is replaced; its pseudonym and device id are kept.

With --yes, or without a terminal to ask on, nobody is asked: the grant is recorded as "unattended" and every
`mcilib status` says so first.""",
        epilog="""\
example:
  mcilib grant --operator "Example Lab" --purpose "a study" --scope pointer,keys --expires 30d

exit codes: 0 recorded; 2 a flag is wrong; 3 the answer was not yes, the words have control characters, or the
grant cannot be recorded""",
    )
    add_options(
        parser,
        "agent.state",
        "grant.operator",
        "grant.purpose",
        "grant.scope",
        "grant.policy",
        "grant.expires",
    )
    parser.add_argument("--yes", action="store_true", help="ask nobody; recorded as unattended")
    parser.add_argument("--json", action="store_true", help="print the recorded grant as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from mcilib.consent import DEFAULT_POLICY, Grant

    settings = settings_of(args)
    folder = state_dir(settings)
    terms = {
        "operator": required(settings, "grant.operator"),
        "purpose": required(settings, "grant.purpose"),
        "scopes": required(settings, "grant.scope"),
        "policy": _policy(settings.grant.policy) or DEFAULT_POLICY,
        "expires_in": None if settings.grant.expires is None else timedelta(seconds=settings.grant.expires),
        "earlier": _earlier(folder),
    }
    words = sys.stderr if args.json else sys.stdout
    asked = not args.yes and sys.stdin.isatty() and not isinstance(words, ClosedStream)
    if asked:
        grant = Grant.ask(**terms, stdout=words)
    else:
        grant = Grant.give(**terms, given_via="unattended")
        print(grant.describe(), file=words)
    path = grant.save(folder)
    if args.json:
        print_json({**asdict(grant), "digest": grant.digest, "file": str(path)})
    else:
        print(f"\nRecorded in {path}")
    if not asked:
        say("Nobody was asked on this device: the grant is recorded as unattended.")
    return 0


def _policy(path: Path | None) -> str | None:
    if path is None:
        return None
    hint = "Give a text file with --policy."
    try:
        text = read_file(path, POLICY_MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"The policy {path} cannot be read ({error.strerror})", hint) from None
    except UnicodeDecodeError:
        raise ConfigError(f"The policy {path} is not UTF-8 text", hint) from None
    if not text.strip():
        raise ConfigError(f"The policy {path} is empty", hint)
    return text


def _earlier(folder: Path) -> Grant | None:
    from mcilib.consent import Grant

    try:
        return Grant.load(folder)
    except GrantError as error:
        if any(folder.glob("grant.json")):
            say(f"mcilib: {error.problem}. It is replaced, with a new pseudonym.")
        return None
