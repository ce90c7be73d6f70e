"""The estimate of energy, and the machine's own counters on a real folder tree (no machine of the tests has RAPL)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcilib import limits
from mcilib.resources.energy import (
    BATTERY_J,
    COEFFICIENTS,
    MachineEnergy,
    energy_words,
    estimate,
    joules,
)
from mcilib.statistics import Energy

MINUTE_NS = 60 * 10**9


def test_every_coefficient_has_a_band_and_a_source():
    assert COEFFICIENTS.keys() == {
        "cpu_s",
        "wakeups",
        "requests",
        "sent_bytes",
        "fsyncs",
        "written_bytes",
    }
    for name, one in COEFFICIENTS.items():
        assert 0 < one.low_joules < one.joules < one.high_joules, name
        assert len(one.source) > 60, name
        assert one.unit, name


@pytest.mark.parametrize("name", list(COEFFICIENTS))
def test_each_amount_counts(name):
    one = COEFFICIENTS[name]
    assert estimate({name: 3}) == Energy(3 * one.joules, 3 * one.low_joules, 3 * one.high_joules)


def test_the_sum_and_what_is_unknown():
    both = estimate({"cpu_s": 2.0, "fsyncs": 10, "wakeups": None})
    assert both.joules == pytest.approx(2 * COEFFICIENTS["cpu_s"].joules + 10 * COEFFICIENTS["fsyncs"].joules)
    assert both.without == ("wakeups",)
    assert energy_words(both).endswith(" of a 50 Wh battery, without wake-ups")


def test_words():
    assert joules(0.0) == "0 J"
    assert joules(0.1234) == "0.12 J"
    assert joules(31.4) == "31 J"
    assert joules(999.6) == "1 kJ"
    assert joules(1_234_000) == "1,200 kJ"
    assert energy_words(Energy(BATTERY_J / 100, 10, 20_000)) == (
        "about 1.8 kJ (10 J to 20 kJ), 1 % of a 50 Wh battery"
    )


# --- the machine as a whole ---------------------------------------------------------------------------------


def zone(sys: Path, number: str, name: str, uj: int, range_uj: int = 262_143_328_850) -> Path:
    folder = sys / "class/powercap" / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", name), ("energy_uj", uj), ("max_energy_range_uj", range_uj)):
        (folder / file).write_text(f"{value}\n")
    return folder


def battery(sys: Path, name: str = "BAT0", **files: object) -> Path:
    folder = sys / "class/power_supply" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in {"type": "Battery", "status": "Discharging", **files}.items():
        (folder / file).write_text(f"{value}\n")
    return folder


def test_nothing_where_nobody_tells(tmp_path):
    machine = MachineEnergy(tmp_path)
    assert machine.read(0) == machine.read(MINUTE_NS) == {}


def test_packages_are_summed_and_parts_of_them_are_not(tmp_path):
    def set_to(first: int, second: int, part: int) -> None:
        zone(tmp_path, "0", "package-0", first)
        zone(tmp_path, "1", "package-1", second)
        zone(tmp_path, "0:0", "core", part)
        zone(tmp_path, "2", "psys", part)

    set_to(1_000, 50, 7)
    machine = MachineEnergy(tmp_path)
    assert machine.read(0) == {}
    set_to(6_000, 150, 99_999)
    assert machine.read(MINUTE_NS) == {"package": (5_100, MINUTE_NS)}
    assert machine.read(2 * MINUTE_NS) == {"package": (0, MINUTE_NS)}


def test_a_counter_that_turned_over(tmp_path):
    zone(tmp_path, "0", "package-0", 990, range_uj=1_000)
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    zone(tmp_path, "0", "package-0", 15, range_uj=1_000)
    assert machine.read(MINUTE_NS) == {"package": (25, MINUTE_NS)}


def test_a_stretch_too_long_is_not_measured(tmp_path):
    zone(tmp_path, "0", "package-0", 1)
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    zone(tmp_path, "0", "package-0", 1_000)
    longest_ns = int(limits.MACHINE_MEASURE_S * 1e9)
    assert machine.read(longest_ns + 1) == {}
    zone(tmp_path, "0", "package-0", 1_500)
    assert machine.read(2 * longest_ns + 1) == {"package": (500, longest_ns)}


def test_a_counter_that_ordinary_users_may_not_read(tmp_path):
    """As Linux has it since 5.10 (mode 0400); in another process, since the tests may run as root."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(folder, 0o755)
    os.chmod(zone(tmp_path, "0", "package-0", 1) / "energy_uj", 0o400)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom mcilib.resources.energy import MachineEnergy\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "else: os.chmod(sys.argv[1] + '/class/powercap/intel-rapl:0/energy_uj', 0)\n"
        "machine = MachineEnergy(Path(sys.argv[1]))\nprint(machine.read(0), machine.read(10**9))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "{} {}", done.stderr


