"""What the machine can spare: told by the system where it tells, looked up once a minute at most where it does not."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mcilib import limits
from mcilib.policy.state import ResourceState
from mcilib.resources._look import Looker
from mcilib.resources._loop import Loop
from mcilib.resources._services import BATTERY, NETWORK, PROFILES, PROFILES_BEFORE, Services
from mcilib.resources._told import over, tellers
from mcilib.statistics import Health

_log = logging.getLogger("mcilib")


class ResourceWatch:
    """The `Resources` of this machine. `folder` is the state folder, there already or not: free disk is told of it.

    On Linux, UPower tells of batteries and mains, NetworkManager of the network, power-profiles-daemon of the power
    saver, by signals on the system bus; none of them is started by being asked. One thread, `mcilib-resources`, sleeps
    until one comes. A service that is absent, ends, freezes or says what cannot be is not known; then batteries are
    read from /sys, and whether an interface is up is asked of psutil. So is a NetworkManager that says that there is no
    network, but leaves interfaces of the machine to others, or has none. A service is found again when it comes back; a
    lost bus is tried again after 1 s, then more and more rarely, at least once a minute. A bus that was not there at
    the start is not looked for again, and there is no thread without one.

    What no service tells (heat, free disk, and the above without services) is looked up when `start` and `refresh` are
    called, in the caller's thread, and when a service goes. Windows and macOS are asked so for all: not yet run on
    such hardware.

    `session_away` and `cpu_ratio` stay None: others know them. All members may be used from any thread; `start` and
    `stop` from one at a time.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._loop: _Loop | None = None

    def start(self, on_change: Callable[[], None], /) -> None:
        """`state` is right when this returns, after 20 ms as a rule and at most about 1 s. Never raises.

        `on_change` is called after each change of `state`, from the watch's thread or from that of a `refresh`; what
        it raises is logged. Does nothing when started already.
        """
        if self._loop is None:
            try:
                loop = _Loop(self._folder, on_change)
                loop.start()
                self._loop = loop
            except Exception:  # no file descriptors, no threads
                _log.exception("mcilib: the machine's resources cannot be watched")

    def stop(self) -> None:
        """Ends the thread, within 0.5 s. From then on nothing is known, and `on_change` is not called."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()

    @property
    def state(self) -> ResourceState:
        """The last known, made once and never changed; reading it waits for nothing."""
        loop = self._loop
        return loop.value if loop is not None else ResourceState()

    def refresh(self) -> None:
        """Looks up what no service tells, when the last look is a minute old; takes about 1 ms then. Never raises."""
        loop = self._loop
        if loop is not None:
            loop.refresh()

    @property
    def tellers(self) -> tuple[str, ...]:
        """Who tells of changes now, of `UPower`, `NetworkManager`, `power-profiles-daemon`."""
        loop = self._loop
        known = tellers(loop.services.told) if loop is not None else ()
        return tuple(dict.fromkeys(name for interface, name in _NAMES.items() if interface in known))

    def health(self) -> Health:
        """A problem when the system bus was there and is lost."""
        loop = self._loop
        return loop.health() if loop is not None else Health()

    def threads(self) -> list[threading.Thread]:
        """The thread whose cost is this object's; none where there is no bus."""
        loop = self._loop
        return [loop.thread] if loop is not None and loop.thread.is_alive() else []


_NAMES = {
    BATTERY: "UPower",
    NETWORK: "NetworkManager",
    PROFILES: "power-profiles-daemon",
    PROFILES_BEFORE: "power-profiles-daemon",
}


class _Loop(Loop[ResourceState]):
    """The thread of one start, and what it knows."""

    name, what = "mcilib-resources", "the machine's resources"

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self.services = Services()
        parts = [self.services] if sys.platform.startswith("linux") else []
        super().__init__(parts, on_change, ResourceState())
        self._looker = Looker(folder)
        self._looked = ResourceState()
        self._looked_at_s: float | None = None
        self._known: frozenset[str] = frozenset()

    def now(self) -> ResourceState:
        told = self.services.told
        known = tellers(told)
        gone, self._known = self._known - known, known
        if gone or self._looked_at_s is None or self._is_time():
            self._looked = self._looker.look(ask_network=NETWORK not in known)
            self._looked_at_s = time.monotonic()
        return over(self._looked, told)

    def refresh(self) -> None:
        if self._is_time():
            self.tell()

    def _is_time(self) -> bool:
        at_s = self._looked_at_s
        return at_s is None or time.monotonic() - at_s >= limits.LOOK_INTERVAL_S
