"""What the properties of the services mean. Pure; whatever was told, something comes out, and nothing is raised.

Numbers are those of the documents of UPower (UpDeviceKind, UpDeviceState) and power-profiles-daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mcilib import limits
from mcilib.policy.state import ResourceState
from mcilib.resources._network import knows, network
from mcilib.resources._network import number as _number
from mcilib.resources._services import BATTERY, NETWORK, PROFILES, PROFILES_BEFORE, UPOWER, Told

_BATTERY, _UPS = 2, 3
_UNKNOWN, _CHARGING, _DISCHARGING, _FULLY_CHARGED, _PENDING_CHARGE = 0, 1, 2, 4, 5


def tellers(told: Told) -> frozenset[str]:
    """The interfaces that tell; not a NetworkManager that does not know (`knows`)."""
    interfaces = (name for name in told if not name.startswith("/"))
    return frozenset(name for name in interfaces if name != NETWORK or knows(told[name], told))


def over(base: ResourceState, told: Told) -> ResourceState:
    """`base` with what the services know better."""
    fields: dict[str, Any] = {}
    if BATTERY in told:
        fields |= _power(told[BATTERY], told.get(UPOWER, {}))
    if NETWORK in tellers(told):
        fields |= network(told[NETWORK])
    for interface in (PROFILES_BEFORE, PROFILES):
        profile = told.get(interface, {}).get("ActiveProfile")
        if isinstance(profile, str) and profile:
            fields["power_saver"] = profile == "power-saver"
    return replace(base, **fields)


def _power(device: Mapping[str, Any], upower: Mapping[str, Any]) -> dict[str, Any]:
    """UPower's device that stands for all batteries which run the machine, or for its UPS."""
    state, present = _number(device.get("State")), device.get("IsPresent")
    on_battery = upower.get("OnBattery")
    on_mains = (not on_battery) if isinstance(on_battery, bool) else _guess_mains(state)
    found = dict.fromkeys(("battery_present", "battery_ratio", "discharge_w"))
    if present is False:
        return {**found, "battery_present": False, "on_mains": True if on_mains is None else on_mains}
    if present is not True or _number(device.get("Type")) not in (_BATTERY, _UPS):
        return {**found, "on_mains": on_mains}
    percent, watts = _number(device.get("Percentage")), _number(device.get("EnergyRate"))
    if (
        percent is not None and 0 <= percent <= 100 and (percent or state != _UNKNOWN)
    ):  # 0 and unknown: not read
        found["battery_ratio"] = percent / 100
    if state == _DISCHARGING and watts is not None and 0 < watts <= limits.DISCHARGE_CAP_W:
        found["discharge_w"] = float(watts)
    return {**found, "battery_present": True, "on_mains": on_mains}


def _guess_mains(state: float | None) -> bool | None:
    if state in (_CHARGING, _FULLY_CHARGED, _PENDING_CHARGE):
        return True
    return False if state == _DISCHARGING else None
