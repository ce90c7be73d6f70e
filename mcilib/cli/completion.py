"""`mcilib completion`: completion scripts for shells."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mcilib import config
from mcilib.consent import SCOPES
from mcilib.consent.exemption import REASON_CLASSES

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers

SHELLS = ("bash", "zsh", "tcsh")

_PATHS = ("config", "output", "store", "identity", "file")
"""Names of files and folders that are in no configuration file."""

_NAMES = {"scopes": tuple(SCOPES), "reason": REASON_CLASSES}
"""What flags take that are in no configuration file."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="print a script that completes commands and flags in your shell",
        description="Prints a completion script for the shell.",
        epilog="""\
example:
  mkdir -p ~/.local/share/bash-completion/completions
  mcilib completion bash > ~/.local/share/bash-completion/completions/mcilib
  mcilib completion zsh > ~/.zfunc/_mcilib
  mcilib completion tcsh >> ~/.tcshrc

exit codes: 0 done; 2 a flag is wrong""",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import shtab

    from mcilib.cli._program import make_parser

    parser = make_parser()
    _name_files(parser)
    print(shtab.complete(parser, args.shell, root_prefix="mcilib"))
    return 0


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Tells shtab which values are files or folders."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_files(command)
            continue
        option = config.OPTIONS.get(action.dest)
        if (option is not None and option.kind == "path") or action.dest in _PATHS:
            folder = action.dest in ("agent.state", "store")
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
        elif option is not None and option.kind in ("choice", "names"):
            action.choices = option.choices
        elif action.dest in _NAMES:
            action.choices = _NAMES[action.dest]
