"""Where received batches lie: durable before `put` returns, each id once.

Layout under the store's folder::

    batches/<date of receipt>/<device>/<sequence, 16 digits>-<batch id>.mcib     the bytes as they came
    ids/<first two digits>/<batch id>                                            one line: the path above
    tmp/                                                                         being written

An id is claimed in `ids/` before its bytes appear in `batches/`, and both appear by an exclusive `link` of a
finished file. So two uploads at once, two receivers on one folder and a crash at any point end with one copy:
whoever comes later reads the claim and completes or compares at the path it names.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Protocol

from mcilib.errors import StoreError
from mcilib.protocols import Receipt, ReceiptStatus

TMP_MAX_AGE_S = 3_600.0
"""A file in `tmp/` older than this was left by a crash: a write takes seconds. Removed at construction."""

SEQUENCE_DIGITS = 16
KNOWN_FOLDERS = 4_096
"""Folders remembered as made durable, to save their fsync: a day of 4,000 devices, 1 MB."""

_ID = re.compile(r"[0-9a-f]{32}")
_CLAIM = re.compile(r"batches/\d{4}-\d\d-\d\d/[0-9a-f]{32}/\d{16}-([0-9a-f]{32})\.mcib\n?", re.ASCII)


class BatchHeader(Protocol):
    """What a store needs to know of a batch; `mcilib.format.batch.Header` is one."""

    @property
    def batch_id(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def sequence(self) -> int: ...


class BatchStore(Protocol):
    """Keeps received batches.

    Promise: when `put` returns `stored` or `duplicate`, the batch survives a power cut, and exactly one copy
    of its id is kept however many uploads, threads and receivers race. Callable from any thread.
    """

    def put(self, header: BatchHeader, data: bytes, /) -> Receipt:
        """Raises `StoreError` when it cannot be written now; the sender keeps the batch and tries again."""


class FolderStore:
    """A `BatchStore` in a folder that several threads, processes and restarts may share.

    `today` gives the date of receipt (use UTC). The folder is made if need be, 0700 with files 0600. Its file
    system must know hard links. Raises `StoreError` when it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, today: Callable[[], date]) -> None:
        self.path = Path(os.path.abspath(path))
        self._today = today
        self._tmp = self.path / "tmp"
        self._known: set[Path] = set()
        try:
            for folder in (self.path / "batches", self.path / "ids", self._tmp):
                self._ensure_folder(folder)
            self._probe()
        except OSError as error:
            raise StoreError(
                f"The store {self.path} cannot be written: {error.strerror}",
                "Give a folder on a local disk that this user may write, with free space and hard links.",
            ) from error

    def put(self, header: BatchHeader, data: bytes, /) -> Receipt:
        """Stores `data` under the header's id, or says why not. Callable from any thread; blocks on the disk.

        Raises `StoreError` when the disk refuses; then nothing half-written is left.
        """
        batch_id, device, sequence = header.batch_id, header.device, header.sequence
        if not _ID.fullmatch(batch_id):
            return Receipt("", ReceiptStatus.REJECTED, "the batch id is not 32 hex digits")
        if not _ID.fullmatch(device):
            return Receipt(batch_id, ReceiptStatus.REJECTED, "the device id is not 32 hex digits")
        if not 0 <= sequence < 10**SEQUENCE_DIGITS:
            return Receipt(batch_id, ReceiptStatus.REJECTED, "the sequence is out of range")
        day = self._today().isoformat()
        wanted = self.path / "batches" / day / device / f"{sequence:0{SEQUENCE_DIGITS}}-{batch_id}.mcib"
        try:
            return self._put(batch_id, wanted, data)
        except OSError as error:
            raise StoreError(
                f"The store {self.path} cannot be written: {error.strerror}",
                "Free space or mend the disk; senders keep their batches and try again.",
            ) from error

    def _put(self, batch_id: str, wanted: Path, data: bytes) -> Receipt:
        claim = self.path / "ids" / batch_id[:2] / batch_id
        place = self._claimed(claim, wanted)
        if place is not None and place.exists():
            self._ensure_folder(place.parent)
            _sync_folder(place.parent)  # the writer may be another process that has not come this far
            return _compare(batch_id, place, data)
        # The bytes are written first, so that a full disk is met before anything is claimed.
        with _Temporary(self._tmp, data) as finished:
            if place is None:
                place = self._claim(claim, wanted)
            else:
                _sync_folder(claim.parent)  # the claim may be younger than its maker's fsync
            if self._link(finished, place):
                return Receipt(batch_id, ReceiptStatus.STORED)
        return _compare(batch_id, place, data)

    def _claim(self, claim: Path, wanted: Path) -> Path:
        """Claims the id for `wanted`, or returns what another upload has claimed it for just now."""
        with _Temporary(self._tmp, self._claim_text(wanted)) as finished:
            if self._link(finished, claim):
                return wanted
        return self._claimed(claim, wanted) or wanted

    def _claim_text(self, place: Path) -> bytes:
        return place.relative_to(self.path).as_posix().encode() + b"\n"

    def _claimed(self, claim: Path, wanted: Path) -> Path | None:
        """The place that the claim names; a claim that somebody has damaged is written anew."""
        try:
            text = claim.read_bytes().decode("ascii", "replace")
        except FileNotFoundError:
            return None
        match = _CLAIM.fullmatch(text)
        if match is not None and match[1] == claim.name:
            return self.path / text.rstrip("\n")
        place = next((self.path / "batches").glob(f"*/*/*-{claim.name}.mcib"), wanted)
        with _Temporary(self._tmp, self._claim_text(place)) as finished:
            os.replace(finished, claim)
        _sync_folder(claim.parent)
        return place

    def _link(self, finished: Path, place: Path) -> bool:
        """Makes the finished file appear at `place`, durably; False when something is there already."""
        new = True
        for last in (False, True):
            self._ensure_folder(place.parent)
            try:
                os.link(finished, place)
            except FileExistsError:
                new = False
            except FileNotFoundError:  # the folder was removed since it was made (old days cleaned up)
                if last:
                    raise
                self._known.clear()
                continue
            break
        _sync_folder(place.parent)
        return new

    def _ensure_folder(self, folder: Path) -> None:
        """Makes the folder and what is above it, and sees to it that a power cut does not take it back."""
        if folder in self._known:
            return
        if folder != self.path:
            self._ensure_folder(folder.parent)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            _sync_folder(folder.parent)
        else:
            missing = [f for f in (folder, *folder.parents) if not f.exists()]
            for new in reversed(missing):
                with suppress(FileExistsError):
                    new.mkdir(mode=0o700)
                _sync_folder(new.parent)
        if len(self._known) >= KNOWN_FOLDERS:
            self._known.clear()
        self._known.add(folder)

    def _probe(self) -> None:
        """Writes, links and removes a file, as `put` will; removes what crashes have left in `tmp/`."""
        with _Temporary(self._tmp, b"probe\n") as finished:
            linked = finished.with_suffix(".link")
            os.link(finished, linked)
            linked.unlink()
            now_s = finished.stat().st_mtime  # by the clock of the file system
            for left in self._tmp.iterdir():
                with suppress(FileNotFoundError):
                    if now_s - left.stat().st_mtime > TMP_MAX_AGE_S:
                        left.unlink()


class _Temporary:
    """A file in `tmp/` with all its bytes on disk; gone when the block ends, its links stay."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self._path = folder / uuid.uuid4().hex
        self._data = data

    def __enter__(self) -> Path:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                view = memoryview(self._data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(descriptor)
        except BaseException:
            self.__exit__()
            raise
        return self._path

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


def _compare(batch_id: str, place: Path, data: bytes) -> Receipt:
    if place.stat().st_size == len(data) and place.read_bytes() == data:
        return Receipt(batch_id, ReceiptStatus.DUPLICATE)
    return Receipt(batch_id, ReceiptStatus.REJECTED, "this id was received before with other bytes")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and NTFS journals their entries
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
