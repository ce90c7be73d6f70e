"""Looks for what was typed in places where it must not be: a process's memory, folders, what went over a wire.

A canary is 16 letters and digits that nobody else types, and some places for the pointer. It is looked for as

    text        one character after the other, at a fixed distance of 1 to 64 bytes, whatever lies between: UTF-8,
                UTF-16 and UTF-32, keysyms (of these keys they are the characters) in any width of integer, structures
                and arrays of structures
    keycodes    the same, of the numbers of the keys: raw events of the X server too (32 bytes each, two for a key)
    objects     lists and tuples of Python's own small integers and one-character texts, which are pointers to the one
                object there is of each
    places      x and y beside each other as integers of 2, 4 and 8 bytes or as floats, up to 64 bytes from one place to
                the next; each axis for itself

Half of it is enough, so that a buffer that was used again in part is still found out. What cannot be found: a sequence
of which each part lies somewhere else in the heap, and anything that is compressed or sealed. Batches are therefore
also decoded, by who looks.
"""

from __future__ import annotations

import os
import random
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mcilib.format.frame import MAGIC, PREFIX_BYTES, frame_size
from mcilib.testing.xvfb import VirtualDisplay

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_HALF = 8
_STRIDES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
_OBJECT_STRIDES = (8, 16, 24, 96, 192)
"""Lists; tuples of two or three in a row; freed tuples of six beside each other, of each key or of its press and release."""
_CHUNK_BYTES = 64 * 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Canary:
    """One that nobody else has. `codes` are the keys of `text` on a display."""

    text: str
    codes: tuple[int, ...]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, display: VirtualDisplay) -> Canary:
        text = "".join(random.SystemRandom().sample(_LETTERS, 2 * _HALF))
        xs = random.SystemRandom().sample(range(300, display.width_px), 6)
        ys = random.SystemRandom().sample(range(300, display.height_px), 6)
        codes = tuple(display.keycode(character) for character in text)
        return cls(text, codes, tuple(zip(xs, ys, strict=True)))

    def type(self, display: VirtualDisplay) -> None:
        for code in self.codes:
            display.tap(code)
        display.sync()

    def point(self, display: VirtualDisplay) -> None:
        for at in self.places:
            display.move(*at)
            display.sync()

    @cached_property
    def needles(self) -> dict[str, list[re.Pattern[bytes]]]:
        """By form: any of these is the canary."""
        text, codes = self.text.encode(), bytes(self.codes)
        halves = (slice(0, _HALF), slice(_HALF, 2 * _HALF))
        return {
            "text": [_at_strides(list(_bytes(text[half])), _STRIDES) for half in halves],
            "keycodes": [_at_strides(list(_bytes(codes[half])), _STRIDES) for half in halves],
            "places": [_any(ways) for ways in self._places()],
        }

    def _places(self) -> Iterator[list[bytes]]:
        """Ways to write four of them in a row, those together that begin alike: x of the first, or its y."""
        for first in (0, 2):
            places = self.places[first : first + 4]
            for kinds in (("<h", "<i", "<q"), ("<d",)):
                for axes in ((0, 1), (1,)):
                    ways = []
                    for kind in kinds:
                        size = struct.calcsize(kind)
                        one = [struct.pack(kind, place[axes[0]]) for place in places]
                        ways += [_way(one, stride) for stride in {size, 8}]
                        if len(axes) == 2:
                            both = [struct.pack(kind[0] + 2 * kind[1], *place) for place in places]
                            ways += [
                                _way(both, stride) for stride in (2 * size, 24, 32, 64) if stride >= 2 * size
                            ]
                    yield ways

    def objects(self, small_int: int, character: int) -> dict[str, list[re.Pattern[bytes]]]:
        """Of a process in which the integer 0 lies at `small_int` and the text NUL at `character`."""
        step = id(chr(98)) - id(chr(97))  # not of constants, which may be objects of their own
        made = {
            "objects of text": [character + step * ord(c) for c in self.text],
            "objects of keycodes": [small_int + _INT_STEP * code for code in self.codes],
            "objects of keysyms": [small_int + _INT_STEP * ord(c) for c in self.text],
        }
        return {
            name: [
                _at_strides([struct.pack("<Q", a) for a in addresses[at : at + _HALF]], _OBJECT_STRIDES)
                for at in (0, _HALF)
            ]
            for name, addresses in made.items()
        }


_INT_STEP = id(1) - id(0)


