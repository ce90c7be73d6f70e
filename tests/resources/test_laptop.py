"""The emulated laptop itself: what a process on it sees, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from mcilib.policy.state import Metered
from mcilib.testing.laptop import BATTERY, NETWORK, SERVICES, UPOWER, EmulatedLaptop

PSUTIL = "import psutil; b = psutil.sensors_battery(); print(b and (round(b.percent), b.power_plugged))"
DEVICE = ("org.freedesktop.UPower", "/org/freedesktop/UPower/devices/DisplayDevice")
NM = ("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager")
PPD = ("net.hadess.PowerProfiles", "/net/hadess/PowerProfiles")


def told(laptop: EmulatedLaptop, of: tuple[str, str], name: str) -> Any:
    interface = of[0] + (".Device" if of == DEVICE else "")
    ((_, value),) = laptop.bus.call(*of, "org.freedesktop.DBus.Properties", "Get", "ss", interface, name)
    return value


def device_state(laptop: EmulatedLaptop) -> int:
    (path,) = told(laptop, NM, "Devices")
    get = ("org.freedesktop.DBus.Properties", "Get", "ss", f"{NM[0]}.Device", "State")
    ((_, state),) = laptop.bus.call(NM[0], path, *get)
    return int(state)


def seen(laptop: EmulatedLaptop) -> str:
    environment = {**os.environ, **laptop.environment()}
    command = [sys.executable, "-c", PSUTIL]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_files_and_services_tell_the_same(laptop: EmulatedLaptop) -> None:
    assert seen(laptop) == "(80, True)"
    assert told(laptop, DEVICE, "Percentage") == 80
    laptop.on_mains(False)
    laptop.battery(0.14)
    assert seen(laptop) == "(14, False)"
    until(lambda: told(laptop, DEVICE, "Percentage") == 14)
    assert (told(laptop, DEVICE, "State"), told(laptop, DEVICE, "EnergyRate")) == (2, 9)
    laptop.write(BATTERY, power_now="5000000")
    until(lambda: told(laptop, DEVICE, "EnergyRate") == 5)


def test_network_and_profile(laptop: EmulatedLaptop) -> None:
    assert (told(laptop, NM, "Connectivity"), told(laptop, NM, "Metered")) == (4, 2)
    for metered, number in ((Metered.YES, 1), (Metered.GUESS, 3), (Metered.UNKNOWN, 0), (Metered.NO, 2)):
        laptop.metered(metered)
        assert told(laptop, NM, "Metered") == number
    laptop.portal(True)
    assert told(laptop, NM, "Connectivity") == 2
    laptop.online(False)
    assert told(laptop, NM, "Connectivity") == 1
    assert device_state(laptop) == 30
    laptop.managed(False)
    assert (told(laptop, NM, "Connectivity"), device_state(laptop)) == (1, 10)
    laptop.online(True)
    assert (told(laptop, NM, "Connectivity"), device_state(laptop)) == (4, 100)
    laptop.saver(True)
    assert told(laptop, PPD, "ActiveProfile") == "power-saver"
    laptop.saver(False)
    assert told(laptop, PPD, "ActiveProfile") == "balanced"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_was_away_knows_what_happened_meanwhile(service: str, laptop: EmulatedLaptop) -> None:
    laptop.freeze_service(service)
    laptop.kill_service(service)
    laptop.battery(0.5)
    laptop.metered(Metered.YES)
    laptop.saver(True)
    laptop.start_service(service)
    until(lambda: told(laptop, DEVICE, "Percentage") == 50)
    assert told(laptop, NM, "Metered") == 1
    assert told(laptop, PPD, "ActiveProfile") == "power-saver"
    with pytest.raises(ValueError, match="runs already"):
        laptop.start_service(service)


def test_a_machine_without_a_battery_and_without_services(new_laptop: Callable[..., EmulatedLaptop]) -> None:
    laptop = new_laptop(battery_ratio=None, mains=False, services=())
    assert not (Path(laptop.root) / "sys/class/power_supply").exists()
    assert not laptop.bus.has(NM[0])
    laptop.metered(Metered.YES)
    laptop.start_service(NETWORK)
    assert told(laptop, NM, "Metered") == 1
    with pytest.raises(ValueError, match="no battery"):
        laptop.battery(0.5)


def test_nothing_is_left_of_it(laptop: EmulatedLaptop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with EmulatedLaptop(services=(UPOWER,)) as another:
        assert another.root != laptop.root
        assert Path(another.root).exists()
        assert Path(another.bus.path).exists()
    assert not Path(another.root).exists()
    assert not Path(another.bus.path).parent.exists()
    assert not Path(f"/proc/{another.bus.pid}").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("new_laptop")
def test_it_ends_with_the_process_that_started_it() -> None:
    code = "import time\nfrom mcilib.testing.laptop import EmulatedLaptop\nm = EmulatedLaptop().__enter__()\n"
    code += "print(m.root, m.bus.path.parent, m.bus.pid, *(p.pid for p in m._running.values()), flush=True)\n"
    code += "time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    root, folder, *pids = owner.stdout.readline().split()
    assert len(pids) == 4
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until(lambda: not Path(root).exists())
    until(lambda: not Path(folder).exists())
    until(lambda: not any(alive(pid) for pid in pids))


def test_devices_that_umockdev_cannot_read_are_refused(new_laptop: Callable[..., EmulatedLaptop]) -> None:
    with pytest.raises(RuntimeError, match="emulated devices"):
        new_laptop(devices="nonsense")
