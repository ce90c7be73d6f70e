"""The agent's end of the control channel: one thread that sleeps until somebody connects."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mcilib.channel import local
from mcilib.channel._serving import Serving
from mcilib.channel.answers import carry_out
from mcilib.statistics import Problem

_log = logging.getLogger("mcilib")


class ControlServer:
    """Takes commands for the agent on a state folder from programs of the same user that can read `control.key` there.

    `handle(name, arguments)` carries a command out and gives the answer, both JSON. It is called in a thread of its own
    for each command, up to 16 at the same time: one that takes long keeps no other waiting. A `McilibError` goes to who
    asked, in its own words; anything else is told by its type only, and logged so.

    `on_problem` is called from the channel's thread when the channel has failed, or no new connection can be taken;
    what it raises is logged. The folder must be owned by this process (`DirectorySpool.open`) from `start` to `stop`:
    what an agent that was killed has left there is removed.

    On Windows there is no channel yet: `start` does nothing, and `missing` says so. `start` and `stop` from one thread
    at a time, `stop` from within `handle` too; all else from any. In a child made by `fork` nothing listens, and
    nothing of the parent's is touched.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        handle: Callable[[str, Mapping[str, Any]], Mapping[str, Any]],
        on_problem: Callable[[Problem], None] = lambda problem: None,
    ) -> None:
        self._folder, self._handle, self._on_problem = Path(folder), handle, on_problem
        self._serving: Serving | None = None
        _all.add(self)

    @property
    def missing(self) -> str:
        """Why there can be no channel here, in words; empty where there can."""
        return local.missing()

    def start(self) -> None:
        """Listens when this returns. Raises `SpoolError` when the state folder or what stands in it is not this user's
        alone (see `mcilib.channel.folder`) or cannot be written, `ControlError` when its path is too long. Does nothing
        when it runs already."""
        if self._serving is None and not self.missing:
            self._serving = Serving(self._folder, partial(carry_out, self._handle), self._tell)

    def stop(self) -> None:
        """Removes both files, then ends; waits at most 0.5 s, also for commands that are carried out, which answer
        nevertheless when they are done. May be called twice. Never raises."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.stop()

    def threads(self) -> list[threading.Thread]:
        """Those whose cost is the channel's: one, and one more for each command that is being carried out."""
        serving = self._serving
        return [] if serving is None else serving.threads()

    @property
    def refused(self) -> dict[str, int]:
        """How many connections were closed without a command since `start`, by why."""
        serving = self._serving
        return {} if serving is None else dict(serving.refused)

    def _tell(self, problem: Problem) -> None:
        try:
            self._on_problem(problem)
        except Exception:
            _log.exception("mcilib: on_problem of the control channel failed")

    def _forget(self) -> None:
        """In a fork's child: without its copies the parent's clients see when the parent has ended."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.forget()


_all: weakref.WeakSet[ControlServer] = weakref.WeakSet()


def _forget_in_child() -> None:
    for server in list(_all):
        with suppress(Exception):
            server._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
