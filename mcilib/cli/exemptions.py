"""`mcilib exemptions`: what participants ask not to be captured, and the operator's decision."""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._output import count, print_json, say
from mcilib.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.receiver.exemptions import Asked
    from mcilib.receiver.store import KeyedStore

ACTIONS = ("list", "approve", "deny")
STATES = ("pending", "approved", "denied", "expired", "withdrawn")


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "exemptions",
        help="operator: see and decide what participants ask not to be captured",
        description="""\
Lists the requests for exemptions in STORE, a receiver's folder or s3://BUCKET/PREFIX, or decides one. A
receiver may run beside it, on this or another machine; none is needed.

A participant asks that a part is never captured: kinds of events, programs, weekly hours, or everything.
From that moment on it is off on their device, and stays off while nobody decides:

  approve   it stays off, until the request ends or the participant takes it back
  deny      it is captured again, once their device has heard of it

ID is that of the request, or the beginning of it. A request is decided once. The device asks at each upload,
so within an hour as a rule, and shows the participant the decision with your note. Participants are
pseudonyms: their notes may tell who they are and why they ask, so show them to nobody who need not know.

states: pending (not decided), approved, denied, expired (it has ended), withdrawn (by the participant)""",
        epilog="""\
example:
  mcilib exemptions store/ list --only pending
  mcilib exemptions store/ approve 3f0c --note "Agreed with the works council."
  mcilib exemptions s3://bucket/batches deny 3f0c --note "Please close the program instead."

exit codes: 0 done; 2 a flag is wrong, there is no such request, or it cannot be decided (any more);
6 the store cannot be read or written""",
    )
    parser.add_argument("store", metavar="STORE", help="folder of a receiver's store, or s3://BUCKET/PREFIX")
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("exemption", metavar="ID", nargs="?", help="request to decide, as `list` shows it")
    parser.add_argument("--only", choices=STATES, help="list those in this state (default all)")
    parser.add_argument("--note", metavar="TEXT", help="words for the participant, with the decision")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    deciding = args.action != "list"
    if deciding and not args.exemption:
        raise ConfigError(f"{args.action} needs the ID of a request", "Take it from `list`.")
    for name, given, fits in (
        ("ID", args.exemption is not None, deciding),
        ("--note", args.note is not None, deciding),
        ("--only", args.only is not None, not deciding),
    ):
        if given and not fits:
            raise ConfigError(f"{name} is not for {args.action}", "See `mcilib exemptions --help`.")
    store = _open(args.store)
    if not deciding:
        _list(store, args.only, as_json=args.json)
        return 0
    asked = _decide(store, args.exemption, args.action, args.note or "")
    if args.json:
        print_json(asked.to_json())
    else:
        state = asked.exemption.state.value
        print(f"{asked.exemption.exemption_id} is {state}. Its device hears of it at its next upload.")
    return 0


def _open(name: str) -> KeyedStore:
    """Makes nothing where no store is."""
    from mcilib.receiver.folder import FolderStore
    from mcilib.receiver.object_store import ObjectStore

    def today() -> date:
        return datetime.now(UTC).date()

    if "://" in name:
        return ObjectStore(name, today=today)
    path = Path(name)
    if not (path / "batches").is_dir():
        raise StoreError(f"{path} is no store of a receiver", "Name the folder that `mcilib receive` has.")
    owner = path.stat().st_uid
    if hasattr(os, "geteuid") and os.geteuid() != owner:
        # What it would write, the receiver could not read.
        raise StoreError(
            f"{path} belongs to another user (number {owner})", "Run this as the user who runs the receiver."
        )
    return FolderStore(path, today=today)


def _list(store: KeyedStore, only: str | None, *, as_json: bool) -> None:
    now_ns = time.time_ns()
    found = [asked.at(now_ns) for asked in store.asked()]
    found = [asked for asked in found if only is None or asked.exemption.state.value == only]
    found.sort(key=lambda asked: asked.received_ns)
    if as_json:
        print_json({"exemptions": [asked.to_json() for asked in found]})
        return
    for asked in found:
        print(*_lines(asked), "", sep="\n")
    kind = f"{only} request" if only else "request"
    say(f"{count(len(found), kind)}." if found else f"No {kind}s for exemptions.")


def _lines(asked: Asked) -> list[str]:
    """For people. What comes from the device is plain text, checked when it came."""
    exemption = asked.exemption
    until = "the participant takes it back" if exemption.until_ns is None else _time(exemption.until_ns)
    rows = [
        ("participant", f"{asked.participant} on device {asked.device}"),
        ("what", exemption.scope.words),
        ("why", exemption.reason_class),
        ("note", exemption.note or "(none)"),
        ("asked", f"{_time(exemption.requested_ns)}, received {_time(asked.received_ns)}"),
        ("until", until),
    ]
    if exemption.decided_ns is not None:
        rows += [("decided", _time(exemption.decided_ns)), ("your note", exemption.answer or "(none)")]
    if asked.withdrawn_ns is not None:
        rows.append(("taken back", _time(asked.withdrawn_ns)))
    indent = "\n" + " " * 15
    return [
        f"{exemption.exemption_id}  {exemption.state.value}",
        *(f"  {label:<11}  {indent.join(text.splitlines())}" for label, text in rows),
    ]


def _time(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _decide(store: KeyedStore, beginning: str, action: str, note: str) -> Asked:
    from mcilib.consent.exemption import ExemptionState

    ids = [exemption_id for exemption_id in store.exemption_ids() if exemption_id.startswith(beginning)]
    if len(ids) > 1:
        raise ConfigError(f"{len(ids)} requests begin with {beginning!r}", "Give more of the ID.")
    decision = ExemptionState.APPROVED if action == "approve" else ExemptionState.DENIED
    decided = store.decide(ids[0], decision, note, time.time_ns()) if ids else None
    if decided is None or decided.asked is None:
        raise ConfigError(f"There is no request {beginning!r}", "`list` shows those that there are.")
    if decided.refused:
        raise ConfigError(f"{ids[0]} is not decided: {decided.refused}", "`list` shows how it stands.")
    return decided.asked
