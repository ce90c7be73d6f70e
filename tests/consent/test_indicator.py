"""Indicators on real parts: dunst on a display and a bus of the test's own, terminals, pipes."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buses import BusDaemon, dbusmock_is_here

from mcilib import limits
from mcilib.indicator import (
    FirstOf,
    MacIndicator,
    Notice,
    NotificationIndicator,
    TerminalIndicator,
    default_indicator,
)
from mcilib.testing.xvfb import VirtualDisplay

NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
NOTICE = Notice(
    "started", "Example Lab", "a study of menus", ("keys", "pointer"), "/home/her/.local/state/mcilib"
)
LINES = [
    "Who collects: Example Lab",
    "What for: a study of menus",
    "What: the rhythm of keys, never which letter, the pointer",
    "To pause: mcilib pause --state /home/her/.local/state/mcilib",
]
LATE_S = 5.0
"""A second is promised; what hangs takes for ever."""


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a bus would start dunst there by itself: its package says how. Autouse, so that it comes before `xserver`."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


class Dunst:
    """A real service of notes."""

    def __init__(self, bus: BusDaemon, display: str) -> None:
        self.bus, self.display = bus, display
        self.config = bus.path.with_suffix(".dunstrc")
        self.config.write_text("[global]\nmarkup = full\n")
        self.start()

    def start(self) -> None:
        self.process = self.bus.serve(NAME, ["dunst", "-conf", str(self.config)], {"DISPLAY": self.display})

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def shown(self) -> list[dict[str, Any]]:
        """What is on the screen, and what was; the newest last."""
        command = ("org.dunstproject.cmd0", "NotificationCloseAll")
        self.bus.call(NAME, PATH, *command)
        deadline_s = time.monotonic() + 10
        while self.displayed() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        (notes,) = self.bus.call(NAME, PATH, command[0], "NotificationListHistory")
        return [{name: value for name, (_, value) in note.items()} for note in reversed(notes)]

    def displayed(self) -> int:
        properties = "org.freedesktop.DBus.Properties"
        body = ("org.dunstproject.cmd0", "displayedLength")
        ((_, number),) = self.bus.call(NAME, PATH, properties, "Get", "ss", *body)
        return int(number)


@pytest.fixture
def dunst(session_bus: BusDaemon, needs: Callable[[str], None], xserver: VirtualDisplay) -> Dunst:
    needs("dunst")
    return Dunst(session_bus, xserver.display)


def took_s(show: Callable[[], bool], wanted: bool) -> float:
    began_s = time.monotonic()
    assert show() is wanted
    return time.monotonic() - began_s


# --- a note of the desktop -----------------------------------------------------------------------------------


@pytest.mark.x11
def test_the_note_says_who_what_and_how_to_pause(dunst: Dunst) -> None:
    threads = threading.active_count()
    assert NotificationIndicator().show(NOTICE)
    assert threading.active_count() == threads
    (note,) = dunst.shown()
    assert (note["appname"], note["summary"]) == ("mcilib", "Recording has begun")
    assert note["body"].split("\n") == LINES


@pytest.mark.x11
def test_it_takes_the_place_of_the_one_before(dunst: Dunst) -> None:
    shows = NotificationIndicator()
    assert shows.show(NOTICE)
    assert shows.show(replace(NOTICE, kind="resumed"))
    assert dunst.displayed() == 1
    assert [note["summary"] for note in dunst.shown()] == ["Recording goes on"]
    other = NotificationIndicator()
    assert other.show(NOTICE)
    assert shows.show(replace(NOTICE, kind="resumed"))
    assert dunst.displayed() == 2, "another agent's note is left alone"


@pytest.mark.x11
def test_it_never_takes_the_place_of_another_programs_note(dunst: Dunst) -> None:
    shows = NotificationIndicator()
    assert shows.show(NOTICE)
    dunst.end()
    dunst.start()  # counts its notes from 1 again
    other: tuple[Any, ...] = ("other", 0, "", "Mail", "from her", [], {}, -1)
    (number,) = dunst.bus.call(NAME, PATH, NAME, "Notify", "susssasa{sv}i", *other)
    assert number == shows._link._note
    assert shows.show(NOTICE)
    assert {note["summary"] for note in dunst.shown()} == {"Mail", "Recording has begun"}


@pytest.mark.x11
def test_what_has_signs_of_markup_is_shown_as_it_is(dunst: Dunst) -> None:
    odd = replace(
        NOTICE, operator="A <b>Lab</b> & Co", purpose="line\nbreak \x1b[2J \ud800", state_dir="/tmp/a & b"
    )
    assert NotificationIndicator().show(odd)
    (note,) = dunst.shown()  # as it renders it
    assert note["body"].split("\n")[:2] == [
        "Who collects: A &lt;b&gt;Lab&lt;/b&gt; &amp; Co",
        "What for: line break \\x1b[2J \\ud800",
    ]
    assert note["body"].endswith("--state '/tmp/a &amp; b'")


@pytest.mark.x11
def test_after_a_bus_that_was_replaced_and_in_a_fork(dunst: Dunst, tmp_path: Path) -> None:
    shows = NotificationIndicator()
    assert shows.show(NOTICE)
    child = os.fork()
    if child == 0:
        os._exit(0 if shows.show(replace(NOTICE, operator="the child's")) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shows.show(NOTICE), "the connection is this process's own"
    assert sorted(note["body"].split("\n")[0] for note in dunst.shown()) == [
        "Who collects: Example Lab", "Who collects: the child's",
    ]  # fmt: skip
    address = dunst.bus.path
    dunst.bus.stop()
    assert not shows.show(NOTICE)
    another = BusDaemon(address)
    try:
        again = Dunst(another, dunst.display)
        assert shows.show(NOTICE)
        assert len(again.shown()) == 1
    finally:
        another.stop()


def test_the_connection_ends_with_the_object(session_bus: BusDaemon) -> None:
    if not dbusmock_is_here():
        pytest.skip("python3-dbusmock is not there")
    session_bus.run(NAME, "--session", "--template", "notification_daemon")
    code = """
