"""Flags from the table of options, and one line for each mistake."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mcilib import config
from mcilib.cli._output import one_line, say
from mcilib.errors import ConfigError
from mcilib.files import read_file

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    Subparsers = argparse._SubParsersAction["Parser"]


TOKEN_FILE_MAX_BYTES = 16 * 1024
"""A token goes into one header of a request, and servers take no header this long."""


class Parser(argparse.ArgumentParser):
    """No abbreviated flags; a mistake is one line on stderr and exit code 2."""

    def __init__(self, **more: Any) -> None:
        more.setdefault("allow_abbrev", False)
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**more)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace(": must be ", " must be ", 1)
        say(f"mcilib: {one_line(message)}. See `{self.prog} --help`.")
        self.exit(2)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        (file or sys.stderr).write(message or "")  # argparse's own hides that it cannot be written


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Flags for these options ("section.key") of the table, and --config."""
    for name in names:
        option = config.OPTIONS[name]
        if option.flag is None:
            raise ValueError(f"{name} has no flag")
        parser.add_argument(
            option.flag,
            dest=name,
            type=_checked(option.accept_flag),
            metavar=option.metavar,
            help=f"{option.words.rstrip('.')} ({default_words(option)})".replace("%", "%%"),
        )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="file with options; flags win over it (see `mcilib config`)",
    )


def default_words(option: config.Option) -> str:
    """The default as a person reads it."""
    if option.default is None:
        return option.fallback
    if option.kind == "seconds":
        return f"default {config.as_duration(option.default)}"
    return f"default {option.default}"


def settings_of(args: argparse.Namespace) -> config.Settings:
    """Defaults, then the file, then the flags."""
    settings = config.load(args.config) if getattr(args, "config", None) is not None else config.Settings()
    flags = {
        name: value for name, value in vars(args).items() if name in config.OPTIONS and value is not None
    }
    return settings.override(flags)


def required(settings: config.Settings, name: str) -> Any:
    """The value of an option that must be given."""
    option = config.OPTIONS[name]
    value = getattr(getattr(settings, option.section), option.key)
    if value is None:
        raise ConfigError(
            f"{option.flag} is missing",
            f"{option.words} Give {option.flag}, or {option.key} in [{option.section}] of a --config file.",
        )
    return value


def duration(low_s: float, high_s: float) -> Callable[[str], float]:
    """A type for flags that are in no file, such as --for."""
    option = config.Option("duration", "", low=low_s, high=high_s)
    return _checked(option.accept_flag)


def state_dir(settings: config.Settings) -> Path:
    """--state, or `state` of the file, or MCILIB_STATE, or the platform's place for such things."""
    if settings.agent.state is not None:
        return settings.agent.state
    named = os.environ.get("MCILIB_STATE")
    return Path(named) if named else default_state_dir()


def default_state_dir() -> Path:
    try:
        return _platform_state_dir()
    except RuntimeError:  # no HOME, and a user whom the system does not know, as containers have
        raise ConfigError(
            "There is no home folder to keep the state in", "Name a folder with --state or MCILIB_STATE."
        ) from None


def _platform_state_dir() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "mcilib"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "mcilib"
    # A relative path there is to be ignored (XDG Base Directory Specification 0.8).
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "mcilib"


def read_token(path: Path) -> str:
    """The first line of a token file. Raises `ConfigError`; never shows what is in the file."""
    hint = "Write the token as its first line; only you should be able to read it."
    try:
        token = read_file(path, TOKEN_FILE_MAX_BYTES).partition(b"\n")[0].decode("ascii").strip()
    except OSError as error:
        raise ConfigError(f"The token file {path} cannot be read ({error.strerror})", hint) from None
    except UnicodeDecodeError:
        raise ConfigError(f"The token file {path} holds other characters than ASCII", hint) from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"The token file {path} has no token in its first line", hint)
    return token


def _checked(accept: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return accept(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
