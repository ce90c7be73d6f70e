"""`mcilib run`: a visible agent. Says who collects what, collects until told to end, says what came of it."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from mcilib.cli import INTERRUPTED
from mcilib.cli._output import log_to_stderr
from mcilib.cli._parser import add_options, duration, settings_of, state_dir
from mcilib.errors import ConfigError, GrantError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.cli._stop import StopSignal


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "run",
        help="collect, visibly, until told to end; or upload what waits (--drain)",
        description="""\
Collects what the grant covers and uploads it. Says at the start who collects what, where it goes and how
to stop it. Ctrl-C or SIGTERM end it within 2 seconds with everything captured on disk; what is not
uploaded yet waits in the state folder.

An endpoint that is down or does not answer is a warning: capture goes on, nothing is lost. One that can
never work ends it at once: a wrong certificate, a server that is no receiver, plain HTTP to another
machine.

On battery, in power saver, on a metered network or when it is hot it does less: section [adapt] of the
file says when, `mcilib status` what is in force and why.

With --recipients each batch is sealed to the keys in FILE before it touches the disk. FILE is read again
for each, so keys can be changed meanwhile. While it cannot be used nothing is written: batches wait in
memory.

`mcilib pause`, `exempt`, `forget`, `withdraw` and the rest act on it while it runs; it prints a line at
each. After a withdrawal it asks the receiver once to delete all, and ends with 0. Without a new grant it
captures nothing in that folder any more: it asks again, and ends with 0 when the receiver has confirmed,
else with 3.""",
        epilog="""\
example:
  mcilib run --endpoint https://collect.example.org --token-file token
  mcilib run --endpoint http://127.0.0.1:8750 --sources pointer --for 30s
  mcilib run --endpoint https://collect.example.org --token-file token --recipients recipients.txt
  mcilib run --endpoint file:///media/stick/mcilib --drain

exit codes: 0 ended as asked; 2 a flag or the file is wrong; 3 no valid grant for this, the policy has
changed, or a deletion is not confirmed yet; 4 no usable display, or nothing on which to tell the
participant; 5 the endpoint cannot be used, or (--drain) something still waits; 6 the spool cannot be
used; 8 the recipients cannot be used""",
    )
    add_options(
        parser,
        "agent.state",
        "upload.endpoint",
        "agent.sources",
        "agent.key_detail",
        "agent.window_detail",
        "batch.max_age_s",
        "seal.recipients_file",
        "upload.interval_s",
        "upload.token_file",
        "upload.ca_file",
        "upload.client_cert",
        "upload.client_key",
        "upload.proxy",
        "upload.hold_s",
        "adapt.quiet_hours",
        "adapt.metered_bytes_per_hour",
        "consent.pause_cap_s",
    )
    parser.add_argument(
        "--for", dest="for_s", type=duration(1, 365 * 86_400), metavar="TIME",
        help="end by itself after this time (30s, 15m, 2h), after one more upload",
    )  # fmt: skip
    parser.add_argument(
        "--drain", action="store_true", help="capture nothing: upload all that waits, then end"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.cli._stop import StopSignal

    with StopSignal() as stop:
        return _run(args, stop)


def _run(args: argparse.Namespace, stop: StopSignal) -> int:
    from mcilib.cli._agent import Agent
    from mcilib.cli._control import no_grant_left
    from mcilib.cli._drain import drain, request_deletion, send_requests
    from mcilib.cli._endpoint import make_transport
    from mcilib.cli.grant import read_policy
    from mcilib.consent import Grant
    from mcilib.controls import check_policy

    settings = settings_of(args)
    folder = state_dir(settings)
    for flag, value in (("--for", args.for_s), ("--sources", vars(args)["agent.sources"])):
        if args.drain and value is not None:
            raise ConfigError(f"--drain captures nothing, so {flag} has no meaning", f"Leave out {flag}.")
    log_to_stderr(debug=args.debug, quiet=args.drain)  # --drain says the same itself, at its end
    transport = make_transport(settings)
    if no_grant_left(folder):
        return request_deletion(settings, folder, stop)
    grant = Grant.load(folder)
    policy = read_policy(settings.consent.policy_file)
    try:
        check_policy(grant, policy)
        if grant.expired(time.time_ns()):
            raise GrantError(
                f"The grant expired at {grant.expires_at}", "Nothing is collected or sent: `mcilib grant`."
            )
    except GrantError:
        send_requests(settings, folder, grant, stop)
        raise
    if stop.requested:
        return INTERRUPTED
    if args.drain:
        return drain(settings, folder, grant, stop)
    return Agent(settings, folder, grant, stop, policy).run(transport, args.for_s)
