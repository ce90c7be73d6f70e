"""A state folder and its files as nobody else can have made them: private, this user's own, and no links.

On Windows only links are refused: who may read a file there does not show in its mode, and is not checked.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mcilib.errors import SpoolError

SOCKET_NAME, KEY_NAME = "control.sock", "control.key"

_KINDS: Mapping[str, Callable[[int], bool]] = {
    "folder": stat.S_ISDIR,
    "file": stat.S_ISREG,
    "socket": stat.S_ISSOCK,
}
_OPEN_TO_OTHERS = 0o077
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CAREFULLY = (
    _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)  # a FIFO would be waited for


def check_state_folder(path: str | os.PathLike[str]) -> None:
    """Raises `SpoolError` unless `path` is a folder, no link to one, this user's own and closed to all others (0700).

    Folders above it may be links. Any thread.
    """
    if sys.platform != "win32":
        os.close(open_folder(path))
        return
    try:
        _check_kind(Path(path), os.lstat(path), "folder")
    except OSError as error:
        raise _cannot_open(Path(path), error) from None


def open_folder(path: str | os.PathLike[str]) -> int:
    """`check_state_folder`, and a descriptor that stays with this folder whatever its path leads to later. Not on
    Windows."""
    folder = Path(path)  # without a slash at the end, which would follow a link
    try:
        _check(folder, os.lstat(folder), "folder")
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _cannot_open(folder, error) from None
    try:
        _check(folder, os.fstat(fd), "folder")
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_private(path: str | os.PathLike[str], flags: int, *, folder_fd: int | None = None) -> int:
    """Opens or (with `O_CREAT`, 0600) makes a file that only this user can read, as `os.open`; never follows a link.

    With `folder_fd`, of `open_folder`, only the name of `path` counts, in that folder. Raises `SpoolError` for a link,
    a FIFO, a device, a file of another user's or one that others may read; `OSError` as `os.open`. Any thread.
    """
    path = Path(path)
    check_file(path, "file", folder_fd=folder_fd)
    fd = os.open(_in(path, folder_fd), flags | _CAREFULLY, 0o600, dir_fd=folder_fd)
    try:
        _check(path, os.fstat(fd), "file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_file(path: Path, kind: str, *, folder_fd: int | None = None) -> bool:
    """Whether `path` is there. Raises `SpoolError` when it is not of this kind (`file`, `socket`), not this user's or
    open to others."""
    try:
        found = os.stat(_in(path, folder_fd), dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    _check(path, found, kind)
    return True


def _in(path: Path, folder_fd: int | None) -> str:
    return str(path) if folder_fd is None else path.name


def _check(path: Path, found: os.stat_result, kind: str) -> None:
    _check_kind(path, found, kind)
    if sys.platform == "win32":
        return
    if found.st_uid != os.geteuid():
        raise SpoolError(
            f"The {kind} {path} belongs to another user",
            "Use a state folder of your own, as the user whom it belongs to; other users have no access.",
        )
    if found.st_mode & _OPEN_TO_OTHERS:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise SpoolError(
            f"The {kind} {path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o})",
            f"Look whether somebody else has changed something there; then `chmod {mode} {path}`.",
        )


def _check_kind(path: Path, found: os.stat_result, kind: str) -> None:
    if _KINDS[kind](found.st_mode):
        return
    what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else f"no {kind}"
    raise SpoolError(
        f"{path} is {what}",
        f"It should be a {kind} that mcilib made itself. Look who put it there, and remove it.",
    )


def _cannot_open(path: Path, error: OSError) -> SpoolError:
    return SpoolError(
        f"The state folder {path} cannot be opened ({error.strerror or type(error).__name__})",
        "Make it with `mcilib grant`, or choose another one with --state.",
    )
