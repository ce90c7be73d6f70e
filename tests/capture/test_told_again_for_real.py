"""After a forget a click tells its display, on a real X server, and nothing that is alive holds what was forgotten."""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from waiting import until
from xwindows import Manager

from mcilib import Collector, DisplaySource, KeyboardSource, PointerSource, Reader, WindowSource
from mcilib.events import Display, Focus, Layout
from mcilib.testing.fakes import FakeResources, FakeSession, example_grant
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11


class Seen:
    """An indicator."""

    def show(self, notice: object, /) -> bool:
        return True


def held(secret: Secret) -> set[str]:
    """What is alive and holds the title, or all places."""
    gc.collect()
    found = set()
    for holder in gc.get_objects():
        for part in gc.get_referents(holder):
            if isinstance(part, str | bytes | bytearray):
                text = part if isinstance(part, str) else part.decode("latin-1")
                if secret.begin in text and secret.end in text:
                    found.add("title")
        if (
            isinstance(holder, list | deque)
            and holder is not secret.xs
            and set(secret.xs) <= _numbers(holder)
        ):
            found.add("places")
    return found


def _numbers(values: list[Any] | deque[Any]) -> set[int]:
    return {value for value in list(values) if type(value) is int}


class Secret:
    """A title, in two parts so that this test itself does not hold it, and places."""

    def __init__(self) -> None:
        self.begin, self.end = random.randbytes(8).hex(), random.randbytes(8).hex()
        self.xs = random.sample(range(300, 1200), 6)


def test_after_a_forget_a_click_tells_its_display(xserver: VirtualDisplay, tmp_path: Path) -> None:
    sources = [
        PointerSource(read_interval_s=0.02), KeyboardSource(read_interval_s=0.02), DisplaySource(),
        WindowSource(titles=True, read_interval_s=0.02),
    ]  # fmt: skip
    grant = example_grant("keys", "pointer", "titles")
    collector = Collector(
        sources=sources, grant=grant, state_dir=tmp_path, session=FakeSession(), resources=FakeResources(),
        policies=(), indicator=Seen(), channel=False,
    )  # fmt: skip

    def captured(kind: str) -> int:
        return collector.statistics().capture.captured.get(kind, 0)

    manager, secret = Manager(), Secret()
    try:
        with collector:
            manager.use(manager.open("Editor", f"{secret.begin} to {secret.end}"))
            until(lambda: captured("focus") >= 2, what="the editor is told")
            manager.use(manager.open("Browser", "news"))
            until(lambda: captured("focus") >= 3, what="the browser is told")
            for x in secret.xs:
                xserver.move(x, 400)
            xserver.sync()
            until(lambda: captured("move") >= len(secret.xs), what="the moves are captured")
            assert held(secret) == {"title", "places"}, "it is found before"
            collector.forget(3600)
            forgotten_ns = time.monotonic_ns()
            xserver.move(7, 8)
            xserver.click()
            xserver.tap(xserver.keycode("a"))
            xserver.sync()
            until(lambda: captured("press") and captured("key_press"), what="the click is captured")
            assert held(secret) == set()
            collector.commit()
    finally:
        manager.retire()
    [batch] = Reader(tmp_path / "spool").batches()
    told = [event for event in batch.events if isinstance(event, Display | Layout | Focus)]
    assert list(batch.events[: len(told)]) == told
    assert min(event.t_ns for event in told) > forgotten_ns - 10**9
    assert [(event.width, event.height) for event in told if isinstance(event, Display)] == [
        (xserver.width_px, xserver.height_px)
    ]
    assert [event.name for event in told if isinstance(event, Layout)] == ["us"]
    assert [(event.app, event.title) for event in told if isinstance(event, Focus)] == [("Browser", None)]
