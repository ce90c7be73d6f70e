"""What Linux tells in files under /sys: batteries and mains, and how hot it is. Where psutil is wrong, this is why.

psutil takes a mouse's battery for the machine's, knows few names of mains adapters, looks at the first battery only
and raises where there is no folder. The files are described in the kernel's documents sysfs-class-power and
sysfs-class-thermal; energy is in uWh, charge in uAh, power in uW, current in uA, voltage in uV, temperature in m°C.
What cannot be read, or is no number, is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcilib import limits
from mcilib.policy.state import Thermal

_BATTERIES, _MAINS = ("Battery", "UPS"), "Mains"
_WIRELESS = "Wireless"


def power(root: str = "/sys") -> dict[str, Any]:
    """`battery_present`, `battery_ratio`, `on_mains`, `discharge_w` of a `ResourceState`. Raises nothing."""
    supplies = [path for path in _entries(f"{root}/class/power_supply") if _text(path, "scope") != "Device"]
    kinds = {path: _text(path, "type") for path in supplies}
    batteries = [path for path, kind in kinds.items() if kind in _BATTERIES and _number(path, "present") != 0]
    adapters = [path for path, kind in kinds.items() if kind in (_MAINS, _WIRELESS) or kind.startswith("USB")]
    states = {path: _text(path, "status") for path in batteries}
    if not batteries:
        return {"battery_present": False, "battery_ratio": None, "on_mains": True, "discharge_w": None}
    giving = [path for path, state in states.items() if state == "Discharging"]
    return {
        "battery_present": True,
        "battery_ratio": _ratio(batteries),
        "on_mains": _on_mains({path: kinds[path] for path in adapters}, list(states.values())),
        "discharge_w": _watts(giving),
    }


def _on_mains(adapters: dict[Path, str], states: list[str]) -> bool | None:
    """An adapter that is on says it surest, then batteries that charge or give."""
    online = {path: _number(path, "online") for path in adapters}
    if any(online.values()):
        return True
    if "Discharging" in states:
        return False
    if "Charging" in states:
        return True
    if any(online[path] == 0 for path, kind in adapters.items() if kind == _MAINS):
        return False
    return True if set(states) <= {"Full", "Not charging"} else None


def _ratio(batteries: list[Path]) -> float | None:
    """Of all together, by energy where all tell it, else by charge, else the mean of what each says of itself."""
    for kind in ("energy", "charge"):
        pairs = [(_number(path, f"{kind}_now"), _full(path, kind)) for path in batteries]
        if all(now is not None and now >= 0 and full for now, full in pairs):
            return min(1.0, sum(now or 0 for now, _ in pairs) / sum(full or 0 for _, full in pairs))
    alone = [ratio for path in batteries if (ratio := _ratio_alone(path)) is not None]
    return sum(alone) / len(alone) if alone else None


def _ratio_alone(path: Path) -> float | None:
    for kind in ("energy", "charge"):
        now, full = _number(path, f"{kind}_now"), _full(path, kind)
        if now is not None and now >= 0 and full:
            return min(1.0, now / full)
    percent = _number(path, "capacity")
    return percent / 100 if percent is not None and 0 <= percent <= 100 else None


def _full(path: Path, kind: str) -> int | None:
    """What it holds when full; a driver that does not know gives 0."""
    for name in (f"{kind}_full", f"{kind}_full_design"):
        full = _number(path, name)
        if full is not None and full > 0:
            return full
    return None


def _watts(batteries: list[Path]) -> float | None:
    """What they give; drivers disagree about the sign."""
    total_w = 0.0
    for path in batteries:
        power_uw = _number(path, "power_now")
        if power_uw is None:
            current_ua, voltage_uv = _number(path, "current_now"), _number(path, "voltage_now")
            if current_ua is None or voltage_uv is None:
                return None
            power_uw = current_ua * voltage_uv // 1_000_000
        total_w += abs(power_uw) / 1e6
    return total_w if 0 < total_w <= limits.DISCHARGE_CAP_W else None


class Heat:
    """Trip points of thermal zones, and how often processors were slowed down since the last look."""

    def __init__(self, root: str = "/sys") -> None:
        self._root = root
        self._throttled: int | None = None

    def look(self) -> Thermal | None:
        """None where the kernel tells neither. Raises nothing."""
        zones = [path for path in _entries(f"{self._root}/class/thermal") if path.name.startswith("thermal")]
        found = [heat for path in zones if (heat := _zone(path)) is not None]
        before, self._throttled = self._throttled, self._count()
        if self._throttled is not None:
            slowed = before is not None and self._throttled > before
            found.append(Thermal.HOT if slowed else Thermal.NOMINAL)
        return max(found, default=None)

    def _count(self) -> int | None:
        counts = [
            _number(folder, name)
            for cpu in _entries(f"{self._root}/devices/system/cpu")
            if cpu.name[3:].isdigit()
            for folder in [cpu / "thermal_throttle"]
            for name in ("core_throttle_count", "package_throttle_count")
        ]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None


def _zone(path: Path) -> Thermal | None:
    now = _number(path, "temp")
    trips = list(_trips(path))
    if now is None or not trips:
        return None
    heat = Thermal.NOMINAL
    for kind, celsius in trips:
        margin = limits.CRITICAL_MARGIN_C if kind == "critical" else 0.0
        if now / 1000 >= celsius - margin:
            heat = max(heat, Thermal.HOT if kind == "passive" else Thermal.CRITICAL)
    return heat


def _trips(path: Path) -> Iterator[tuple[str, float]]:
    """Kind and °C of those that tell how hot is too hot (`active` ones turn fans on)."""
    number = 0
    while kind := _text(path, f"trip_point_{number}_type"):
        at = _number(path, f"trip_point_{number}_temp")
        believed = at is not None and limits.TRIP_LEAST_C <= at / 1000 <= limits.TRIP_CAP_C
        if kind in ("passive", "hot", "critical") and believed:
            yield kind, (at or 0) / 1000
        number += 1


def _entries(folder: str) -> list[Path]:
    try:
        return [Path(folder, name) for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def _text(path: Path, name: str) -> str:
    """Empty when it cannot be read."""
    try:
        with open(path / name, "rb") as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _number(path: Path, name: str) -> int | None:
    try:
        return int(_text(path, name))
    except ValueError:
        return None
