"""On which line of a TOML document each key stands: `tomllib` gives values without positions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # the closing quotes may follow up to two of the text
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")

KeyPath = tuple[str, ...]


def toml_lines(text: str) -> dict[KeyPath, int]:
    """Key path -> line (from 1) of its first mention, for a document that `tomllib` has accepted.

    Tables are named too: `("batch",)` is the line of `[batch]`, or of the first key that makes it.
    """
    scan = _Scan(text)
    scan.document()
    return scan.lines


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted_at, self._line = 0, 1

    def document(self) -> None:
        table: KeyPath = ()
        while self.skip(_BLANK_LINES) < len(self.text):
            if self.peek() == "[":
                opened = self.at
                while self.peek() == "[":
                    self.at += 1
                table = self.key()
                self.note(table, opened)
                while self.peek() == "]":
                    self.at += 1
            else:
                self.pair(table)

    def pair(self, table: KeyPath) -> None:
        started = self.at
        path = table + self.key()
        self.note(path, started)
        self.at += 1  # the equals sign
        self.skip(_BLANK)
        self.value(path)

    def key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self.skip(_BLANK)
            if self.peek() in "\"'":
                raw = self.take(_STRING)
                parts.append(next(iter(tomllib.loads(f"{raw} = 0"))))
            else:
                parts.append(self.take(_BARE))
            self.skip(_BLANK)
            if self.peek() != ".":
                return tuple(parts)
            self.at += 1

    def value(self, path: KeyPath) -> None:
        if self.peek() in "\"'":
            self.take(_STRING)
        elif self.peek() == "[":
            self.items("]", lambda: self.value(path))
        elif self.peek() == "{":
            self.items("}", lambda: self.pair(path))
        else:
            self.take(_SCALAR)

    def items(self, end: str, one: Callable[[], None]) -> None:
        self.at += 1
        while self.skip(_BLANK_LINES) < len(self.text) and self.peek() != end:
            if self.peek() == ",":
                self.at += 1
            else:
                one()
        self.at += 1

    def note(self, path: KeyPath, position: int) -> None:
        self._line += self.text.count("\n", self._counted_at, position)
        self._counted_at = position
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], self._line)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1] or "\0"

    def skip(self, pattern: re.Pattern[str]) -> int:
        self.take(pattern)
        return self.at

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None or (not match[0] and pattern in (_BARE, _STRING)):
            raise ValueError(f"not TOML at character {self.at}")
        self.at = match.end()
        return match[0]
