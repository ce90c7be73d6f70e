"""The participant's decisions in memory and on the disk (`controls.json`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcilib import limits
from mcilib.consent.state import ControlState
from mcilib.errors import SpoolError
from mcilib.files import read_private, remove_leftovers, write_private

CONTROLS_FILE = "controls.json"
"""Its name in the state folder."""


class Decisions:
    """The state, which changes at once in memory and is then saved. Any thread; one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = ControlState()
        """Never waited for."""
        self._changing = threading.Lock()
        self._saving = threading.Lock()
        self._saved = b""
        self._pid = 0  # of the process in which it is open

    def open(self) -> None:
        """Raises `OSError`. What cannot be read is left as it is, see `ControlState.unreadable`."""
        remove_leftovers(self.path)
        self.state = read_state(self.path)
        self._saved = b"" if self.state.unreadable else self.state.to_json()
        self._pid = os.getpid()

    def close(self) -> None:
        self._pid = 0

    def become(self, change: Callable[[ControlState], ControlState]) -> None:
        """In memory."""
        with self._changing:
            self.state = change(self.state)

    def save(self) -> None:
        """Durable when this returns: the newest state, whoever made it. Raises `SpoolError`."""
        with self._saving:
            data = self.state.to_json()
            if data == self._saved:
                return
            try:
                write_private(self.path, data)
            except OSError as error:
                raise refused("What you have decided", self.path, error) from None
            self._saved = data

    def check_mine(self) -> None:
        """Raises `SpoolError`: not open, or in a fork's child."""
        if self._pid != os.getpid():
            raise SpoolError(f"{self.path} is not open in this process", "Call open() first.")

    def check(self) -> None:
        """Raises `SpoolError`: not open, or on top of what cannot be read nothing can be decided."""
        self.check_mine()
        if self.state.unreadable:
            raise SpoolError(
                f"What you have decided before cannot be read ({self.state.unreadable}); nothing is captured or sent",
                f"Put {self.path} right. If you remove it, the pauses and exemptions in it are over.",
            )


def read_state(path: Path) -> ControlState:
    """What was decided, as it is on the disk; changes nothing and raises nothing, see `ControlState.unreadable`."""
    try:
        return ControlState.from_json(read_private(path, limits.CONTROLS_MAX_BYTES))
    except FileNotFoundError:
        return ControlState()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return ControlState(unreadable=f"{path.name}: {why}")


def refused(what: str, path: Path, error: OSError) -> SpoolError:
    return SpoolError(
        f"{what} cannot be written ({path}: {error.strerror or type(error).__name__})",
        "It holds as long as the agent runs, and not after it: mend the disk and say it again.",
    )


class Steps:
    """Each is taken, whatever becomes of those before."""

    def __init__(self) -> None:
        self._failed: Exception | None = None

    def take(self, step: Callable[[], Any]) -> Any:
        """What it returns; None when it fails."""
        try:
            return step()
        except Exception as error:
            self._failed = self._failed or error
            return None

    def end(self) -> None:
        """Raises what failed first."""
        if self._failed is not None:
            raise self._failed
