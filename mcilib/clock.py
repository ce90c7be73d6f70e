"""Clocks: monotonic time for order and durations, one wall anchor per batch, and which boot they belong to.

All times are integers in nanoseconds. Wall time is Unix time.
"""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mcilib.digest import sha256


class Clock(Protocol):
    """What time it is. Callable from any thread."""

    def monotonic_ns(self) -> int: ...

    def wall_ns(self) -> int: ...

    def suspended_ns(self) -> int:
        """How long the machine has slept since some moment in the past: time in which `monotonic_ns` stood
        still. Only its growth says something. Always 0 where the system cannot tell."""


class SystemClock:
    """The machine's own clocks (`time.monotonic_ns`, `time.time_ns`).

    Time asleep is told on Linux only (CLOCK_BOOTTIME - CLOCK_MONOTONIC). On Windows the monotonic clock goes on
    meanwhile, so there is nothing to tell; on macOS it stands still, and a sleep looks like a step of the wall
    clock.
    """

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    def suspended_ns(self) -> int:
        if sys.platform != "linux":
            return 0
        monotonic_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - monotonic_ns


@dataclass(frozen=True, slots=True)
class ClockAnchor:
    """The same moment on both clocks; turns monotonic times into wall times."""

    monotonic_ns: int
    wall_ns: int

    @classmethod
    def now(cls, clock: Clock) -> ClockAnchor:
        return cls(clock.monotonic_ns(), clock.wall_ns())

    def to_wall_ns(self, monotonic_ns: int) -> int:
        return self.wall_ns + monotonic_ns - self.monotonic_ns

    def drift_ns(self, clock: Clock) -> int:
        """How far the wall clock has stepped since the anchor was taken (also: time spent suspended)."""
        return clock.wall_ns() - self.to_wall_ns(clock.monotonic_ns())


_PROCESS_BOOT = uuid.uuid4().hex  # where the system names no boot, each process counts as its own


def boot_id(salt: str) -> str:
    """16 hex digits naming this boot of this machine, for `salt` only.

    Monotonic times compare within one boot. The system's own boot id would link a machine across programmes,
    so it is hashed with the device id of the grant. Read from /proc on Linux; elsewhere each process counts
    as a boot of its own, which costs ordering across restarts and nothing else.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = _PROCESS_BOOT
    return sha256(f"{salt}:{boot}".encode()).hex()[:16]
