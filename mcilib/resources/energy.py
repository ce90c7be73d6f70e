"""Energy: an estimate of ours from what was counted, and what the machine as a whole tells, never added together.

Every coefficient stands here, with its band and its source. They are of laptops; the band is made of what the parts
do at best and at worst, so it is wide, and no confidence interval. Where a source gives a power, the arithmetic
stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mcilib import limits
from mcilib.language import ENGLISH, Words
from mcilib.statistics import Energy


@dataclass(frozen=True, slots=True)
class Coefficient:
    """Joules for one `unit`, at best and at worst."""

    joules: float
    low_joules: float
    high_joules: float
    unit: str
    source: str


COEFFICIENTS: Mapping[str, Coefficient] = MappingProxyType(
    {
        "cpu_s": Coefficient(
            8.0,
            1.0,
            20.0,
            "second of CPU",
            "turbostat in Mozilla's power profiling guide (firefox-source-docs, performance/turbostat): 8 logical CPUs "
            "busy 21.63 %, cores 15.13 W, package 22.68 W: 8.7 and 13.1 J a CPU second. Low: an efficiency core of "
            "about 1 W. High: one core alone at its highest clock keeps a whole package awake.",
        ),
        "wakeups": Coefficient(
            1.6e-3,
            4e-5,
            8e-3,
            "wake-up",
            "Apple's model of energy impact (kcpu_wakeups in /usr/share/pmenergy, also in Chromium): a wake-up is "
            "as much as 200 us of CPU, times 8 J. Low: the core was awake, 5 us of scheduling. High: 1 W more for "
            "the 5 to 7.7 ms after which Intel's C10 has paid for itself (linux/drivers/idle/intel_idle.c).",
        ),
        "requests": Coefficient(
            0.1,
            0.005,
            13.0,
            "request",
            "Huang et al., 4G LTE, MobiSys 2012: Wi-Fi leaves power save for 0.08 s and lingers for 0.24 s at 0.12 W "
            "(0.04 J, a phone); LTE lingers for 11.6 s at 1.06 W (12.3 J) after 0.26 s at 1.2 W. A laptop's Wi-Fi card "
            "takes two to three times a phone's. Low: a cable. Balasubramanian et al., IMC 2009, has tails alike: "
            "3G 0.62 W for 12.5 s.",
        ),
        "sent_bytes": Coefficient(
            5e-6,
            5e-7,
            2.5e-5,
            "byte sent",
            "Balasubramanian et al., IMC 2009: Wi-Fi 0.007 J/KB, 3G 0.025 J/KB; Huang et al., MobiSys 2012: Wi-Fi "
            "283 mW per Mbit/s up (2.3 uJ/B), LTE 438 (3.5 uJ/B). Low: 802.11ac or a cable at ten times the rate.",
        ),
        "fsyncs": Coefficient(
            0.02,
            1e-3,
            0.2,
            "fsync",
            "A flush, 5 ms of a solid state disk at 1.6 to 3.5 W (AnandTech 2829, the SSD Relapse): 8 to 18 mJ; and "
            "0.1 s awake before it sleeps again (apst_primary_timeout_ms of Linux's nvme driver) at 0.2 to 0.4 W "
            "(Tom's Hardware 3834): 20 to 40 mJ, for the fsyncs of one commit together. Low: it was awake. High: a "
            "hard disk, 30 ms at 6 W.",
        ),
        "written_bytes": Coefficient(
            2e-8,
            2e-9,
            2e-6,
            "byte written",
            "AnandTech 2829: 2.5 to 3.5 W at some 80 to 200 MB/s of writing: 15 to 40 nJ/B; Apple's model: 0.24 ns of "
            "CPU (2 nJ/B). High: a page of 4 KiB is programmed for 40 bytes of it.",
        ),
    }
)

BATTERY_J = 50 * 3_600.0
"""A usual laptop's 50 Wh."""


def estimate(amounts: Mapping[str, float | None]) -> Energy:
    """The energy of so many of each unit (the keys of `COEFFICIENTS`); one that is missing is none, and one that is
    None is named in `without`."""
    joules = low = high = 0.0
    without = []
    for name, coefficient in COEFFICIENTS.items():
        amount = amounts.get(name, 0)
        if amount is None:
            without.append(name)
            continue
        joules += amount * coefficient.joules
        low += amount * coefficient.low_joules
        high += amount * coefficient.high_joules
    return Energy(joules, low, high, tuple(without))


def energy_words(energy: Energy, tr: Words = ENGLISH) -> str:
    """`about 120 J (31 J to 1.2 kJ), 0.07 % of a 50 Wh battery`."""
    about = tr("about {joules} ({low} to {high}), {share} % of a 50 Wh battery")
    text = about.format(
        joules=joules(energy.joules, tr),
        low=joules(energy.low_joules, tr),
        high=joules(energy.high_joules, tr),
        share=tr.number(energy.joules / BATTERY_J * 100, ".2g"),
    )
    missing = {"cpu_s": tr("CPU"), "wakeups": tr("wake-ups")}
    without = tr(", without {part}")
    return text + "".join(without.format(part=missing.get(name, name)) for name in energy.without)


