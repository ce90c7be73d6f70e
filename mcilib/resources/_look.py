"""One look at what no service tells, in the thread of whoever is awake."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcilib.policy.state import ResourceState
from mcilib.resources import _sysfs

_log = logging.getLogger("mcilib")


class Looker:
    """Keeps what it needs from one look to the next. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._heat = _sysfs.Heat()

    def look(self, ask_network: bool) -> ResourceState:
        """What is known. `ask_network`: whether an interface is up, too. Raises nothing; takes about 1 ms."""
        ways: list[Callable[[], dict[str, Any]]] = [self._disk]
        if ask_network:
            ways.append(online)
        if sys.platform == "win32":
            from mcilib.resources import _windows  # not where ctypes is of no use

            ways += [_windows.power, _windows.network]
        elif sys.platform == "darwin":
            from mcilib.resources import _macos

            ways += [battery, _macos.power, _macos.network]
        elif sys.platform.startswith("linux"):
            ways += [_sysfs.power, lambda: {"thermal": self._heat.look()}]
        found: dict[str, Any] = {}
        for way in ways:
            try:
                found |= way()
            except Exception as error:  # whatever a system's interface raises: not known
                _log.debug("mcilib: a look at the machine failed (%s: %s)", type(error).__name__, error)
        return ResourceState(**found)

    def _disk(self) -> dict[str, Any]:
        folder = self._folder.absolute()
        there = next(place for place in (folder, *folder.parents) if place.exists())
        return {"free_disk_bytes": shutil.disk_usage(there).free}


def online() -> dict[str, Any]:
    """Whether an interface is up that leads out of the machine: only so much can be told without a service."""
    import psutil

    interfaces = psutil.net_if_stats().items()
    up = [name for name, one in interfaces if one.isup and not _loops(name, one.flags)]
    return {"online": bool(up)}


def _loops(name: str, flags: str) -> bool:
    return "loopback" in flags.split(",") or name in ("lo", "lo0") or name.startswith("Loopback")


def battery() -> dict[str, Any]:
    """Through psutil, right on macOS."""
    import psutil

    found = psutil.sensors_battery()
    if found is None:
        return {"battery_present": False, "on_mains": True}
    percent = found.percent
    ratio = percent / 100 if 0 <= percent <= 100 else None
    return {"battery_present": True, "battery_ratio": ratio, "on_mains": found.power_plugged}
