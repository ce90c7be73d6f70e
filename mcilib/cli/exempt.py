"""`mcilib exempt`: a part that is never captured, asked for and decided."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mcilib import limits
from mcilib.cli._control import NO_AGENT, control, controls_of, iso_time
from mcilib.cli._language import words_here
from mcilib.cli._output import one_line, print_json
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.config import parse_duration
from mcilib.consent.exemption import REASON_CLASSES, ends_words
from mcilib.errors import ConfigError
from mcilib.language import Words, marked, moment

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.consent import Exemption, ExemptScope

STATE_WORDS = {
    "pending": marked("asked for, not decided yet: not captured"),
    "approved": marked("approved: not captured"),
    "denied": marked("denied: captured"),
    "expired": marked("over: captured"),
    "withdrawn": marked("taken back by you: captured"),
}


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "exempt",
        help="ask that a part is never captured; it is off from now on",
        description=f"""\
Asks the operator that a part is never captured: kinds of events, programs, hours of the week, or
everything. From now on it is not captured, while the request waits for an answer too. The request goes
with the next upload, the answer comes back with a later one and is shown; when it is denied, that part is
captured again.

While programs are exempt, nothing is captured as long as one of them has the focus, or nobody knows which
has.

Reasons, as far as the operator needs to know: {", ".join(REASON_CLASSES)}
(representation: work of a works council or a union).""",
        epilog="""\
example:
  mcilib exempt --app 'keepass*' --reason confidential
  mcilib exempt --hours 'mon-fri 12:00-13:00' --reason personal --until 2026-12-31
  mcilib exempt --scope keys,titles --reason medical --note 'until my wrist is well' --until 30d
  mcilib exempt --list
  mcilib exempt --withdraw 1f0c

exit codes: 0 done; 2 a flag is wrong, or there is no such exemption; 3 there is no grant; 6 it could not
be recorded, or (--list) cannot be read; 9 the agent cannot be asked""",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--scope",
        dest="scopes",
        metavar="SCOPES",
        help="kinds of events: some of pointer, keys, apps, titles",
    )
    what.add_argument(
        "--app", dest="apps", action="append", metavar="NAME",
        help="a program, as `mcilib inspect` names it; * and ? stand for others; may be given several times",
    )  # fmt: skip
    what.add_argument(
        "--hours", action="append", metavar="HOURS",
        help="hours of the week, in local time, such as 'mon-fri 12:00-13:00'; may be given several times",
    )  # fmt: skip
    what.add_argument("--everything", action="store_true", help="everything that the grant covers")
    what.add_argument(
        "--list", action="store_true", help="show all that were asked for, and what became of them"
    )
    what.add_argument("--withdraw", metavar="ID", help="take one back, by its id or the beginning of it")
    parser.add_argument(
        "--reason", metavar="CLASS", help="one of the reasons above; must be given with a request"
    )
    parser.add_argument("--note", metavar="TEXT", help="in your words, for the operator (default none)")
    parser.add_argument(
        "--until", dest="until_ns", type=_until, metavar="WHEN",
        help="when it ends: 8h, 7d, 2026-12-31 (that day included), 2026-12-31T18:00 (default: when you withdraw it)",
    )  # fmt: skip
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.list or args.withdraw is not None:
        for flag in ("reason", "note", "until_ns"):
            if getattr(args, flag) is not None:
                name = flag.removesuffix("_ns")
                raise ConfigError(f"--{name} belongs to a request", f"Leave out --{name}.")
        return _list(args) if args.list else _withdraw(args)
    scope = _scope(args)
    if args.reason not in REASON_CLASSES:
        given = f"{args.reason!r} is no reason" if args.reason else "--reason is missing"
        raise ConfigError(given, f"Give --reason with one of {', '.join(REASON_CLASSES)}.")
    arguments = {
        "scope": scope.to_json(), "reason_class": args.reason, "note": args.note or "", "until_ns": args.until_ns,
    }  # fmt: skip
    answer = control(settings_of(args), "exempt", arguments)
    exemption = _of(answer.values)
    if args.json:
        print_json({"exemption": as_json(exemption), "running": answer.running})
        return 0
    tr = words_here()
    scope_words, ends = one_line(exemption.scope.words_in(tr)), ends_words(exemption, tr)
    print(tr("Not captured from now on: {scope}, {ends}.").format(scope=scope_words, ends=ends))
    text = tr("Asked of the operator, as {id}. `mcilib exempt --list` shows the answer.")
    print(text.format(id=exemption.exemption_id[:8]))
    if not answer.running:
        print(tr(NO_AGENT))
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    answer = control(settings_of(args), "unexempt", {"exemption": args.withdraw})
    exemption = _of(answer.values)
    if args.json:
        print_json({"exemption": as_json(exemption), "running": answer.running})
    else:
        tr = words_here()
        text = tr(
            "Withdrawn: {scope}. It is captured again, unless the grant or something else keeps it off."
        )
        print(text.format(scope=one_line(exemption.scope.words_in(tr))))
    return 0


def _list(args: argparse.Namespace) -> int:
    state = controls_of(state_dir(settings_of(args)))
    found = [exemption.at(time.time_ns()) for exemption in state.exemptions]
    if args.json:
        print_json({"exemptions": [as_json(exemption) for exemption in found]})
        return 0
    tr = words_here()
    for exemption in found:
        for line in lines_of(exemption, tr):
            print(line)
    if not found:
        print(tr("You have not asked for any exemption."))
    return 0


def lines_of(exemption: Exemption, tr: Words) -> list[str]:
    """One exemption in a person's words."""
    scope, ends = one_line(exemption.scope.words_in(tr)), ends_words(exemption, tr)
    asked = tr("asked for on {moment}, reason: {reason}")
    more = [asked.format(moment=moment(exemption.requested_ns), reason=exemption.reason_class)]
    if exemption.note:
        more.append(tr("you wrote: {note}").format(note=one_line(exemption.note)))
    if exemption.decided_ns is not None:
        more.append(tr("decided on {moment}").format(moment=moment(exemption.decided_ns)))
    if exemption.answer:
        more.append(tr("the operator writes: {answer}").format(answer=one_line(exemption.answer)))
    first = f"{exemption.exemption_id[:8]}  {scope}, {ends}: {tr(STATE_WORDS[exemption.state.value])}"
    return [first, *(f"          {line}" for line in more)]


