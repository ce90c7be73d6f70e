"""Locks and switches of sessions, over real buses, told by stand-ins in other processes (tests/support/buses.py)."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buses import BusDaemon, Logind, Saver
from costs import cost_at_rest, thread_cost
from waiting import until

from mcilib import limits
from mcilib.resources import _loop, session
from mcilib.resources._loop import next_pause_s
from mcilib.resources.session import SessionWatch

LATE_S = 5.0
"""Half a second is promised, or one; what hangs takes for ever."""


class Watched:
    """A watch, and what `away` was at each call of `on_change`."""

    def __init__(self) -> None:
        self.watch = SessionWatch()
        self.told: list[str | None] = []
        self.callers: set[str] = set()

    def on_change(self) -> None:
        self.callers.add(threading.current_thread().name)
        self.told.append(self.watch.away)

    def start(self) -> SessionWatch:
        self.watch.start(self.on_change)
        return self.watch

    def becomes(self, *told: str | None) -> None:
        until(lambda: len(self.told) >= len(told), what=f"{told}, not {self.told}")
        assert self.told == list(told)
        assert self.watch.away == told[-1]


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.watch.stop()


def session_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "mcilib-session"]


# --- logind -------------------------------------------------------------------------------------------------


def test_locks_and_switches_are_told(logind: Logind, watched: Watched) -> None:
    mine = logind.add("7")
    logind.own(mine)
    watch = watched.start()
    assert (watch.away, watch.known, watch.missing) == (None, True, "")
    assert [t.name for t in watch.threads()] == ["mcilib-session"]
    assert all(t.daemon for t in watch.threads())
    logind.lock(mine)
    watched.becomes("locked")
    logind.lock(mine, False)
    watched.becomes("locked", None)
    logind.activate(mine, False)
    watched.becomes("locked", None, "switched")
    logind.lock(mine)  # both: the lock is named
    watched.becomes("locked", None, "switched", "locked")
    logind.lock(mine, False)
    watched.becomes("locked", None, "switched", "locked", "switched")
    logind.activate(mine)
    watched.becomes("locked", None, "switched", "locked", "switched", None)
    assert watched.callers == {"mcilib-session"}
    assert watch.health().ok


@pytest.mark.parametrize(("locked", "active", "away"), [(True, True, "locked"), (False, False, "switched")])
def test_what_is_so_at_the_start_is_known_when_start_returns(
    locked: bool, active: bool, away: str, logind: Logind, watched: Watched
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    logind.lock(mine, locked)
    logind.activate(mine, active)
    assert watched.start().away == away
    logind.lock(mine, False)
    logind.activate(mine)
    until(lambda: watched.watch.away is None)
    assert watched.told[-1] is None


def test_a_change_that_is_none_is_not_told(logind: Logind, watched: Watched) -> None:
    mine = logind.add("7")
    logind.own(mine)
    watched.start()
    logind.set(mine, IdleHint=("b", True))
    logind.lock(mine, False)
    logind.lock(mine)
    watched.becomes("locked")


@pytest.mark.parametrize("kind", ["tty", None])
def test_without_a_graphical_session_of_its_own_the_users_display_counts(
    kind: str | None, logind: Logind, watched: Watched
) -> None:
    shown = logind.add("2")
    if kind is not None:
        logind.own(logind.add("9", kind=kind))
    logind.display(shown)
    logind.lock(shown)
    assert watched.start().away == "locked"
    logind.lock(shown, False)
    watched.becomes(None)


def test_a_graphical_session_of_its_own_counts_before_the_users_display(
    logind: Logind, watched: Watched
) -> None:
    logind.own(logind.add("7", kind="wayland"))
    shown = logind.add("2")
    logind.display(shown)
    logind.lock(shown)
    assert watched.start().away is None


def test_a_session_on_a_terminal_counts_where_there_is_no_other(logind: Logind, watched: Watched) -> None:
    mine = logind.add("9", kind="tty")  # `startx`
    logind.own(mine)
    logind.lock(mine)
    assert watched.start().away == "locked"


def test_the_next_session_of_the_user_is_followed(logind: Logind, watched: Watched) -> None:
    first = logind.add("2")
    logind.display(first)
    watch = watched.start()
    logind.remove(first)
    logind.display("/")
    until(lambda: not watch.known)
    assert "no session" in watch.missing
    second = logind.add("3")
    logind.display(second)
    until(lambda: watch.known)
    logind.lock(second)
    watched.becomes("locked")


def test_a_session_that_comes_after_the_start_is_seen(logind: Logind, watched: Watched) -> None:
    logind.remove(logind.add("1"))
    watch = watched.start()
    assert (watch.away, watch.known) == (None, False)
    shown = logind.add("2")
    logind.lock(shown)
    logind.display(shown)
    watched.becomes("locked")


def test_logind_ends_and_comes_back(logind: Logind, watched: Watched) -> None:
    logind.own(logind.add("7"))
    watch = watched.start()
    logind.end()
    until(lambda: not watch.known)
    assert watch.missing == "no systemd-logind"
    assert watch.health().ok
    logind.start()
    mine = logind.add("7")
    logind.lock(mine)
    logind.own(mine)
    logind.display(mine)
    watched.becomes("locked")


def rules(bus: BusDaemon) -> set[tuple[str, str, str]]:
    """What the bus hands to anybody: path, member and first argument of signals. The bus itself says so."""
    stats = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Debug.Stats")
    (found,) = bus.call(*stats, "GetAllMatchRules")
    parts = [dict(re.findall(r"(\w+)='([^']*)'", rule)) for rules in found.values() for rule in rules]
    return {(p.get("path", ""), p.get("member", ""), p.get("arg0", "")) for p in parts}


def test_the_bus_hands_over_what_is_about_this_session_and_nothing_else(
    logind: Logind, watched: Watched
) -> None:
    first, second = logind.add("2"), logind.add("3")
    logind.display(first)
    before = rules(logind.bus)
    owner = ("/org/freedesktop/DBus", "NameOwnerChanged", "org.freedesktop.login1")
    user = (logind.user, "PropertiesChanged", "")
    watched.start()
    assert rules(logind.bus) - before == {owner, user, (first, "PropertiesChanged", "")}
    logind.display(second)
    expected = {owner, user, (second, "PropertiesChanged", "")}
    until(lambda: rules(logind.bus) - before == expected)


@pytest.mark.slow
def test_nothing_wakes_it_but_signals_of_this_session(logind: Logind, watched: Watched) -> None:
    mine, other = logind.add("7"), logind.add("8", uid=4242)
    logind.own(mine)
    watch = watched.start()
    logind.lock(mine)
    watched.becomes("locked")
    before = cost_at_rest(watch.threads()).wakeups or 0
    time.sleep(5)
    assert thread_cost(watch.threads()).wakeups == before
    logind.lock(other)
    logind.activate(other, False)
    time.sleep(0.3)
    assert thread_cost(watch.threads()).wakeups == before
    logind.lock(mine, False)
    watched.becomes("locked", None)
    assert (thread_cost(watch.threads()).wakeups or 0) > before


# --- no bus, and lost ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "tcp:host=localhost,port=1", "nonsense"])
def test_without_a_bus_nothing_is_known_and_nothing_runs(
    address: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    before = session_threads()
    watch = watched.start()
    assert (watch.away, watch.known, watch.missing) == (None, False, "no system bus")
    assert (watch.health().ok, watch.threads(), session_threads()) == (True, [], before)
    watch.stop()


def test_a_bus_without_logind(system_bus: BusDaemon, watched: Watched) -> None:
    watch = watched.start()
    assert (watch.away, watch.known, watch.missing) == (None, False, "no systemd-logind")
    assert watch.health().ok


def test_a_bus_that_is_lost_is_a_problem_until_it_is_back(
    system_bus: BusDaemon, logind: Logind, watched: Watched, tmp_path: Path
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    logind.lock(mine)
    watch = watched.start()
    system_bus.stop()
    until(lambda: not watch.known)
    assert (watch.away, watch.missing) == ("locked", "the system bus is lost"), "nobody has unlocked it"
    (problem,) = watch.health().problems
    assert problem.part == "session"
    assert "system bus is lost" in problem.message
    assert watch.threads(), "it goes on"

    another = BusDaemon(tmp_path / "another")
    try:
        logind = Logind(another)
        mine = logind.add("7")
        logind.own(mine)
        another.move(system_bus.path)  # all of it is there at once
        watched.becomes(None)
        assert (watch.known, watch.missing, watch.health().ok) == (True, "", True)
        logind.lock(mine)
        watched.becomes(None, "locked")
    finally:
        another.stop()


def test_the_pauses_grow_to_a_minute() -> None:
    pauses = [0.0]
    for _ in range(8):
        pauses.append(next_pause_s(pauses[-1]))
    assert pauses[1:] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_lost_bus_is_tried_with_growing_pauses(
    system_bus: BusDaemon,
    logind: Logind,
    watched: Watched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BUS_RETRY_FIRST_S", 0.05)
    pauses: list[float] = []

    def noted(pause_s: float) -> float:
        pauses.append(next_pause_s(pause_s))
        return pauses[-1]

    monkeypatch.setattr(_loop, "next_pause_s", noted)
    watched.start()
    began_s = time.monotonic()
    system_bus.stop()
    until(lambda: len(pauses) == 4)
    assert pauses == [0.05, 0.1, 0.2, 0.4]
    assert time.monotonic() - began_s >= 0.35
    another = BusDaemon(tmp_path / "another")
    another.move(system_bus.path)
    until(lambda: watched.watch.health().ok)
    pauses.clear()
    another.stop()
    until(lambda: pauses)
    assert pauses[0] == 0.05


@pytest.mark.as_shipped
def test_a_bus_that_does_not_answer_holds_start_for_less_than_a_second(
    system_bus: BusDaemon, logind: Logind, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    logind.lock(mine)
    monkeypatch.setattr(limits, "BUS_RETRY_FIRST_S", 0.1)
    system_bus.freeze()
    try:
        began_s = time.monotonic()
        watch = watched.start()
        assert time.monotonic() - began_s < LATE_S
        assert (watch.away, watch.known) == (None, False)
        assert not watch.health().ok
    finally:
        system_bus.thaw()
    watched.becomes("locked")
    assert watch.health().ok


def test_a_logind_that_does_not_answer_counts_as_lost(
    system_bus: BusDaemon, logind: Logind, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    watch = watched.start()
    monkeypatch.setattr(limits, "BUS_ANSWER_S", 0.2)
    monkeypatch.setattr(limits, "BUS_RETRY_FIRST_S", 0.1)
    logind.lock_and_freeze(mine)
    until(lambda: not watch.health().ok)
    assert not watch.known
    logind.thaw()
    watched.becomes("locked")
    assert watch.health().ok


def test_a_bus_that_takes_no_more_connections_is_one_that_does_not_answer(
    tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(tmp_path / "bus"))
        listener.listen(0)
        waiting.connect(str(tmp_path / "bus"))
        watch = watched.start()
        assert (watch.known, watch.missing, watch.health().ok) == (False, "the system bus is lost", False)
        watch.stop()


# --- screen savers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", session._SAVERS)
def test_a_screen_saver_that_locks_without_logind(
    name: str, session_bus: BusDaemon, watched: Watched
) -> None:
    saver = Saver(session_bus, name, active=True)
    watch = watched.start()
    assert (watch.away, watch.known, watch.missing) == ("locked", True, "no systemd-logind")
    saver.activate(False)
    watched.becomes(None)
    saver.activate()
    watched.becomes(None, "locked")
    saver.end()
    watched.becomes(None, "locked", None)
    assert not watch.known


def test_a_screen_saver_that_comes_later(session_bus: BusDaemon, watched: Watched) -> None:
    watch = watched.start()
    assert not watch.known
    name = "org.gnome.ScreenSaver"
    session_bus.run(name, "--session", "--template", "gnome_screensaver")
    until(lambda: watch.known)
    session_bus.call(name, "/org/gnome/ScreenSaver", name, "SetActive", "b", True)
    watched.becomes("locked")


QUICK = """
BUS_NAME = MAIN_IFACE = "org.gnome.ScreenSaver"
MAIN_OBJ = "/org/gnome/ScreenSaver"
SYSTEM_BUS = False
def load(mock, parameters):
    mock.AddMethod(MAIN_IFACE, "GetActive", "", "b",
        "ret = False; self.EmitSignal('', 'ActiveChanged', 'b', [True]); self.connection.flush()")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_while_the_answer_is_on_its_way(
    when: str, session_bus: BusDaemon, watched: Watched, tmp_path: Path
) -> None:
    (tmp_path / "quick.py").write_text(QUICK)
    if when == "after":
        watched.start()
    session_bus.run("org.gnome.ScreenSaver", "--session", "--template", str(tmp_path / "quick.py"))
    watch = watched.start()
    until(lambda: watch.away == "locked")


