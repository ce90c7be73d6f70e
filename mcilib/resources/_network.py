"""What NetworkManager's properties mean, and when its word that there is no network counts. Pure; nothing is raised.

Numbers are those of its document: NMConnectivityState, NMState, NMMetered, NMDeviceType, NMDeviceState.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcilib import limits
from mcilib.policy.state import Metered

_FAR = 1e9  # nothing that is asked for is as large

#: Connectivity -> whether there is an Internet, and whether it wants a sign-in. Where NetworkManager does not check
#: (0), its state tells; `limited` may still reach a receiver nearby.
_CONNECTIVITY: dict[float | None, tuple[bool | None, bool | None]] = {
    1: (False, False),
    2: (False, True),
    3: (None, False),
    4: (True, False),
}
_ASLEEP = 10
_STATE: dict[float | None, bool] = {_ASLEEP: False, 20: False, 30: False, 40: False, 70: True}
_METERED: dict[float | None, Metered] = {1: Metered.YES, 2: Metered.NO, 3: Metered.GUESS, 4: Metered.NO}

_HARDWARE = frozenset({1, 2, 5, 8, 9, 12})
"""Ethernet, Wi-Fi, Bluetooth, modem, InfiniBand, ADSL: all others (loopback, bridges of containers, tunnels) need one
of these to lead out of the machine, and those that others made count as managed."""
UNMANAGED = 10
"""A state of a device, as is everything below it."""


def network(manager: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the state."""
    connectivity = number(manager.get("Connectivity"))
    online, portal = _CONNECTIVITY.get(connectivity, (_STATE.get(number(manager.get("State"))), None))
    metered = _METERED.get(number(manager.get("Metered")), Metered.UNKNOWN)
    return {"online": online, "portal": portal, "metered": metered}


def doubtful(manager: Mapping[str, Any]) -> list[str] | None:
    """The devices that tell whether it knows what it says; None: it does. One that was put to sleep manages nothing
    either, but was told to."""
    told, devices = network(manager), manager.get("Devices")
    if told["online"] is not False or told["portal"] is True or number(manager.get("State")) == _ASLEEP:
        return None
    if not isinstance(devices, list):
        return None
    return [path for path in devices if isinstance(path, str)][: limits.NETWORK_DEVICES_MAX]


def knows(manager: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether its word counts. Not of no network, while another program may run what it does not manage. `told`: path
    of a device -> its properties; as long as one is missing, it counts."""
    paths = doubtful(manager)
    if paths is None or not told.keys() >= set(paths):
        return True
    hardware = [told[path] for path in paths if number(told[path].get("DeviceType")) in _HARDWARE]
    states = [number(device.get("State")) for device in hardware]
    return bool(states) and not any(state is not None and state <= UNMANAGED for state in states)


def number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _FAR:
        return value  # not of NaN, which is less than nothing
    return None
