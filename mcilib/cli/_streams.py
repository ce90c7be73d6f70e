"""stdin, stdout and stderr as every command can rely on them: they are there and can show any text."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


class ClosedStream(io.TextIOWrapper):
    """In place of a stream that was closed when the process began: empty, takes everything, keeps nothing."""


def prepare() -> None:
    """What an encoding cannot show is escaped; a closed stream is the null device.

    The null device gets the stream's own number (the lowest that is free), so that no file of ours gets it.
    """
    for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            file = open(number, mode, closefd=False)  # noqa: SIM115  (as long as the process)
            setattr(sys, name, ClosedStream(file, "utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # a test or a host may have put another there
            stream.reconfigure(errors="backslashreplace")


def settle(stream: TextIO) -> None:
    """Writes what is buffered. What cannot be written is dropped: else the interpreter would try again at its
    end, complain, and change the exit code."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