def joules(amount: float, tr: Words = ENGLISH) -> str:
    """`0.12 J`, `31 J`, `1.2 kJ`: two digits, as it is an estimate."""
    unit, amount = ("kJ", amount / 1e3) if amount >= 999.5 else ("J", amount)
    return f"{tr.number(float(f'{amount:.2g}'), ',g')} {unit}"


# --- measured: the machine as a whole -----------------------------------------------------------------------


class MachineEnergy:
    """What the machine as a whole used between two readings. Linux; elsewhere, and where it is not readable, nothing.

    `package`: the processors' own counters (RAPL, by powercap; since Linux 5.10 for root alone). `battery`: what left
    the batteries while they all discharged, by what is left in them, or by their power now. A stretch longer than
    `limits.MACHINE_MEASURE_S` is not measured, since a counter may have turned over twice and a battery been charged
    meanwhile. `root` is where `/sys` is. Never raises; one thread at a time.
    """

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._root = root
        self._last_ns: int | None = None
        self._packages: dict[str, int] = {}
        self._left_uj: dict[str, int] = {}
        self._power_uw: int | None = None

    def read(self, now_ns: int) -> dict[str, tuple[int, int]]:
        """By kind: microjoules since the last reading, and the nanoseconds that they cover. `now_ns` is monotonic."""
        packages = dict(self._read_packages())
        left_uj, power_uw = self._read_batteries()
        found: dict[str, tuple[int, int]] = {}
        passed_ns = now_ns - self._last_ns if self._last_ns is not None else 0
        if 0 < passed_ns <= limits.MACHINE_MEASURE_S * 1e9:
            if packages and packages.keys() == self._packages.keys():
                used_uj = sum(self._turned(name, uj - self._packages[name]) for name, uj in packages.items())
                found["package"] = (used_uj, passed_ns)
            if left_uj and left_uj.keys() == self._left_uj.keys():
                gone_uj = sum(self._left_uj.values()) - sum(left_uj.values())
                if gone_uj >= 0:  # else it was charged meanwhile
                    found["battery"] = (gone_uj, passed_ns)
            elif power_uw is not None and self._power_uw is not None:
                found["battery"] = ((power_uw + self._power_uw) // 2 * passed_ns // 10**9, passed_ns)
        self._last_ns, self._packages = now_ns, packages
        self._left_uj, self._power_uw = left_uj, power_uw
        return found

    def _read_packages(self) -> Iterator[tuple[str, int]]:
        """Whole packages only: zones with a second colon are parts of one, `psys` holds them all."""
        for zone in _folders(self._root / "class/powercap"):
            kind, _, number = zone.name.partition(":")
            if kind != "intel-rapl" or not number.isdigit() or not _text(zone / "name").startswith("package"):
                continue
            uj = _number(zone / "energy_uj")
            if uj is not None:
                yield zone.name, uj

    def _turned(self, name: str, passed_uj: int) -> int:
        """A counter turns over at its range."""
        if passed_uj >= 0:
            return passed_uj
        range_uj = _number(self._root / "class/powercap" / name / "max_energy_range_uj") or 0
        return max(0, passed_uj + range_uj)

    def _read_batteries(self) -> tuple[dict[str, int], int | None]:
        """What is left in each, and the power of all; nothing unless all discharge. Some tell it in ampere-hours."""
        left_uj, powers_uw = dict[str, int | None](), list[int | None]()
        for supply in _folders(self._root / "class/power_supply"):
            if _text(supply / "type") != "Battery" or _text(supply / "scope") == "Device":
                continue
            if _text(supply / "status") != "Discharging":
                return {}, None
            uwh = _number(supply / "energy_now")
            if uwh is None:
                uwh = _product(supply / "charge_now", supply / "voltage_min_design")
            left_uj[supply.name] = None if uwh is None else uwh * 3_600
            uw = _number(supply / "power_now")
            powers_uw.append(
                uw if uw is not None else _product(supply / "current_now", supply / "voltage_now")
            )
        left = {name: uj for name, uj in left_uj.items() if uj is not None}
        known_uw = [uw for uw in powers_uw if uw is not None]
        return (
            left if len(left) == len(left_uj) else {},
            sum(known_uw) if known_uw and len(known_uw) == len(powers_uw) else None,
        )


def _product(micros: Path, microvolts: Path) -> int | None:
    amount, uv = _number(micros), _number(microvolts)
    return None if amount is None or uv is None else amount * uv // 10**6


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        value = int(_text(path))
    except ValueError:
        return None
    return value if value >= 0 else None
