"""`mcilib export`: reads a store back as JSON lines or Parquet."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._output import count, say
from mcilib.cli._streams import ClosedStream
from mcilib.errors import BatchFormatError, ConfigError, StoreError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "export",
        help="read a store (or a spool) back as JSON lines or Parquet",
        description="""\
Writes every event of the batches in STORE, which is a receiver's store, the spool of a state folder, or one
batch: one JSON object per line on stdout, or a Parquet file. Order: device, boot, monotonic time. A summary
and each damaged file go to stderr; what is damaged does not keep the rest from being exported.

Fields: t_ns (wall clock), kind (move press release scroll key_press key_release gap), x y, button,
dx dy count, key, duration_ns source (gap), device, batch, seq (of the batch per device), i (row in it).""",
        epilog="""\
example:
  mcilib export store/ --format jsonl | head
  mcilib export store/ --format parquet -o events.parquet

exit codes: 0 all was exported; 2 a flag is wrong; 6 the store cannot be read, or the output not written;
7 something was damaged, the rest was exported""",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of batches, or one batch")
    parser.add_argument(
        "--format",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="default jsonl; parquet needs 'mcilib[arrow]'",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT",
        help="file to write, for its owner only; it appears when all is written "
        "(default stdout for jsonl; parquet needs it)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="the summary as JSON: on stdout with -o, else on stderr"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.reader import Reader, write_jsonl, write_parquet
    from mcilib.reader.export import appearing

    if args.format == "parquet" and args.output is None:
        raise ConfigError("Parquet is not for a terminal or a pipe", "Name a file with -o.")

    def damaged(path: Path, error: BatchFormatError) -> None:
        say(f"mcilib: {path} is left out: {error.reason} (at byte {error.offset})")

    if args.output is None and isinstance(sys.stdout, ClosedStream):
        raise StoreError("There is no stdout to write to, it is closed", "Open it, or name a file with -o.")
    reader = Reader(args.store, on_damaged=damaged)
    if args.format == "parquet":
        exported = write_parquet(reader, args.output)
    elif args.output is not None:
        with appearing(args.output) as path, path.open("w", encoding="ascii", newline="\n") as file:
            exported = write_jsonl(reader, file)
    else:
        exported = write_jsonl(reader, sys.stdout)
        sys.stdout.flush()
    if args.json:
        summary = {
            "rows": exported.rows,
            "counts": dict(exported.counts),
            "batches": len(exported.batches),
            "damaged": [{"file": str(p), "reason": e.reason, "offset": e.offset} for p, e in reader.damaged],
        }
        print(json.dumps(summary), file=sys.stdout if args.output is not None else sys.stderr)
    else:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in exported.counts.items())
        text = f"Exported {count(exported.rows, 'row')} from {count(len(exported.batches), 'batch')}"
        say(f"{text}{f' ({kinds})' if kinds else ''}.")
    if reader.damaged:
        left_out = count(len(reader.damaged), "damaged file")
        say(f"mcilib: {left_out} left out, the rest was exported. Keep them to report them.")
        return BatchFormatError.exit_code
    return 0
