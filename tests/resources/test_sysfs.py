"""Batteries, mains and heat as Linux tells them under /sys: each case read from files that umockdev puts there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcilib.policy.state import Thermal
from mcilib.resources import _look, _sysfs
from mcilib.testing.laptop import EmulatedLaptop

Files = dict[str, str]

ASK = "from mcilib.resources import _sysfs; p = _sysfs.power()\n"
ASK += "print(tuple(p[n] for n in ('battery_present', 'battery_ratio', 'on_mains', 'discharge_w')))"


def devices(**found: Files) -> str:
    """In umockdev's text form; a class other than power_supply by `subsystem`."""
    text = []
    for name, files in found.items():
        lines = [f"P: /devices/{name}", "E: SUBSYSTEM=" + files.get("subsystem", "power_supply")]
        lines += [f"A: {key}={value}\\n" for key, value in files.items() if key != "subsystem"]
        text.append("\n".join(lines) + "\n")
    return "\n".join(text)


def battery(now: int = 30, full: int = 60, status: str = "Discharging", **more: str) -> Files:
    return {
        "type": "Battery",
        "present": "1",
        "status": status,
        "energy_now": f"{now}000000",
        "energy_full": f"{full}000000",
        **more,
    }


def adapter(online: int | str, kind: str = "Mains") -> Files:
    return {"type": kind, "online": str(online)}