def test_what_leaves_the_batteries(tmp_path):
    battery(tmp_path, energy_now=40_000_000)
    battery(tmp_path, "BAT1", energy_now=10_000_000)
    battery(tmp_path, "mouse", scope="Device", energy_now=1, status="Full")
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    battery(tmp_path, energy_now=39_990_000)
    battery(tmp_path, "BAT1", energy_now=9_999_000)
    assert machine.read(MINUTE_NS) == {"battery": (11_000 * 3_600, MINUTE_NS)}


def test_a_battery_in_ampere_hours(tmp_path):
    battery(tmp_path, charge_now=4_000_000, voltage_min_design=11_000_000)
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    battery(tmp_path, charge_now=3_999_000, voltage_min_design=11_000_000)
    assert machine.read(MINUTE_NS) == {"battery": (11_000 * 3_600, MINUTE_NS)}


def test_a_battery_that_tells_its_power_only(tmp_path):
    battery(tmp_path, power_now=10_000_000)
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    battery(tmp_path, power_now=20_000_000)
    assert machine.read(MINUTE_NS) == {"battery": (15_000_000 * 60, MINUTE_NS)}


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_does_not_discharge_tells_nothing(tmp_path, status):
    battery(tmp_path, energy_now=40_000_000, power_now=5)
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    battery(tmp_path, energy_now=39_000_000, power_now=5, status=status)
    assert machine.read(MINUTE_NS) == {}
    battery(tmp_path, energy_now=38_000_000, power_now=5)
    assert machine.read(2 * MINUTE_NS) == {}, "it charged in between"


def test_a_battery_that_was_charged_or_taken_out(tmp_path):
    battery(tmp_path, energy_now=30_000_000)
    second = battery(tmp_path, "BAT1", energy_now=40_000_000)
    machine = MachineEnergy(tmp_path)
    machine.read(0)
    battery(tmp_path, energy_now=30_000_001)
    assert machine.read(MINUTE_NS) == {}
    (second / "type").unlink()
    assert machine.read(2 * MINUTE_NS) == {}


@pytest.mark.parametrize("nonsense", ["", "many", "-5", "\xff", "1e9"])
def test_nonsense_in_a_file(tmp_path, nonsense):
    folder = zone(tmp_path, "0", "package-0", 1)
    (folder / "energy_uj").write_text(nonsense, encoding="latin-1")
    battery(tmp_path, energy_now=nonsense.encode("ascii", "replace").decode())
    machine = MachineEnergy(tmp_path)
    assert machine.read(0) == machine.read(MINUTE_NS) == {}


@pytest.mark.needs("umockdev-run")
def test_a_battery_as_the_kernel_shows_it(tmp_path):
    """Under umockdev: `/sys` itself, and its value changes."""
    (tmp_path / "laptop.umockdev").write_text(
        "P: /devices/BAT0\nE: SUBSYSTEM=power_supply\nA: type=Battery\\n\nA: status=Discharging\\n\n"
        "A: energy_now=40000000\\n\n"
    )
    code = (
        "import os\nfrom mcilib.resources.energy import MachineEnergy\nmachine = MachineEnergy()\nmachine.read(0)\n"
        "place = os.environ['UMOCKDEV_DIR'] + '/sys/class/power_supply/BAT0/energy_now'\n"
        "open(place, 'w').write('39999000\\n')\nprint(machine.read(60 * 10**9).get('battery'))"
    )
    done = subprocess.run(
        ["umockdev-run", "-d", tmp_path / "laptop.umockdev", "--", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == str((1_000 * 3_600, MINUTE_NS)), done.stderr
