"""The batch journal: when each batch was captured and under which scopes, so that forgetting finds it again, here
and at the receiver. No content.

Two kinds of lines. A batch: id, sequence, begin and end by the time since the boot and by the wall clock (ms),
boot, scopes, digest of the grant, pseudonym and device id in it. And what is to be deleted: ids, which are `delete`
until they are `asked` for in a control record, and that until it is `confirmed`. So what a crash left at `delete` is
finished at the next open, and a record that is lost before it is confirmed is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcilib import limits
from mcilib.consent.grant import Grant
from mcilib.consent.pause import Now
from mcilib.errors import SpoolError
from mcilib.files import append, open_log, remove, write_private

JOURNAL_FILE = "batches.jsonl"
"""Its name in the state folder."""

_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Journaled:
    """A batch. Times in ms, the begin rounded down and the end up."""

    batch_id: str
    sequence: int
    began_ms: int
    ended_ms: int
    """By boottime of `boot`."""
    wall_began_ms: int
    wall_ended_ms: int
    boot: str
    scopes: tuple[str, ...]
    digest: str
    participant: str
    device: str
    """Under which the receiver knows it."""

    def touches(self, since: Now, until: Now) -> bool:
        """Whether some of it may be of that time: within the boot by boottime, else by the wall clock. One that lies
        after its end by a clock that was set back is touched too."""
        if self.boot == until.boot:
            return self.ended_ms * _MS >= since.boottime_ns
        return self.wall_ended_ms * _MS >= since.wall_ns


class BatchJournal:
    """Any thread, one process at a time: the owner of the spool beside it.

    A line is written before its batch and flushed before its batch is sent. So a batch that it does not know never left
    this device, and counts as touched by whatever is asked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_s: float = limits.RETENTION_DAYS * 86_400.0,
        max_bytes: int = limits.JOURNAL_MAX_BYTES,
    ) -> None:
        self.path = Path(path)
        self._keep_s, self._max_bytes = keep_s, max_bytes
        self._lock = threading.Lock()  # the last that is taken: the spool calls with its own held
        self._unwritten = b""  # what the disk has refused
        self._is_dirty = False
        self.awaited: frozenset[str] = frozenset()
        """Ids of the control records with which it was asked to delete, and which are not confirmed. Never waits."""

    # --- batches come --------------------------------------------------------------------------------------

    def open(self, now: Now) -> None:
        """Takes out what is older than the receiver keeps it, or too much. Raises `SpoolError`."""
        with self._lock, _in_words(self.path):
            data = self._read()
            self.awaited = frozenset(one.record for one in _deletions(data.splitlines()) if one.record)
            if data and not data.endswith(b"\n"):  # cut off by a crash: that batch is not known
                with open_log(self.path) as fd:
                    append(fd, b"\n")
            oldest = next((one for one in map(_batch, data.splitlines()) if one is not None), None)
            oldest_ns = now.wall_ns - int(self._keep_s * 1e9)
            if oldest is not None and (oldest.wall_ended_ms * _MS < oldest_ns or len(data) > self._max_bytes):
                self._compact(lambda one: one.wall_ended_ms * _MS >= oldest_ns)

    def record(
        self, batch_id: str, sequence: int, began: Now, ended: Now, scopes: Iterable[str], grant: Grant
    ) -> None:
        """Of a batch that is about to be in the spool. Never raises: what the disk refuses is written by `sync`."""
        line = [
            batch_id, sequence, began.boottime_ns // _MS, -(-ended.boottime_ns // _MS),
            began.wall_ns // _MS, -(-ended.wall_ns // _MS), ended.boot, ",".join(sorted(scopes)), grant.digest,
            grant.participant, grant.device,
        ]  # fmt: skip
        with self._lock:
            self._unwritten += _line(line)
            self._is_dirty = True
            with contextlib.suppress(OSError, ValueError):
                self._write()

    def sync(self) -> None:
        """All of it is on the disk when this returns: before a batch leaves. Costs nothing when it is there already.
        Raises `SpoolError`."""
        if self._is_dirty:
            with self._lock, _in_words(self.path):
                self._write(durable=True)

    def _write(self, *, durable: bool = False) -> None:
        with open_log(self.path) as fd:
            if self._unwritten:
                append(fd, self._unwritten)
                self._unwritten = b""
            size_bytes = os.fstat(fd).st_size
            if durable:
                os.fsync(fd)
                self._is_dirty = False
        if size_bytes > self._max_bytes:
            self._compact(lambda one: True)

    def _compact(self, keep: Callable[[Journaled], bool]) -> None:
        """Writes it anew: of the batches that are to be kept and not deleted the newer ones, what is unfinished, and
        the newer requests that are not confirmed."""
        lines = self._read().splitlines()
        deleted = {batch_id for line in lines for batch_id in _ids(line, "delete")}
        kept = [
            line
            for line in lines
            if (one := _batch(line)) is not None and one.batch_id not in deleted and keep(one)
        ]
        room = self._max_bytes // 2
        while kept and sum(map(len, kept)) + len(kept) > room:
            del kept[: len(kept) // 8 + 1]
        deletions, room = list[bytes](), self._max_bytes // 4
        for deletion in reversed(_deletions(lines)):
            room -= len(deletion.lines) if deletion.record else 0
            if room >= 0 or not deletion.record:
                deletions.append(deletion.lines)
        write_private(self.path, b"".join([*(line + b"\n" for line in kept), *reversed(deletions)]))
        self._is_dirty = False

    # --- which batches -------------------------------------------------------------------------------------

    def touched(self, since: Now, until: Now, present: Collection[str]) -> list[str]:
        """Ids of batches of which something may be of that time, oldest first; of `present` ones those too that are not
        known here. Raises `SpoolError`."""
        return self._found(lambda one: one.touches(since, until), present)

    def outside(self, scopes: Collection[str], present: Collection[str], participant: str = "") -> list[str]:
        """Ids of batches that hold something of other scopes; of `present` ones those too that are not known here.
        With a `participant` only that one's, and of `present` ones only these. Raises `SpoolError`."""

        def is_outside(one: Journaled) -> bool:
            return not set(one.scopes) <= set(scopes) and participant in ("", one.participant)

        found, known = self._found(is_outside, present), self.known() if participant else {}
        return [batch_id for batch_id in found if not participant or batch_id in known]

    def known(self) -> dict[str, Journaled]:
        """All batches that it knows, by id. Raises `SpoolError`."""
        return {one.batch_id: one for line in self._lines() if (one := _batch(line)) is not None}

    def last_of(self, is_withdrawn: Callable[[str], bool]) -> tuple[str, str] | None:
        """Pseudonym and device id of what was captured last and is not withdrawn: who withdraws where the grant is
        lost. None when there is nothing of that. Raises `SpoolError`."""
        found = [(one.participant, one.device) for one in self.known().values() if one.participant]
        return next((who for who in reversed(found) if not is_withdrawn(who[0])), None)

    def _found(self, wanted: Callable[[Journaled], bool], present: Collection[str]) -> list[str]:
        lines = self._lines()
        gone = {batch_id for line in lines for batch_id in _ids(line, "delete")} - set(present)
        known = {one.batch_id: wanted(one) for line in lines if (one := _batch(line)) is not None}
        found = [batch_id for batch_id, is_wanted in known.items() if is_wanted and batch_id not in gone]
        return [*found, *(batch_id for batch_id in present if batch_id not in known)]

    def _lines(self) -> list[bytes]:
        with self._lock, _in_words(self.path):
            return [*self._read().splitlines(), *self._unwritten.splitlines()]

    # --- what is to be deleted -----------------------------------------------------------------------------

    def intend(self, batch_ids: list[str], **who: str) -> None:
        """Durable when it returns: if a crash comes, it is finished. `who` is kept with it. Raises `SpoolError`."""
        self._note({"delete": batch_ids, **who})

    def asked(self, batch_ids: list[str], record_id: str) -> None:
        """With a control record that is in the spool. Raises `SpoolError`."""
        self._note({"asked": batch_ids, "record": record_id})
        self.awaited |= {record_id}

    def confirmed(self, record_id: str) -> None:
        """The receiver has carried out what that record asks for. One that is not known is ignored. Raises
        `SpoolError`."""
        if record_id in self.awaited:
            self._note({"confirmed": record_id})
            self.awaited -= {record_id}

    def unfinished(self, waiting: Collection[str] | None = None) -> list[tuple[list[str], dict[str, str]]]:
        """What was intended and not asked for: ids, and who. With the ids of the control records that are `waiting`,
        also what was asked for in another one, which was not confirmed. Raises `SpoolError`."""
        return [
            (one.ids, one.who)
            for one in _deletions(self._lines())
            if not one.record or (waiting is not None and one.record not in waiting)
        ]

    def _note(self, record: dict[str, Any]) -> None:
        with self._lock, _in_words(self.path), open_log(self.path) as fd:
            append(fd, _line(record))
            os.fsync(fd)

    def clear(self, participant: str) -> None:
        """Nothing of this one is kept, and of others what is unfinished or not confirmed. Raises `SpoolError`."""
        with self._lock, _in_words(self.path):
            self._unwritten, self._is_dirty = b"", False
            others = [
                one for one in _deletions(self._read().splitlines()) if one.is_of_another_than(participant)
            ]
            self.awaited = frozenset(one.record for one in others if one.record)
            if others:
                write_private(self.path, b"".join(one.lines for one in others))
            else:
                remove(self.path)

    def _read(self) -> bytes:
        if not os.path.lexists(self.path):
            return b""
        with open_log(self.path) as fd:
            size_bytes = os.fstat(fd).st_size
            with open(fd, "rb", closefd=False) as file:
                file.seek(0)
                return file.read(size_bytes)


@dataclass(slots=True)
class _Deletion:
    """That was not confirmed."""

    ids: list[str]
    who: dict[str, str]
    record: str = ""
    """The control record with which it was asked for."""

    def is_of_another_than(self, participant: str) -> bool:
        return self.who.get("participant", participant) != participant

    @property
    def lines(self) -> bytes:
        asked = _line({"asked": self.ids, "record": self.record}) if self.record else b""
        return _line({"delete": self.ids, **self.who}) + asked


def _deletions(lines: list[bytes]) -> list[_Deletion]:
    found = list[_Deletion]()
    for line in lines:
        if ids := _ids(line, "delete"):
            record = json.loads(line)
            found.append(_Deletion(ids, {name: str(who) for name, who in record.items() if name != "delete"}))
        elif ids := _ids(line, "asked"):
            named = str(json.loads(line).get("record", ""))
            for one in found:
                if one.ids == ids:
                    one.record = named
            if not named:  # of a version that did not tell when it was confirmed
                found = [one for one in found if one.ids != ids]
        elif line.startswith(b'{"confirmed"'):
            found = [one for one in found if not one.record or line != _line({"confirmed": one.record})[:-1]]
    return found


def _line(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _batch(line: bytes) -> Journaled | None:
    """None for another kind of line, and for what is no line of ours: what is not known counts as touched."""
    if not line.startswith(b"["):
        return None
    try:
        batch_id, sequence, began, ended, wall_began, wall_ended, boot, scopes, *under = json.loads(line)
        digest, participant, device = map(str, under)
        return Journaled(
            str(batch_id), int(sequence), int(began), int(ended), int(wall_began), int(wall_ended), str(boot),
            tuple(scopes.split(",")) if scopes else (), digest, participant, device,
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _ids(line: bytes, kind: str) -> list[str]:
    if not line.startswith(b'{"' + kind.encode()):
        return []
    try:
        ids = json.loads(line)[kind]
    except (ValueError, KeyError, RecursionError):
        return []
    return ids if isinstance(ids, list) and all(isinstance(one, str) for one in ids) else []


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise SpoolError(
            f"The journal of batches {path} cannot be written or read ({getattr(error, 'strerror', None) or error})",
            "Mend the disk or the file's place; until then nothing that it should tell of is sent.",
        ) from None
