"""`mcilib export`: reads a store back as JSON lines or Parquet."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mcilib.cli._output import count, say
from mcilib.cli._streams import ClosedStream
from mcilib.errors import BatchFormatError, ConfigError, SealError, StoreError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers

_NAMED = 3
"""Sealed files that the summary names; --json lists all."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "export",
        help="read a store (or a spool) back as JSON lines or Parquet",
        description="""\
Writes every event of the batches in STORE, which is a receiver's store, the spool of a state folder, or one
batch: one JSON object per line on stdout, or a Parquet file; or, as actions (motion, clicks, drags, scrolls,
key runs), what a person did with them. Order: device, sequence of the batch, row in it.
A summary and each damaged file go to stderr; what is damaged does not keep the rest from being exported.

Sealed batches need --identity with a secret key of age, as `mcilib keygen` writes it; what none of them opens
is counted and left out.

Fields: t_ns (wall clock), kind (move press release scroll key_press key_release gap display layout focus),
those of the kind (see docs/reference/cli.md), monotonic_ns, boot, participant, device, batch, seq (number of
the batch per device), i (row in it).""",
        epilog="""\
example:
  mcilib export store/ --format jsonl | head
  mcilib export store/ --format parquet -o events.parquet
  mcilib export store/ --identity operator.key -o events.jsonl

exit codes: 0 all was exported; 2 a flag is wrong; 6 the store cannot be read, or the output not written;
7 something was damaged, the rest was exported; 8 something is sealed and no identity opens it, the rest was
exported, or an identity file cannot be used""",
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of batches, or one batch")
    parser.add_argument(
        "--format",
        choices=("jsonl", "parquet", "trajectory"),
        default="jsonl",
        help="default jsonl; parquet needs 'mcilib[arrow]'; trajectory: what a person did, one action per line",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT",
        help="file to write, for its owner only; it appears when all is written "
        "(default stdout; parquet needs it)",
    )  # fmt: skip
    parser.add_argument(
        "--identity", type=Path, action="append", default=[], metavar="FILE",
        help="file of age secret keys that open sealed batches; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help="the summary as JSON: on stdout with -o, else on stderr"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.cli._keys import read_identities
    from mcilib.reader import Exported, Reader, write_jsonl, write_parquet, write_trajectory
    from mcilib.reader.export import appearing

    if args.format == "parquet" and args.output is None:
        raise ConfigError("Parquet is not for a terminal or a pipe", "Name a file with -o.")

    def damaged(path: Path, error: BatchFormatError) -> None:
        say(f"mcilib: {path} is left out: {error.reason} (at byte {error.offset})")

    if args.output is None and isinstance(sys.stdout, ClosedStream):
        raise StoreError("There is no stdout to write to, it is closed", "Open it, or name a file with -o.")
    reader = Reader(args.store, identities=read_identities(args.identity), on_damaged=damaged)

    def write(file: TextIO) -> Exported:
        if args.format == "jsonl":
            return write_jsonl(reader, file)
        counts = write_trajectory(reader, file)
        return Exported(sum(counts.values()), counts, frozenset(reader.batch_ids()))

    if args.format == "parquet":
        exported = write_parquet(reader, args.output)
    elif args.output is not None:
        with appearing(args.output) as path, path.open("w", encoding="ascii", newline="\n") as file:
            exported = write(file)
    else:
        exported = write(sys.stdout)
        sys.stdout.flush()
    if args.json:
        summary = {
            "rows": exported.rows,
            "counts": dict(exported.counts),
            "batches": len(exported.batches),
            "damaged": [{"file": str(p), "reason": e.reason, "offset": e.offset} for p, e in reader.damaged],
            "sealed": [{"file": str(p), "reason": e.problem} for p, e in reader.sealed],
        }
        print(json.dumps(summary), file=sys.stdout if args.output is not None else sys.stderr)
    else:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in exported.counts.items())
        what = "action" if args.format == "trajectory" else "row"
        text = f"Exported {count(exported.rows, what)} from {count(len(exported.batches), 'batch')}"
        say(f"{text}{f' ({kinds})' if kinds else ''}.")
    for line in _left_sealed(reader.sealed):
        say(line)
    if reader.damaged:
        left_out = count(len(reader.damaged), "damaged file")
        say(f"mcilib: {left_out} left out, the rest was exported. Keep them to report them.")
        return BatchFormatError.exit_code
    return SealError.exit_code if reader.sealed else 0


def _left_sealed(sealed: Iterable[tuple[Path, SealError]]) -> Iterator[str]:
    """A line for each reason, with the first few files: a store may hold ten thousand of the same."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for path, error in sealed:
        by_reason.setdefault((error.problem, error.next_step), []).append(str(path))
    for (problem, step), paths in by_reason.items():
        named = ", ".join(paths[:_NAMED]) + (
            f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
        )
        yield f"mcilib: {count(len(paths), 'batch')} left out ({named}). {problem}. {step}"
