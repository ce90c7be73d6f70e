"""Reads the small files that a person names: the configuration, a policy, a token."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: Path, max_bytes: int) -> bytes:
    """The whole file. Raises `OSError` also for one that is larger, and for a device or a pipe, which would
    never end or keep us waiting."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 1024} KiB")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # to open a pipe waits for its writer
