"""A collector of fakes on which a participant decides."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mcilib import Collector, Grant, KeyPress, Move, Reader
from mcilib.testing.fakes import FakeSource, FakeTransport, ManualClock, example_grant


class Seen:
    """An indicator that remembers."""

    def __init__(self, *answers: object) -> None:
        self.notices: list[Any] = []
        self._answers = list(answers)

    def show(self, notice: Any, /) -> Any:
        self.notices.append(notice)
        answer = self._answers.pop(0) if self._answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]


class Run:
    """A collector of a pointer and a keyboard, both fakes."""

    def __init__(self, folder: Path, *scopes: str, **options: Any) -> None:
        self.folder = folder
        self.pointer, self.keyboard = FakeSource(), FakeSource("keyboard", "keys")
        self.clock = options.setdefault("clock", ManualClock(wall_ns=time.time_ns()))
        self.transport = options.setdefault("transport", FakeTransport())
        self.indicator = options.setdefault("indicator", Seen())
        self.changes: list[Any] = []
        options.setdefault("grant", example_grant(*scopes))
        self.collector: Any = Collector(
            sources=[self.pointer, self.keyboard], state_dir=folder, on_control=self.changes.append, channel=False,
            policies=(), **options,
        )  # fmt: skip
        self.count = 0

    def __enter__(self) -> Run:
        self.collector.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.collector.stop()

    def move(self, x: int) -> bool:
        """True when a source that runs had it taken."""
        taken = bool(self.pointer.feed(Move(self.clock.monotonic_ns(), x, 0)))
        self.clock.advance(0.001)
        return taken

    def key(self, label: str) -> bool:
        taken = bool(self.keyboard.feed(KeyPress(self.clock.monotonic_ns(), label)))
        self.clock.advance(0.001)
        return taken

    def on_disk(self) -> list[Any]:
        """Rows that wait, as x or label."""
        self.collector.commit()
        return rows(self.folder)


def rows(folder: Path) -> list[Any]:
    events: list[Any] = [row.event for row in Reader(folder / "spool").rows()]
    return [getattr(event, "x", None) if isinstance(event, Move) else event.key for event in events]


def narrower(grant: Grant, *scopes: str, **more: Any) -> Grant:
    return Grant.give(operator=grant.operator, purpose=grant.purpose, scopes=scopes, earlier=grant, **more)
