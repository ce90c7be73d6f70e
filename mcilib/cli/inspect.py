"""`mcilib inspect`: what was captured and waits on this device, before it goes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcilib.cli._control import ask_agent, grant_of, iso_time
from mcilib.cli._output import count, print_json, say, size
from mcilib.cli._parser import add_options, settings_of, state_dir
from mcilib.errors import BatchFormatError, SealError, StoreError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.consent.journal import Journaled
    from mcilib.format.batch import Batch
    from mcilib.reader.files import Entry


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "inspect",
        help="look at what was captured and waits on this device",
        description="""\
Lists the batches that wait on this device: id, when, how many events of which kind, bytes, whether it is
sealed. With the id of one, or the beginning of it, shows all its events in words. An agent that runs
commits what it has captured so far first, so that it can be seen. Apart from that nothing is changed.

Batches that are sealed open with a secret key that they are sealed to: yours, if the operator's agent
seals to it too. Name its file with --identity. Without it you see when, how large, and no more.""",
        epilog="""\
example:
  mcilib inspect
  mcilib inspect 1f0c
  mcilib inspect 1f0c --identity my.key

exit codes: 0 shown; 2 a flag is wrong; 3 there is no grant; 6 it cannot be read, or no such batch waits;
7 a batch is damaged; 8 it is sealed and no identity opens it, or the identity file cannot be used;
9 the agent cannot be asked""",
    )
    parser.add_argument(
        "batch", nargs="?", metavar="BATCH-ID", help="show this one: its id, or the beginning of it"
    )
    parser.add_argument(
        "--identity", type=Path, action="append", default=[], metavar="FILE",
        help="file of age secret keys that open sealed batches; may be given several times",
    )  # fmt: skip
    add_options(parser, "agent.state")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Found:
    """A batch that waits, and what can be seen of it."""

    entry: Entry
    batch: Batch | None = None
    problem: SealError | BatchFormatError | None = None
    times: tuple[int, int] | None = None
    """Wall time of the first and of the last event, ns; of one that cannot be opened by the journal, if that knows."""


def run(args: argparse.Namespace) -> int:
    from mcilib.cli._keys import read_identities
    from mcilib.consent.journal import JOURNAL_FILE, BatchJournal

    folder = state_dir(settings_of(args))
    identities = read_identities(args.identity)
    answer = ask_agent(folder, "inspect", {})
    if answer is None:
        grant_of(folder)
    elif not answer["committed"]:
        say("mcilib: What was captured last could not be written yet and is not shown.")
    entries, damaged = _entries(folder)
    known = BatchJournal(folder / JOURNAL_FILE).known()
    if args.batch is not None:
        return _show(_named(entries, args.batch), identities, known, as_json=args.json)
    found = [_open(entry, identities, known) for entry in entries]
    if args.json:
        print_json({"batches": [_as_json(one) for one in found], "running": answer is not None})
    else:
        _print_list(found)
    return _code([*damaged, *(one.problem for one in found)], sealed_is_fine=True)


def _entries(folder: Path) -> tuple[list[Entry], list[BatchFormatError]]:
    """What waits, in order, and what of it is no batch any more, which is said."""
    from mcilib.reader import Reader

    ready = folder / "spool" / "ready"
    if not ready.is_dir():
        return [], []
    reader = Reader(ready)
    entries = reader.index()
    for path, error in reader.damaged:
        say(f"mcilib: {path}: {error.reason} (at byte {error.offset})")
    return entries, [error for _, error in reader.damaged]


def _named(entries: Sequence[Entry], name: str) -> Entry:
    found = [entry for entry in entries if name and entry.batch_id.startswith(name)]
    if len(found) != 1:
        none = "No batch that waits here has" if not found else f"{count(len(found), 'batch')} have"
        raise StoreError(
            f"{none} the id {name!r}", "`mcilib inspect` lists them; a batch that was delivered has gone."
        )
    return found[0]


def _open(entry: Entry, identities: Sequence[str], known: Mapping[str, Journaled]) -> Found:
    from mcilib.format.batch import decode
    from mcilib.reader.files import load

    try:
        batch = decode(load(entry), identities)
    except (SealError, BatchFormatError) as error:
        noted = known.get(entry.batch_id)
        times = None if noted is None else (noted.wall_began_ms * 10**6, noted.wall_ended_ms * 10**6)
        return Found(entry, problem=error, times=times)
    return Found(entry, batch, times=_times(batch))


def _kinds(batch: Batch) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for event in batch.events:
        kinds[event.kind] = kinds.get(event.kind, 0) + 1
    return kinds


def _times(batch: Batch) -> tuple[int, int]:
    """Wall time of the first and of the last event, ns."""
    anchor, events = batch.metadata.anchor, batch.events
    if not events:
        return anchor.wall_ns, anchor.wall_ns
    return anchor.to_wall_ns(events[0].t_ns), anchor.to_wall_ns(events[-1].t_ns)


def _print_list(found: Sequence[Found]) -> None:
    from mcilib.cli._anatomy import aligned
    from mcilib.cli._event_words import kinds_words

    rows = [("batch", "from", "to", "bytes", "sealed", "what")]
    for one in found:
        began, ended = ("?", "?") if one.times is None else (_clock(t) for t in one.times)
        if one.batch is not None:
            what = kinds_words(_kinds(one.batch))
        else:
            what = "needs a key that opens it" if isinstance(one.problem, SealError) else "damaged"
        sealed = "yes" if one.entry.sealed else "no"
        rows.append((one.entry.batch_id, began, ended, f"{one.entry.size:,}", sealed, what))
    if found:
        for line in aligned(rows, right=(3,)):
            print(line)
    total = size(sum(one.entry.size for one in found))
    say(
        f"{count(len(found), 'batch')} on this device, {total}."
        if found
        else "No batch waits on this device."
    )
    closed = [one for one in found if isinstance(one.problem, SealError)]
    if closed:
        say(
            f"{count(len(closed), 'batch')} sealed: only who has a key of those they are sealed to can look inside. "
            "If one of them is yours, name its file with --identity."
        )


def _show(entry: Entry, identities: Sequence[str], known: Mapping[str, Journaled], *, as_json: bool) -> int:
    from mcilib.cli._event_words import kinds_words, lines

    found = _open(entry, identities, known)
    if as_json:
        print_json(_as_json(found, events=True))
        return _code([found.problem])
    if isinstance(found.problem, SealError) and not identities:
        raise SealError(
            f"The batch {entry.batch_id} is sealed",
            "Name the file of your own key with --identity, if it is sealed to that too.",
        )
    batch = found.batch
    if batch is None:
        raise found.problem or BatchFormatError("it is not there any more")
    began, ended = _times(batch)
    print(f"Batch {entry.batch_id}, {size(entry.size)}, {'sealed' if entry.sealed else 'in clear'}")
    print(f"from {_clock(began)} to {_clock(ended)}: {kinds_words(_kinds(batch))}")
    not_collected_s = batch.metadata.coverage.not_collected_ns / 1e9
    if not_collected_s:
        print(f"before it nothing was collected for {not_collected_s:.1f} s")
    print()
    for t_ns, words in lines(batch.events):
        moment = datetime.fromtimestamp(batch.metadata.anchor.to_wall_ns(t_ns) / 1e9)  # noqa: DTZ006
        print(f"{moment.strftime('%H:%M:%S.%f')[:-3]}  {words}")
    return 0


def _as_json(found: Found, *, events: bool = False) -> dict[str, Any]:
    from mcilib.reader import Row
    from mcilib.reader.fields import record

    entry, batch = found.entry, found.batch
    told: dict[str, Any] = {
        "batch": entry.batch_id, "sequence": entry.sequence, "bytes": entry.size, "sealed": entry.sealed,
        "file": os.fspath(entry.file), "from": None, "to": None, "kinds": None,
        "problem": str(found.problem) if found.problem is not None else None,
    }  # fmt: skip
    if found.times is not None:
        told["from"], told["to"] = (iso_time(t) for t in found.times)
    if batch is not None:
        told["kinds"] = _kinds(batch)
        if events:
            told["events"] = [record(Row(event, batch, n)) for n, event in enumerate(batch.events)]
    return told


def _clock(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // 10**9).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006


def _code(problems: Sequence[SealError | BatchFormatError | None], *, sealed_is_fine: bool = False) -> int:
    if any(isinstance(problem, BatchFormatError) for problem in problems):
        return BatchFormatError.exit_code
    if not sealed_is_fine and any(isinstance(problem, SealError) for problem in problems):
        return SealError.exit_code
    return 0
