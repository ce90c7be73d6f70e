"""Waiting for something that happens in another thread or process."""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcilib.testing.xvfb import VirtualDisplay


def until(done: Callable[[], object], timeout_s: float = 20.0, what: str = "") -> None:
    """Returns as soon as `done()` is true; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or done}"
        time.sleep(0.01)


def until_since(done: Callable[[], object]) -> float:
    """The same as `until`; when (monotonic seconds) it was not so yet."""
    not_yet_s = [time.monotonic()]

    def asked() -> bool:
        now_s = time.monotonic()
        if done():
            return True
        not_yet_s[0] = now_s
        return False

    until(asked)
    return not_yet_s[0]


def until_taken(display: VirtualDisplay) -> None:
    """Returns when the server has taken what was injected. Without an answer of it, with which it would hand over what
    RECORD holds back."""
    sock = display._connected().display.socket

    def unread_bytes() -> int:
        return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])

    until(lambda: not unread_bytes(), what="the server takes what was injected")
