"""Sinks that keep apart what a test does not ask about."""

from __future__ import annotations

from mcilib import Event
from mcilib.events import Layout
from mcilib.testing.fakes import ListSink


class KeySink(ListSink):
    """Keys and gaps in `events`, the keyboard layouts in `layouts`."""

    def __init__(self) -> None:
        super().__init__()
        self.layouts: list[Layout] = []

    def emit(self, event: Event, /) -> bool:
        if isinstance(event, Layout):
            self.layouts.append(event)
            return True
        return super().emit(event)
