"""What UPower, NetworkManager and power-profiles-daemon tell over the system bus.

Nobody is waited for after the start: questions are posted, and whoever has not answered by a deadline is unknown
until an answer comes after all, as from a service that was frozen. Changes come with signals that carry the new
values, so that nothing is asked again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from mcilib import limits
from mcilib.resources._bus import Answer, Bus, Signal
from mcilib.resources._loop import Part
from mcilib.resources._network import UNMANAGED, doubtful

_PROPERTIES = "org.freedesktop.DBus.Properties"

UPOWER, BATTERY = "org.freedesktop.UPower", "org.freedesktop.UPower.Device"
NETWORK, _DEVICE = "org.freedesktop.NetworkManager", "org.freedesktop.NetworkManager.Device"
PROFILES, PROFILES_BEFORE = "org.freedesktop.UPower.PowerProfiles", "net.hadess.PowerProfiles"

Told = Mapping[str, Mapping[str, Any]]
"""Interface, or path of a device of NetworkManager -> its properties, as they came; only of those who tell."""


class _Object(NamedTuple):
    service: str
    path: str


#: By interface. The device that stands for all batteries together is the only one asked.
_OBJECTS = {
    UPOWER: _Object(UPOWER, "/org/freedesktop/UPower"),
    BATTERY: _Object(UPOWER, "/org/freedesktop/UPower/devices/DisplayDevice"),
    NETWORK: _Object(NETWORK, "/org/freedesktop/NetworkManager"),
    PROFILES: _Object(PROFILES, "/org/freedesktop/UPower/PowerProfiles"),
    PROFILES_BEFORE: _Object(PROFILES_BEFORE, "/net/hadess/PowerProfiles"),
}

_SIGNS = frozenset({"Connectivity", "State", "Devices"})
"""Properties of NetworkManager that may put in doubt what it says."""


class Services(Part):
    """`told` is replaced, never changed: it may be read from any thread."""

    bus_name: ClassVar[str] = "SYSTEM"
    concern = "resources"
    loss = "changes of battery, network and power saver are noticed late"

    def __init__(self) -> None:
        super().__init__()
        self.told: Told = {}
        self._asked: dict[int, str] = {}  # serial -> interface, or path of a device
        self._deadline_s: dict[int, float] = {}  # serial -> until when the answer is in time (monotonic)

    def begin(self, bus: Bus) -> None:
        """Asks all, and waits for the answers for what is left of the bus's time."""
        self._asked, self._deadline_s = {}, {}
        for service in {one.service for one in _OBJECTS.values()}:
            bus.watch_owner(service)
        for interface, one in _OBJECTS.items():
            bus.watch(one.service, one.path, _PROPERTIES, "PropertiesChanged")
            self._ask(bus, interface)
        bus.watch(UPOWER, _OBJECTS[UPOWER].path, UPOWER, "DeviceAdded")
        bus.watch(NETWORK, "", _DEVICE, "StateChanged")
        self.take(bus)  # what came while the bus answered
        while self._asked:
            try:
                bus.wait()
            except TimeoutError:  # of one service: the bus has answered
                break
            bus.read()
            self.take(bus)

    @property
    def due_s(self) -> float | None:
        if self.bus is None:
            return self.retry_at_s
        return min(self._deadline_s.values(), default=None)

    def look_after(self, wake: socket.socket) -> None:
        if self.bus is None:
            super().look_after(wake)
            return
        for serial in [serial for serial, at_s in self._deadline_s.items() if at_s <= time.monotonic()]:
            del self._deadline_s[serial]
            self._now(self._asked[serial], None)

    def take(self, bus: Bus) -> None:
        for one in bus.news():
            if isinstance(one, Answer):
                self._answered(bus, one)
            else:
                self._signalled(bus, one)

    def forget(self, why: str) -> None:
        self.known, self.told = False, {}
        self._asked, self._deadline_s = {}, {}

    def _ask(self, bus: Bus, name: str) -> None:
        """`name`: an interface, or the path of a device."""
        self._drop(name)
        (service, path), interface = (
            (_OBJECTS[name], name) if name in _OBJECTS else (_Object(NETWORK, name), _DEVICE)
        )
        serial = bus.post(service, path, _PROPERTIES, "GetAll", "s", interface)
        self._asked[serial] = name
        self._deadline_s[serial] = time.monotonic() + limits.BUS_ANSWER_S

    def _ask_devices(self, bus: Bus) -> None:
        """When NetworkManager says that there is no network: whether it manages what there is."""
        paths = doubtful(self.told.get(NETWORK, {})) or []
        self.told = {name: told for name, told in self.told.items() if name in _OBJECTS or name in paths}
        for path in paths:
            self._ask(bus, path)

    def _drop(self, interface: str) -> None:
        """An answer to what was asked before is of no use any more."""
        for serial in [serial for serial, asked in self._asked.items() if asked == interface]:
            del self._asked[serial]
            self._deadline_s.pop(serial, None)

    def _answered(self, bus: Bus, answer: Answer) -> None:
        self._deadline_s.pop(answer.serial, None)
        interface = self._asked.pop(answer.serial, None)
        if interface is not None:
            self._now(interface, _values(answer.body[0]) if answer.body else None)
            if interface == NETWORK:
                self._ask_devices(bus)

    def _signalled(self, bus: Bus, signal: Signal) -> None:
        match signal.member, signal.body:
            case "NameOwnerChanged", (str(service), _, str(owner)):
                for interface, one in _OBJECTS.items():
                    if one.service == service:
                        self._now(interface, None)
                        self._drop(interface)
                        if owner:
                            self._ask(bus, interface)
            case "PropertiesChanged", (str(interface), dict(changed), invalidated) if interface in _OBJECTS:
                before = self.told.get(interface)
                self._now(interface, {**(before or {}), **_values(changed)})
                if before is None or invalidated:
                    self._ask(bus, interface)
                elif interface == NETWORK and not _SIGNS.isdisjoint(changed):
                    self._ask_devices(bus)
            case "StateChanged", (int(new), int(old), _) if min(new, old) <= UNMANAGED:
                self._ask_devices(bus)
            case "DeviceAdded", _ if BATTERY not in self.told:  # UPower has its name before it has devices
                self._ask(bus, BATTERY)

    def _now(self, interface: str, values: Mapping[str, Any] | None) -> None:
        others = {name: told for name, told in self.told.items() if name != interface}
        if interface == NETWORK and values is None:
            others = {name: told for name, told in others.items() if name in _OBJECTS}
        self.told = others if values is None else {**others, interface: values}
        self.known = bool(self.told)


def _values(properties: Any) -> dict[str, Any]:
    """Of variants, as jeepney gives them; what is none is left out."""
    if not isinstance(properties, dict):
        return {}
    return {name: pair[1] for name, pair in properties.items() if isinstance(pair, tuple) and len(pair) == 2}
