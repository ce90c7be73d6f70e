"""Displays that are missing, die, freeze or are not what they seem."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from waiting import until

from mcilib import DisplayError, Gap, KeyboardSource, PointerSource
from mcilib.clock import SystemClock
from mcilib.sources._listening import _FreezeWatch
from mcilib.testing.fakes import ListSink

SOURCES = [PointerSource, KeyboardSource]


def inject(display, seconds: float = 0.2) -> None:
    """A little input of both kinds."""
    for i in range(20):
        display.move(100 + i + int(time.monotonic() * 7) % 500, 100)
        display.tap(24)
    display.sync()


def loop_of(source):
    return source._loop or source._reader._loop


def gaps(sink: ListSink) -> list[Gap]:
    return [event for event in sink.events if isinstance(event, Gap)]


@pytest.mark.parametrize("make", SOURCES)
def test_server_killed_and_back(own_xserver, make):
    sink, source = ListSink(), make()
    source.start(sink)
    inject(own_xserver)
    until(lambda: len(sink.events) >= 20)
    own_xserver.kill()
    until(lambda: not source.health().ok)
    time.sleep(0.5)
    seen = len(sink.events)
    own_xserver.restart()
    back = time.monotonic()
    while len(sink.events) <= seen + 1:
        inject(own_xserver)
        assert time.monotonic() - back < 5, "capture was not back within 5 s"
        time.sleep(0.05)
    source.stop()
    assert len(gaps(sink)) == 1
    assert 0.5e9 <= gaps(sink)[0].duration_ns <= 6e9
    assert gaps(sink)[0].source == source.name


@pytest.mark.parametrize("make", SOURCES)
def test_connection_killed_by_the_server(own_xserver, make):
    """Somebody ends just our connection (`xkill` does), the server lives on."""
    from Xlib.display import Display

    sink, source = ListSink(), make()
    source.start(sink)
    inject(own_xserver)
    until(lambda: len(sink.events) >= 20)
    record = loop_of(source)._listener._display_record
    other = Display()

    from Xlib.protocol import request

    request.KillClient(display=other.display, resource=record.display.info.resource_id_base)
    other.sync()
    other.close()
    until(lambda: gaps(sink))
    seen = len(sink.events)
    inject(own_xserver)
    until(lambda: len(sink.events) >= seen + 20)
    assert source.health().ok
    source.stop()
    assert len(gaps(sink)) == 1


@pytest.mark.parametrize("make", SOURCES)
def test_server_reset(own_xserver, make):
    """As at the end of a session: the server lives on and forgets everybody."""
    sink, source = ListSink(), make()
    source.start(sink)
    inject(own_xserver)
    until(lambda: len(sink.events) >= 20)
    os.kill(own_xserver._server.pid, signal.SIGHUP)
    until(lambda: gaps(sink))
    assert own_xserver._server.poll() is None
    until(lambda: source.health().ok)
    source.stop()
    assert [(gap.source, gap.duration_ns < 5e9) for gap in gaps(sink)] == [(source.name, True)]


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.slow
def test_server_frozen_for_ten_seconds(own_xserver, make):
    sink, source = ListSink(), make()
    source.start(sink)
    inject(own_xserver)
    until(lambda: len(sink.events) >= 20)
    own_xserver.freeze()
    time.sleep(10)
    own_xserver.thaw()
    seen, back = len(sink.events), time.monotonic()
    while len([e for e in sink.events[seen:] if not isinstance(e, Gap)]) < 5:
        inject(own_xserver)
        assert time.monotonic() - back < 5, "capture was not back within 5 s"
        time.sleep(0.05)
    until(lambda: gaps(sink))
    source.stop()
    assert len(gaps(sink)) == 1
    assert 9e9 <= gaps(sink)[0].duration_ns <= 14e9


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.slow
def test_frozen_then_killed_counts_from_the_last_sign_of_life(own_xserver, make):
    sink, source = ListSink(), make()
    source.start(sink)
    inject(own_xserver)
    until(lambda: len(sink.events) >= 20)
    own_xserver.freeze()
    until(lambda: not source.health().ok, timeout_s=20, what="health while the display is frozen")
    assert "does not answer" in source.health().problems[0].message
    time.sleep(1)
    own_xserver.restart()
    until(lambda: gaps(sink))
    source.stop()
    assert len(gaps(sink)) == 1
    assert gaps(sink)[0].duration_ns > 3e9


@pytest.mark.as_shipped
@pytest.mark.parametrize("trouble", ["freeze", "kill"])
@pytest.mark.slow
def test_stopped_while_blind_the_gap_is_counted(own_xserver, trouble):
    sink, source = ListSink(), PointerSource()
    source.start(sink)
    inject(own_xserver)
    until(lambda: len(sink.events) >= 20)
    getattr(own_xserver, trouble)()
    until(lambda: not source.health().ok, timeout_s=20)
    time.sleep(0.5)
    source.stop()
    source.stop()
    assert len(gaps(sink)) == 1
    assert gaps(sink)[0].duration_ns >= 0.4e9


def test_a_busy_display_is_no_gap(own_xserver):
    """Input that keeps coming while a reply is late says that nothing was missed."""
    sink, source = ListSink(), PointerSource()
    source.start(sink)
    stop = time.monotonic() + 3
    while time.monotonic() < stop:
        inject(own_xserver)
    source.stop()
    assert gaps(sink) == []
    assert len(sink.events) > 1000


@pytest.mark.alone
@pytest.mark.as_shipped
@pytest.mark.parametrize("make", SOURCES)
def test_stop_while_frozen(own_xserver, make):
    sink, source = ListSink(), make()
    source.start(sink)
    own_xserver.freeze()
    began = time.monotonic()
    source.stop()
    assert time.monotonic() - began < 0.6
    until(lambda: not any(t.is_alive() for t in source.threads()))


@pytest.mark.parametrize("make", SOURCES)
def test_no_display(make, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    source = make()
    with pytest.raises(DisplayError, match="DISPLAY is not set"):
        source.start(ListSink())
    source.stop()
    assert not any(t.name.startswith("mcilib") for t in threading.enumerate())


def test_a_display_that_nobody_serves(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4095")
    with pytest.raises(DisplayError, match=r":4095 cannot be reached"):
        PointerSource().start(ListSink())


@pytest.mark.as_shipped
def test_a_display_that_never_answers(monkeypatch, tmp_path):
    """Something listens and says nothing: `start` gives up within 5 s, and does not leave its thread hearing."""
    number = next(n for n in range(3000, 3100) if not os.path.exists(f"/tmp/.X11-unix/X{n}"))
    os.makedirs("/tmp/.X11-unix", exist_ok=True)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(f"/tmp/.X11-unix/X{number}")
    silent.listen()
    try:
        monkeypatch.setenv("DISPLAY", f":{number}")
        began = time.monotonic()
        with pytest.raises(DisplayError, match="does not answer"):
            PointerSource().start(ListSink())
        assert time.monotonic() - began < 6.5
    finally:
        silent.close()
        os.unlink(f"/tmp/.X11-unix/X{number}")


def test_wayland_without_xwayland(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(DisplayError, match="Wayland session"):
        PointerSource().start(ListSink())


@pytest.mark.needs("weston", "Xwayland")
def test_xwayland_is_recognised(monkeypatch, tmp_path):
    """A real Wayland compositor without a screen, with a real Xwayland under it."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    log = tmp_path / "weston.log"
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)}
    environment.pop("DISPLAY", None)
    ask = tmp_path / "ask.sh"
    ask.write_text(f"#!/bin/sh\necho $DISPLAY > {tmp_path}/display\nsleep 60\n")
    ask.chmod(0o755)
    (tmp_path / "weston.ini").write_text(f"[core]\nxwayland=true\nidle-time=0\n[autolaunch]\npath={ask}\n")
    weston = subprocess.Popen(
        [shutil.which("weston") or "weston", "--backend=headless-backend.so", "--socket=mcilib-test",
         f"--config={tmp_path}/weston.ini", f"--log={log}"],
        env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: "xserver listening on display" in (log.read_text() if log.exists() else ""), 15)
        display = log.read_text().split("xserver listening on display ")[1].split()[0]
        monkeypatch.setenv("DISPLAY", display)
        with pytest.raises(DisplayError, match="Wayland session"):
            PointerSource().start(ListSink())
    finally:
        weston.terminate()
        weston.wait(10)


def test_one_source_does_not_need_the_other(own_xserver):
    """Import of pynput in a process without a display fails once and works when there is one."""
    code = """
import os, sys
from mcilib import DisplayError, PointerSource
from mcilib.testing.fakes import ListSink
display = os.environ.pop("DISPLAY")
try:
    PointerSource().start(ListSink())
except DisplayError:
    os.environ["DISPLAY"] = display
    source = PointerSource()
    source.start(ListSink())
    source.stop()
    print("heard")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "heard", done.stderr


def test_a_connection_that_is_there_only_after_stop_is_closed(xserver):
    """`stop` in the middle of a start, as when the participant pauses just then: nobody would close it."""
    stopping = threading.Event()
    watch = _FreezeWatch("pointer", lambda *_: None, SystemClock(), stopping)
    stopping.set()
    watch.connect()
    assert watch._display.display.socket.fileno() == -1
