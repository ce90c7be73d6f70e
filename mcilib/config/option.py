"""What one option is: its type, range, default and sentence, and whether a value is good for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DAY_S = 86_400

_NUMBERS = {
    "seconds": "a number of seconds", "count": "a whole number", "bytes": "a number of bytes", "number": "a number",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    kind: str
    """`text path choice names duration seconds count bytes number texts`."""
    words: str
    """What it does, in one sentence."""
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    check: Callable[[str], object] | None = None
    """Of `texts`: raises `ValueError` for one that is wrong."""
    may_be_empty: bool = False
    """Of `names` and `texts`: the list."""
    flag: str | None = None
    metavar: str = ""
    """What the value is called in help."""
    fallback: str = ""
    """What holds when there is no default, for people."""
    section: str = ""
    key: str = ""
    default: Any = None

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    def must_be(self, *, flag: bool = False) -> str:
        """What a value must be, in words: of the file, or of the flag, where seconds carry a unit."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind == "names":
            empty = " (or an empty one)" if self.may_be_empty and not flag else ""
            return f"{'some' if flag else 'a list'} of {', '.join(self.choices)}{empty}"
        if self.kind == "texts":
            return f"{self.metavar}, with ; between several" if flag else f"a list of {self.metavar}"
        if self.kind == "duration" or (flag and self.kind == "seconds"):
            return (
                f"a duration from {as_duration(self.low)} to {as_duration(self.high)}, such as 30s 15m 2h 30d"
            )
        if self.kind in _NUMBERS:
            noun = _NUMBERS[self.kind]
            return f"{noun} from {self.low:.15g} to {self.high:.15g}"
        return "a path" if self.kind == "path" else "a text"

    def accept(self, value: Any, folder: Path | None = None) -> Any:
        """The value as read from the file, paths relative to `folder`. Raises `ValueError` with a reason."""
        good: Any = None
        if self.kind in ("text", "path", "choice", "duration") and isinstance(value, str) and value.strip():
            if self.kind == "path":
                good = (folder or Path()) / _home(value) if "\0" not in value else None
            elif self.kind == "duration":
                seconds = parse_duration(value)
                good = seconds if seconds is not None and self.low <= seconds <= self.high else None
            elif self.kind == "text" or value in self.choices:
                good = value
        elif self.kind == "names" and isinstance(value, list) and (value or self.may_be_empty):
            good = tuple(dict.fromkeys(value)) if all(v in self.choices for v in value) else None
        elif self.kind == "texts" and isinstance(value, list) and (value or self.may_be_empty):
            if all(isinstance(text, str) for text in value):
                good = tuple(self._checked(text) for text in value)
        elif (
            isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high
        ):
            if self.kind in ("seconds", "number"):
                good = float(value)
            elif self.kind in ("count", "bytes") and isinstance(value, int):
                good = value
        if good is None:
            raise ValueError(f"must be {self.must_be()}, not {_shown(value)}")
        return good

    def accept_flag(self, text: str) -> Any:
        """The value as typed after the flag. Raises `ValueError` with the reason."""
        value: Any = text
        if self.kind == "names":
            value = [name.strip() for name in text.split(",")]
        elif self.kind == "texts":
            value = [part.strip() for part in text.split(";")]
        elif self.kind == "number":
            value = float(text) if re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text) else None
        elif self.kind == "seconds":
            value = parse_duration(text)
        elif self.kind in ("count", "bytes"):
            value = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
        elif self.kind == "path" and text:
            return Path(text)
        try:
            return self.accept(value)
        except ValueError as error:
            why = f": {error.__cause__}" if error.__cause__ else ""
            raise ValueError(f"must be {self.must_be(flag=True)}, not {_shown(text)}{why}") from None

    def _checked(self, text: str) -> str:
        try:
            if self.check is not None:
                self.check(text)
        except ValueError as error:
            raise ValueError(f"must be {self.must_be()}, not {_shown(text)}: {error}") from error
        return text


def parse_duration(text: str) -> float | None:
    """Seconds of `30s`, `15m`, `2h`, `30d` or `1.5h`; None when it is no such thing."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd])", text.strip())
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": DAY_S}[match[2]] if match else None


def as_duration(seconds: float) -> str:
    """The shortest exact form: 3600 is `1h`, 90 is `90s`."""
    for unit, size in (("d", DAY_S), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.15g}{unit}"
    return f"{seconds:.15g}s"


def _home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"names a home folder that is not there: {_shown(path)}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
