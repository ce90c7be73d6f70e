"""What a policy is: a pure function from the state of the machine to a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from mcilib.policy.plan import Plan
from mcilib.policy.state import ResourceState


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks."""

    monotonic_ns: int
    wall_ns: int
    """Unix time."""


Latches: TypeAlias = Any
"""What a policy remembers from one decision to the next, such as on which side of a hysteresis band it is: a value
that is never changed in place. None at first."""

Policy: TypeAlias = "Callable[[ResourceState, Latches, Moment], tuple[Plan, Latches]]"
"""A pure function: the same arguments, the same answer; no clock, no I/O, no globals. It names only the levers that it
lowers. May have an attribute `name` (text, for reasons and errors) and, when time alone changes its answer, a method
`due_s(moment) -> float | None`: after how many seconds that is."""


class CpuMeansNothing:
    """Base of policies that a measurement of the CPU does not change."""

    __slots__ = ()

    def heeds_cpu(self, cpu_ratio: float, latches: Latches) -> bool:
        return False
