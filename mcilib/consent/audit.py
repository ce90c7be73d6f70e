"""The audit log: what was decided and done, one line each, which the participant can read.

    {"n": 3, "at": "2026-01-31T11:30:00+00:00", "what": "pause", "by": "participant", "facts": {"duration_s": 900.0},
     "prev": "<SHA-256 of the line before>"}

It only grows, and each line seals all before it: what was changed, taken out or put in another order does not fit the
lines after it. The digest of the last line travels in each batch, so that taking lines off the end shows too. It holds
no content: numbers, and words out of tables.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcilib.clock import Clock, SystemClock
from mcilib.digest import sha256
from mcilib.errors import SpoolError
from mcilib.files import append, open_log

AUDIT_FILE = "audit.jsonl"
"""Its name in the state folder."""

BY = ("participant", "host", "operator", "agent")
"""Who did it."""

_WORD = re.compile(r"[a-z_]{1,32}")
_FACT = re.compile(r"[a-z_]{1,32}(,[a-z_]{1,32}){0,15}|[0-9a-f]{32}|[0-9a-f]{64}")
_FIRST = "0" * 64  # before the first line
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class AuditEntry:
    n: int
    """1, 2, 3 ..."""
    at: str
    """Wall time, ISO 8601 in UTC."""
    what: str
    by: str
    facts: Mapping[str, int | float | str]
    prev: str


class AuditLog:
    """Any thread, one process at a time: the owner of the spool beside it. Raises `SpoolError`.

    A line that a crash has cut off is taken away at `open`, and a line of its own says so.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._count, self._head = 0, ""

    @property
    def head(self) -> str:
        """SHA-256 of the last line, 64 hex digits; empty when there is none, or it was not opened. Never waits."""
        return self._head

    def open(self) -> None:
        """Looks how far it goes."""
        with self._lock, self._opened() as fd:
            self._count, last, cut = _measured(fd)
            self._head = _digest(last) if self._count else ""
            if cut:
                os.ftruncate(fd, os.fstat(fd).st_size - cut)
                self._append(fd, "repaired", "agent", {"cut_bytes": cut})

    def append(self, what: str, by: str, **facts: int | float | str) -> None:
        """Durable when it returns. `what`, and facts that are text, are lower-case words (several of a fact with
        commas) or digests; `by` is one of `BY`. `ValueError` for anything else, so that no content gets in."""
        if by not in BY or not _WORD.fullmatch(what):
            raise ValueError(f"{what!r} by {by!r} is nothing for the audit log")
        for name, fact in facts.items():
            if isinstance(fact, str) and not _FACT.fullmatch(fact):
                raise ValueError(f"{name} is free text, and not for the audit log")
        with self._lock, self._opened() as fd:
            self._append(fd, what, by, facts)

    def _append(self, fd: int, what: str, by: str, facts: Mapping[str, int | float | str]) -> None:
        at = datetime.fromtimestamp(self._clock.wall_ns() // 10**9, UTC).isoformat()
        record = {"n": self._count + 1, "at": at, "what": what, "by": by, "facts": facts}
        line = json.dumps({**record, "prev": self._head or _FIRST}, separators=(",", ":")).encode()
        append(fd, line + b"\n")
        os.fsync(fd)
        self._count, self._head = self._count + 1, _digest(line)

    def _opened(self) -> Any:
        return _Opened(self.path)

    def entries(self) -> Iterator[AuditEntry]:
        """Oldest first; what is no line of ours is passed over, `verify` tells of it."""
        for line in self._lines():
            if (entry := _entry(line)) is not None:
                yield entry

    def verify(self, heads: Iterable[str] = ()) -> tuple[str, ...]:
        """In words what is wrong with the chain, empty when nothing is. `heads`, as batches carry them, must each be
        the digest of a line: else lines were taken off the end, or it was written anew."""
        found, before, missing = list[str](), _FIRST, {head for head in heads if head}
        for n, line in enumerate(self._lines(), 1):
            entry = _entry(line)
            if entry is None:
                found.append(f"line {n} is no line of an audit log")
            elif entry.n != n:
                found.append(f"line {n} says that it is line {entry.n}")
            elif entry.prev != before:
                found.append(f"line {n} does not follow from the line before it")
            before = _digest(line)
            missing.discard(before)
        found += [f"no line has the digest {head}, which a batch carries" for head in sorted(missing)]
        return tuple(found)

    def _lines(self) -> Iterator[bytes]:
        try:
            with open(self.path, "rb") as file:
                for line in file:
                    yield line.removesuffix(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(self.path, error) from None


class _Opened:
    """`open_log`, with its errors as `SpoolError`."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, open_log(path)

    def __enter__(self) -> int:
        try:
            return self._log.__enter__()
        except (OSError, ValueError) as error:
            raise _refused(self._path, error) from None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._log.__exit__(None, None, None)
        if isinstance(error, OSError):
            raise _refused(self._path, error) from None


def _measured(fd: int) -> tuple[int, bytes, int]:
    """How many whole lines there are, the last of them, and how many bytes follow it."""
    count, last, rest = 0, b"", b""
    os.lseek(fd, 0, os.SEEK_SET)
    while piece := os.read(fd, _PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        count += len(lines)
        last = lines[-1] if lines else last
    return count, last, len(rest)


def _digest(line: bytes) -> str:
    return sha256(line).hex()


def _entry(line: bytes) -> AuditEntry | None:
    try:
        entry = AuditEntry(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    words = (entry.at, entry.what, entry.by, entry.prev)
    right = type(entry.n) is int and all(isinstance(word, str) for word in words)
    return entry if right and isinstance(entry.facts, dict) else None


def _refused(path: Path, error: Exception) -> SpoolError:
    return SpoolError(
        f"The audit log {path} cannot be written or read ({getattr(error, 'strerror', None) or error})",
        "Mend the disk or the file's place; what was decided holds as long as the agent runs.",
    )
