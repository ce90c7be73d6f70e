"""`mcilib batch`: looks into batch files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcilib.cli._output import count, one_line, print_json, say, size
from mcilib.cli._parser import Parser
from mcilib.errors import BatchFormatError, SealError, StoreError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers
    from mcilib.reader.files import Entry

ROWS = 10
"""That `show` prints of each batch: a look at what is there; `mcilib export` gives all."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "batch",
        help="look into batch files: what is in one, which are in a folder",
        description="Looks into batch files (.mcib), as they lie in a spool or a store. Changes nothing.",
        epilog="""\
example:
  mcilib batch list store/
  mcilib batch show store/batches/2026-01-31/DEVICE/0000000000000001-ID.mcib

`mcilib batch show --help` says more.

exit codes: 0 done; 2 a flag is wrong; 6 it cannot be read; 7 something is damaged or no batch;
8 (show) something is sealed and no identity opens it""",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser, help="what to do:"
    )
    for command in (_add_show(commands), _add_list(commands)):
        command.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an unexpected error",
        )


def _add_show(commands: Subparsers) -> Parser:
    parser = commands.add_parser(
        "show",
        help="header, coverage, first rows and bytes by column of a batch file",
        description="""\
Shows what is in a batch file, for each batch in it:

  header    in clear, also where the rest is sealed: whose batch, its number, its grant, sealed to which keys
  about     clocks, backends, tick, what wrote it, the plan in force and why
  coverage  how many events were seen, kept, folded into others, excluded and lost
  rows      the first ones; times in seconds from the first
  columns   what each takes, uncompressed and compressed: where the bytes go

A sealed batch needs --identity with a secret key of age, as `mcilib keygen` writes it; without, its header
is shown. Where a file is damaged, or is no batch file, stderr says what is wrong and at which byte of the
file; the batches that are sound are shown.""",
        epilog="""\
example:
  mcilib batch show 0000000000000001-ID.mcib
  mcilib batch show sealed.mcib --identity operator.key --rows 100
  mcilib batch show 0000000000000001-ID.mcib --json

exit codes: 0 all was shown; 2 a flag is wrong; 6 the file cannot be read; 7 something is damaged or no batch;
8 something is sealed and no identity opens it (its header is shown), or the identity file cannot be used""",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a batch file")
    parser.add_argument(
        "--identity", type=Path, action="append", default=[], metavar="FILE",
        help="file of age secret keys that open sealed batches; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--rows",
        type=_row_count,
        default=ROWS,
        metavar="N",
        help=f"rows to show of each batch (default {ROWS})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=show)
    return parser


def _add_list(commands: Subparsers) -> Parser:
    parser = commands.add_parser(
        "list",
        help="the batches in a folder, by their headers",
        description="""\
Lists the batches in FOLDER at any depth, in order of device and number: a line each with number, batch id,
size, whether it is sealed, and its file. Only headers are read, so this needs no key. A number that is
missing is a batch that is not here.""",
        epilog="""\
example:
  mcilib batch list store/
  mcilib batch list study/spool --json

exit codes: 0 listed; 2 a flag is wrong; 6 the folder cannot be read; 7 something is damaged (said on stderr)""",
    )
    parser.add_argument("store", type=Path, metavar="FOLDER", help="a store, a spool, or a batch file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=list_)
    return parser


def show(args: argparse.Namespace) -> int:
    from mcilib.cli._anatomy import describe, lines
    from mcilib.cli._keys import read_identities
    from mcilib.reader.files import check_root, frames

    check_root(args.file)
    if args.file.is_dir():
        raise StoreError(
            f"{args.file} is a folder", f"Name a file; `mcilib batch list {args.file}` lists them."
        )
    identities = read_identities(args.identity)
    shown: list[dict[str, Any]] = []
    damaged: list[BatchFormatError] = []
    sealed: list[SealError] = []
    for at, frame in frames(args.file, lambda _, error: damaged.append(error)):
        try:
            found: dict[str, Any] = {"offset": at, **describe(frame, identities, args.rows)}
        except BatchFormatError as wrong:
            damaged.append(BatchFormatError(wrong.reason, at + wrong.offset))
            continue
        if (error := found.get("error")) is not None and error["kind"] == "damaged":
            error["offset"] += at
            damaged.append(BatchFormatError(error["reason"], error["offset"]))
        elif error is not None:
            sealed.append(SealError(error["reason"], error["next_step"]))
        shown.append(found)
        if not args.json:
            if len(shown) > 1 or at:
                print(f"\n--- at byte {at:,} of the file ---\n")
            for line in lines(found):
                print(line)
    if args.json:
        where = [{"reason": wrong.reason, "offset": wrong.offset} for wrong in damaged]
        print_json({"file": str(args.file), "frames": shown, "damaged": where})
    _say_damaged([(args.file, wrong) for wrong in damaged])
    if damaged:
        return BatchFormatError.exit_code
    if sealed:
        say(f"mcilib: {args.file}: {sealed[0]}")
        return SealError.exit_code
    return 0


def list_(args: argparse.Namespace) -> int:
    from mcilib.reader import Reader

    reader = Reader(args.store)
    entries = reader.index()
    if args.json:
        print_json([_as_json(entry) for entry in entries])
    else:
        for device, of_device in groupby(entries, key=lambda entry: entry.device):
            _print_device(device, of_device)
        devices = len({entry.device for entry in entries})
        total = size(sum(entry.size for entry in entries))
        say(f"{count(len(entries), 'batch')} of {count(devices, 'device')}, {total}.")
    _say_damaged(reader.damaged)
    return BatchFormatError.exit_code if reader.damaged else 0


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "device": entry.device, "sequence": entry.sequence, "batch": entry.batch_id,
        "participant": entry.participant, "sealed": entry.sealed, "bytes": entry.size,
        "file": entry.file, "offset": entry.at,
    }  # fmt: skip


def _print_device(device: str, entries: Iterator[Entry]) -> None:
    from mcilib.cli._anatomy import aligned

    print(f"device {device}")
    rows = [("number", "batch", "bytes", "sealed", "file")]
    for entry in entries:
        place = entry.file + (f" at byte {entry.at:,}" if entry.at else "")
        sealed = "yes" if entry.sealed else "no"
        rows.append((f"{entry.sequence:,}", entry.batch_id, f"{entry.size:,}", sealed, one_line(place)))
    for line in aligned(rows, right=(0, 2)):
        print(line)


def _say_damaged(damaged: list[tuple[Path, BatchFormatError]]) -> None:
    for path, error in damaged:
        say(f"mcilib: {path}: {error.reason} (at byte {error.offset})")


def _row_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a number of rows, 0 or more, not {text!r}")
    return int(text)
