"""Whether the participant's session is locked or behind another user's: told by the system, never polled."""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from mcilib import limits
from mcilib.resources._bus import Bus, Refused, Stopped
from mcilib.statistics import Health, Problem

_log = logging.getLogger("mcilib")

_LOGIND = "org.freedesktop.login1"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_GRAPHICAL = ("x11", "wayland", "mir")

#: Each is a name on the session bus, an interface, and (with slashes) a path.
_SAVERS = (
    "org.freedesktop.ScreenSaver",
    "org.gnome.ScreenSaver",
    "org.mate.ScreenSaver",
    "org.cinnamon.ScreenSaver",
    "org.xfce.ScreenSaver",
)


class SessionWatch:
    """Tells when the participant's desktop session is locked, or when another user's is in the foreground.

    On Linux, from two places. systemd-logind (system bus) tells both: by `LockedHint` and `Active` of the session of
    this process, or, where that is none or not a graphical one, of the user's `Display` session. Screen savers of
    desktops (session bus) tell locks: `ActiveChanged` under the names of freedesktop, GNOME, MATE, Cinnamon, XFCE.
    A locker that speaks to neither (i3lock, slock, xsecurelock) is not seen.

    One thread, `mcilib-session`, sleeps on both sockets until a signal about this session comes. A bus that is lost,
    or does not answer, is tried again after 1 s, then more and more rarely, at least once a minute; meanwhile what it
    told is unknown, except that a session which logind has called away stays away. A bus that was not there at the
    start is not looked for again.

    On Windows and macOS nothing is known: these systems keep the input of the lock screen from hooks and taps
    themselves. Not yet run on such hardware.

    What the buses send is bounded by their own limits of a message. All members may be used from any thread;
    `start` and `stop` from one at a time.
    """

    def __init__(self) -> None:
        self._loop: _Loop | None = None

    def start(self, on_change: Callable[[], None]) -> None:
        """`away` is right when this returns, after 10 ms as a rule and at most about 1 s. Never raises.

        `on_change` is called from the thread after each change of `away`; what it raises is logged. Does nothing
        when started already.
        """
        if self._loop is None and sys.platform.startswith("linux"):
            try:
                loop = _Loop(on_change)
                loop.start()
                self._loop = loop
            except Exception:  # no file descriptors, no threads
                _log.exception("mcilib: the session cannot be watched")

    def stop(self) -> None:
        """Ends the thread, within 0.5 s. From then on the state is unknown, and `on_change` is not called."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()

    @property
    def away(self) -> str | None:
        """`locked`, `switched` (another user's session is in the foreground), or None: here, or unknown."""
        return self._loop.away if self._loop is not None else None

    @property
    def known(self) -> bool:
        """False when nobody tells: no bus, no logind, no session and no screen saver; not started, or stopped."""
        return self._loop is not None and any(part.known for part in self._loop.parts)

    @property
    def missing(self) -> str:
        """Why logind tells nothing, in a few words; empty when it does."""
        return self._loop.logind.missing if self._loop is not None else "not watched"

    def health(self) -> Health:
        """A problem for each bus that was there and is lost."""
        return Health.join(part.health() for part in self._loop.parts) if self._loop is not None else Health()

    def threads(self) -> list[threading.Thread]:
        """The thread whose cost is this object's; none where there is no bus."""
        return [self._loop.thread] if self._loop is not None and self._loop.thread.is_alive() else []


class _Part:
    """What one bus tells, and the connection to it, made again after a loss. Used by one thread at a time."""

    bus_name: ClassVar[str]

    def __init__(self) -> None:
        self.away: str | None = None
        self.known = False
        self.bus: Bus | None = None
        self.retry_at_s: float | None = None  # monotonic; None: not to be tried
        self._pause_s = 0.0

    def open(self, wake: socket.socket, timeout_s: float) -> None:
        """Connects, watches and reads. Raises `Stopped` only."""
        try:
            self.bus = Bus(self.bus_name, wake, timeout_s)
            self.begin(self.bus)
            self._hear(self.bus)
        except Stopped:
            raise
        except Exception as error:
            # At the start a bus that takes no connection is not there; one that gives no answer is.
            if self.bus is None and self.retry_at_s is None and not isinstance(error, TimeoutError):
                self.forget(f"no {self.bus_name.lower()} bus")
            else:
                self._lost(error)
        else:
            self._pause_s, self.retry_at_s = 0.0, None

    def serve(self) -> None:
        """Takes up what has come. Raises `Stopped` only."""
        if self.bus is None:
            return
        try:
            self.bus.allow(limits.SESSION_ANSWER_S)
            self.bus.read()
            self._hear(self.bus)
        except Stopped:
            raise
        except Exception as error:
            self._lost(error)

    def _hear(self, bus: Bus) -> None:
        while signals := bus.signals():  # more may come while the answer to one is waited for
            self.hear(bus, signals)

    def _lost(self, error: Exception) -> None:
        name = f"the {self.bus_name.lower()} bus"
        if not self._pause_s:
            _log.warning("mcilib: lost %s, trying again (%s: %s)", name, type(error).__name__, error)
        self.close()
        self.forget(f"{name} is lost")
        self._pause_s = next_pause_s(self._pause_s)
        self.retry_at_s = time.monotonic() + self._pause_s

    def close(self) -> None:
        bus, self.bus = self.bus, None
        if bus is not None:
            bus.close()

    def health(self) -> Health:
        if self.retry_at_s is None:
            return Health()
        words = f"The {self.bus_name.lower()} bus is lost: a locked screen may not be noticed"
        step = "It is tried again, at least once a minute; a new login makes a new bus."
        return Health((Problem("session", words, step),))

    def begin(self, bus: Bus) -> None:
        """Watches first and reads then, so that no change falls between."""
        raise NotImplementedError

    def hear(self, bus: Bus, signals: list[tuple[str, str, tuple[Any, ...]]]) -> None:
        raise NotImplementedError

    def forget(self, why: str) -> None:
        """Nothing is known any more; but whom logind has called away is not back before it says so."""
        raise NotImplementedError


def next_pause_s(pause_s: float) -> float:
    """The pause before the next attempt, after one of `pause_s` (0: none yet)."""
    return min(max(2 * pause_s, limits.SESSION_RETRY_FIRST_S), limits.SESSION_RETRY_CAP_S)


class _Logind(_Part):
    bus_name = "SYSTEM"

    def __init__(self) -> None:
        super().__init__()
        self.missing = "not asked yet"
        self._rules: dict[str, str] = {}  # path -> its rule

    def begin(self, bus: Bus) -> None:
        self._rules = {}
        bus.watch_owner(_LOGIND)
        self._read(bus)

    def hear(self, bus: Bus, signals: list[tuple[str, str, tuple[Any, ...]]]) -> None:
        self._read(bus)

    def forget(self, why: str) -> None:
        self.known, self.missing = False, why

    def _read(self, bus: Bus) -> None:
        """All of it again: the session too may be another one than before."""
        try:
            user, session = self._find(bus)
            self._watch(bus, {path for path in (user, session) if path})
            interface = f"{_LOGIND}.Session"
            locked = self._get(bus, session, interface, "LockedHint")
            active = self._get(bus, session, interface, "Active")
        except Refused as error:
            gone = str(error).endswith(("ServiceUnknown", "NameHasNoOwner"))
            self.forget("no systemd-logind" if gone else "systemd-logind knows no session of this user")
        else:
            self.away, self.known, self.missing = _away(locked, active), True, ""

    def _find(self, bus: Bus) -> tuple[str, str]:
        """The paths of the user (empty: none) and of the session. Raises `Refused` when there is none."""
        user = own = shown = ""
        refused = Refused()
        try:
            (own,) = self._manager(bus, "GetSessionByPID", 0)  # 0: whoever asks
        except Refused as error:
            refused = error
        with suppress(Refused):
            (user,) = self._manager(bus, "GetUser", os.getuid())
        if own and self._get(bus, own, f"{_LOGIND}.Session", "Type") in _GRAPHICAL:
            return user, own
        if user:
            # Watched before it is read, and also where it leads nowhere yet: it tells when a session comes.
            self._watch(bus, {user, *self._rules})
            _, shown = self._get(bus, user, f"{_LOGIND}.User", "Display")
        if shown not in ("", "/"):
            return user, shown
        if own:
            return user, own
        raise refused

    def _watch(self, bus: Bus, paths: set[str]) -> None:
        """Hear changes of the properties of these objects and of no others."""
        for path in self._rules.keys() - paths:
            bus.unwatch(self._rules.pop(path))
        for path in paths - self._rules.keys():
            self._rules[path] = bus.watch(_LOGIND, path, _PROPERTIES, "PropertiesChanged")

    def _manager(self, bus: Bus, member: str, number: int) -> Any:
        return bus.ask(_LOGIND, "/org/freedesktop/login1", f"{_LOGIND}.Manager", member, "u", number)

    def _get(self, bus: Bus, path: str, interface: str, name: str) -> Any:
        ((_, value),) = bus.ask(_LOGIND, path, _PROPERTIES, "Get", "ss", interface, name)
        return value


def _away(locked: bool, active: bool) -> str | None:
    if locked:
        return "locked"
    return None if active else "switched"


class _Savers(_Part):
    bus_name = "SESSION"

    def __init__(self) -> None:
        super().__init__()
        self._active: dict[str, bool] = {}  # of those that are there and answer

    def begin(self, bus: Bus) -> None:
        for name in _SAVERS:
            bus.watch_owner(name)
            bus.watch(name, _path(name), name, "ActiveChanged")
            self._ask(bus, name)
        self._settle()

    def hear(self, bus: Bus, signals: list[tuple[str, str, tuple[Any, ...]]]) -> None:
        for interface, member, body in signals:
            if member == "NameOwnerChanged" and body[0] in _SAVERS:
                self._ask(bus, body[0])
            elif member == "ActiveChanged" and interface in _SAVERS:
                self._active[interface] = bool(body[0])
        self._settle()

    def forget(self, why: str) -> None:
        self._active.clear()  # they end with their bus, and the session with it
        self._settle()

    def _ask(self, bus: Bus, name: str) -> None:
        try:
            self._active[name] = bool(bus.ask(name, _path(name), name, "GetActive")[0])
        except Refused:  # not there, or of a kind that cannot tell
            self._active.pop(name, None)

    def _settle(self) -> None:
        self.away, self.known = "locked" if any(self._active.values()) else None, bool(self._active)


def _path(name: str) -> str:
    return "/" + name.replace(".", "/")


class _Loop:
    """The thread of one start, and what it knows."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.logind = _Logind()
        self.parts: tuple[_Part, ...] = (self.logind, _Savers())
        self.away: str | None = None
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="mcilib-session", daemon=True)
        self._wake, self._waker = socket.socketpair()

    def start(self) -> None:
        """Reads all there is; the thread only where there is a bus."""
        try:
            for part in self.parts:
                part.open(self._wake, limits.SESSION_CONNECT_S)
            self.away = self._now()
            if any(part.bus is not None or part.retry_at_s is not None for part in self.parts):
                self.thread.start()
        finally:
            if self.thread.ident is None:
                self._close()

    def stop(self) -> None:
        self._stopping = True
        with suppress(OSError):  # closed: it has ended
            self._waker.send(b"x")
        if self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join(limits.SESSION_STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            while True:
                self._wait()
                self._tell()
        except Stopped:
            pass
        except Exception:
            _log.exception("mcilib: the session is not watched any more")
            for part in self.parts:
                part.forget("the watch has failed")
            self._tell()
        finally:
            self._close()

    def _wait(self) -> None:
        """Until a bus has something to say or is to be tried again; then takes it up. Raises `Stopped`."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for part in self.parts:
            if part.bus is not None:
                poll.register(part.bus, select.POLLIN)
        retries = [part.retry_at_s for part in self.parts if part.retry_at_s is not None]
        left_s = max(0.0, min(retries) - time.monotonic()) if retries else None
        ready = {fd for fd, _ in poll.poll(None if left_s is None else left_s * 1000 + 1)}
        if self._wake.fileno() in ready:
            raise Stopped
        for part in self.parts:
            if part.bus is not None:
                if part.bus.fileno() in ready:
                    part.serve()
            elif part.retry_at_s is not None and part.retry_at_s <= time.monotonic():
                part.open(self._wake, limits.SESSION_ANSWER_S)

    def _now(self) -> str | None:
        told = [part.away for part in self.parts]
        return "locked" if "locked" in told else self.logind.away

    def _tell(self) -> None:
        before, self.away = self.away, self._now()
        if self.away == before or self._stopping:
            return
        try:
            self._on_change()
        except Exception:
            _log.exception("mcilib: on_change of the session failed")

    def _close(self) -> None:
        for part in self.parts:
            part.close()
        self._wake.close()
        self._waker.close()
