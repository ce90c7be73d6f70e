"""One start of the control channel: its sockets, its thread, and those that carry out commands."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mcilib import limits
from mcilib.channel import folder as folders
from mcilib.channel import local, wire
from mcilib.channel.answers import pack_error
from mcilib.errors import ControlError, SpoolError
from mcilib.statistics import Problem

_log = logging.getLogger("mcilib")

_HUNG_UP, _TOO_SLOW, _TOO_MANY, _OTHER_USER = "hung up", "too slow", "too many at once", "another user"


class _Connection:
    """One that has not proven yet that it knows the secret."""

    def __init__(self, sock: socket.socket, secret: bytes) -> None:
        self.sock = sock
        self.side = wire.AgentSide(secret, os.urandom(wire.NONCE_BYTES))
        self.ends_s = time.monotonic() + limits.CHANNEL_PROVE_S


class Serving:
    """Listens from its making to `stop`. See `ControlServer`."""

    def __init__(
        self, folder: Path, carry_out: Callable[[bytes], bytes], tell: Callable[[Problem], None]
    ) -> None:
        self._carry_out, self._tell = carry_out, tell
        self.refused: Counter[str] = Counter()
        self._unproven: dict[int, _Connection] = {}  # by descriptor, the oldest first
        self._carrying: dict[threading.Thread, socket.socket] = {}
        self._stopping = False
        self._rest_ends_s: float | None = None  # until then no new connection is taken
        self._uid = os.geteuid()
        self._sockets: list[socket.socket] = []
        self._ours: dict[str, tuple[int, ...]] = {}  # the files that this start has made
        self._folder_fd = folders.open_folder(folder)
        try:
            self._secret = os.urandom(wire.SECRET_BYTES)
            self._write_secret(folder)
            self._listener = local.listen(folder, self._folder_fd)
            self._sockets.append(self._listener)
            self._ours[folders.SOCKET_NAME] = _identity(folders.SOCKET_NAME, self._folder_fd)
            self._wake, self._waker = socket.socketpair()
            self._sockets += [self._wake, self._waker]
            self._thread = threading.Thread(target=self._run, name="mcilib-control", daemon=True)
            self._thread.start()
        except BaseException as error:
            self._remove_files()
            self._close()
            if isinstance(error, OSError):
                raise SpoolError(
                    f"The control channel cannot be made in {folder} ({error.strerror or error})",
                    "Make room on the disk and the folder writable, or choose another one with --state.",
                ) from None
            raise

    def threads(self) -> list[threading.Thread]:
        return [thread for thread in (self._thread, *list(self._carrying)) if thread.is_alive()]

    def stop(self) -> None:
        self._remove_files()
        self._stopping = True
        with suppress(OSError):  # closed: it has ended
            self._waker.send(b"x")
        ends_s = time.monotonic() + limits.CHANNEL_STOP_TIMEOUT_S
        for thread in self.threads():
            if thread is not threading.current_thread():
                thread.join(max(0.0, ends_s - time.monotonic()))

    def forget(self) -> None:
        """In a fork's child."""
        for sock in self._carrying.values():
            sock.close()
        self._carrying.clear()
        self._close()
        self._secret = b""

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        failure = ""
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:
            failure = type(error).__name__
            self._remove_files()
        finally:
            self._close()
        if failure:
            _log.warning("mcilib: the control channel has failed (%s)", failure)
            self._tell(
                Problem("control", "The control channel has failed", "Commands work again after a restart.")
            )

    def _turn(self) -> None:
        """Sleeps until something comes or is due, and takes it up."""
        poll = select.poll()
        for fd in (self._wake.fileno(), *self._unproven):
            poll.register(fd, select.POLLIN)
        if self._rest_ends_s is None:
            poll.register(self._listener.fileno(), select.POLLIN)
        due = [connection.ends_s for connection in self._unproven.values()]
        due += [self._rest_ends_s] if self._rest_ends_s is not None else []
        left_s = max(0.0, min(due) - time.monotonic()) if due else None
        ready = {fd for fd, _ in poll.poll(None if left_s is None else left_s * 1000 + 1)}
        if self._stopping:
            return
        for connection in [self._unproven[fd] for fd in ready if fd in self._unproven]:
            self._hear(connection)
        now_s = time.monotonic()
        for connection in [c for c in self._unproven.values() if c.ends_s <= now_s]:
            self._refuse(connection, _TOO_SLOW)
        if self._rest_ends_s is not None and self._rest_ends_s <= now_s:
            self._rest_ends_s = None
        if self._listener.fileno() in ready:
            self._accept()

    def _accept(self) -> None:
        for _ in range(limits.CHANNEL_ACCEPT_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                self._no_room(error)
                return
            try:
                sock.setblocking(False)
                local.without_signal(sock)
                known = local.peer_uid(sock) == self._uid
            except OSError:
                known = False
            if not known:
                self._count(_OTHER_USER)
                sock.close()
                continue
            if len(self._unproven) >= limits.CHANNEL_UNPROVEN_MAX:
                silent = (c for c in self._unproven.values() if not c.side.greeted)
                self._refuse(next(silent, next(iter(self._unproven.values()))), _TOO_MANY)
            self._unproven[sock.fileno()] = _Connection(sock, self._secret)

    def _no_room(self, error: OSError) -> None:
        """No descriptor is left: the oldest connection makes room; without one it is tried again in a while."""
        if self._unproven:
            self._refuse(next(iter(self._unproven.values())), _TOO_MANY)
            return
        self._rest_ends_s = time.monotonic() + limits.CHANNEL_REST_S
        if self._count("no room"):
            self._tell(
                Problem(
                    "control",
                    f"The control channel can take no connection ({error.strerror})",
                    "The program has too many files open; commands work again when it has fewer.",
                )
            )

    def _hear(self, connection: _Connection) -> None:
        side = connection.side
        try:
            data = connection.sock.recv(side.wanted)
            reply = side.receive(data)
            if reply:
                connection.sock.send(reply, local.NO_SIGNAL)  # 72 bytes into an empty buffer
        except BlockingIOError:
            return
        except OSError:
            self._refuse(connection, _HUNG_UP)
            return
        except wire.Refused as refused:
            self._refuse(connection, refused.reason)
            return
        if not data:
            self._refuse(connection, _HUNG_UP)
        elif side.message is not None:
            del self._unproven[connection.sock.fileno()]
            self._begin(connection.sock, side, side.message)

    def _refuse(self, connection: _Connection, reason: str) -> None:
        self._count(reason)
        del self._unproven[connection.sock.fileno()]
        connection.sock.close()

    def _count(self, reason: str) -> bool:
        """Whether it is the first time; that one is logged."""
        self.refused[reason] += 1
        first = self.refused[reason] == 1
        if first and reason != _HUNG_UP:
            _log.warning("mcilib: the control channel refused a connection (%s)", reason)
        return first

    # --- commands -------------------------------------------------------------------------------------------

    def _begin(self, sock: socket.socket, side: wire.AgentSide, body: bytes) -> None:
        """Carries a command out in a thread of its own."""
        thread = threading.Thread(
            target=self._command, args=(sock, side, body), name="mcilib-control-command", daemon=True
        )
        if len(self._carrying) < limits.CHANNEL_REQUESTS_MAX:
            self._carrying[thread] = sock
            try:
                thread.start()
                return
            except RuntimeError:  # no more threads
                self._carrying.pop(thread, None)
        busy = ControlError("The agent carries out too many commands at once", "Try again in a moment.")
        _send(sock, side.answer(pack_error(busy)))

    def _command(self, sock: socket.socket, side: wire.AgentSide, body: bytes) -> None:
        try:
            answer = self._carry_out(body)
            sock.settimeout(limits.CHANNEL_PROVE_S)
            _send(sock, side.answer(answer))
        finally:
            sock.close()
            self._carrying.pop(threading.current_thread(), None)

    # --- files ----------------------------------------------------------------------------------------------

    def _write_secret(self, folder: Path) -> None:
        """Into `control.key`. What a killed agent has left makes room, if it is what an agent leaves. Raises
        `SpoolError`, `OSError`."""
        for name, kind in ((folders.SOCKET_NAME, "socket"), (folders.KEY_NAME, "file")):
            if folders.check_file(folder / name, kind, folder_fd=self._folder_fd):
                os.unlink(name, dir_fd=self._folder_fd)
        path, flags = folder / folders.KEY_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = folders.open_private(path, flags, folder_fd=self._folder_fd)
        try:
            if os.write(fd, self._secret) != len(self._secret):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
            self._ours[folders.KEY_NAME] = _identity(folders.KEY_NAME, self._folder_fd)

    def _remove_files(self) -> None:
        """Those that this start has made."""
        for name, identity in list(self._ours.items()):
            with suppress(OSError):
                if _identity(name, self._folder_fd) == identity:
                    os.unlink(name, dir_fd=self._folder_fd)
        self._ours.clear()

    def _close(self) -> None:
        for connection in self._unproven.values():
            connection.sock.close()
        self._unproven.clear()
        for sock in self._sockets:
            sock.close()
        fd, self._folder_fd = self._folder_fd, -1
        if fd >= 0:
            os.close(fd)


def _send(sock: socket.socket, data: bytes) -> None:
    """And closes it. Who has hung up does not want it any more."""
    with sock, suppress(OSError):
        sock.sendall(data, local.NO_SIGNAL)


def _identity(name: str, folder_fd: int) -> tuple[int, ...]:
    found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_mtime_ns  # a number is used again as soon as a file is gone
