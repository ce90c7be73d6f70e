"""On battery: fewer wake-ups and flushes; when it is low, no data is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mcilib import limits
from mcilib.policy.plan import CpuEffort, Plan, Upload
from mcilib.policy.policy import CpuMeansNothing, Latches, Moment
from mcilib.policy.state import ResourceState


def latched(was: Latches, ratio: float | None, low: float, band: float) -> bool:
    """Hysteresis: True once `ratio` is below `low`, until it is `band` above it (or full). An unknown ratio
    changes nothing."""
    if ratio is None or low <= ratio < min(low + band, 1.0):
        return was is True
    return ratio < low


@dataclass(frozen=True, slots=True)
class BatteryPolicy(CpuMeansNothing):
    """On mains nothing is lowered. Ratios are 0 to 1, else `ValueError`. Its latch: whether the battery is
    low."""

    low_ratio: float = limits.BATTERY_LOW_RATIO
    band_ratio: float = limits.BATTERY_BAND_RATIO
    name: ClassVar[str] = "battery"

    def __post_init__(self) -> None:
        if not (0 <= self.low_ratio <= 1 and 0 <= self.band_ratio <= 1):
            raise ValueError(f"ratios of a battery are 0 to 1, not {self.low_ratio} and {self.band_ratio}")

    def __call__(self, state: ResourceState, latches: Latches, moment: Moment) -> tuple[Plan, bool]:
        low = latched(latches, state.battery_ratio, self.low_ratio, self.band_ratio)
        if not state.on_battery:
            return Plan(), low
        plan = Plan(
            read_interval_s=limits.BATTERY_READ_INTERVAL_S,
            batch_age_s=limits.FRUGAL_BATCH_AGE_S,
            reasons=("on battery",),
        )
        if low:
            plan &= Plan(
                cpu_effort=CpuEffort.LOW,
                upload=Upload.CONTROL,
                reasons=(f"battery below {self.low_ratio:.0%}",),
            )
        return plan, low
