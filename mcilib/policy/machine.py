"""Power saver and heat: what the system, or the participant, asks of every program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mcilib import limits
from mcilib.policy.plan import CpuEffort, Motion, Plan, Upload
from mcilib.policy.policy import CpuMeansNothing, Latches, Moment
from mcilib.policy.state import ResourceState, Thermal


@dataclass(frozen=True, slots=True)
class PowerSaverPolicy(CpuMeansNothing):
    """In power saver: motion thinned within `tolerance_px` (0 to 1,024), long reads and batches, no data is
    sent."""

    tolerance_px: float = limits.SAVER_TOLERANCE_PX
    name: ClassVar[str] = "saver"

    def __post_init__(self) -> None:
        Plan(tolerance_px=self.tolerance_px)  # raises ValueError for one out of range

    def __call__(self, state: ResourceState, latches: Latches, moment: Moment) -> tuple[Plan, None]:
        if state.power_saver is not True:
            return Plan(), None
        plan = Plan(
            read_interval_s=limits.SAVER_READ_INTERVAL_S,
            motion=Motion.THINNED,
            tolerance_px=self.tolerance_px,
            batch_age_s=limits.FRUGAL_BATCH_AGE_S,
            cpu_effort=CpuEffort.LOW,
            upload=Upload.CONTROL,
            reasons=("power saver",),
        )
        return plan, None


@dataclass(frozen=True, slots=True)
class ThermalPolicy(CpuMeansNothing):
    """When it is hot less is computed; when the machine is about to switch itself off, next to nothing. The
    system's own steps have their hysteresis."""

    name: ClassVar[str] = "thermal"

    def __call__(self, state: ResourceState, latches: Latches, moment: Moment) -> tuple[Plan, None]:
        if state.thermal is None or state.thermal < Thermal.HOT:
            return Plan(), None
        plan = Plan(
            read_interval_s=limits.SAVER_READ_INTERVAL_S,
            motion=Motion.THINNED,
            tolerance_px=limits.SAVER_TOLERANCE_PX,
            cpu_effort=CpuEffort.LOW,
            reasons=("the machine is hot",),
        )
        if state.thermal >= Thermal.CRITICAL:
            plan &= Plan(motion=Motion.NONE, upload=Upload.CONTROL, reasons=("the machine is too hot",))
        return plan, None
