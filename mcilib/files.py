"""Private files: of this user alone (mode 0600), replaced whole, never written or read through a link.

Any thread; two that write the same file at once each leave a whole one.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for


def write_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """In place of what is there, be it a link. `durable`: it survives a power cut when this returns.

    Raises `OSError`; then what was there before is there still, and nothing else is.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_names(path.parent)


def read_private(path: Path, max_bytes: int) -> bytes:
    """All of it. Raises `OSError`, and `ValueError`, in words, when it is none of this user's own files or too large.

    The owner is not checked on Windows.
    """
    fd = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT | _BINARY)
    with os.fdopen(fd, "rb") as file:
        _check_own(file.fileno())
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError("it is too large")
    return data


def read_file(path: Path, max_bytes: int) -> bytes:
    """The whole of a small file, whoever's it is. Raises `OSError` also for one that is larger, and for a device or a
    pipe, which would never end or keep us waiting."""
    with open(os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024} KiB")
    return data


@contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A file that only grows, made if it is not there: a descriptor that reads anywhere and writes at the end. Raises
    as `read_private`."""
    flags = os.O_RDWR | os.O_APPEND | _NO_FOLLOW | _NO_WAIT | _BINARY
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o600)
        sync_names(path.parent)  # else what is flushed into it may have no name after a power cut
    try:
        _check_own(fd)
        yield fd
    finally:
        os.close(fd)


def append(fd: int, data: bytes) -> None:
    """All of it, or nothing: what the disk took of it before it refused is cut off again. Raises `OSError`."""
    size_bytes, rest = os.fstat(fd).st_size, memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        os.ftruncate(fd, size_bytes)
        raise


def remove(path: Path) -> None:
    """The file, and its leftovers; durably. Raises `OSError`."""
    remove_leftovers(path)
    path.unlink(missing_ok=True)
    sync_names(path.parent)


def remove_leftovers(path: Path) -> None:
    """What writes of a file have left that a crash cut off. Raises `OSError`."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def without_home(error: object) -> str:
    """What an error says, with the home folder as `~`: for a log line, since that folder's name is as a rule its
    user's."""
    home = os.path.expanduser("~").rstrip(os.sep)
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", str(error)) if home else str(error)


def sync_names(folder: Path) -> None:
    """Makes what was renamed and removed in a folder survive a power cut (Windows has no such call)."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_own(fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no ordinary file")
    if sys.platform != "win32" and found.st_uid != os.geteuid():
        raise ValueError("it belongs to another user")
