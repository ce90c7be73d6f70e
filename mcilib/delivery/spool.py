"""The spool: a folder that keeps sealed batches until their fate is known.

    tmp/          being written
    ready/        waiting, one file per batch: <sequence as 16 digits>-<batch id>.mcib
    bad/          damaged or refused for good; the newest few, for a look
    state.json    counters and the next sequence
    owner.lock    held by the one process that may change anything here

A file enters by write, fsync, rename, fsync of the folder. It leaves only after `state.json` says why, so
that committed = delivered + waiting + lost holds after a crash too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mcilib import limits
from mcilib.delivery._files import FULL, OwnerLock, spool_error, sync_folder, write_durably
from mcilib.delivery._state import Entry, SpoolState, listed, load_state, look_at
from mcilib.errors import ConfigError, SpoolError
from mcilib.protocols import Fate, SealedBatch
from mcilib.statistics import SpoolStatistics

_log = logging.getLogger("mcilib")

_BATCH_ID = re.compile(r"[0-9a-f]{32}")
_NOT_THE_FILE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_LEAVING_MAX = 32
"""Names of files on their way out that `state.json` carries before their unlinks are fsynced."""


class DirectorySpool:
    """Implements `mcilib.protocols.Spool` in a folder. Any thread, after `open`; one owner per folder.

    `max_bytes` and `max_files` (both at least 1) hold for `ready/`: beyond them a commit evicts the oldest
    batches, and counts them. Only the process that opened a spool owns it: in a child made by `fork`,
    `commit` raises and everything else does nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = limits.SPOOL_MAX_BYTES,
        max_files: int = limits.SPOOL_MAX_FILES,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("max_files", max_files)):
            if value < 1:
                raise ConfigError(f"{name} is {value}", "A spool must hold something: 1 or more.")
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._tmp, self._ready, self._bad = (self.path / name for name in ("tmp", "ready", "bad"))
        self._owner = OwnerLock(self.path / "owner.lock")
        self._pid = 0  # of the owner while open
        self._lock = threading.Lock()
        self._state: SpoolState | None = None
        self._waiting: dict[str, Entry] = {}  # by batch id, oldest first
        self._waiting_bytes = 0

    def __repr__(self) -> str:
        return f"DirectorySpool({os.fspath(self.path)!r})"

    def __enter__(self) -> DirectorySpool:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()

    # --- life -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes the folder (made with mode 0700) and finishes what a crash interrupted. Nothing when open.

        Raises `SpoolError`: not writable, owned by another process, written by a newer version, disk full.
        """
        with self._lock:
            if self._owned():
                return
            load_state(self.path)  # a newer version's folder is left as it is
            try:
                for folder in (self.path, self._tmp, self._ready, self._bad):
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not self._owner.acquire():
                    raise SpoolError(
                        f"Another mcilib agent runs on this state folder ({self.path})",
                        "Stop it, or choose another folder with --state.",
                    )
                try:
                    self._probe()
                    self._recover()
                except BaseException:
                    self._owner.release()
                    raise
            except OSError as error:
                raise spool_error("it cannot be opened", self.path, error) from None
            self._pid = os.getpid()

    def _probe(self) -> None:
        """A folder that cannot be written is found out now and not by the first batch. A full disk may empty."""
        probe = self._tmp / "probe"
        try:
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            if error.errno not in FULL:
                raise
        if not os.access(self._ready, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _recover(self) -> None:
        for leftover in self._tmp.iterdir():
            if not leftover.is_dir():
                leftover.unlink()
        before, damaged = load_state(self.path)
        if damaged:
            os.replace(self.path / "state.json", self.path / "state.json.damaged")
            _log.warning(
                "%s was damaged (kept beside it): its counters start again from the files", self.path
            )
        for name, to in before.leaving.items():
            self._move(name, to)
        state, waiting = before.reconcile(listed(self._ready), listed(self._bad))
        self._waiting = {entry.batch_id: entry for entry in waiting}
        self._waiting_bytes = sum(entry.size_bytes for entry in waiting)
        self._state = state
        if state != before or state.leaving or not (self.path / "state.json").exists():
            sync_folder(self._ready)
            self._write_state(replace(state, leaving={}))

    def close(self) -> None:
        """Gives the folder up. What waits stays. May be called twice; takes at most 0.5 s."""
        if os.getpid() != self._pid:
            return
        if not self._lock.acquire(timeout=limits.STOP_RESERVE_S):
            return  # a disk that hangs: the commit under way goes on, and the process's end gives it up
        try:
            self._pid = 0
            self._owner.release()
        finally:
            self._lock.release()

    def _owned(self) -> bool:
        return self._pid == os.getpid()

    @contextlib.contextmanager
    def _mine(self) -> Iterator[bool]:
        """Holds the lock while the folder is ours. A fork's child never waits for its parent's lock."""
        if not self._owned():
            yield False
            return
        with self._lock:
            yield self._owned()

    # --- a batch comes --------------------------------------------------------------------------------------

    def commit(self, seal: Callable[[int], SealedBatch], /) -> SealedBatch:
        """Gives `seal` the next sequence and stores what it returns: durable when this returns.

        `seal` runs under the spool's lock and must not call the spool. What it raises is passed on. Raises
        `SpoolError` when the batch cannot be stored; then nothing was stored and the sequence was not used.
        """
        with self._mine() as mine:
            if not mine:
                raise SpoolError(
                    f"This process does not own the spool {self.path} (not open, or a fork's child)",
                    "Call open() first; after a fork only the parent may write.",
                )
            state = self._now()
            batch = seal(state.next_sequence)
            entry = Entry.named(batch.sequence, batch.batch_id, len(batch.data))
            self._check(batch, state)
            ready = self._ready / entry.name
            try:
                try:
                    write_durably(self._tmp / entry.name, batch.data)
                    os.replace(self._tmp / entry.name, ready)
                    sync_folder(self._ready)
                    evicted = self._beyond_limits(entry)
                    state = replace(state.commit(entry), leaving=self._still_there(state))
                    for old in evicted:
                        state = state.leave(old.name, "gone", cause="evicted")
                    self._write_state(state)
                except BaseException:
                    (self._tmp / entry.name).unlink(missing_ok=True)
                    ready.unlink(missing_ok=True)
                    raise
            except OSError as error:
                raise spool_error("a batch cannot be stored", self.path, error) from None
            self._waiting[entry.batch_id] = entry
            self._waiting_bytes += entry.size_bytes
            for old in evicted:
                self._drop(old, "gone")
            return batch

    def _check(self, batch: SealedBatch, state: SpoolState) -> None:
        problem = None
        if batch.sequence != state.next_sequence:
            problem = f"it has sequence {batch.sequence} instead of {state.next_sequence}"
        elif not _BATCH_ID.fullmatch(batch.batch_id) or batch.batch_id in self._waiting:
            problem = "its id is not 32 hex digits of its own"
        elif not batch.data:
            problem = "it is empty"
        elif len(batch.data) > self._max_bytes:
            problem = f"{len(batch.data)} bytes are more than the spool may hold ({self._max_bytes})"
        if problem:
            raise SpoolError(f"A batch cannot be stored: {problem}", "Raise max_bytes, or report a bug.")

    def _beyond_limits(self, new: Entry) -> list[Entry]:
        """The oldest batches that have to make room for `new`."""
        count, size_bytes, evicted = len(self._waiting) + 1, self._waiting_bytes + new.size_bytes, []
        for old in self._waiting.values():
            if count <= self._max_files and size_bytes <= self._max_bytes:
                break
            evicted.append(old)
            count, size_bytes = count - 1, size_bytes - old.size_bytes
        return evicted

    # --- what waits -----------------------------------------------------------------------------------------

    def waiting(self) -> tuple[str, ...]:
        """Ids of the batches present, oldest first."""
        with self._mine() as mine:
            return tuple(self._waiting) if mine else ()

    def read(self, batch_id: str, /) -> SealedBatch | None:
        """The batch byte for byte, or None when it is gone.

        An empty, cut, unreadable or vanished file is lost: counted as `damaged`, moved to `bad/`, and None.
        Raises `SpoolError` when that cannot be recorded, or when the process has no file descriptor left.
        """
        with self._mine() as mine:
            entry = self._waiting.get(batch_id) if mine else None
            if entry is None:
                return None
            try:
                data = (self._ready / entry.name).read_bytes()
            except OSError as error:
                if error.errno in _NOT_THE_FILE:
                    raise spool_error("a batch cannot be read now", self.path, error) from None
                data = b""
            if data and len(data) == entry.size_bytes:
                return SealedBatch(entry.batch_id, entry.sequence, data)
            self._leave(entry, "bad", cause="damaged")
            return None

    # --- a batch goes ---------------------------------------------------------------------------------------

    def settle(self, batch_id: str, fate: Fate, /) -> None:
        """Counts the fate, durably, then removes the batch. An unknown id is ignored.

        Raises `SpoolError` when the disk refuses the count; then the batch still waits. On a full disk a
        delivered batch is removed first, since that is what makes room for the count.
        """
        with self._mine() as mine:
            entry = self._waiting.get(batch_id) if mine else None
            if entry is None:
                return
            if fate is Fate.DELIVERED:
                self._leave(entry, "gone", cause=None)
            else:
                self._leave(entry, "bad", cause=fate.value)

    def _leave(self, entry: Entry, to: str, *, cause: str | None) -> None:
        state = self._now()
        full = False
        try:
            if len(state.leaving) >= _LEAVING_MAX:
                sync_folder(self._ready)
                state = replace(state, leaving=self._still_there(state))
            state = state.leave(entry.name, to, cause=cause)
            self._write_state(state)
        except OSError as error:
            full = error.errno in FULL and cause is None
            if not full:
                raise spool_error("a batch's fate cannot be recorded", self.path, error) from None
        self._drop(entry, to)
        if full:
            self._state = state
            with contextlib.suppress(OSError):  # then the next write that succeeds carries it
                self._write_state(state)

    def _drop(self, entry: Entry, to: str) -> None:
        """The file of a batch that is counted. One that will not go is tried again at `open`."""
        self._waiting.pop(entry.batch_id, None)
        self._waiting_bytes -= entry.size_bytes
        with contextlib.suppress(OSError):
            self._move(entry.name, to)

    def _move(self, name: str, to: str) -> None:
        file = self._ready / name
        if to != "bad":
            file.unlink(missing_ok=True)
        elif file.exists():
            os.replace(file, self._bad / name)
            for old in listed(self._bad)[: -limits.BAD_MAX_FILES]:
                (self._bad / old.name).unlink(missing_ok=True)

    def _still_there(self, state: SpoolState) -> dict[str, str]:
        """Right after a sync of `ready/`: the names that did not leave."""
        return {name: to for name, to in state.leaving.items() if (self._ready / name).exists()}

    # --- counters -------------------------------------------------------------------------------------------

    def _now(self) -> SpoolState:
        assert self._state is not None, "only called while open"  # noqa: S101
        return self._state

    def _write_state(self, state: SpoolState) -> None:
        temporary = self._tmp / "state.json"
        write_durably(temporary, state.to_json())
        try:
            os.replace(temporary, self.path / "state.json")
            sync_folder(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._state = state

    def statistics(self) -> SpoolStatistics:
        """Counters over the life of the folder: from memory once it was opened, else `read_statistics`."""
        if self._state is None:
            return look_at(self.path)
        with self._mine():
            return self._now().statistics(self._waiting.values())

    @staticmethod
    def read_statistics(path: str | os.PathLike[str]) -> SpoolStatistics:
        """The counters of a folder that this or another process may own; changes nothing and needs no lock.

        All zero when there is no such folder. Raises `SpoolError` when it cannot be read.
        """
        return look_at(Path(path))

    @staticmethod
    def owned(path: str | os.PathLike[str]) -> bool:
        """Whether an owner runs on this folder now. Raises `SpoolError` when that cannot be told."""
        try:
            return OwnerLock.held(Path(path) / "owner.lock")
        except OSError as error:
            raise spool_error("it cannot be read", Path(path), error) from None
