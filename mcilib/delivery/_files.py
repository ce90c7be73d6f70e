"""Durable files: what is written is on the disk, whole, before the next line runs.

Also who owns a folder, and one way to say in words what the disk refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
import weakref
from pathlib import Path

from mcilib.errors import SpoolError
from mcilib.statistics import DiskStatistics

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})

_LOCK_TRIES, _LOCK_WAIT_S = 5, 0.05
"""`mcilib status` holds the lock for an instant to see whether it is free, so one refusal is no refusal."""


_BINARY = getattr(os, "O_BINARY", 0)


class DiskTally:
    """What was handed to the file system, counted where it is done. One thread at a time; never goes down."""

    def __init__(self) -> None:
        self.written_bytes = self.fsyncs = 0

    def statistics(self) -> DiskStatistics:
        """From any thread."""
        return DiskStatistics(self.written_bytes, self.fsyncs)


def write_durably(
    path: Path, data: bytes, modified_ns: int | None = None, tally: DiskTally | None = None
) -> None:
    """Writes `data` (mode 0600) and fsyncs it, dated `modified_ns` if that is given.

    Leaves nothing behind when it raises `OSError`, but for what was there before: that may be a device.
    """
    flags, made = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, True
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o600)
    except FileExistsError:
        fd, made = os.open(path, flags, 0o600), False
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            write_all(file, data, tally)
            if modified_ns is not None:
                date(path, modified_ns)
            _fsync(file.fileno(), tally)
    except BaseException:
        if made:
            path.unlink(missing_ok=True)
        raise


def write_over(path: Path, data: bytes, tally: DiskTally | None = None) -> bool:
    """Writes `data` durably into the room that the file at `path` has already: goes on a full disk too.

    False when there is no such file or it is smaller. Raises `OSError`.
    """
    try:
        fd = os.open(path, os.O_WRONLY | _BINARY)
    except FileNotFoundError:
        return False
    with os.fdopen(fd, "wb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < len(data):
            return False
        write_all(file, data, tally)
        file.truncate(len(data))
        _fsync(file.fileno(), tally)
    return True


def write_all(file: io.FileIO, data: bytes, tally: DiskTally | None = None) -> None:
    """`write` may take a part only."""
    rest = memoryview(data)
    while rest:
        written_bytes = file.write(rest)
        rest = rest[written_bytes:]
        if tally is not None:
            tally.written_bytes += written_bytes


def _fsync(fd: int, tally: DiskTally | None) -> None:
    if tally is not None:
        tally.fsyncs += 1  # one that fails has cost as much
    os.fsync(fd)


def date(path: Path, modified_ns: int) -> None:
    """Sets when a file was modified."""
    os.utime(path, ns=(modified_ns, modified_ns))


def sync_folder(path: Path, tally: DiskTally | None = None) -> None:
    """Makes renames and unlinks in this folder survive a power cut (Windows has no such call)."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _fsync(fd, tally)
    finally:
        os.close(fd)


def spool_error(action: str, path: Path, error: OSError) -> SpoolError:
    """What was tried, why it failed, what to do."""
    reason = error.strerror or type(error).__name__
    if error.errno in FULL:
        return SpoolError(
            f"The disk is full: {action} ({path})", "Free some space; what already waits there is kept."
        )
    if error.errno in _NOT_ALLOWED:
        return SpoolError(
            f"The spool folder is not writable: {action} ({path}: {reason})",
            "Make it writable for this user, or choose another place with --state.",
        )
    if error.errno == errno.ENOENT:
        return SpoolError(
            f"The spool folder has vanished: {action} ({path})",
            "Was it removed or unmounted? Restart, or choose another place with --state.",
        )
    return SpoolError(
        f"The disk refused: {action} ({path}: {reason})",
        "Check the disk, or choose another place with --state.",
    )


class OwnerLock:
    """At most one spool, in this or any other process, owns a folder. Free as soon as its owner is gone.

    A child made by `fork` is no owner: it lets go of its copy, so that the lock ends with its parent.
    """

    def __init__(self, path: Path, tally: DiskTally | None = None) -> None:
        self._path, self._tally = path, tally
        self._file: io.FileIO | None = None  # an object, so that a forgotten lock is let go too

    def acquire(self) -> bool:
        """False when another owner has it. Raises `OSError`. Takes at most 0.25 s."""
        file = io.FileIO(self._path, "r", opener=_make)
        for attempt in range(_LOCK_TRIES):
            if attempt:
                time.sleep(_LOCK_WAIT_S)
            if _try_lock(file.fileno()):
                self._file = file
                _held.add(self)
                self._sign()
                return True
        file.close()
        return False

    def _sign(self) -> None:
        """Who, and by the file's date since when: for `holder`. A disk that refuses leaves it unsaid."""
        with contextlib.suppress(OSError), open(self._path, "wb", buffering=0) as file:
            write_all(file, f"{os.getpid()}\n".encode(), self._tally)  # kept open it would hold up a remount

    def release(self) -> None:
        """May be called twice."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    @staticmethod
    def held(path: Path) -> bool:
        """Whether an owner runs now, in this or another process. Raises `OSError` when it cannot be told."""
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(fd)
        finally:
            os.close(fd)

    @staticmethod
    def holder(path: Path) -> tuple[int | None, int] | None:
        """The process id of the owner that runs now, if it says so, and since when (Unix time, ns); None when none
        runs. Raises `OSError` when it cannot be told."""
        if not OwnerLock.held(path):
            return None
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            said = os.read(fd, 16).strip()
            return (int(said) if said.isdigit() else None), os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)


if sys.platform == "win32":  # thin: not yet run on hardware
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True


def _make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


_held: weakref.WeakSet[OwnerLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
