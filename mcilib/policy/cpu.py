"""A closed loop: what the library takes of a processor stays within a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mcilib import limits
from mcilib.policy.plan import CpuEffort, Motion, Plan
from mcilib.policy.policy import Latches, Moment
from mcilib.policy.state import ResourceState


def _ladder() -> tuple[Plan, ...]:
    near, far = limits.CPU_LADDER_TOLERANCE_PX
    motions = ((Motion.FULL, 0.0), (Motion.THINNED, near), (Motion.THINNED, far), (Motion.ENDPOINTS, far))
    return (
        Plan(),
        *(
            Plan(read_interval_s=read_s, motion=motion, tolerance_px=tolerance, cpu_effort=CpuEffort.LOW)
            for read_s, (motion, tolerance) in zip(
                limits.CPU_LADDER_READ_S, (*motions, (Motion.NONE, far)), strict=True
            )
        ),
    )


LADDER = _ladder()
"""From generous to frugal. None of them touches keys or clicks."""

COSTS = (1.0, *limits.CPU_LADDER_COST_RATIO)
"""What each is thought to cost of the first."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Where the loop stands: the latch of `CpuBudget`."""

    level: int = 0
    step_ns: int | None = None
    """When the last step was made, by the monotonic clock."""
    seen_ns: int | None = None
    """When there last was a measurement."""
    calm_s: float = 0.0
    """Time with input for which a step up would have been thought cheap enough."""
    hold_s: float = limits.CPU_HOLD_FIRST_S
    """How long it must be calm before the level that failed, or one above it, is tried again."""
    failed: int = -1
    """The level whose step up was last taken back."""
    trial_s: float | None = None
    """Time with input since a step up that has not proved itself yet."""


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """Keeps `cpu_ratio` within `ratio` of one core (0.001 to 1, else `ValueError`).

    It is told what the library's own threads took over the last second of input, about once a second while
    there is input, and None (or 0) when nothing was measured since: then nothing is changed. Down it goes at
    once, to the first level that should cost little enough, and further with each measurement. Up it goes a
    level at a time, when the next level should stay well below the budget, and has so for a time that doubles
    whenever a step up had to be taken back.
    """

    ratio: float = limits.CPU_BUDGET_RATIO
    name: ClassVar[str] = "cpu"

    def __post_init__(self) -> None:
        if not limits.CPU_BUDGET_LOW_RATIO <= self.ratio <= 1:
            raise ValueError(f"the CPU budget is {limits.CPU_BUDGET_LOW_RATIO:g} to 1, not {self.ratio}")

    def __call__(self, state: ResourceState, latches: Latches, moment: Moment) -> tuple[Plan, Loop]:
        loop = latches if isinstance(latches, Loop) else Loop()
        cpu = state.cpu_ratio
        if cpu is not None and cpu > 0:
            loop = self._measured(loop, cpu, moment.monotonic_ns)
        plan = LADDER[loop.level]
        return (replace(plan, reasons=(f"CPU budget of {self.ratio:.3g}",)) if loop.level else plan), loop

    def heeds_cpu(self, cpu_ratio: float, latches: Latches) -> bool:
        """On the full plan and within the budget a measurement changes nothing."""
        return cpu_ratio > self.ratio or not isinstance(latches, Loop) or latches.level > 0

    def _measured(self, loop: Loop, cpu: float, now_ns: int) -> Loop:
        passed_s = _since(loop.seen_ns, now_ns, limits.CPU_SAMPLE_CAP_S)
        trial_s = loop.trial_s + passed_s if loop.trial_s is not None else None
        loop = replace(loop, seen_ns=now_ns, trial_s=trial_s)
        if trial_s is not None and trial_s >= loop.hold_s:  # it has proved itself
            loop = replace(loop, trial_s=None)
            if loop.level <= loop.failed:
                loop = replace(loop, hold_s=limits.CPU_HOLD_FIRST_S, failed=-1)
        if _since(loop.step_ns, now_ns, limits.CPU_SETTLE_S) < limits.CPU_SETTLE_S:
            return replace(loop, calm_s=0.0)
        if cpu > self.ratio:
            return self._down(loop, cpu, now_ns)
        if (
            not loop.level
            or cpu * COSTS[loop.level - 1] / COSTS[loop.level] > self.ratio * limits.CPU_CALM_RATIO
        ):
            return replace(loop, calm_s=0.0)
        hold_s = loop.hold_s if loop.level - 1 <= loop.failed else limits.CPU_HOLD_FIRST_S
        if loop.calm_s + passed_s < hold_s:
            return replace(loop, calm_s=loop.calm_s + passed_s)
        return replace(loop, level=loop.level - 1, step_ns=now_ns, calm_s=0.0, trial_s=0.0)

    def _down(self, loop: Loop, cpu: float, now_ns: int) -> Loop:
        wanted = COSTS[loop.level] * self.ratio * limits.CPU_AIM_RATIO / cpu
        deeper = range(loop.level + 1, len(LADDER))
        level = next((each for each in deeper if COSTS[each] <= wanted), len(LADDER) - 1)
        if loop.trial_s is not None:  # the last step up is taken back
            loop = replace(loop, hold_s=min(2 * loop.hold_s, limits.CPU_HOLD_CAP_S), failed=loop.level)
        step_ns = now_ns if level != loop.level else loop.step_ns
        return replace(loop, level=level, step_ns=step_ns, calm_s=0.0, trial_s=None)


def _since(then_ns: int | None, now_ns: int, cap_s: float) -> float:
    """Seconds from then to now, 0 to `cap_s`; the cap when there was no then."""
    return cap_s if then_ns is None else min(max((now_ns - then_ns) / 1e9, 0.0), cap_s)
