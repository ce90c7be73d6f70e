"""Words that most batches need, written as their number. Append only: the numbers are part of the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Word: TypeAlias = "str | int"

#: `docs/spec/batch-format.md`, "Words". The first one has the number 0.
WORDS = (
    "left", "middle", "right", "back", "forward",
    "letter", "digit", "punctuation", "space", "enter", "tab", "editing", "navigation", "function",
    "modifier", "other",
    "pointer", "keyboard", "window", "display", "suspend",
    "x11", "callback", "trace",
    "linux", "win32", "darwin",
    "buffer_full", "not_running", "spool", "invalid", "unsealable",
)  # fmt: skip

#: Of the column `by`, which older decoders skip. They refuse its own two numbers, so these stand nowhere else.
BY_WORDS = (*WORDS, "xrecord", "pynput")

NUMBERS = {word: number for number, word in enumerate(WORDS)}
BY_NUMBERS = {word: number for number, word in enumerate(BY_WORDS)}


def to_word(text: str, numbers: Mapping[str, int] = NUMBERS) -> Word:
    """`ValueError` for anything but text: an integer would be read as the number of a word."""
    if not isinstance(text, str):
        raise ValueError("a word that is not text")
    return numbers.get(text, text)


def from_word(word: object, max_bytes: int, words: Sequence[str] = WORDS) -> str:
    """The text. `ValueError` when it is no word, or longer than `max_bytes` in UTF-8."""
    if type(word) is int and 0 <= word < len(words):
        return words[word]
    if not is_text(word, max_bytes):
        raise ValueError("a word that is not text within its limit, nor the number of one")
    return str(word)


def is_text(text: object, max_bytes: int) -> bool:
    try:
        return isinstance(text, str) and len(text if text.isascii() else text.encode()) <= max_bytes
    except UnicodeEncodeError:  # a lone surrogate
        return False
