"""Reads the file. Each mistake names the file and the line."""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mcilib.config.table import OPTIONS, SECTIONS, Settings
from mcilib.config.toml_lines import toml_lines
from mcilib.errors import ConfigError
from mcilib.files import read_file

CONFIG_MAX_BYTES = 1024 * 1024
"""A hundred times the example with every option."""

_HINT = "`mcilib config --example` shows a whole file."


def load(path: str | os.PathLike[str]) -> Settings:
    """Defaults, overridden by the file. Raises `ConfigError` that names the file and the line.

    Relative paths in the file are relative to the file; `~` is the home folder.
    """
    try:
        return Settings().override(_read(Path(path)))
    except RecursionError:
        raise ConfigError(f"{os.fspath(path)}: is nested too deeply", _HINT) from None


def _read(path: Path) -> dict[str, Any]:
    def wrong(line: int, problem: str, hint: str = "") -> ConfigError:
        where = f"{path} line {line}: " if line else f"{path}: "
        return ConfigError(where + problem, hint or _HINT, line)

    try:
        data = read_file(path, CONFIG_MAX_BYTES)
    except OSError as error:
        raise wrong(0, f"cannot be read ({error.strerror})", "Give a file with --config.") from None
    try:
        text = data.decode("utf-8-sig")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise wrong(data[: error.start].count(b"\n") + 1, "is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at (?:line (\d+), column \d+|end of document)\)", str(error))
        line = int(at[1]) if at and at[1] else text.rstrip("\n").count("\n") + 1
        raise wrong(line, f"not TOML: {str(error).split(' (at ')[0]}") from None

    lines = toml_lines(text)
    values: dict[str, Any] = {}
    mistakes: list[ConfigError] = []
    for section, content in document.items():
        at_section = lines.get((section,), 0)
        if section not in SECTIONS:
            homes = [o.section for o in OPTIONS.values() if o.key == section]
            hint = (
                f"Put it below [{homes[0]}]."
                if homes
                else _meant(f"[{section}]", [f"[{s}]" for s in SECTIONS])
            )
            mistakes.append(wrong(at_section, f"there is no section [{section}]", hint))
        elif not isinstance(content, dict):
            mistakes.append(
                wrong(at_section, f"{section} must be a section", f"Write [{section}] on its own line.")
            )
        else:
            for key, value in content.items():
                line = lines.get((section, key), at_section)
                option = OPTIONS.get(f"{section}.{key}")
                if option is None:
                    known = [o.key for o in OPTIONS.values() if o.section == section]
                    mistakes.append(wrong(line, f"[{section}] has no key {key}", _meant(key, known)))
                    continue
                try:
                    values[option.name] = option.accept(value, path.parent)
                except ValueError as error:
                    mistakes.append(wrong(line, f"[{section}] {key} {error}"))
    if mistakes:
        raise min(mistakes, key=lambda mistake: mistake.line)
    return values


def _meant(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