import gc, os
from mcilib.indicator import Notice, NotificationIndicator
notice = Notice("started", "Example Lab", "a study", ("keys",), "/state")
files = len(os.listdir("/proc/self/fd"))
shows, for_ever = NotificationIndicator(), NotificationIndicator()
assert shows.show(notice) and shows.show(notice)
assert len(os.listdir("/proc/self/fd")) == files + 1
del shows
gc.collect()
assert len(os.listdir("/proc/self/fd")) == files
assert for_ever.show(notice)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_that_shows_no_markup_gets_none(session_bus: BusDaemon) -> None:
    """A stand-in (python-dbusmock): dunst always shows markup."""
    if not dbusmock_is_here():
        pytest.skip("python3-dbusmock is not there")
    session_bus.run(NAME, "--session", "--template", "notification_daemon", "-p", '{"capabilities": "body"}')
    assert NotificationIndicator().show(replace(NOTICE, operator="A & B"))
    mock = "org.freedesktop.DBus.Mock"
    (calls,) = session_bus.call(NAME, PATH, mock, "GetMethodCalls", "s", "Notify")
    assert calls[-1][1][4][1].startswith("Who collects: A & B\n")


def test_without_a_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in (None, "", "nonsense", f"unix:path={tmp_path}/none", f"unix:path={tmp_path}"):
        if address is None:
            monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        else:
            monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        assert not NotificationIndicator().show(NOTICE)


def test_with_a_bus_on_which_nobody_shows_notes(session_bus: BusDaemon) -> None:
    files = len(os.listdir("/proc/self/fd"))
    shows = NotificationIndicator()
    assert not shows.show(NOTICE)
    assert not shows.show(NOTICE)
    assert len(os.listdir("/proc/self/fd")) <= files, "no connection is kept for nothing"


def test_a_frozen_bus_holds_nobody(session_bus: BusDaemon) -> None:
    session_bus.freeze()
    try:
        assert took_s(lambda: NotificationIndicator().show(NOTICE), False) < LATE_S
    finally:
        session_bus.thaw()


@pytest.mark.x11
def test_a_frozen_service_holds_nobody_and_is_used_again(dunst: Dunst) -> None:
    shows = NotificationIndicator()
    assert shows.show(NOTICE)
    dunst.process.send_signal(signal.SIGSTOP)
    try:
        assert took_s(lambda: shows.show(NOTICE), False) < LATE_S
    finally:
        dunst.process.send_signal(signal.SIGCONT)
    assert shows.show(NOTICE)


@pytest.mark.x11
def test_a_service_that_sleeps_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Callable[[str], None], xserver: VirtualDisplay
) -> None:
    """As on desktops where it runs only while there are notes."""
    needs("dunst")
    services = tmp_path / "data" / "dbus-1" / "services"
    services.mkdir(parents=True)
    (services / "notes.service").write_text(
        f"[D-BUS Service]\nName={NAME}\nExec=/usr/bin/env DISPLAY={xserver.display} dunst -conf /dev/null\n"
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    bus = BusDaemon(tmp_path / "bus")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.address)
    try:
        assert not bus.has(NAME)
        monkeypatch.setattr(limits, "NOTE_TIMEOUT_S", 20.0)  # it takes 0.1 s where nothing else runs
        assert NotificationIndicator().show(NOTICE)
        assert bus.has(NAME)
    finally:
        ours = bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                        "GetConnectionUnixProcessID", "s", NAME)  # fmt: skip
        os.kill(ours[0], signal.SIGKILL)
        bus.stop()


