"""What commands print: JSON or aligned lines on stdout, remarks on stderr. Never payload, never a token."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from mcilib.language import ENGLISH, Words
from mcilib.language import one_line as one_line


def print_json(value: Any) -> None:
    """One JSON document, in ASCII: the same in every encoding."""
    print(json.dumps(value, indent=1))


def say(text: str) -> None:
    """A remark, on stderr, seen at once. One that cannot be written ends nothing."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns padded to their widest cell; the last one runs free."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def count(number: int, noun: str) -> str:
    """`1 batch`, `2 batches`, `12,345 events`."""
    plural = noun + ("es" if noun.endswith(("ch", "s")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def in_batches(number: int, tr: Words) -> str:
    """`1 batch`, `2 batches`."""
    return tr.many("{n} batch", "{n} batches", number).format(n=tr.number(number))


def size(number: int, tr: Words = ENGLISH) -> str:
    """`812 bytes`, `4.1 KiB`, `52.0 MiB`."""
    if number < 1024:
        return tr.many("{n} byte", "{n} bytes", number).format(n=tr.number(number))
    kib = number / 1024
    return f"{tr.number(kib, '.1f')} KiB" if kib < 1024 else f"{tr.number(kib / 1024, ',.1f')} MiB"


def log_to_stderr(*, debug: bool, quiet: bool = False) -> None:
    """The library only logs; a command, as its host, shows what it says, a line each (none if `quiet`)."""

    class Line(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            text = super().format(record)
            return text if text.startswith("mcilib:") else f"mcilib: {text}"

        def formatException(self, ei: Any) -> str:
            return super().formatException(ei) if debug else ""

    handler: logging.Handler = logging.NullHandler() if quiet and not debug else logging.StreamHandler()
    handler.setFormatter(Line("%(message)s"))
    logger = logging.getLogger("mcilib")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    logger.propagate = False
