"""A laptop that is not there (Linux, for tests): its battery, mains, network and power profile, below all libraries.

    with EmulatedLaptop(battery_ratio=0.8) as laptop:
        agent = subprocess.Popen([...], env={**os.environ, **laptop.environment()})
        laptop.on_mains(False)
        laptop.battery(0.14)

What an agent sees is what it would see on a machine: files under /sys (a test bed of umockdev, which a preload
puts in the place of the real ones), the real `upowerd` that reads these, and, on a bus of their own, stand-ins of
python-dbusmock for NetworkManager and power-profiles-daemon. Each change comes with the signal that a machine gives.

Needs umockdev, upower, python3-dbusmock and dbus-daemon (`missing_parts`). Interfaces of the network are the real
ones; CPU temperatures are not emulated. Importing this module imports the standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection
from contextlib import ExitStack
from ctypes.util import find_library
from pathlib import Path
from typing import IO, Any, Self

from mcilib.policy.state import Metered
from mcilib.testing import _devices
from mcilib.testing._buses import MOCK, BusDaemon, dbusmock_is_here

PRELOAD = "libumockdev-preload.so.0"

UPOWER, NETWORK, PROFILES = "upower", "network-manager", "power-profiles"
SERVICES = (UPOWER, NETWORK, PROFILES)
"""The services that may run; a test may leave some out."""

BATTERY, MAINS = "/devices/BAT0", "/devices/AC"

_FULL_UWH, _DESIGN_UWH, _VOLTAGE_UV = 60_000_000, 80_000_000, 12_000_000
_DISCHARGE_UW, _CHARGE_UW = 9_000_000, 20_000_000

_NM = ("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager")
_PPD = ("net.hadess.PowerProfiles", "/net/hadess/PowerProfiles", "net.hadess.PowerProfiles")
_UPOWER = "org.freedesktop.UPower"
_METERED = {Metered.UNKNOWN: 0, Metered.YES: 1, Metered.NO: 2, Metered.GUESS: 3}
_NONE, _PORTAL, _FULL = 1, 2, 4  # NMConnectivityState
_DISCONNECTED, _CONNECTED_SITE, _CONNECTED_GLOBAL = 20, 60, 70  # NMState
_WIFI = "/org/freedesktop/NetworkManager/Devices/wlan0"
_WIFI_UNMANAGED, _WIFI_DISCONNECTED, _WIFI_ACTIVATED = 10, 30, 100  # NMDeviceState


def missing_parts() -> list[str]:
    """What is not installed here of what `EmulatedLaptop` needs; empty where it can run."""
    parts = {
        "dbus-daemon": shutil.which("dbus-daemon") is not None,
        "umockdev": sys.platform.startswith("linux") and find_library("umockdev") is not None,
        "upower": _upowerd() is not None,
        "python3-dbusmock": dbusmock_is_here(),
    }
    return [name for name, here in parts.items() if not here]


def _upowerd() -> str | None:
    places = ("/usr/libexec/upowerd", "/usr/lib/upower/upowerd")
    return next((place for place in places if os.access(place, os.X_OK)), None)


class EmulatedLaptop:
    """A context manager. Methods may be called from any thread; a change is on its way when they return.

    `battery_ratio` None is a machine without a battery, `mains` False one without a mains adapter (a machine that
    says neither). `devices` are further ones, in umockdev's text form. `services` run from the start; `start_service`
    starts others, or one that was ended. Each of `UPOWER`, `NETWORK`, `PROFILES` at most once. It begins online and
    unmetered, and saves no power. Changes made while a service does not run are told when it starts.
    """

    def __init__(
        self,
        *,
        battery_ratio: float | None = 0.8,
        on_mains: bool = True,
        mains: bool = True,
        services: Collection[str] = SERVICES,
        devices: str = "",
    ) -> None:
        self._ratio, self._on_mains, self._has_mains = battery_ratio, on_mains, mains
        self._wanted, self._devices = tuple(services), devices
        self._network: dict[str, tuple[str, Any]] = {
            "Connectivity": ("u", _FULL),
            "State": ("u", _CONNECTED_GLOBAL),
            "Metered": ("u", _METERED[Metered.NO]),
            "PrimaryConnectionType": ("s", "802-11-wireless"),
        }
        self._wifi = _WIFI_ACTIVATED
        self._profile = "balanced"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._exit = ExitStack()

    # --- life ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            folder = Path(tempfile.mkdtemp(prefix="mcilib-laptop-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            self._kernel = subprocess.Popen(
                [sys.executable, _devices.__file__, self._description(), str(folder)],
                env={**os.environ, "LD_PRELOAD": PRELOAD},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            undo.callback(self._end_kernel)
            self.root = self._answer()
            self._folder = folder
            self.bus = BusDaemon(folder / "bus")
            undo.callback(self.bus.stop)
            self._order("own", self.bus.pid)
            for service in self._wanted:
                self.start_service(service)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        self._exit.close()

    def environment(self) -> dict[str, str]:
        """The variables under which a process is on this laptop (added to its others)."""
        return {
            "LD_PRELOAD": PRELOAD,
            "UMOCKDEV_DIR": self.root,
            "DBUS_SYSTEM_BUS_ADDRESS": self.bus.address,
            "DBUS_SESSION_BUS_ADDRESS": self.bus.address,
        }

    # --- what happens to it --------------------------------------------------------------------------------

    def on_mains(self, plugged: bool) -> None:
        """The plug goes in, or comes out: the battery charges, or gives 9 W."""
        with self._lock:
            self._on_mains = plugged
            if self._has_mains:
                self.write(MAINS, online=str(int(plugged)))
            self._tell_battery()

    def battery(self, ratio: float) -> None:
        """How full it is, 0 to 1."""
        with self._lock:
            if self._ratio is None:
                raise ValueError("this machine has no battery")
            self._ratio = ratio
            self._tell_battery()

    def saver(self, on: bool) -> None:
        """The participant switches the power saver on or off."""
        with self._lock:
            self._profile = "power-saver" if on else "balanced"
            if PROFILES in self._running:
                self._update(_PPD, {"ActiveProfile": ("s", self._profile)})

    def metered(self, metered: Metered) -> None:
        """What the network is paid by."""
        self.network(Metered=("u", _METERED[metered]))

    def online(self, connected: bool) -> None:
        """The network goes, or comes back."""
        with self._lock:
            self._wifi_becomes(_WIFI_ACTIVATED if connected else _WIFI_DISCONNECTED)
            self._connectivity(*((_FULL, _CONNECTED_GLOBAL) if connected else (_NONE, _DISCONNECTED)))

    def managed(self, managed: bool) -> None:
        """NetworkManager manages the machine's interface, not connected yet, or leaves it to another program. Either
        way it says that there is no network."""
        with self._lock:
            self._wifi_becomes(_WIFI_DISCONNECTED if managed else _WIFI_UNMANAGED)
            self._connectivity(_NONE, _DISCONNECTED)

    def portal(self, present: bool) -> None:
        """The network wants somebody to sign in, or somebody did."""
        self._connectivity(*((_PORTAL, _CONNECTED_SITE) if present else (_FULL, _CONNECTED_GLOBAL)))

    # --- its services --------------------------------------------------------------------------------------

    def start_service(self, service: str) -> None:
        """Returns when it has its name on the bus and knows how things are."""
        with self._lock:
            if service in self._running:
                raise ValueError(f"{service} runs already")
            starts = {
                UPOWER: self._start_upower,
                NETWORK: self._start_network,
                PROFILES: self._start_profiles,
            }
            self._running[service] = process = starts[service]()
            self._order("own", process.pid)

    def kill_service(self, service: str) -> None:
        """SIGKILL, frozen or not."""
        with self._lock:
            process = self._running.pop(service)
            process.kill()
            process.wait()

    def freeze_service(self, service: str) -> None:
        """It keeps its name and answers nothing (SIGSTOP)."""
        process = self._running[service]
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw_service(self, service: str) -> None:
        self._running[service].send_signal(signal.SIGCONT)

    # --- as raw as it gets -----------------------------------------------------------------------------------

    def write(self, device: str, **attributes: str) -> None:
        """Files of a device (`BATTERY`, `MAINS`) under /sys, then the event that the kernel gives of a change."""
        with self._lock:
            for name, value in attributes.items():
                self._order("set", device, name, f"{value}\n")
            self._order("tell", device, "change")

    def network(self, **properties: tuple[str, Any]) -> None:
        """Properties of NetworkManager, with their signal: `Connectivity=("u", 3)`."""
        with self._lock:
            self._network.update(properties)
            if NETWORK in self._running:
                self._update(_NM, properties)

    # --- inside ----------------------------------------------------------------------------------------------

    def _wifi_becomes(self, state: int) -> None:
        before, self._wifi = self._wifi, state
        if NETWORK in self._running:
            device = f"{_NM[0]}.Device"
            self._update((_NM[0], _WIFI, device), {"State": ("u", state)})
            signal_of_it = (device, "StateChanged", "uuu", [("u", state), ("u", before), ("u", 0)])
            self.bus.call(_NM[0], _WIFI, MOCK, "EmitSignal", "sssav", *signal_of_it)

    def _connectivity(self, connectivity: int, state: int) -> None:
        self.network(Connectivity=("u", connectivity), State=("u", state))

    def _description(self) -> str:
        found = [self._devices]
        if self._ratio is not None:
            fixed = {
                "type": "Battery",
                "present": "1",
                "energy_full": str(_FULL_UWH),
                "energy_full_design": str(_DESIGN_UWH),
                "voltage_now": str(_VOLTAGE_UV),
            }
            found.append(_device(BATTERY, {**fixed, **self._battery_now()}))
        if self._has_mains:
            found.append(_device(MAINS, {"type": "Mains", "online": str(int(self._on_mains))}))
        return "\n".join(filter(None, found))

    def _battery_now(self) -> dict[str, str]:
        ratio = self._ratio or 0.0
        full = self._on_mains and ratio >= 1
        power_uw = 0 if full else _CHARGE_UW if self._on_mains else _DISCHARGE_UW
        status = "Full" if full else "Charging" if self._on_mains else "Discharging"
        return {"energy_now": str(round(_FULL_UWH * ratio)), "power_now": str(power_uw), "status": status}

    def _tell_battery(self) -> None:
        if self._ratio is not None:
            self.write(BATTERY, **self._battery_now())

    def _start_upower(self) -> subprocess.Popen[bytes]:
        command = [str(_upowerd())]
        own = {"UPOWER_HISTORY_DIR": str(self._folder), "LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": self.root}
        return self.bus.serve(_UPOWER, command, own)

    def _start_network(self) -> subprocess.Popen[bytes]:
        process = self.bus.run(_NM[0], "--system", "--template", "networkmanager")
        for name in ("Metered", "PrimaryConnectionType"):  # the template has none
            self.bus.call(*_NM[:2], MOCK, "AddProperty", "ssv", _NM[2], name, self._network[name])
        self.bus.call(*_NM[:2], MOCK, "AddWiFiDevice", "ssu", "wlan0", "wlan0", self._wifi)
        self._update(_NM, self._network)
        return process

    def _start_profiles(self) -> subprocess.Popen[bytes]:
        process = self.bus.run(_PPD[0], "--system", "--template", "power_profiles_daemon")
        self._update(_PPD, {"ActiveProfile": ("s", self._profile)})
        return process

    def _update(self, of: tuple[str, str, str], properties: dict[str, tuple[str, Any]]) -> None:
        service, path, interface = of
        self.bus.call(service, path, MOCK, "UpdateProperties", "sa{sv}", interface, properties)

    def _order(self, *order: object) -> None:
        pipe: IO[str] = self._kernel.stdin  # type: ignore[assignment]
        pipe.write(json.dumps(order) + "\n")
        pipe.flush()
        self._answer()

    def _answer(self) -> str:
        line: str = self._kernel.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("the emulated devices have failed; what umockdev said is on standard error")
        return line.rstrip("\n")

    def _end_kernel(self) -> None:
        for pipe in (self._kernel.stdin, self._kernel.stdout):
            assert pipe is not None
            pipe.close()
        self._kernel.wait()


def _device(path: str, attributes: dict[str, str]) -> str:
    name = path.rpartition("/")[2]
    lines = [f"P: {path}", "E: SUBSYSTEM=power_supply", f"E: POWER_SUPPLY_NAME={name}"]
    lines += [f"A: {key}={value}\\n" for key, value in attributes.items()]
    return "\n".join(lines) + "\n"