def test_of_several_changes_in_one_reading_none_is_left_out(session_bus: BusDaemon, watched: Watched) -> None:
    first, second = Saver(session_bus, "org.mate.ScreenSaver"), Saver(session_bus, "org.xfce.ScreenSaver")
    busy, free = threading.Event(), threading.Event()

    def on_change() -> None:
        watched.on_change()
        busy.set()
        free.wait(5)

    watched.watch.start(on_change)
    first.activate()
    busy.wait(5)
    first.activate(False)
    second.activate(False)
    free.set()
    watched.becomes("locked", None)


def test_a_lost_session_bus_leaves_no_lock_behind(session_bus: BusDaemon, watched: Watched) -> None:
    Saver(session_bus, "org.mate.ScreenSaver", active=True)
    assert watched.start().away == "locked"
    session_bus.stop()
    watched.becomes(None)
    assert not watched.watch.known


def test_asking_starts_no_service(
    system_bus: BusDaemon, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, services, started = "org.mate.ScreenSaver", tmp_path / "dbus-1" / "services", tmp_path / "started"
    services.mkdir(parents=True)
    (services / f"{name}.service").write_text(
        f"[D-BUS Service]\nName={name}\nExec=/usr/bin/touch {started}\n"
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    bus = BusDaemon(tmp_path / "session")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.address)
    try:
        assert not watched.start().known
        time.sleep(0.3)
        assert not started.exists()
        bus.send(name, "/org/mate/ScreenSaver", name, "GetActive")
        until(started.exists, what="it is started for whoever asks without care")
    finally:
        bus.stop()


def test_a_name_that_cannot_tell_is_none(session_bus: BusDaemon, watched: Watched) -> None:
    name = "org.freedesktop.ScreenSaver"  # GNOME's takes Inhibit only
    session_bus.run(name, name, "/org/freedesktop/ScreenSaver", name)
    assert not watched.start().known


def test_locked_by_either_is_locked(logind: Logind, session_bus: BusDaemon, watched: Watched) -> None:
    mine = logind.add("7")
    logind.own(mine)
    saver = Saver(session_bus, "org.mate.ScreenSaver")
    watched.start()
    logind.activate(mine, False)
    watched.becomes("switched")
    saver.activate()
    watched.becomes("switched", "locked")
    saver.activate(False)
    watched.becomes("switched", "locked", "switched")


def test_one_lost_bus_leaves_the_other(logind: Logind, session_bus: BusDaemon, watched: Watched) -> None:
    mine = logind.add("7")
    logind.own(mine)
    watch = watched.start()
    session_bus.stop()
    until(lambda: not watch.health().ok)
    assert "session bus" in watch.health().problems[0].message
    assert watch.known
    logind.lock(mine)
    watched.becomes("locked")


# --- life ---------------------------------------------------------------------------------------------------


def test_stop_ends_the_thread_and_may_be_called_twice(logind: Logind, watched: Watched) -> None:
    mine = logind.add("7")
    logind.own(mine)
    logind.lock(mine)
    watched.watch.stop()  # before start
    watch = watched.start()
    (thread,) = watch.threads()
    began_s = time.monotonic()
    watch.stop()
    assert time.monotonic() - began_s < LATE_S
    assert not thread.is_alive()
    watch.stop()
    assert (watch.away, watch.known, watch.threads(), watched.told) == (None, False, [], [])
    assert watched.start().away == "locked", "it may be started again"


def test_starting_twice_is_starting_once(logind: Logind, watched: Watched) -> None:
    logind.own(logind.add("7"))
    watch = watched.start()
    before = watch.threads()
    watched.start()
    assert watch.threads() == before == session_threads()


def test_stop_while_an_answer_is_waited_for(
    logind: Logind, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    watch = watched.start()
    (thread,) = watch.threads()
    before = thread_cost([thread]).wakeups or 0
    logind.lock_and_freeze(mine)
    until(lambda: (thread_cost([thread]).wakeups or 0) > before, what="the signal")
    time.sleep(0.1)
    began_s = time.monotonic()
    watch.stop()
    assert time.monotonic() - began_s < LATE_S
    assert not thread.is_alive()
    assert (watched.told, caplog.text) == ([], "")


def test_no_file_descriptor_is_left(logind: Logind, watched: Watched) -> None:
    logind.own(logind.add("7"))
    watched.start().stop()  # what is imported for the first time
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        watched.start().stop()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    logind.bus.stop()
    held = SessionWatch()
    held.start(lambda: None)
    assert held.missing == "no system bus"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_host_that_raises_or_stops_it_in_the_callback(
    logind: Logind, caplog: pytest.LogCaptureFixture
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    watch = SessionWatch()

    def on_change() -> None:
        if watch.away is None:
            watch.stop()
        raise RuntimeError("the host's")

    watch.start(on_change)
    (thread,) = watch.threads()
    logind.lock(mine)
    until(lambda: "on_change" in caplog.text)
    assert (watch.away, thread.is_alive()) == ("locked", True)
    logind.lock(mine, False)
    thread.join(20)
    assert not thread.is_alive()
    assert "join" not in caplog.text


def test_a_change_that_comes_with_the_end_is_not_told() -> None:
    """Between the last look at what wakes the thread and the callback: too short a time to be met from outside."""
    told: list[None] = []
    loop = session._Loop(lambda: told.append(None))
    loop.logind.away = "locked"
    loop.stop()
    loop.tell()
    loop._close()
    assert told == []


def test_a_thread_that_cannot_be_had_is_no_error_of_the_host(
    system_bus: BusDaemon, watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:  # a limit of processes cannot be set for one test alone
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    watch = watched.start()
    assert (watch.away, watch.known, watch.threads()) == (None, False, [])
    assert "cannot be watched" in caplog.text


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_keep_the_lock_screen_to_themselves(
    system: str, logind: Logind, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    logind.own(logind.add("7"))
    monkeypatch.setattr(session.sys, "platform", system)  # type: ignore[attr-defined]
    watch = watched.start()
    assert (watch.away, watch.known, watch.threads(), watch.health().ok) == (None, False, [], True)


@pytest.mark.parametrize("answer", [b"", b"ERROR\r\n", b"x" * 10_000, b"OK 00\r\n" + b"\xff" * 64])
def test_something_else_at_the_address_of_the_bus(
    answer: bytes, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        serve = threading.Thread(target=answer_once, args=(listener, answer))
        serve.start()
        watch = watched.start()
        serve.join()
    assert (watch.away, watch.known, watch.threads(), watch.health().ok) == (None, False, [], True)


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answer)


def test_what_fails_in_the_thread_unlocks_nothing(
    logind: Logind, watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the program itself, which no bus can bring about."""
    mine = logind.add("7")
    logind.own(mine)
    logind.lock(mine)
    watch = watched.start()

    def fail(self: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(session._Logind, "serve", fail)
    logind.lock(mine, False)
    until(lambda: not watch.threads())
    assert (watch.known, watch.missing) == (False, "the watch has failed")
    assert (watch.away, watched.told) == ("locked", [])
    assert "a fault" in caplog.text
