"""The network: whether there is one, and who pays for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mcilib import limits
from mcilib.policy.plan import ByteEffort, Plan, Upload
from mcilib.policy.policy import CpuMeansNothing, Latches, Moment
from mcilib.policy.state import ResourceState


@dataclass(frozen=True, slots=True)
class NetworkPolicy(CpuMeansNothing):
    """Where it is paid for by the byte (or to be spared) data waits, unless `metered_bytes_per_hour` of it
    may go. `ValueError` for less than 0. What is unknown holds nothing back."""

    metered_bytes_per_hour: int = limits.METERED_BYTES_PER_HOUR
    name: ClassVar[str] = "network"

    def __post_init__(self) -> None:
        Plan(bytes_per_hour=self.metered_bytes_per_hour)

    def __call__(self, state: ResourceState, latches: Latches, moment: Moment) -> tuple[Plan, None]:
        plan = Plan()
        for holds, reason in (
            (state.metered.counts, "the network is metered"),
            (state.constrained is True, "data is to be saved"),
        ):
            if holds and self.metered_bytes_per_hour:
                plan &= Plan(
                    byte_effort=ByteEffort.HIGH,
                    upload=Upload.SCHEDULED,
                    bytes_per_hour=self.metered_bytes_per_hour,
                    reasons=(reason,),
                )
            elif holds:
                plan &= Plan(upload=Upload.CONTROL, reasons=(reason,))
        for holds, reason in (
            (state.online is False, "there is no network"),
            (state.portal is True, "the network wants somebody to sign in"),
        ):
            if holds:
                plan &= Plan(upload=Upload.NONE, reasons=(reason,))
        return plan, None
