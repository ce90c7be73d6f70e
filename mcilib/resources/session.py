"""Whether the participant's session is locked or behind another user's: told by the system, never polled."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mcilib.resources._bus import Bus, Refused, Signal
from mcilib.resources._loop import Loop, Part
from mcilib.statistics import Health

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
        return self._loop.value if self._loop is not None else None

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
        return self._loop.health() if self._loop is not None else Health()

    def threads(self) -> list[threading.Thread]:
        """The thread whose cost is this object's; none where there is no bus."""
        return [self._loop.thread] if self._loop is not None and self._loop.thread.is_alive() else []


class _Teller(Part):
    concern, loss = "session", "a locked screen may not be noticed"

    def __init__(self) -> None:
        super().__init__()
        self.away: str | None = None


class _Logind(_Teller):
    bus_name = "SYSTEM"

    def __init__(self) -> None:
        super().__init__()
        self.missing = "not asked yet"
        self._rules: dict[str, str] = {}  # path -> its rule

    def begin(self, bus: Bus) -> None:
        self._rules = {}
        bus.watch_owner(_LOGIND)
        self._read(bus)

    def hear(self, bus: Bus, signals: list[Signal]) -> None:
        self._read(bus)

    def forget(self, why: str) -> None:
        self.known, self.missing = False, why  # whom it has called away is not back before it says so

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


class _Savers(_Teller):
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

    def hear(self, bus: Bus, signals: list[Signal]) -> None:
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


class _Loop(Loop[str | None]):
    """The thread of one start, and what it knows."""

    name, what = "mcilib-session", "the session"

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.logind = _Logind()
        self.tellers: tuple[_Teller, ...] = (self.logind, _Savers())
        super().__init__(self.tellers, on_change, None)

    def now(self) -> str | None:
        told = [part.away for part in self.tellers]
        return "locked" if "locked" in told else self.logind.away
