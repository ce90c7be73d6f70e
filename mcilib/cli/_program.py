"""All commands as one program. Here every error becomes one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

import mcilib
from mcilib.cli import INTERRUPTED, _streams
from mcilib.cli._output import one_line
from mcilib.cli._parser import Parser
from mcilib.errors import McilibError, StoreError

COMMANDS = (
    "grant",
    "run",
    "status",
    "pause",
    "resume",
    "exempt",
    "forget",
    "hold",
    "inspect",
    "flush",
    "withdraw",
    "audit",
    "receive",
    "exemptions",
    "export",
    "batch",
    "keygen",
    "doctor",
    "config",
    "completion",
    "demo",
)
"""In the order in which a newcomer meets them."""

EXIT_CODES = """\
exit codes:
  0    done
  1    `doctor` found something that does not work, or an unexpected error
  2    a flag or the configuration file is wrong
  3    there is no grant, it cannot be read or recorded, it has expired, or it does not cover this
  4    the display or a source cannot be used
  5    the endpoint cannot be used, or (run --drain) something still waits
  6    the spool or the store cannot be used, or the output cannot be written
  7    something was damaged or differs; the rest was read
  8    the keys to seal with cannot be used, or no identity opens something that is sealed
  9    the running agent cannot be asked, or (flush) none runs
  130  interrupted before it was done
  141  the program or terminal that reads the output has gone"""

_READER_GONE = 141

# Errors of the files that we read and write have become a McilibError by the time they get here: these are
# the output's. EIO is a terminal that was closed.
_GONE = (errno.EPIPE, errno.EIO)
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="mcilib",
        description="Collects keyboard and pointer events from people who agreed to it, and delivers them.",
        epilog=f"""\
example:
  mcilib grant --operator "Example Lab" --purpose "a study" --scope pointer,keys
  mcilib receive store/ &
  mcilib run --endpoint http://127.0.0.1:8750 --for 30s
  mcilib export store/ --format jsonl

`mcilib COMMAND --help` says more. MCILIB_STATE names the state folder where --state is not given.

{EXIT_CODES}""",
    )
    parser.add_argument("--version", action="version", version=f"mcilib {mcilib.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name in COMMANDS:
        import_module(f"mcilib.cli.{name}").add_parser(subparsers)
    for command in subparsers.choices.values():
        command.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an unexpected error",
        )
    return parser


def run(argv: Sequence[str] | None = None) -> int:
    """Runs one command to its exit code. Afterwards signals are ignored: the process is about to end."""
    interrupt = _Interrupt()
    debug, code, message = False, INTERRUPTED, ""
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, interrupt)
        _streams.prepare()
        try:
            args = make_parser().parse_args(argv)
            debug = args.debug
            code = int(args.run(args))
        except SystemExit as end:  # of argparse: --help, --version, a wrong flag
            code = int(end.code or 0)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code, message = (INTERRUPTED, "") if interrupt.heard else _outcome(error, debug)
        if debug:
            traceback.print_exc()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _streams.settle(sys.stdout)
    with contextlib.suppress(OSError):
        if message:
            print(f"mcilib: {one_line(message)}", file=sys.stderr, flush=True)
    _streams.settle(sys.stderr)
    return code


class _Interrupt:
    """Ctrl-C as `KeyboardInterrupt`, and remembered: in the middle of an import that can become any error."""

    heard = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        raise KeyboardInterrupt


def _outcome(error: Exception, debug: bool) -> tuple[int, str]:
    """Exit code and message of an error."""
    if isinstance(error, McilibError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.errno in _GONE:
        return _READER_GONE, ""
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        what = f"The output cannot be written ({error.strerror})"
        return StoreError.exit_code, f"{what}. Make room, or send it to another place."
    hint = "" if debug else " Run it again with --debug to see where, and report it."
    return 1, f"Unexpected error: {type(error).__name__}: {error}.{hint}"
