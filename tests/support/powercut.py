"""A real disk whose power can be cut: ext4 on a loop device, and FS_IOC_SHUTDOWN.

A cut drops what was not synced, which killing a process never does: its pages are written later all the same.
Needs root, a loop device and mkfs.ext4; a test is skipped with the reason elsewhere, and fails in CI as root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_OPTIONS = (
    b"noauto_da_alloc"  # else ext4 mends a rename whose author forgot the fsync, as other file systems do not
)
_libc = ctypes.CDLL(None, use_errno=True)


class Cut(Enum):
    """What a power cut leaves."""

    EARLY = 2
    """Only what was synced: files, renames and unlinks since then are gone (EXT4_GOING_FLAGS_NOLOGFLUSH)."""
    LATE = 1
    """Every rename and unlink, but of files only the bytes that were synced: a file renamed before its fsync is
    empty (EXT4_GOING_FLAGS_LOGFLUSH)."""


def memory(folder: Path) -> Path:
    """A new folder in memory, where an fsync costs nothing; below `folder` where there is none. Remove it."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else folder))


class Disk:
    """16 MB, empty, mounted at `path`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        self._image = memory(folder) / "image"
        with self._image.open("wb") as file:
            file.truncate(16 * 1024 * 1024)
        self._device = ""
        self._mounted = False

    def plug_in(self) -> None:
        """Raises `OSError` or `CalledProcessError` where this cannot be had."""
        _run("mkfs.ext4", "-q", str(self._image))
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        self._mount()

    def _mount(self) -> None:
        if _libc.mount(self._device.encode(), os.fsencode(self.path), b"ext4", 0, _OPTIONS) != 0:
            raise OSError(ctypes.get_errno(), f"mount: {os.strerror(ctypes.get_errno())}")
        self._mounted = True

    def sync(self) -> None:
        """All that is there by now will survive."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            _libc.syncfs(fd)
        finally:
            os.close(fd)

    def cut(self, kind: Cut) -> None:
        """The power is gone; from now on every write fails. Whoever has files open there must end before `restore`."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", kind.value))
        finally:
            os.close(fd)

    def restore(self) -> None:
        """The power is back: the file system finds what it had synced."""
        self._unmount()
        self._mount()

    def _unmount(self, flags: int = 0) -> None:
        if self._mounted and _libc.umount2(os.fsencode(self.path), flags) != 0:
            raise OSError(ctypes.get_errno(), f"umount: {os.strerror(ctypes.get_errno())}")
        self._mounted = False

    def close(self) -> None:
        detach = 2  # MNT_DETACH: whatever a failed test has left open
        self._unmount(detach)
        if self._device:
            _run("losetup", "--detach", self._device)
        shutil.rmtree(self._image.parent)


def _run(*command: str) -> str:
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": search}
    ).stdout


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A `Disk` below `folder`, or the test is skipped."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("cutting the power of a disk needs root on Linux")
    made = Disk(folder)
    try:
        try:
            made.plug_in()
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"no disk to cut the power of: {getattr(error, 'stderr', '') or error}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        yield made
    finally:
        made.close()
