"""`mcilib grant`: asks the participant, and records what was agreed to."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._control import control, controls_of, withdrawn
from mcilib.cli._language import words_here
from mcilib.cli._output import in_batches, print_json, say
from mcilib.cli._parser import add_options, required, settings_of, state_dir
from mcilib.cli._streams import ClosedStream
from mcilib.errors import ConfigError, GrantError
from mcilib.files import read_file
from mcilib.language import ENGLISH, Words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcilib.cli._parser import Subparsers
    from mcilib.cli._regrant import Recorded
    from mcilib.config import Settings
    from mcilib.consent import Grant

POLICY_MAX_BYTES = 256 * 1024
"""A hundred pages, which nobody agrees to on a terminal."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "grant",
        help="ask the participant, and record the grant without which nothing is collected",
        description="""\
Shows in full who would collect what and what for, asks for a yes, and records the grant in the state
folder. Nothing is collected without one. An earlier grant is replaced; its pseudonym and device id are
kept. After a withdrawal both are new.

Where fewer scopes are granted than before, what is not covered any more ends at once, and every batch on
this device with something of it is deleted. Where another operator is named, all that waits here is
deleted. Where more is asked for, or another policy is to hold, an agent that runs captures nothing until
you have answered.

With --yes, or without a terminal to ask on, nobody is asked: the grant is recorded as "unattended" and
every `mcilib status` says so first.""",
        epilog="""\
example:
  mcilib grant --operator "Example Lab" --purpose "a study" --scope pointer,keys --expires 30d

exit codes: 0 recorded; 2 a flag is wrong; 3 the answer was not yes, the words have control characters, or
grant cannot be recorded; 6 a program that takes no commands uses the folder, or the disk refuses""",
    )
    add_options(
        parser,
        "agent.state",
        "grant.operator",
        "grant.purpose",
        "grant.scope",
        "grant.policy",
        "grant.language",
        "grant.expires",
    )
    parser.add_argument("--yes", action="store_true", help="ask nobody; recorded as unattended")
    parser.add_argument("--json", action="store_true", help="print the recorded grant as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from mcilib.cli._regrant import Recorded, exchange
    from mcilib.consent import DEFAULT_POLICY, Grant

    settings = settings_of(args)
    folder = state_dir(settings)
    required_policy = read_policy(settings.consent.policy_file)
    _check_no_other_grant(folder)
    old, tr = _earlier(folder), words_here()
    policy = _policy_of(settings, required_policy)
    language = settings.grant.language or (ENGLISH if policy is not None else tr).language
    terms = {
        "operator": required(settings, "grant.operator"),
        "purpose": required(settings, "grant.purpose"),
        "scopes": required(settings, "grant.scope"),
        "policy": policy or Words(language)(DEFAULT_POLICY),
        "language": language,
        "expires_in": None if settings.grant.expires is None else timedelta(seconds=settings.grant.expires),
        "earlier": old,
    }
    words = sys.stderr if args.json else sys.stdout
    asked = not args.yes and sys.stdin.isatty() and not isinstance(words, ClosedStream)

    def agree() -> Grant:
        if asked:
            return Grant.ask(**terms, stdout=words)
        grant = Grant.give(**terms, given_via="unattended")
        print(grant.describe(), file=words)
        return grant

    if old is not None:
        recorded = exchange(settings, folder, old, Grant.give(**terms), agree, required_policy)
    else:
        grant = agree()
        recorded = Recorded(grant, grant.save(folder))
        if controls_of(folder).asked:  # of a grant that is lost
            control(settings, "answered", {})
    if args.json:
        print_json(
            {
                **asdict(recorded.grant),
                "digest": recorded.grant.digest,
                "policy_digest": recorded.grant.policy_digest,
                "file": str(recorded.path),
                "running": recorded.running,
                "deleted_batches": recorded.batches,
            }
        )
    else:
        print("\n" + tr("Recorded in {path}").format(path=recorded.path))
        for line in _effects(old, recorded, tr):
            print(line)
    if not asked:
        say(tr("Nobody was asked on this device: the grant is recorded as unattended."))
    return 0


def _effects(old: Grant | None, recorded: Recorded, tr: Words) -> Iterator[str]:
    if recorded.batches:
        deleted = tr("Deleted, since it is not covered any more: {batches} on this device.")
        yield deleted.format(batches=in_batches(recorded.batches, tr))
    if recorded.asked:
        yield tr("The receiver is asked to delete what it has of that.")
    if recorded.running and old is not None:
        yield tr("The agent that runs goes on with it.")
        more = [scope for scope in recorded.grant.scopes if not old.covers(scope)]
        if more:
            yield tr("It captures {scopes} from its next start on.").format(scopes=", ".join(more))


def _policy_of(settings: Settings, required_policy: str | None) -> str | None:
    policy = read_policy(settings.grant.policy)
    if policy is not None and required_policy is not None and policy.strip() != required_policy.strip():
        raise ConfigError(
            f"The policy {settings.grant.policy} is not the one that is required ({settings.consent.policy_file})",
            "Leave out --policy, or mend policy_file in [consent].",
        )
    return policy or required_policy


def read_policy(path: Path | None) -> str | None:
    """The text of a policy; None without a file. Raises `ConfigError`."""
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


def _check_no_other_grant(folder: Path) -> None:
    """Raises `GrantError` when an agent runs under a grant that is not here: it would go on with that one."""
    from mcilib.cli._standing import look

    if (folder / "spool").is_dir() and look(folder).has_grant_elsewhere:
        raise GrantError(
            "The agent that runs keeps to another grant, which is not in this folder",
            "End the agent first, or withdraw from what it collects: `mcilib withdraw`.",
        )


def _earlier(folder: Path) -> Grant | None:
    """The grant that this one replaces; None when there is none, it cannot be read, or it was withdrawn."""
    from mcilib.consent import Grant

    if not (folder / "grant.json").exists():
        return None
    try:
        grant = Grant.load(folder)
    except GrantError as error:
        say(f"mcilib: {error.problem}. It is replaced, with a new pseudonym.")
        return None
    return None if withdrawn(folder, grant) else grant
