"""A pause: for a while nothing is captured, then capture goes on by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcilib.clock import Clock


@dataclass(frozen=True, slots=True)
class Now:
    """One moment, by all clocks there are. Times in ns."""

    monotonic_ns: int
    suspended_ns: int
    """See `mcilib.clock.Clock`."""
    wall_ns: int
    boot: str
    """Names the life of the machine in which monotonic times and sleep compare (`mcilib.clock.boot_id`)."""

    @classmethod
    def by(cls, clock: Clock, boot: str) -> Now:
        return cls(clock.monotonic_ns(), clock.suspended_ns(), clock.wall_ns(), boot)

    @property
    def boottime_ns(self) -> int:
        """Goes on while the machine sleeps, and knows no steps."""
        return self.monotonic_ns + self.suspended_ns


@dataclass(frozen=True, slots=True)
class Pause:
    """From `began` for `duration_ns`, time asleep included.

    Within one boot the wall clock has no say, so that no step of it shortens or stretches a pause. After another boot
    there is nothing else to go by: what is left is then never more than the whole, and a clock that went back ends
    nothing early.
    """

    began: Now
    duration_ns: int

    def left_ns(self, now: Now) -> int:
        """How long it still lasts; 0 when it is over."""
        if now.boot == self.began.boot:
            passed_ns = now.boottime_ns - self.began.boottime_ns
        else:
            passed_ns = now.wall_ns - self.began.wall_ns
        return max(0, self.duration_ns - max(0, passed_ns))

    def to_json(self) -> dict[str, Any]:
        began = self.began
        return {
            "duration_ns": self.duration_ns,
            "monotonic_ns": began.monotonic_ns,
            "suspended_ns": began.suspended_ns,
            "wall_ns": began.wall_ns,
            "boot": began.boot,
        }

    @classmethod
    def from_json(cls, record: Any) -> Pause:
        """Raises `ValueError`, `KeyError` or `TypeError` for anything else than `to_json` gives."""
        numbers = [record[key] for key in ("monotonic_ns", "suspended_ns", "wall_ns", "duration_ns")]
        if any(type(number) is not int for number in numbers) or numbers[3] < 0:
            raise ValueError("a pause has a time that is none")
        if not isinstance(record["boot"], str):
            raise ValueError("a pause names no boot")
        monotonic_ns, suspended_ns, wall_ns, duration_ns = numbers
        return cls(Now(monotonic_ns, suspended_ns, wall_ns, record["boot"]), duration_ns)
