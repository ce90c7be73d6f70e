"""The files of a spool: what is where, and how a file comes, goes, or is set aside. No counters, no limits."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from mcilib import limits
from mcilib.delivery._age import AgeClock
from mcilib.delivery._files import FULL, DiskTally, date, sync_folder, write_durably, write_over
from mcilib.delivery._state import Entry, listed

RESERVE_BYTES = 32 * 1024
"""Room for the counters on a full disk. They take 700 bytes, and 60 more for each batch of one reply."""


class SpoolFolder:
    """One thread at a time; raises `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tmp, self.ready, self.control, self.bad = (
            path / name for name in ("tmp", "ready", "control", "bad")
        )
        self.state = path / "state.json"
        self.tally = DiskTally()
        self._reserve = path / "reserve"
        self._reserved = False
        self._bad_until_ns: int | None = None

    # --- life -----------------------------------------------------------------------------------------------

    def make(self) -> None:
        for folder in (self.path, self.tmp, self.ready, self.bad, self.control):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                if folder is not self.control or error.errno not in FULL:  # version 1 on a full disk delivers
                    raise  # `store` makes it later

    def probe(self) -> None:
        """A folder that cannot be written is found out now and not by the first batch. A full disk may empty."""
        probe = self.tmp / "probe"
        try:
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            if error.errno not in FULL:
                raise
        if not os.access(self.ready, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def clear_tmp(self) -> None:
        for leftover in self.tmp.iterdir():
            if not leftover.is_dir():
                leftover.unlink()

    # --- files come and go ----------------------------------------------------------------------------------

    def store(self, folder: Path, entry: Entry, data: bytes) -> None:
        """Durable, or nothing is left behind."""
        temporary, place = self.tmp / entry.name, folder / entry.name
        if folder is self.control:
            folder.mkdir(mode=0o700, exist_ok=True)
        try:
            write_durably(temporary, data, entry.dated_ns, self.tally)
            os.replace(temporary, place)
            sync_folder(folder, self.tally)
        except BaseException:
            temporary.unlink(missing_ok=True)
            place.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        (self.ready / name).unlink(missing_ok=True)

    def is_ready(self, name: str) -> bool:
        return (self.ready / name).exists()

    def remove_control(self, name: str) -> None:
        """Durably."""
        (self.control / name).unlink(missing_ok=True)
        sync_folder(self.control, self.tally)

    def sync_ready(self) -> None:
        """What has gone from `ready/` stays gone."""
        sync_folder(self.ready, self.tally)

    def short_of_bytes(self, min_free_bytes: int) -> int:
        """How much the disk lacks of so much free space, or of a tenth of it all if that is less.

        Never raises `OSError`: where it cannot be told, nothing is lacking.
        """
        try:
            total, free = _disk_bytes(self.ready)
        except OSError:
            return 0
        return min(min_free_bytes, total // 10) - free

    # --- the state ------------------------------------------------------------------------------------------

    def write_state(self, data: bytes) -> None:
        """In place of the old one, durably. On a full disk it takes the room that was kept for it."""
        temporary = self.tmp / "state.json"
        try:
            write_durably(temporary, data, tally=self.tally)
        except OSError as error:
            if error.errno not in FULL or not write_over(self._reserve, data, self.tally):
                raise
            temporary, self._reserved = self._reserve, False
        try:
            os.replace(temporary, self.state)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.path, self.tally)

    def keep_reserve(self) -> None:
        """Sets the room aside again, if there is any now. Never raises `OSError`."""
        if self._reserved:
            return
        with contextlib.suppress(OSError):
            if not self._reserve.exists() or self._reserve.stat().st_size < RESERVE_BYTES:
                write_durably(self._reserve, bytes(RESERVE_BYTES), tally=self.tally)
            self._reserved = True

    def set_state_aside(self) -> None:
        os.replace(self.state, self.path / "state.json.damaged")

    # --- kept for a look ------------------------------------------------------------------------------------

    def set_aside(self, folder: Path, name: str, age: AgeClock) -> None:
        """Moves a file to `bad/`, if it is there; what is too many, too large or too old there goes."""
        file = folder / name
        if not os.path.lexists(file):
            return
        os.replace(file, self.bad / name)
        with contextlib.suppress(OSError):
            date(self.bad / name, age.now_ns())
        self._prune_bad(age)

    def prune_bad(self, age: AgeClock) -> None:
        """Costs nothing until something is too old. Never raises `OSError`."""
        if self._bad_until_ns is None or age.now_ns() >= self._bad_until_ns:
            with contextlib.suppress(OSError):
                self._prune_bad(age)

    def _prune_bad(self, age: AgeClock) -> None:
        now_ns, kept, size_bytes = age.now_ns(), list[int](), 0
        for entry in sorted(listed(self.bad), key=lambda e: (e.dated_ns, e.name), reverse=True):
            dated_ns = age.believed_ns(entry.dated_ns)
            size_bytes += entry.size_bytes
            if (
                len(kept) == limits.BAD_MAX_FILES
                or size_bytes > limits.BAD_MAX_BYTES
                or now_ns - dated_ns >= limits.BAD_MAX_AGE_S * 1e9
            ):
                size_bytes -= entry.size_bytes
                _remove_anything(self.bad / entry.name)
            else:
                kept.append(dated_ns)
        self._bad_until_ns = min(kept, default=now_ns) + int(limits.BAD_MAX_AGE_S * 1e9)

    def purge_bad(self, batch_ids: Iterable[str] | None) -> None:
        """Removes these batches, or all there is, from what was kept for a look; durably."""
        wanted = None if batch_ids is None else set(batch_ids)
        for entry in listed(self.bad):
            if wanted is None or (entry.name.endswith(".mcib") and entry.entry_id in wanted):
                _remove_anything(self.bad / entry.name)
        sync_folder(self.bad, self.tally)


def _disk_bytes(path: Path) -> tuple[int, int]:
    """All of the disk, and what an ordinary user may still take. As `shutil.disk_usage`, which imports compressors."""
    if hasattr(os, "statvfs"):
        disk = os.statvfs(path)
        return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    import shutil

    usage = shutil.disk_usage(path)
    return usage.total, usage.free


def _remove_anything(path: Path) -> None:
    """Somebody may have put a folder there."""
    if path.is_dir() and not path.is_symlink():
        import shutil

        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
