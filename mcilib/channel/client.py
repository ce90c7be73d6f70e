"""The other end of the control channel: asks the agent that runs on a state folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mcilib import limits
from mcilib.channel import folder as folders
from mcilib.channel import local, wire
from mcilib.channel.answers import unpack
from mcilib.errors import ConfigError, ControlError, NoAgent, SpoolError


def ask(
    folder: str | os.PathLike[str],
    name: str,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    timeout_s: float = limits.CHANNEL_TIMEOUT_S,
) -> Mapping[str, Any]:
    """Has the agent on this state folder carry out a command of `mcilib.consent.commands`, and gives its answer.

    Nothing of the command leaves this process before the agent has proven that it knows the secret in the folder.

    Raises `NoAgent` when none listens; `SpoolError` when the folder or what stands in it is not this user's alone;
    `ControlError` when who answers is no agent of this user's, or there is no answer within `timeout_s` (the command
    may be carried out all the same); `ConfigError` for arguments that are no JSON of at most 64 KiB; and whatever
    `McilibError` the command itself ended with. Any thread.
    """
    path, ends_s = Path(folder), time.monotonic() + timeout_s
    try:
        request = wire.request(name, arguments)
    except wire.Refused as refused:
        raise ConfigError(f"The command is {refused}", "Make its arguments shorter and simpler.") from None
    if local.missing() or not os.path.lexists(path):
        raise _no_agent(path)
    folder_fd = folders.open_folder(path)
    try:
        for left in reversed(range(limits.CHANNEL_TRIES)):
            body = _try(path, folder_fd, request, ends_s, last=not left)
            if body is not None:
                return unpack(body)
            time.sleep(limits.CHANNEL_TRY_WAIT_S)
    except TimeoutError:
        raise ControlError(
            f"The agent has not answered within {timeout_s:g} s",
            "It may carry the command out all the same: look with `mcilib status`.",
        ) from None
    except OSError as error:
        raise ControlError(
            f"The agent cannot be asked ({error.strerror or type(error).__name__})", "Try again."
        ) from None
    finally:
        os.close(folder_fd)
    raise AssertionError("the last try gives a body or raises")


def _try(path: Path, folder_fd: int, request: bytes, ends_s: float, *, last: bool) -> bytes | None:
    """The answer's bytes. None when it is to be tried again, since nothing was said yet: not the `last` time."""
    with _connected(path, folder_fd, ends_s) as connection:
        if local.peer_uid(connection) != os.geteuid():
            raise ControlError(
                "Another user's program answers in the place of the agent",
                "Look who has access to the state folder.",
            )
        # Only now: an agent has written its secret before it listens, so this one is of the agent that was reached.
        side = wire.AskingSide(_secret(path, folder_fd), os.urandom(wire.NONCE_BYTES), request)
        try:
            _talk(connection, side, ends_s)
        except wire.Refused:
            raise ControlError(
                "Who answers is not the agent, or the answer was changed on its way",
                "Another program of yours has taken its place: end that, and start the agent again.",
            ) from None
    if side.message is not None:
        return side.message
    if side.proven:
        raise ControlError(
            "The agent has hung up without an answer",
            "It has ended, or what it heard was not what was said. Look with `mcilib status`.",
        )
    if last:
        raise ControlError(
            "The agent takes no commands just now", "Others ask it all the time, or it ends. Try again."
        )
    return None


def _connected(path: Path, folder_fd: int, ends_s: float) -> socket.socket:
    if not folders.check_file(path / folders.SOCKET_NAME, "socket", folder_fd=folder_fd):
        raise _no_agent(path)
    while True:
        try:
            return local.connect(path, folder_fd, _left_s(ends_s))
        except (
            ConnectionRefusedError,
            FileNotFoundError,
        ):  # left by an agent that was killed; ended just now
            raise _no_agent(path) from None
        except BlockingIOError:  # as many as the system allows wait already
            time.sleep(limits.CHANNEL_TRY_WAIT_S)


def _secret(path: Path, folder_fd: int) -> bytes:
    try:
        fd = folders.open_private(path / folders.KEY_NAME, os.O_RDONLY, folder_fd=folder_fd)
    except FileNotFoundError:
        raise ControlError(
            f"The secret of the control channel is missing ({path / folders.KEY_NAME})",
            "It was removed, or the agent ends just now. Start the agent again.",
        ) from None
    with os.fdopen(fd, "rb", buffering=0) as file:
        secret = file.read(wire.SECRET_BYTES + 1)
    if len(secret) != wire.SECRET_BYTES:
        raise SpoolError(
            f"{path / folders.KEY_NAME} is no secret of a control channel", "Start the agent again."
        )
    return secret


def _talk(connection: socket.socket, side: wire.AskingSide, ends_s: float) -> None:
    """Until the answer is here, or the other side hangs up. Raises `Refused`, `TimeoutError`, `OSError`."""
    reply = side.first
    with suppress(ConnectionError):
        while side.message is None:
            connection.settimeout(_left_s(ends_s))
            if reply:
                connection.sendall(reply, local.NO_SIGNAL)
            data = connection.recv(side.wanted)
            if not data:
                return
            reply = side.receive(data)


def _left_s(ends_s: float) -> float:
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _no_agent(path: Path) -> NoAgent:
    return NoAgent(f"No agent runs on {path}", "Start it with `mcilib run`.")
