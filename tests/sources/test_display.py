"""How the displays are arranged: told at the start, and once for each change of each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from recording import batches
from waiting import until
from xservers import DUMMY_DRIVER, MODE, xephyr, xorg, xrandr, xvfb

from mcilib import PointerSource, Recorder
from mcilib.consent import Gate
from mcilib.events import Display, Event
from mcilib.sources.display import DisplaySource, _displays
from mcilib.testing.conformance import check_source
from mcilib.testing.fakes import ListSink, MemorySpool, example_grant

Said = tuple[int, int, int, int, int, float, int]


@pytest.fixture(autouse=True)
def backend() -> None:
    """There is one."""


def said(events: list[Event]) -> list[Said]:
    return [
        (d.display, d.x, d.y, d.width, d.height, d.scale, d.rotation)
        for d in events
        if isinstance(d, Display)
    ]


def changes(sink: ListSink, count: int) -> list[Said]:
    """The last `count`, after which nothing more comes."""
    until(lambda: len(sink.events) >= count, what=f"{count} changes")
    time.sleep(0.3)  # for one that should not come
    told = said(sink.events)
    assert len(told) == count, told
    sink.events.clear()
    return told


@pytest.fixture
def turning(own_xserver, needs, monkeypatch) -> Iterator[str]:
    needs("Xephyr", "xrandr")
    with xephyr(own_xserver) as name:
        monkeypatch.setenv("DISPLAY", name)
        yield name


@pytest.fixture
def several(needs, tmp_path: Path, monkeypatch) -> Iterator[str]:
    needs("Xorg", "xrandr", *([] if DUMMY_DRIVER.exists() else ["xserver-xorg-video-dummy"]))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with xorg(tmp_path) as name:
        monkeypatch.setenv("DISPLAY", name)
        yield name


def test_one_display(xserver):
    sink, source = ListSink(), DisplaySource()
    before_ns = time.monotonic_ns()
    source.start(sink)
    source.stop()
    assert said(sink.events) == [(0, 0, 0, 1280, 800, 1.0, 0)]
    assert before_ns - 1e6 <= sink.events[0].t_ns <= time.monotonic_ns()


@pytest.mark.x11
def test_a_server_that_lists_no_displays(monkeypatch, needs):
    needs("Xvfb")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with xvfb("-extension", "RANDR", "-screen", "0", "640x480x24") as name:
        monkeypatch.setenv("DISPLAY", name)
        sink, source = ListSink(), DisplaySource()
        source.start(sink)
        assert source.health().ok
        source.stop()
    assert said(sink.events) == [(0, 0, 0, 640, 480, 1.0, 0)]


@pytest.mark.slow
def test_turned_and_resized(turning):
    sink, source = ListSink(), DisplaySource()
    source.start(sink)
    assert changes(sink, 1) == [(0, 0, 0, 800, 600, 1.0, 0)]
    # As xrandr names them: its left is counter-clockwise.
    for way, size, degrees in (
        ("left", (600, 800), 270),
        ("inverted", (800, 600), 180),
        ("right", (600, 800), 90),
        ("normal", (800, 600), 0),
    ):
        before_ns = time.monotonic_ns()
        xrandr("-o", way)
        until(lambda: sink.events)
        assert before_ns - 1e6 <= sink.events[-1].t_ns <= time.monotonic_ns()
        assert settled(sink) == (0, 0, 0, *size, 1.0, degrees)
    xrandr("-s", "640x480")
    assert settled(sink) == (0, 0, 0, 640, 480, 1.0, 0)
    xrandr("-o", "normal")  # as it is
    time.sleep(0.3)
    assert sink.events == []
    source.stop()


def settled(sink: ListSink) -> Said:
    """What it came to, and each step once."""
    until(lambda: sink.events)
    time.sleep(0.3)
    told = said(sink.events)
    assert all(a != b for a, b in pairwise(told)), f"repeated: {told}"
    sink.events.clear()
    return told[-1]


@pytest.mark.x11
@pytest.mark.slow
def test_displays_that_come_and_go(several):
    first, second = (0, 0, 0, 1024, 768, 1.0, 0), (1, 1024, 0, 1024, 768, 1.0, 0)
    sink, source = ListSink(), DisplaySource()
    source.start(sink)
    assert changes(sink, 1) == [first]
    xrandr("--newmode", *MODE)
    xrandr("--addmode", "DUMMY1", MODE[0])
    time.sleep(0.3)
    assert sink.events == [], "nothing that is on has changed"
    xrandr("--output", "DUMMY1", "--mode", MODE[0], "--right-of", "DUMMY0")
    assert changes(sink, 1) == [second]
    xrandr("--output", "DUMMY1", "--mode", MODE[0], "--right-of", "DUMMY0")
    xrandr("--output", "DUMMY0", "--primary")
    time.sleep(0.3)
    assert sink.events == [], "as it was"
    xrandr("--output", "DUMMY1", "--below", "DUMMY0")
    assert changes(sink, 1) == [(1, 0, 768, 1024, 768, 1.0, 0)]
    other = DisplaySource()
    other.start(both := ListSink())
    other.stop()
    assert said(both.events) == [first, (1, 0, 768, 1024, 768, 1.0, 0)]
    xrandr("--output", "DUMMY1", "--off")
    assert changes(sink, 1) == [(1, 0, 0, 0, 0, 1.0, 0)]
    source.stop()


@pytest.mark.x11
@pytest.mark.slow
def test_a_batch_begins_with_what_the_displays_are_from_then_on(several):
    sources = PointerSource(), DisplaySource()
    sources[1].read_with(sources[0])
    spool = MemorySpool()
    recorder = Recorder(gate=Gate(example_grant("pointer")), spool=spool, sources=sources)
    recorder.start()
    for source in sources:
        source.start(recorder)
    from Xlib.ext import xtest

    from mcilib.sources._x11 import connect

    hand = connect(whole=True)

    def moved(x: int) -> None:
        seen = recorder.statistics().captured.get("move", 0)
        xtest.fake_input(hand, 6, 0, x=x, y=5)
        hand.sync()
        until(lambda: recorder.statistics().captured.get("move", 0) > seen)

    moved(100)
    xrandr("--output", "DUMMY0", "--mode", "800x600")
    until(lambda: recorder.statistics().captured["display"] == 2)
    moved(200)
    hand.display.socket.close()
    for source in sources:
        source.stop()
    recorder.stop()
    rows = [[event.kind for event in batch.events] for batch in batches(spool)]
    assert [row[0] for row in rows] == ["display", "display"]
    assert ["move" in row for row in rows] == [True, True]
    assert [said(list(batch.events))[0][3:5] for batch in batches(spool)] == [(1024, 768), (800, 600)]


def test_display_source_keeps_the_promises_of_a_source(turning):
    ways = cycle(["left", "normal"])
    check_source(DisplaySource, lambda source: xrandr("-o", next(ways)))
    assert (DisplaySource().scope, DisplaySource().backend, DisplaySource().clock) == (
        "pointer",
        "x11",
        "x11",
    )


def test_told_anew_by_a_server_that_came_back(own_xserver):
    sink, source = ListSink(), DisplaySource()
    source.start(sink)
    own_xserver.kill()
    until(lambda: not source.health().ok)
    own_xserver.height_px = 700
    own_xserver.restart()
    until(lambda: len(sink.events) >= 3)
    source.stop()
    assert [event.kind for event in sink.events] == ["display", "gap", "display"]
    assert said(sink.events)[-1] == (0, 0, 0, 1280, 700, 1.0, 0)


@pytest.mark.parametrize(
    ("rotation", "mode", "size", "scale", "degrees"),
    [
        (0x1, (1920, 1080), (3840, 2160), 0.5, 0),  # xrandr --scale 2x2
        (0x2, (1920, 1080), (2160, 3840), 0.5, 270),
        (0x14, (1920, 1080), (960, 540), 2.0, 180),  # and mirrored
        (0x8, (1920, 1080), (1080, 1920), 1.0, 90),
    ],
)
def test_a_display_under_a_transform_has_a_scale(monkeypatch, rotation, mode, size, scale, degrees):
    """Answers of a server made up by hand: none that runs here knows transforms."""
    from Xlib.ext import randr

    resources = SimpleNamespace(
        modes=[{"id": 7, "width": mode[0], "height": mode[1]}], crtcs=[1], config_timestamp=0
    )
    info = SimpleNamespace(mode=7, x=5, y=6, width=size[0], height=size[1], rotation=rotation)
    monkeypatch.setattr(randr, "get_screen_resources_current", lambda root: resources)
    monkeypatch.setattr(randr, "get_crtc_info", lambda control, crtc, timestamp: info)
    control = SimpleNamespace(screen=lambda: SimpleNamespace(root=None))
    assert _displays(control, 9) == [Display(9, 0, 5, 6, size[0], size[1], scale, degrees)]
