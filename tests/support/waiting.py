"""Waiting for something that happens in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(done: Callable[[], object], timeout_s: float = 10.0, what: str = "") -> None:
    """Returns as soon as `done()` is true; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or done}"
        time.sleep(0.01)
