"""The spool: a folder that keeps sealed batches until their fate is known.

    tmp/          being written
    ready/        waiting, one file per batch: <sequence as 16 digits>-<batch id>.mcib
    control/      control records that wait: <sequence as 16 digits>-<record id>.json
    bad/          damaged or refused for good; the newest few of a day, for a look
    state.json    counters, the next sequences, the spool's clock
    reserve       room for the counters on a full disk
    owner.lock    held by the one process that may change anything here

A file enters by write, fsync, rename, fsync of the folder. It leaves only after `state.json` says why, so
that committed = delivered + waiting + lost holds after a crash too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mcilib import limits
from mcilib.clock import Clock, SystemClock, boot_id
from mcilib.delivery import control
from mcilib.delivery._files import OwnerLock, spool_error
from mcilib.delivery._folder import SpoolFolder
from mcilib.delivery._ledger import Ledger
from mcilib.delivery._limits import SpoolLimits
from mcilib.delivery._state import DELIVERED, Entry, load_state, look_at
from mcilib.errors import BatchFormatError, SpoolError
from mcilib.protocols import ControlRecord, Fate, SealedBatch
from mcilib.statistics import DiskStatistics, SpoolStatistics

_ID = re.compile(r"[0-9a-f]{32}")
_NOT_THE_FILE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def intact_frame(data: bytes) -> bool:
    """Whether length and checksum are those of a frame, of whatever version: no byte of it has changed."""
    from mcilib.format.frame import frame_size

    try:
        whole = frame_size(data) == len(data)
    except BatchFormatError:
        return False
    return whole and zlib.crc32(memoryview(data)[:-4]).to_bytes(4, "big") == data[-4:]


class DirectorySpool:
    """Implements `mcilib.protocols.Spool` in a folder. Any thread, after `open`; one owner per folder.

    Limits hold at each commit: the oldest batches go, and are counted. `max_bytes` and `max_files` (both at
    least 1) are of `ready/`. Batches older than `max_age_s` (more than 0) are `expired`, the others `evicted`.
    While the disk has less than `min_free_bytes` free, or than a tenth of it all if that is less, each commit
    evicts what is missing, but no more than a tenth of the batches: a short squeeze costs little, and in a
    lasting one the newest ten or so stay.

    A batch is damaged when `intact` says no to its bytes; `intact_frame` is the one for batches of ours, and by
    default only an empty one is. Batches age by the spool's own clock (`_age`), which `clock` drives; `boot`
    names the life of the machine that it tells the time in.

    Only the process that opened a spool owns it: in a child made by `fork`, `commit`, `commit_control` and
    `purge` raise, and everything else does nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = limits.SPOOL_MAX_BYTES,
        max_files: int = limits.SPOOL_MAX_FILES,
        max_age_s: float = limits.SPOOL_MAX_AGE_S,
        min_free_bytes: int = limits.SPOOL_MIN_FREE_BYTES,
        intact: Callable[[bytes], bool] = bool,
        clock: Clock | None = None,
        boot: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._limits = SpoolLimits(max_bytes, max_files, max_age_s, min_free_bytes)
        self._intact = intact
        self._clock: Clock = clock or SystemClock()
        self._boot = boot
        self._folder = SpoolFolder(self.path)
        self._owner = OwnerLock(self.path / "owner.lock", self._folder.tally)
        self._pid = 0  # of the owner while open
        self._lock, self._lock_pid = threading.Lock(), os.getpid()
        self._ledger: Ledger | None = None  # since it was opened

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

        A folder of an older version becomes one of this. Raises `SpoolError`: not writable, owned by another
        process, written by a newer version, disk full.
        """
        if self._lock_pid != os.getpid():  # a fork's child, in which nobody may be left to let go of it
            self._lock, self._lock_pid = threading.Lock(), os.getpid()
        with self._lock:
            if self._pid == os.getpid():
                return
            load_state(self.path)  # a newer version's folder is left as it is
            try:
                self._folder.make()
                if not self._owner.acquire():
                    raise SpoolError(
                        f"Another mcilib agent runs on this state folder ({self.path})",
                        "Stop it, or choose another folder with --state.",
                    )
                try:
                    self._folder.probe()
                    boot = self._boot if self._boot is not None else boot_id("spool")
                    self._ledger = Ledger(self._folder, self._clock, boot)
                except BaseException:
                    self._owner.release()
                    raise
            except OSError as error:
                raise spool_error("it cannot be opened", self.path, error) from None
            self._pid = os.getpid()

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

    @contextlib.contextmanager
    def _mine(self) -> Iterator[Ledger | None]:
        """Holds the lock while the folder is ours. A fork's child never waits for its parent's lock."""
        if self._pid != os.getpid():
            yield None
            return
        with self._lock:
            yield self._ledger if self._pid == os.getpid() else None

    @contextlib.contextmanager
    def _must_be_mine(self) -> Iterator[Ledger]:
        with self._mine() as ledger:
            if ledger is None:
                raise SpoolError(
                    f"This process does not own the spool {self.path} (not open, or a fork's child)",
                    "Call open() first; after a fork only the parent may write.",
                )
            yield ledger

    # --- something comes ------------------------------------------------------------------------------------

    def commit(self, seal: Callable[[int], SealedBatch], /) -> SealedBatch:
        """Gives `seal` the next sequence and stores what it returns: durable when this returns.

        `seal` runs under the spool's lock and must not call the spool. What it raises is passed on. A full
        disk costs a tenth of the waiting batches, the oldest, once. Raises `SpoolError` when the batch cannot
        be stored; then nothing was stored and the sequence was not used.
        """
        with self._must_be_mine() as ledger:
            sequence = ledger.state.next_sequence
            batch = seal(sequence)
            entry = Entry.new(batch.sequence, batch.batch_id, len(batch.data), ledger.age.now_ns())
            problem = _wrong_with(entry, sequence, ledger.waiting)
            if problem is None and entry.size_bytes > self._limits.max_bytes:
                most = self._limits.max_bytes
                problem = f"{entry.size_bytes} bytes are more than the spool may hold ({most})"
            if problem is not None:
                raise SpoolError(f"A batch cannot be stored: {problem}", "Raise max_bytes, or report a bug.")
            ledger.store(self._folder.ready, entry, batch.data, "a batch")
            before = ledger.state
            ledger.add(entry)
            try:
                ledger.leave(self._beyond_limits(ledger, entry))
            except BaseException:
                ledger.take_back(entry, before)
                raise
            self._folder.prune_bad(ledger.age)
            ledger.write_in_time()
            return batch

    def _beyond_limits(self, ledger: Ledger, newest: Entry) -> list[tuple[Entry, str]]:
        short_bytes = self._folder.short_of_bytes(self._limits.min_free_bytes)
        return self._limits.beyond(
            ledger.waiting.values(), ledger.waiting_bytes, short_bytes, newest.dated_ns
        )

    def commit_control(self, make: Callable[[int], ControlRecord], /) -> ControlRecord:
        """Gives `make` the next sequence of control records and stores what it returns: durable when this returns.

        Nothing ever evicts one, and on a full disk data makes room for it. Raises `SpoolError` as `commit`
        does; the record must be as `mcilib.delivery.control` makes it.
        """
        with self._must_be_mine() as ledger:
            sequence = ledger.state.next_control
            record = make(sequence)
            now_ns = ledger.age.now_ns()
            entry = Entry.new(record.sequence, record.record_id, len(record.data), now_ns, "json")
            problem = _wrong_with(entry, sequence, ledger.controls) or _wrong_inside(record)
            if problem is not None:
                raise SpoolError(f"A control record cannot be stored: {problem}", "Report a bug.")
            ledger.store(self._folder.control, entry, record.data, "a control record")
            ledger.state = replace(ledger.state, next_control=sequence + 1)
            ledger.controls[entry.entry_id] = entry
            return record

    # --- what waits -----------------------------------------------------------------------------------------

    def waiting(self, min_age_s: float = 0.0, /) -> tuple[str, ...]:
        """Ids of the batches that have lain here for at least so long, by the spool's clock, oldest first."""
        with self._mine() as ledger:
            if ledger is None:
                return ()
            if min_age_s <= 0:
                return tuple(ledger.waiting)
            latest_ns = ledger.age.now_ns() - min_age_s * 1e9
            return tuple(i for i, entry in ledger.waiting.items() if entry.dated_ns <= latest_ns)

    def read(self, batch_id: str, /) -> SealedBatch | None:
        """The batch byte for byte, or None when it is gone.

        An empty, cut, changed, unreadable or vanished file is lost: counted as `damaged`, moved to `bad/`, and
        None. Raises `SpoolError` when that cannot be recorded, or when the process has no file descriptor left.
        """
        with self._mine() as ledger:
            entry = ledger.waiting.get(batch_id) if ledger is not None else None
            if ledger is None or entry is None:
                return None
            data = self._bytes_of(self._folder.ready / entry.name)
            if data and len(data) == entry.size_bytes and self._intact(data):
                return SealedBatch(entry.entry_id, entry.sequence, data)
            ledger.leave([(entry, "damaged")])
            return None

    def controls(self) -> tuple[ControlRecord, ...]:
        """The control records present, oldest first.

        A damaged one is moved to `bad/`, with a line in the log. Raises `SpoolError` as `read` does.
        """
        with self._mine() as ledger:
            records = []
            for entry in list(ledger.controls.values()) if ledger is not None else ():
                data = self._bytes_of(self._folder.control / entry.name)
                record = ControlRecord(entry.entry_id, entry.sequence, data)
                if _wrong_inside(record) is None:
                    records.append(record)
                elif ledger is not None:
                    ledger.set_control_aside(entry)
            return tuple(records)

    def _bytes_of(self, file: Path) -> bytes:
        """Empty when it cannot be read."""
        try:
            return file.read_bytes()
        except OSError as error:
            if error.errno in _NOT_THE_FILE:
                raise spool_error("a batch cannot be read now", self.path, error) from None
            return b""

    # --- something goes -------------------------------------------------------------------------------------

    def settle(self, batch_id: str, fate: Fate, /) -> None:
        """Counts the fate, durably, then removes the batch. An unknown id is ignored.

        Raises `SpoolError` when the disk refuses the count; then the batch still waits.
        """
        self.settle_all({batch_id: fate})

    def settle_all(self, fates: Mapping[str, Fate], /) -> None:
        """`settle` for all at once, in one write of the counters.

        Where the disk is so full that not even that can be written, the delivered ones are removed first: it makes
        room.
        """
        with self._mine() as ledger:
            if ledger is None:
                return
            going = [(ledger.waiting[i], fate.value) for i, fate in fates.items() if i in ledger.waiting]
            ledger.made_room = False
            ledger.leave(going, first_if_full=[one for one in going if one[1] == DELIVERED])

    def settle_control(self, record_id: str, /) -> None:
        """Removes a control record whose receipt has come, durably. An unknown id is ignored."""
        with self._mine() as ledger:
            if ledger is None or record_id not in ledger.controls:
                return
            ledger.write()  # so that its sequence is not used again
            try:
                self._folder.remove_control(ledger.controls[record_id].name)
            except OSError as error:
                raise spool_error("a control record cannot be removed", self.path, error) from None
            del ledger.controls[record_id]

    def purge(self, batch_ids: Iterable[str] | None = None, /) -> int:
        """Removes these batches, or all, as the participant wants it: durably, also what was kept for a look.

        Counted as `purged`; returns how many of them waited. Control records stay. Raises `SpoolError` when
        something of them may still be on the disk; none of them is read again by this spool even then.
        """
        with self._must_be_mine() as ledger:
            wanted = list(ledger.waiting) if batch_ids is None else list(dict.fromkeys(batch_ids))
            going = [(ledger.waiting[i], "purged") for i in wanted if i in ledger.waiting]
            ledger.purge(going, None if batch_ids is None else wanted)
            return len(going)

    # --- counters -------------------------------------------------------------------------------------------

    def statistics(self) -> SpoolStatistics:
        """Counters over the life of the folder: from memory once it was opened, else `read_statistics`."""
        if self._ledger is None:
            return look_at(self.path)
        with self._mine():
            return self._ledger.statistics()

    def disk_statistics(self) -> DiskStatistics:
        """What this object has written and fsynced since it was made; never goes down. Never waits."""
        return self._folder.tally.statistics()

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


def _wrong_with(entry: Entry, sequence: int, others: Mapping[str, Entry]) -> str | None:
    if entry.sequence != sequence:
        return f"it has sequence {entry.sequence} instead of {sequence}"
    if not _ID.fullmatch(entry.entry_id) or entry.entry_id in others:
        return "its id is not 32 hex digits of its own"
    return None if entry.size_bytes else "it is empty"


def _wrong_inside(record: ControlRecord) -> str | None:
    try:
        named = control.parse(record.data)["record"]
    except ValueError as error:
        return str(error)
    return None if named == record.record_id else "its id is not the one that it names"
