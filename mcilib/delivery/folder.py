"""One attempt into a folder: a share, or a disk that is carried to the operator (no network at all).

    batches/<first two digits>/<batch id>.mcib     the bytes as they were sealed
    control/<first two digits>/<record id>.json    what the operator is asked to do
    tmp/                                           being written

Names are ids alone, so that a folder has an id once, whoever sends it, and any number of devices may share it.
Two digits first, since FAT, on most sticks, holds some ten thousand such names in a folder and then is full.
A file gets its name after its bytes are on the disk, and never over another file; a receipt comes after the
name is on the disk too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from mcilib.delivery._files import FULL, sync_folder, write_durably
from mcilib.delivery.control import is_id
from mcilib.protocols import ControlRecord, Outcome, Receipt, ReceiptStatus, Reply, SealedBatch

_TMP_MAX_AGE_S = 3_600.0
"""A file in `tmp/` older than this was left by a crash: a write takes seconds."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What file systems without hard links (FAT, exFAT) say to one."""

_REFUSED = {
    errno.EACCES: "may not be written by this user",
    errno.EPERM: "may not be written by this user",
    errno.EROFS: "is read-only",
    errno.ENOTDIR: "is not a folder",
    errno.EEXIST: "has a file where a folder belongs",
    errno.EISDIR: "has a folder where a file belongs",
    errno.ELOOP: "is a link that leads nowhere",
    errno.ENAMETOOLONG: "has too long a name",
}
"""Errors that waiting does not mend; every other one is RETRY."""


class FolderTransport:
    """Implements `mcilib.protocols.Transport`. Used by one thread at a time; several may share a folder.

    The folder must be there: it is never made, so that a disk that is not plugged in is no place to write to
    (name a folder *on* the disk, not its mount point). While it is missing or full, everything is kept (RETRY).
    A receipt says that the bytes are on that disk, durably; for a control record, that it lies there for the
    operator, who carries it out. Nothing is raised; a call takes as long as the disk does. With no batches at all
    `send` tries whether the folder can be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._swept = False

    is_local = True

    @property
    def endpoint(self) -> str:
        """As an address: `file:///...`."""
        return self.path.as_uri()

    def __repr__(self) -> str:
        return f"FolderTransport({os.fspath(self.path)!r})"

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        """Receipts: `stored`, `duplicate` (the same bytes are there), `rejected` (other bytes are there).

        When the disk fails midway, those that are durable have their receipts and the rest has none.
        """
        return self._put("batches", "mcib", [(batch.batch_id, batch.data) for batch in batches])

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        """As `send`, by record id."""
        return self._put("control", "json", [(record.record_id, record.data) for record in records])

    def close(self) -> None:
        """Nothing is held open."""

    # --- files ----------------------------------------------------------------------------------------------

    def _put(self, kind: str, suffix: str, items: Sequence[tuple[str, bytes]]) -> Reply:
        receipts: dict[str, Receipt] = {}
        written_bytes = 0
        trouble: OSError | None = None
        unsynced: set[Path] = set()
        try:
            self._prepare(unsynced)
            for entry_id, data in items:
                if not is_id(entry_id):
                    reason = "its id is not 32 hex digits"
                    receipts[entry_id] = Receipt(entry_id, ReceiptStatus.REJECTED, reason)
                    continue
                folder = self.path / kind / entry_id[:2]
                _make((folder.parent, folder), unsynced)
                receipts[entry_id] = receipt = self._store(folder / f"{entry_id}.{suffix}", entry_id, data)
                unsynced.add(folder)  # for a duplicate too: whoever wrote it may not have come this far
                written_bytes += len(data) if receipt.status is ReceiptStatus.STORED else 0
        except OSError as error:
            trouble = error
        try:
            for folder in unsynced:
                sync_folder(folder)
        except OSError as error:
            trouble, receipts = error, {}
        outcome, detail = Outcome.DELIVERED, f"written to {self.path}"
        if trouble is not None:
            outcome, detail = self._meaning(trouble)
        if receipts:  # what was done before the trouble is settled; the rest meets it at the next attempt
            outcome = Outcome.DELIVERED
        return Reply(outcome, receipts, detail=detail, bytes_sent=written_bytes)

    def _prepare(self, unsynced: set[Path]) -> None:
        """Raises `OSError` unless a file can be written. Removes, once, what crashes have left."""
        tmp = self.path / "tmp"
        _make((tmp,), unsynced)
        probe = tmp / uuid.uuid4().hex
        write_durably(probe, b"probe\n")
        try:
            if not self._swept:
                _sweep(tmp, probe.stat().st_mtime - _TMP_MAX_AGE_S)
                self._swept = True
        finally:
            probe.unlink(missing_ok=True)

    def _store(self, place: Path, entry_id: str, data: bytes) -> Receipt:
        """Not durable until the folder is synced."""
        there = _read(place)
        cut_short = there is not None and there != data and data.startswith(there)
        if there is None or cut_short:  # by a disk that was pulled out
            fresh = self.path / "tmp" / f"{entry_id}-{uuid.uuid4().hex}"
            write_durably(fresh, data)
            try:
                if cut_short:
                    os.replace(fresh, place)
                if cut_short or _name(fresh, place):
                    return Receipt(entry_id, ReceiptStatus.STORED)
            finally:
                fresh.unlink(missing_ok=True)
            there = _read(place)
        if there == data:
            return Receipt(entry_id, ReceiptStatus.DUPLICATE)
        return Receipt(entry_id, ReceiptStatus.REJECTED, "this id lies there already with other bytes")

    def _meaning(self, error: OSError) -> tuple[Outcome, str]:
        """The outcome, and one line for people."""
        if error.errno in _REFUSED:
            return Outcome.REFUSED, f"the folder {self.path} {_REFUSED[error.errno]}"
        if error.errno in FULL:
            why = "is on a disk that is full"
        elif error.errno == errno.ENOENT:
            why = "is not there (removed, or its disk not plugged in)"
        else:
            why = f"cannot be written ({error.strerror or type(error).__name__})"
        return Outcome.RETRY, f"the folder {self.path} {why}"


def _read(place: Path) -> bytes | None:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None


def _make(folders: Iterable[Path], unsynced: set[Path]) -> None:
    """Makes each folder, but not what is above it; notes whose names changed by that."""
    for folder in folders:
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise
        else:
            unsynced.add(folder.parent)


def _name(file: Path, place: Path) -> bool:
    """Gives a file its name; False when there is one already. Without hard links by a look and a rename: of two
    writers of one id in the same instant, which no spool makes, the later one would win."""
    try:
        os.link(file, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if place.exists():
            return False
        os.replace(file, place)
    return True


def _sweep(tmp: Path, before_s: float) -> None:
    for leftover in tmp.iterdir():
        with contextlib.suppress(OSError):
            if leftover.stat().st_mtime < before_s:
                leftover.unlink()
