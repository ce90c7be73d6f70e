"""A store in a folder, which several threads, processes and restarts may share.

Beside what `store` says of the layout::

    tmp/<participant>-<batch id>-<random>      being written
    locks/<first two digits of participant>    held by an upload, shared; by the writing of a tombstone, alone

Bytes are written and flushed in `tmp/` and get their names by `link`, so names are never half there. Locks are
the system's (`flock`), so they end with their holder however it dies.
"""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TypeVar

from mcilib.delivery._files import sync_folder, write_all
from mcilib.errors import StoreError
from mcilib.receiver.store import KeyedStore

TMP_MAX_AGE_S = 3_600.0
"""A file in `tmp/` older than this was left by a crash: a write takes seconds. Removed at construction."""

KNOWN_FOLDERS = 4_096
"""Folders remembered as made durable, to save their fsync: a day of 4,000 devices, 1 MB."""

SYNC_THREADS = 8
"""Flushes under way at once: a journal commits those together that come together."""

_TMP = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})-[0-9a-f]{32}")
_BINARY = getattr(os, "O_BINARY", 0)
_T = TypeVar("_T")


class FolderStore(KeyedStore):
    """A `BatchStore` in a folder.

    `today` gives the date of receipt (use UTC). The folder is made if need be, 0700 with files 0600. Its file
    system must know hard links and `flock`. Raises `StoreError` when it cannot be written. Any thread.
    """

    def __init__(self, path: str | os.PathLike[str], *, today: Callable[[], date]) -> None:
        super().__init__(today)
        self.path = Path(os.path.abspath(path))
        self._tmp = self.path / "tmp"
        self._known: set[Path] = set()
        try:
            for folder in ("batches", "ids", "participants", "deleted", "exemptions", "locks", "tmp"):
                self._ensure_folder(self.path / folder)
            self._probe()
        except OSError as error:
            raise StoreError(
                f"The store {self.path} cannot be written: {error.strerror}",
                "Give a folder on a local disk that this user may write, with free space and hard links.",
            ) from error

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The store {self.path} cannot be written: {error.strerror}",
                "Free space or mend the disk; senders keep their batches and try again.",
            ) from error

    # --- what is there ---

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        contents: list[bytes | None] = []
        for key in keys:
            try:
                contents.append((self.path / key).read_bytes())
            except (FileNotFoundError, NotADirectoryError):
                contents.append(None)
        return contents

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # --- what comes ---

    @contextmanager
    def _stage(self, contents: Sequence[tuple[str, bytes]]) -> Iterator[_Files]:
        files = [self._tmp / f"{tag}-{uuid.uuid4().hex}" for tag, _ in contents]
        try:
            _each(_write, [(path, data) for path, (_, data) in zip(files, contents, strict=True)])
            sync_folder(self._tmp)  # so that a claim never outlives the note of whose it is
            yield _Files(self, files)
        finally:
            for path in files:
                path.unlink(missing_ok=True)

    def _overwrite(self, key: str, content: bytes) -> None:
        target = self.path / key
        fresh = self._tmp / f"claim-{uuid.uuid4().hex}"
        try:
            _write((fresh, content))
            os.replace(fresh, target)
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(target.parent)

    def _sync(self, keys: Sequence[str]) -> None:
        folders = {(self.path / key).parent for key in keys}
        for folder in folders:
            self._ensure_folder(folder)
        _each(sync_folder, folders)

    def _link(self, file: Path, target: Path) -> bool:
        """Not durable yet. False when something is there already."""
        for last in (False, True):
            self._ensure_folder(target.parent)
            try:
                os.link(file, target)
            except FileExistsError:
                return False
            except FileNotFoundError:  # the folder was removed since it was made: an old day, a deletion
                if last:
                    raise
                self._known.clear()
                continue
            break
        return True

    def _ensure_folder(self, folder: Path) -> None:
        """Makes the folder and what is above it, and sees to it that a power cut does not take it back."""
        if folder in self._known:
            return
        if folder != self.path:
            self._ensure_folder(folder.parent)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            sync_folder(folder.parent)
        else:
            missing = [f for f in (folder, *folder.parents) if not f.exists()]
            for new in reversed(missing):
                with suppress(FileExistsError):
                    new.mkdir(mode=0o700)
                sync_folder(new.parent)
        if len(self._known) >= KNOWN_FOLDERS:
            self._known.clear()
        self._known.add(folder)

    # --- what goes ---

    def _remove(self, keys: Sequence[str]) -> None:
        paths = [self.path / key for key in keys]
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        _each(self._sync_and_prune, {path.parent for path in paths})

    def _prune(self, folders: Sequence[str]) -> None:
        for folder in folders:
            if (self.path / folder).is_dir() and not self._names(folder):
                self._sync_and_prune(self.path / folder)

    def _sync_and_prune(self, folder: Path) -> None:
        """Flushes the removal of what lay here, and removes folders that are empty now."""
        with suppress(FileNotFoundError):
            sync_folder(folder)
        while folder.parent.parent != self.path.parent:  # those right below the store stay
            try:
                folder.rmdir()
            except OSError:  # not empty, or another process was faster
                return
            self._known.discard(folder)
            folder = folder.parent
            with suppress(FileNotFoundError):
                sync_folder(folder)

    # --- who may ---

    @contextmanager
    def _uploading(self, participants: set[str], batch_ids: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for stripe in sorted({participant[:2] for participant in participants}):
                stack.enter_context(self._lock(stripe, alone=False))
            yield

    def _forbid(self, participant: str, keys: Sequence[str]) -> Iterator[None]:
        with self._lock(participant[:2], alone=True), self._stage([("deleted", b"") for _ in keys]) as staged:
            staged.name(range(len(keys)), keys)
        yield

    @contextmanager
    def _lock(self, stripe: str, *, alone: bool) -> Iterator[None]:
        """Waits for it. The files stay: one that was removed would be another lock to each who has it open."""
        fd = os.open(self.path / "locks" / stripe, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _flock(fd, alone)
            yield
        finally:
            os.close(fd)

    def _residue(self, participant: str) -> list[tuple[str, list[str]]]:
        return [
            (f"tmp/{name}", [match[2]])
            for name in self._names("tmp")
            if (match := _TMP.fullmatch(name)) and match[1] == participant
        ]

    def _probe(self) -> None:
        """Writes, links and removes a file, as `put` will; removes what crashes have left in `tmp/`."""
        with self._stage([("probe", b"probe\n")]) as staged:
            file = staged.files[0]
            linked = file.with_suffix(".link")
            os.link(file, linked)
            linked.unlink()
            now_s = file.stat().st_mtime  # by the clock of the file system
            for name in self._names("tmp"):
                with suppress(FileNotFoundError):
                    if now_s - (self._tmp / name).stat().st_mtime > TMP_MAX_AGE_S:
                        self._clean(name)

    def _clean(self, name: str) -> None:
        match = _TMP.fullmatch(name)
        if match is None:
            (self._tmp / name).unlink()
            return
        with self._lock(match[1][:2], alone=True):
            self._drop_residue(f"tmp/{name}", [match[2]])


class _Files:
    """Files in `tmp/` with all their bytes on disk."""

    def __init__(self, store: FolderStore, files: list[Path]) -> None:
        self._store, self.files = store, files

    def name(self, which: Sequence[int], keys: Sequence[str], /) -> list[bool]:
        store = self._store
        new = [store._link(self.files[at], store.path / key) for at, key in zip(which, keys, strict=True)]
        _each(sync_folder, {(store.path / key).parent for key in keys})
        return new


def _write(what: tuple[Path, bytes]) -> None:
    """A new file with all its bytes on disk."""
    path, data = what
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
    with open(fd, "wb", buffering=0) as file:
        write_all(file, data)
        os.fsync(fd)


def _each(work: Callable[[_T], None], items: Iterable[_T]) -> None:
    """All of them, several at once. Raises what the first one that failed raised, after all have ended."""
    todo = list(items)
    if len(todo) < 4:  # threads cost more than they save
        for item in todo:
            work(item)
        return
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        for _ in pool.map(work, todo):
            pass


if sys.platform == "win32":  # thin: not yet run on hardware
    import msvcrt

    def _flock(fd: int, alone: bool) -> None:
        while True:  # it gives up after 10 s
            with suppress(OSError):
                msvcrt.locking(fd, msvcrt.LK_LOCK, 1)
                return

else:
    import fcntl

    def _flock(fd: int, alone: bool) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