ALONE: Files = {"type": "Battery", "present": "1"}
MOUSE: Files = {"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "30"}

# What is there -> battery_present, battery_ratio, on_mains, discharge_w.
CASES: dict[str, tuple[dict[str, Files], tuple[bool, float | None, bool | None, float | None]]] = {
    "none": ({}, (False, None, True, None)),
    "mains alone": ({"AC": adapter(1)}, (False, None, True, None)),
    "a mouse": ({"hid-1": MOUSE}, (False, None, True, None)),
    "a mouse beside": ({"BAT0": battery(), "hid-1": {**MOUSE, "capacity": "3"}}, (True, 0.5, False, None)),
    "a telephone's charger": (
        {"BAT0": battery(status="Unknown"), "ph": {**adapter(1, "USB"), "scope": "Device"}},
        (True, 0.5, None, None),
    ),
    "discharging": ({"BAT0": battery(power_now="9500000"), "AC": adapter(0)}, (True, 0.5, False, 9.5)),
    "charging": (
        {"BAT0": battery(status="Charging", power_now="9500000"), "AC": adapter(1)},
        (True, 0.5, True, None),
    ),
    "ADP1, not charging": (
        {"BAT0": battery(status="Not charging"), "ADP1": adapter(1)},
        (True, 0.5, True, None),
    ),
    "ACAD, full": ({"BAT1": battery(60, status="Full"), "ACAD": adapter(1)}, (True, 1.0, True, None)),
    "another name, unknown": (
        {"BATT": battery(status="Unknown"), "macsmc-ac": adapter(1)},
        (True, 0.5, True, None),
    ),
    "USB": ({"BAT0": battery(status="Not charging"), "ucsi": adapter(1, "USB")}, (True, 0.5, True, None)),
    "USB, another mode": (
        {"BAT0": battery(status="Unknown"), "ucsi": adapter(2, "USB_PD")},
        (True, 0.5, True, None),
    ),
    "wireless": ({"BAT0": battery(status="Unknown"), "qi": adapter(1, "Wireless")}, (True, 0.5, True, None)),
    "of several ports one": (
        {"BAT0": battery(status="Unknown"), "u1": adapter(0, "USB"), "u2": adapter(1, "USB")},
        (True, 0.5, True, None),
    ),
    "weak charger": ({"BAT0": battery(power_now="4000000"), "AC": adapter(1)}, (True, 0.5, True, 4.0)),
    "unplugged, unknown": ({"BAT0": battery(status="Unknown"), "AC": adapter(0)}, (True, 0.5, False, None)),
    "unplugged, full": ({"BAT0": battery(60, status="Full"), "AC": adapter(0)}, (True, 1.0, False, None)),
    "ports off, charging": (
        {"BAT0": battery(status="Charging"), "u1": adapter(0, "USB")},
        (True, 0.5, True, None),
    ),
    "ports off, unknown": (
        {"BAT0": battery(status="Unknown"), "u1": adapter(0, "USB")},
        (True, 0.5, None, None),
    ),
    "no adapter, not charging": ({"BAT0": battery(status="Not charging")}, (True, 0.5, True, None)),
    "no adapter, unknown": ({"BAT0": battery(status="Unknown")}, (True, 0.5, None, None)),
    "adapter unreadable": ({"BAT0": battery(status="Unknown"), "AC": adapter("")}, (True, 0.5, None, None)),
    "two, by energy": (
        {"BAT0": battery(10, 20, "Not charging"), "BAT1": battery(70, 80, power_now="5000000")},
        (True, 0.8, False, 5.0),
    ),
    "two that give": (
        {"BAT0": battery(10, 20, power_now="3000000"), "BAT1": battery(70, 80, power_now="5000000")},
        (True, 0.8, False, 8.0),
    ),
    "two, by charge": (
        {
            "BAT0": {**ALONE, "charge_now": "1000", "charge_full": "1000", "status": "Full"},
            "BAT1": {**ALONE, "charge_now": "0", "charge_full": "3000", "status": "Discharging"},
        },
        (True, 0.25, False, None),
    ),
    "two that differ": (
        {
            "BAT0": {**ALONE, "charge_now": "1000", "charge_full": "1000", "status": "Full"},
            "BAT1": {**battery(30, 60)},
        },
        (True, 0.75, False, None),
    ),
    "capacity alone": (
        {"BAT0": {**ALONE, "capacity": "37", "status": "Discharging"}},
        (True, 0.37, False, None),
    ),
    "one of two unreadable": (
        {"BAT0": {**ALONE, "status": "Discharging"}, "BAT1": battery(30, 60)},
        (True, 0.5, False, None),
    ),
    "no full energy": (
        {"BAT0": battery(30, 0, capacity="40", energy_full_design="60000000")},
        (True, 0.5, False, None),
    ),
    "full energy 0": ({"BAT0": battery(30, 0, capacity="40")}, (True, 0.4, False, None)),
    "more than full": ({"BAT0": battery(63, 60)}, (True, 1.0, False, None)),
    "negative": ({"BAT0": battery(-1, 60, capacity="-5")}, (True, None, False, None)),
    "beyond": ({"BAT0": {**ALONE, "capacity": "101", "status": "Discharging"}}, (True, None, False, None)),
    "nonsense": (
        {"BAT0": {**battery(), "energy_now": "half", "status": "Discharging", "power_now": "?"}},
        (True, None, False, None),
    ),
    "unreadable": ({"BAT0": ALONE}, (True, None, None, None)),
    "unreadable, plugged": ({"BAT0": ALONE, "AC": adapter(1)}, (True, None, True, None)),
    "its bay is empty": ({"BAT0": {**ALONE, "present": "0"}, "AC": adapter(1)}, (False, None, True, None)),
    "a second bay is empty": (
        {"BAT0": battery(), "BAT1": {**ALONE, "present": "0"}},
        (True, 0.5, False, None),
    ),
    "does not say that it is there": (
        {"BAT0": {k: v for k, v in battery().items() if k != "present"}},
        (True, 0.5, False, None),
    ),
    "current and voltage": (
        {"BAT0": battery(current_now="-500000", voltage_now="12000000")},
        (True, 0.5, False, 6.0),
    ),
    "current alone": ({"BAT0": battery(current_now="500000")}, (True, 0.5, False, None)),
    "too much power": ({"BAT0": battery(power_now="4294967295000")}, (True, 0.5, False, None)),
    "no power": ({"BAT0": battery(power_now="0")}, (True, 0.5, False, None)),
    "a UPS": ({"UPS": {**battery(), "type": "UPS"}}, (True, 0.5, False, None)),
}


@pytest.mark.parametrize("name", CASES)
def test_power_supplies(name: str, new_laptop: Callable[..., EmulatedLaptop]) -> None:
    found, expected = CASES[name]
    laptop = new_laptop(battery_ratio=None, mains=False, services=(), devices=devices(**found))
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **laptop.environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(expected)


# --- heat ---------------------------------------------------------------------------------------------------
# The files of processors and zones are read from a folder: a process whose processors umockdev took away would be
# another test.


def zone(root: Path, temp: str, *trips: tuple[str, str], name: str = "thermal_zone0") -> None:
    files = {"temp": temp}
    for number, (kind, at) in enumerate(trips):
        files |= {f"trip_point_{number}_type": kind, f"trip_point_{number}_temp": at}
    folder = root / "class" / "thermal" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(f"{text}\n")


TRIPS = (("active", "50000"), ("passive", "90000"), ("hot", "100000"), ("critical", "110000"))


@pytest.mark.parametrize(
    ("temp", "trips", "heat"),
    [
        ("89999", TRIPS, Thermal.NOMINAL),
        ("90000", TRIPS, Thermal.HOT),
        ("100000", TRIPS, Thermal.CRITICAL),
        ("104999", TRIPS[3:], Thermal.NOMINAL),
        ("105000", TRIPS[3:], Thermal.CRITICAL),
        ("99000", (("critical", "-274000"), ("passive", "0"), ("hot", "255000")), None),
        ("99000", (("active", "50000"),), None),
        ("", TRIPS, None),
        ("hot", TRIPS, None),
        ("99000", (("passive", ""), *TRIPS[2:]), Thermal.NOMINAL),
    ],
)
def test_thermal_zones(temp: str, trips: Any, heat: Thermal | None, tmp_path: Path) -> None:
    zone(tmp_path, temp, *trips)
    assert _sysfs.Heat(str(tmp_path)).look() is heat


def test_the_hottest_zone_counts_and_cooling_devices_do_not(tmp_path: Path) -> None:
    zone(tmp_path, "40000", *TRIPS)
    zone(tmp_path, "95000", *TRIPS, name="thermal_zone1")
    zone(tmp_path, "199000", *TRIPS, name="cooling_device0")
    assert _sysfs.Heat(str(tmp_path)).look() is Thermal.HOT


@pytest.mark.parametrize("name", ["core_throttle_count", "package_throttle_count"])
def test_processors_that_were_slowed_down_since_the_last_look(name: str, tmp_path: Path) -> None:
    assert _sysfs.Heat(str(tmp_path)).look() is None
    files = [tmp_path / "devices" / "system" / "cpu" / f"cpu{n}" / "thermal_throttle" / name for n in (0, 11)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("7\n")
    heat = _sysfs.Heat(str(tmp_path))
    assert [heat.look(), heat.look()] == [Thermal.NOMINAL, Thermal.NOMINAL]
    files[1].write_text("8\n")
    assert [heat.look(), heat.look()] == [Thermal.HOT, Thermal.NOMINAL]
    files[1].write_text("0\n")  # a processor that went and came
    assert heat.look() is Thermal.NOMINAL


def test_this_machines_own_files_can_be_read() -> None:
    found = _sysfs.power()
    assert found["battery_present"] in (True, False)
    assert _sysfs.Heat().look() in (None, *Thermal)


# --- interfaces ---------------------------------------------------------------------------------------------


@pytest.mark.needs("unshare", "ip")
def test_an_interface_beyond_the_loopback() -> None:
    """In a network of its own, in which there is nothing but a loopback; then a pair of interfaces comes up."""
    ask = f"{sys.executable} -c 'from mcilib.resources._look import online; print(online())'"
    pair = "ip link add name v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"
    script = f"ip link set lo up && {ask} && {pair} && {ask}"
    done = subprocess.run(["unshare", "-Urn", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no network of one's own here: {done.stderr.strip()}")
    assert done.stdout.splitlines() == ["{'online': False}", "{'online': True}"], done.stderr


@pytest.mark.parametrize(
    ("name", "flags", "loops"),
    [
        ("lo0", "", True),
        ("Loopback Pseudo-Interface 1", "", True),
        ("any", "up,loopback,running", True),
        ("lowpan0", "up,running", False),
        ("Ethernet", "", False),
    ],
)
def test_loopbacks_of_other_systems(name: str, flags: str, loops: bool) -> None:
    assert _look._loops(name, flags) is loops