def _bytes(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def _way(parts: Sequence[bytes], stride: int) -> bytes:
    """These one after the other, each `stride` bytes after the one before, whatever lies between."""
    between = b".{%d}" % (stride - len(parts[0])) if stride > len(parts[0]) else b""
    return between.join(re.escape(part) for part in parts)


def _at_strides(parts: Sequence[bytes], strides: Sequence[int]) -> re.Pattern[bytes]:
    return _any([_way(parts, stride) for stride in strides])


def _any(ways: Sequence[bytes]) -> re.Pattern[bytes]:
    """One pass for all: they begin alike, and are looked at only where one could begin."""
    return re.compile(b"|".join(ways), re.DOTALL)


# --- places to look in -----------------------------------------------------------------------------------------


@dataclass
class Found:
    """Which forms were found, and how much was looked through."""

    forms: set[str] = field(default_factory=set)
    looked_bytes: int = 0

    def look(self, data: bytes, needles: dict[str, list[re.Pattern[bytes]]]) -> None:
        self.looked_bytes += len(data)
        for name, patterns in needles.items():
            if name not in self.forms and any(pattern.search(data) for pattern in patterns):
                self.forms.add(name)


def in_memory(pid: int, canary: Canary) -> Found:
    """All of a process's memory that it may have written: what is mapped from a file and cannot be written is the
    file, which is the same in every process."""
    found = Found()
    needles = {**canary.needles, **canary.objects(*_singletons(pid))}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for first, last, mode, path in _maps(pid):
            if (
                mode[0] == "r"
                and (mode[1] == "w" or not path.startswith("/"))
                and path not in ("[vvar]", "[vsyscall]")
            ):
                for begin, end in _present(pid, first, last):
                    for at in range(begin, end, _CHUNK_BYTES):
                        found.look(_read(memory, at, min(end, at + _CHUNK_BYTES + 4096)), needles)
    assert found.looked_bytes > 4_000_000, "that was no memory of a Python process"
    return found


def in_folder(folder: Path, canary: Canary) -> Found:
    """All files, also in what their batches say, and their names."""
    found, parts = Found(), list[bytes]()
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            parts += _with_frames(path.read_bytes())
    found.look(_BETWEEN.join(parts), canary.needles)
    return found


def in_bytes(data: bytes, canary: Canary) -> Found:
    """What went over a wire, also in what its batches say."""
    found = Found()
    found.look(_BETWEEN.join(_with_frames(data)), canary.needles)
    return found


def frames_in(data: bytes) -> list[bytes]:
    """The frames in what was captured somewhere, such as a request's body in the midst of HTTP."""
    from mcilib.errors import BatchFormatError
    from mcilib.format.batch import read_header

    frames, at = [], data.find(MAGIC)
    while at >= 0:
        try:
            frame = data[at : at + frame_size(data[at : at + PREFIX_BYTES])]
            read_header(frame)
            frames.append(frame)
        except (BatchFormatError, struct.error):
            frame = b"x"
        at = data.find(MAGIC, at + len(frame))
    return frames


_BETWEEN = b"\xff" * 1024
"""More than any form of a canary goes across."""


def _with_frames(data: bytes) -> Iterator[bytes]:
    yield data
    for frame in frames_in(data):
        yield from opened(frame)


def opened(frame: bytes) -> Iterator[bytes]:
    """The payload of a frame in clear, and what its rows say, one after the other."""
    import zstandard
    from batches import raw_of

    from mcilib.errors import SealError
    from mcilib.format.batch import decode

    try:
        yield raw_of(frame)
        rows = decode(frame).events
    except (SealError, zstandard.ZstdError):  # sealed: nobody reads it without a key
        return
    for name in ("key", "title", "app", "x", "y"):
        yield _flat([getattr(row, name) for row in rows if getattr(row, name, None) is not None])
    yield b"".join(struct.pack("<dd", row.x, row.y) for row in rows if row.kind == "move")  # type: ignore[union-attr]


def _flat(values: Sequence[Any]) -> bytes:
    return b"".join(v.encode() if isinstance(v, str) else struct.pack("<d", v) for v in values)


# --- a process's memory ----------------------------------------------------------------------------------------


def _maps(pid: int | str) -> Iterator[tuple[int, int, str, str]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, mode, _, _, _, *path = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        yield first, last, mode, path[0] if path else ""


def _present(pid: int, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The parts of a region that have been written: the rest of it is nothing yet. See Documentation/admin-guide/mm/
    pagemap.rst of Linux: 8 bytes for each page, of which the highest two bits say that it is in memory or in swap."""
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        pagemap.seek(first // _PAGE * 8)
        pages = pagemap.read((last - first) // _PAGE * 8)
    begun: int | None = None
    for number, (bits,) in enumerate(struct.iter_unpack("<Q", pages)):
        at = first + number * _PAGE
        if bits >> 62 and begun is None:
            begun = at
        elif not bits >> 62 and begun is not None:
            yield begun, at
            begun = None
    if begun is not None:
        yield begun, last


def _read(memory: Any, first: int, last: int) -> bytes:
    try:
        memory.seek(first)
        return bytes(memory.read(last - first))
    except (OSError, ValueError, OverflowError):  # gone meanwhile, or nobody's to read
        return b""


def _singletons(pid: int) -> tuple[int, int]:
    """Where the integer 0 and the text NUL lie in another process of the same interpreter: as far from where its file
    is mapped as here."""
    ours = list(_maps("self"))
    name = next(
        path for first, last, _, path in reversed(ours) if path.startswith("/") and first <= id(0) < last
    )
    ours_at = min(first for first, _, _, path in ours if path == name)
    theirs_at = min(first for first, _, _, path in _maps(pid) if path == name)
    return id(0) - ours_at + theirs_at, id(chr(0)) - ours_at + theirs_at
