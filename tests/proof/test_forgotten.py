"""What was forgotten stays so, in memory, on the disk, on the wire and in the store; and what comes after it has a meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
from canary import Canary, in_bytes, in_folder, in_memory
from hosts import Host, Nursery
from waiting import until
from wire import Wire
from xwindows import Manager

from mcilib.events import Display, Focus, Layout
from mcilib.reader import Reader
from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11


def captured(host: Host, kind: str) -> int:
    return int(host.call("statistics")["capture"]["captured"].get(kind, 0))


def until_moves(host: Host, count: int) -> None:
    until(lambda: captured(host, "move") >= count, what="all is captured")


def test_after_a_forget_a_click_tells_its_display_and_nothing_of_what_was_forgotten(
    xserver: VirtualDisplay, nursery: Nursery, wire: Wire, store: Path, tmp_path: Path
) -> None:
    """Of what was delivered, of what waits on the disk and of what is in memory: titles, places, and what was typed.
    Titles remain in memory that Python has freed for a while: that no object holds one is tested where objects can be
    looked at (`tests/capture/test_told_again_for_real.py`)."""
    grant = example_grant("keys", "pointer", "titles")
    grant.save(state := tmp_path / "state")
    sent, kept, open_ = (Canary.of(xserver) for _ in range(3))
    manager, moves = Manager(), 0
    try:
        host = nursery.host(state=str(state), url=wire.url, display=xserver.display, titles=True)
        host.call("start")
        for canary, then in ((sent, "flush"), (kept, "commit"), (open_, "statistics")):
            manager.use(manager.open("Editor", f"letter {canary.text} to nobody"))
            canary.type(xserver)
            canary.point(xserver)
            moves += len(canary.places)
            until_moves(host, moves)
            host.call(then)
        focuses = captured(host, "focus")
        manager.use(manager.open("Browser", "news"))
        until(lambda: captured(host, "focus") > focuses, what="the window is told")
        assert {"text", "places"} <= in_folder(store, sent).forms, "it is found before"
        assert {"text", "places"} <= in_folder(state, kept).forms, "it is found before"
        forgotten = host.call("forget", last_s=3600)
        assert forgotten["batches"] >= 1
        assert host.call("flush")["delivered"]
        del wire.asked[:]
        xserver.move(7, 8)
        xserver.click()
        xserver.tap(xserver.keycode("a"))
        xserver.sync()
        until(lambda: captured(host, "press") and captured(host, "layout") > 1, what="the click is captured")
        assert host.call("flush")["delivered"]
        memory = {canary: in_memory(host.pid, canary).forms for canary in (sent, kept, open_)}
        host.end()
    finally:
        manager.retire()
    for canary in (sent, kept, open_):
        assert "places" not in memory[canary]
        assert not in_folder(state, canary).forms
        assert not in_folder(store, canary).forms
        assert not in_bytes(bytes(wire.asked), canary).forms
    batches = [batch for batch in Reader(store).batches() if batch.header.participant == grant.participant]
    events = [event for batch in batches for event in batch.events]
    assert events[0].kind in ("display", "layout", "focus")
    assert [(e.width, e.height) for e in events if isinstance(e, Display)] == [
        (xserver.width_px, xserver.height_px)
    ]
    assert [e.name for e in events if isinstance(e, Layout)] == ["us"]
    assert [(e.app, e.title) for e in events if isinstance(e, Focus)] == [("Browser", None)]
    assert {"press", "key_press"} <= {e.kind for e in events}
