"""The command line: one module for each command, put together in `_program`.

A command is a module with `add_parser(subparsers)`, which adds its parser and sets `run=` to a function that
takes the parsed arguments and returns the exit code. At its top such a module imports only the standard
library, `mcilib.cli`, `mcilib.config`, `mcilib.errors` and `mcilib.language`, so that `mcilib --help` loads nothing
heavy; the rest is imported in the function. The environment is read here and nowhere else in the library.

This module imports nothing at its top: Ctrl-C in the first moments is quiet too.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes 8 ms to import

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""Exit code, as a shell gives it for Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command in a process of its own, whose signals and streams it takes; returns the exit code."""
    try:
        import os
        import signal

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # nothing is at stake yet
    except (KeyboardInterrupt, RuntimeError):  # the second is the first in the middle of an import of `enum`
        return INTERRUPTED
    from mcilib.cli._program import run

    return run(argv)
