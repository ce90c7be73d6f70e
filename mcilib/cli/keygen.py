"""`mcilib keygen`: makes a key that opens sealed batches."""

from __future__ import annotations

import argparse
import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._output import print_json, say
from mcilib.errors import StoreError

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "keygen",
        help="make a key: the secret one into a file, the public one on stdout",
        description="""\
Makes a key of age (X25519). The secret one, the identity, goes into FILE, which only you can read; it opens
what is sealed to the public one, the recipient, which is printed. A file that is there is never replaced.
What is sealed to a key that is lost stays closed: keep a copy of FILE in a safe place, not on the device.

Needs the extra: pip install 'mcilib[seal]'""",
        epilog="""\
example:
  mcilib keygen -o operator.key >> recipients.txt

exit codes: 0 made; 2 a flag is wrong; 6 the file is there already or cannot be written; 8 pyrage is missing""",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", required=True, help="file to make, for its owner only"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the public key, its key id and FILE as JSON"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from mcilib.format.seal import generate, key_id

    identity, recipient = generate()
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _write(args.output, f"# created: {made}\n# public key: {recipient}\n{identity}\n")
    if args.json:
        print_json({"recipient": recipient, "key_id": key_id(recipient), "file": str(args.output)})
    else:
        print(recipient, flush=True)
        say(f"The secret key is in {args.output}; key id {key_id(recipient)}.")
    return 0


def _write(path: Path, text: str) -> None:
    """A new file, whole or not at all, that only its owner can read."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        with os.fdopen(number, "w", encoding="ascii", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(number)  # data may be sealed to it before the machine loses its power
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written ({error.strerror})",
        "Name another file: one that is there may hold the only key to somebody's data.",
    )