def test_a_long_purpose_is_cut() -> None:
    notice = replace(NOTICE, purpose="p" * 5_000)
    assert notice.lines()[1] == f"What for: {'p' * (limits.NOTICE_PART_MAX_CHARS - 3)}..."
    assert notice.lines()[0] == LINES[0]


def test_with_nothing_that_may_be_captured() -> None:
    assert replace(NOTICE, scopes=()).lines()[2] == "What: nothing now"


# --- a line --------------------------------------------------------------------------------------------------


LINE = f"mcilib: Recording has begun. {'. '.join(LINES)}\n"


def test_one_line_on_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    assert TerminalIndicator(stream).show(NOTICE)
    assert stream.getvalue() == LINE
    assert TerminalIndicator().show(replace(NOTICE, purpose="a\nb\x1b[2J", kind="resumed"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("mcilib: Recording goes on. ")
    assert "What for: a b\\x1b[2J." in line


class _Broken(io.StringIO):
    def write(self, text: str, /) -> int:
        raise RuntimeError("somebody else's")


@pytest.fixture
def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def test_a_stream_that_shows_nothing(
    closed: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not TerminalIndicator(closed).show(NOTICE)
    assert not TerminalIndicator(_Broken()).show(NOTICE)
    with open(os.devnull, "w") as null:
        assert not TerminalIndicator(null).show(NOTICE)
    with open(tmp_path / "file", "w") as file:
        file.close()
        assert not TerminalIndicator(file).show(NOTICE)
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    assert not TerminalIndicator().show(NOTICE)


def test_a_pipe_that_is_full_and_a_terminal_that_has_stopped() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with os.fdopen(writing, "w") as stream:
        assert took_s(lambda: TerminalIndicator(stream).show(NOTICE), False) < LATE_S
    os.close(reading)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        assert TerminalIndicator(stream).show(NOTICE)
        assert os.read(ours, 4096).decode().replace("\r\n", "\n") == LINE
        os.write(ours, b"\x13")  # Ctrl-S
        deadline_s = time.monotonic() + 10
        while TerminalIndicator(stream).show(NOTICE) and time.monotonic() < deadline_s:
            pass
        assert took_s(lambda: TerminalIndicator(stream).show(NOTICE), False) < LATE_S
    os.close(ours)


# --- the first of several ------------------------------------------------------------------------------------


class _Says:
    def __init__(self, answer: bool | Exception) -> None:
        self.answer, self.asked = answer, 0

    def show(self, notice: Notice, /) -> bool:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_first_that_reaches_the_participant() -> None:
    raises, no, yes, last = _Says(OSError()), _Says(False), _Says(True), _Says(True)
    assert FirstOf(raises, no, yes, last).show(NOTICE)
    assert [one.asked for one in (raises, no, yes, last)] == [1, 1, 1, 0]
    assert not FirstOf(no).show(NOTICE)
    assert not FirstOf().show(NOTICE)


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().err


@pytest.mark.x11
def test_by_default_a_note_and_no_line(dunst: Dunst, stderr: Callable[[], str]) -> None:
    assert default_indicator().show(NOTICE)
    assert stderr() == ""
    assert len(dunst.shown()) == 1


def test_by_default_a_line_where_there_is_no_bus(
    monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], str]
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    assert default_indicator().show(NOTICE)
    assert stderr() == LINE


# --- other systems: a stand-in for the one command, since no Mac runs here ------------------------------------


@pytest.fixture
def osascript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "bin" / "osascript"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setattr(sys, "platform", "darwin")
    return script


def _write(script: Path, lines: str) -> None:
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)


def test_on_a_mac(osascript: Path, tmp_path: Path, stderr: Callable[[], str]) -> None:
    assert not MacIndicator().show(NOTICE), "there is none"
    assert not NotificationIndicator().show(NOTICE)
    assert default_indicator().show(NOTICE)
    assert stderr() == LINE
    _write(osascript, f'printf "%s|" "$@" >{tmp_path}/told')
    assert default_indicator().show(NOTICE)
    assert stderr() == ""
    told = (tmp_path / "told").read_text().split("|")
    assert told[-3:] == ["Recording has begun", "\n".join(LINES), ""]
    assert told[:2] == ["-e", "on run argv"]
    _write(osascript, "exit 1")
    assert not MacIndicator().show(NOTICE)
    _write(osascript, "exec sleep 60")
    assert took_s(lambda: MacIndicator().show(NOTICE), False) < LATE_S
