"""Where state is killed at each of its file operations: by SIGKILL, or with the power of its disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import faultpoints
import powercut
import pytest
from powercut import Cut

EVERY = os.environ.get("MCILIB_CRASH") == "all"
"""`make crash`: at each point, and at each point of each recovery."""


class Place:
    """A folder in which a child dies. Without a disk: by SIGKILL alone."""

    def __init__(self, folder: Path, name: str, disk: powercut.Disk | None, cut: Cut | None) -> None:
        self.root = disk.path if disk is not None else folder
        self.folder = self.root / name
        self._disk, self.cut = disk, cut
        self._kept = folder / "kept"

    def die(self, work: Callable[[Callable[[str], None]], None], number: int) -> tuple[bool, list[str], str]:
        """Runs `work` up to its `number`-th file operation. Did it end before, what it said, the operation."""
        with faultpoints.Stopped(work) as child:
            ended = not child.run_to(number)
            if self._disk is not None and self.cut is not None:
                self._disk.cut(self.cut)
            child.kill()
            said, operation = child.said(), child.name
        if self._disk is not None:
            self._disk.restore()
        return ended, said, operation

    def keep(self) -> None:
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self.folder, self._kept)

    def bring_back(self) -> None:
        """The folder as it was kept, durably."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._kept, self.folder)
        self._sync()

    def empty(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._sync()

    def _sync(self) -> None:
        if self._disk is not None:
            self._disk.sync()


def places(tmp_path: Path, name: str, cut: Cut | None) -> Iterator[Place]:
    """For a fixture: one, or the test is skipped."""
    if (why := faultpoints.supported()) is not None:
        pytest.skip(why)
    with ExitStack() as stack:
        disk = stack.enter_context(powercut.disk(tmp_path)) if cut is not None else None
        memory = powercut.memory(tmp_path)
        stack.callback(shutil.rmtree, memory)
        yield Place(memory, name, disk, cut)
