"""Unix sockets in a folder that is open already, and who is at their other end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from mcilib import limits
from mcilib.channel.folder import SOCKET_NAME
from mcilib.errors import ControlError

NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
"""A flag for each `send`: who hung up is no reason for a SIGPIPE, even where the host has not ignored it."""

_PATH_MAX_BYTES = 103 if sys.platform == "darwin" else 107  # of sun_path, less the zero at its end
_FOLDERS = "/proc/self/fd"
_SYSTEMS = ("linux", "darwin")
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES = 0, 1, 76  # <sys/un.h>, <sys/ucred.h> of macOS


def missing() -> str:
    """Why there is no control channel on this system, in words; empty where there is one."""
    if sys.platform in _SYSTEMS and hasattr(socket, "AF_UNIX"):
        return ""
    return "not built for this system yet"


def without_signal(connection: socket.socket) -> socket.socket:
    """The same, where `NO_SIGNAL` is not known."""
    if sys.platform == "darwin":  # not yet run on hardware
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_NOSIGPIPE, 1)
    return connection


def address(folder: Path, folder_fd: int) -> str:
    """Where the socket is. On Linux by the descriptor of the folder: however long its path is, and whatever is put in
    its place meanwhile. Elsewhere by its path; raises `ControlError` where that is too long."""
    if sys.platform == "linux" and os.path.isdir(f"{_FOLDERS}/{folder_fd}"):
        return f"{_FOLDERS}/{folder_fd}/{SOCKET_NAME}"
    path = str(folder.absolute() / SOCKET_NAME)
    if len(os.fsencode(path)) > _PATH_MAX_BYTES:
        raise ControlError(
            f"The path of the state folder is too long for a control channel on this system ({folder})",
            f"Choose one of at most {_PATH_MAX_BYTES - len(SOCKET_NAME) - 1} bytes with --state.",
        )
    return path


def listen(folder: Path, folder_fd: int) -> socket.socket:
    """The socket in this folder, with mode 0600 before anybody can connect. Raises `OSError`, `ControlError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):  # Linux makes the file with this mode; others know no such thing
            os.fchmod(listener.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        listener.bind(address(folder, folder_fd))
        os.chmod(SOCKET_NAME, stat.S_IRUSR | stat.S_IWUSR, dir_fd=folder_fd)
        listener.listen(limits.CHANNEL_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(folder: Path, folder_fd: int, timeout_s: float) -> socket.socket:
    """A connection; waits where others do too. Raises `OSError`, `ControlError`."""
    connection = without_signal(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        connection.settimeout(timeout_s)
        connection.connect(address(folder, folder_fd))
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int:
    """The user who made the other end, at the time of `connect` or `listen`. Raises `OSError`."""
    if sys.platform == "darwin":  # not yet run on hardware
        told = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        version, uid = struct.unpack_from("=II", told)
        if version != 0:
            raise OSError(errno.EPROTO, "another version of xucred")
        return int(uid)
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=iII"))
    _, uid, _ = struct.unpack("=iII", told)
    return int(uid)