def as_json(exemption: Exemption) -> dict[str, Any]:
    """As it is stored, with its times readable too."""
    names = ("requested", "until", "decided")
    times = {name: getattr(exemption, f"{name}_ns") for name in names}
    return {**exemption.to_json(), **{n: None if t is None else iso_time(t) for n, t in times.items()}}


def _of(values: Any) -> Exemption:
    from mcilib.consent import Exemption

    return Exemption.from_json(values["exemption"])


def _scope(args: argparse.Namespace) -> ExemptScope:
    from mcilib.consent import ExemptScope

    scopes = tuple(name.strip() for name in args.scopes.split(",")) if args.scopes is not None else ()
    return ExemptScope(
        scopes=tuple(dict.fromkeys(scopes)),
        apps=tuple(dict.fromkeys(args.apps or ())),
        hours=tuple(dict.fromkeys(args.hours or ())),
        everything=args.everything,
    )


def _until(text: str) -> int:
    """Unix time in ns of a duration from now, a day's end or a moment, in local time."""
    must = "must be such as 8h, 7d, 2026-12-31 or 2026-12-31T18:00, in the future, not"
    now_ns = time.time_ns()
    seconds = parse_duration(text)
    if seconds is None:
        try:
            then = datetime.fromisoformat(text)
            if not re.search("[T :]", text):
                then += timedelta(days=1)  # that day is meant too
            until_ns = int(then.timestamp()) * 10**9
        except (ValueError, OverflowError, OSError):
            raise argparse.ArgumentTypeError(f"{must} {text!r}") from None
    else:
        until_ns = now_ns + int(seconds * 1e9)
    if not now_ns < until_ns <= now_ns + int(limits.EXEMPTION_CAP_S * 1e9):
        raise argparse.ArgumentTypeError(f"{must} {text!r}")
    return until_ns
