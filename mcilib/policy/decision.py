"""The meet of a base plan with what all policies say. Pure, and never raises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mcilib import limits
from mcilib.policy.plan import Plan, Upload
from mcilib.policy.policy import Latches, Moment, Policy
from mcilib.policy.state import ResourceState


@dataclass(frozen=True, slots=True)
class Decided:
    """The latches of all policies, in their order, and what went wrong with some."""

    each: tuple[Latches, ...] = ()
    troubles: tuple[str, ...] = ()


def decide(
    policies: Sequence[Policy],
    state: ResourceState,
    latches: Latches,
    moment: Moment,
    base: Plan = Plan(),  # noqa: B008  (frozen)
) -> tuple[Plan, Decided]:
    """The plan, and the latches for the next call; `troubles` tells what went wrong.

    A policy that raises, or gives what is no plan, keeps its latch and counts as one that lets only control
    records go: nobody knows what it would have held back, and what waits is not lost.
    """
    before: tuple[Latches, ...] = (None,) * len(policies)
    if isinstance(latches, Decided) and len(latches.each) == len(policies):
        before = latches.each
    plan, after, troubles = base, list(before), []
    for index, policy in enumerate(policies):
        try:
            lowered, latch = policy(state, before[index], moment)
            if not isinstance(lowered, Plan):
                raise TypeError(f"it gave {type(lowered).__name__}, not a Plan")
            plan, after[index] = plan & lowered, latch
        except Exception as error:
            name = _name(policy)
            plan &= Plan(upload=Upload.CONTROL, reasons=(f"policy {name} failed",))
            troubles.append(f"policy {name} failed ({_words(error)})")
    return plan, Decided(tuple(after), tuple(troubles))


def troubles(latches: Latches) -> tuple[str, ...]:
    """What went wrong at the decision that gave these latches, a line for each policy, for health and log."""
    return latches.troubles if isinstance(latches, Decided) else ()


def heeds_cpu(policies: Sequence[Policy], cpu_ratio: float, latches: Latches) -> bool:
    """Whether a measurement of the CPU may change the decision that gave these latches."""
    each = latches.each if isinstance(latches, Decided) else ()
    if len(each) != len(policies):
        return True
    for policy, latch in zip(policies, each, strict=True):
        heeds = getattr(policy, "heeds_cpu", None)
        try:
            if heeds is None or heeds(cpu_ratio, latch):
                return True
        except Exception:  # `decide` will tell
            return True
    return False


def due_s(policies: Sequence[Policy], moment: Moment) -> float | None:
    """Seconds after which time alone may change the decision, 1 to a week; None: never."""
    waits: list[float] = []
    for policy in policies:
        try:
            ask = getattr(policy, "due_s", None)
            wait = ask(moment) if ask is not None else None
            if wait is not None and math.isfinite(wait):
                waits.append(min(max(float(wait), limits.POLICY_DUE_MIN_S), limits.POLICY_DUE_CAP_S))
        except Exception:  # noqa: S112  (a policy that fails is told of by `decide`)
            continue
    return min(waits, default=None)


def _name(policy: object) -> str:
    try:
        return str(
            getattr(policy, "name", None) or getattr(policy, "__name__", None) or type(policy).__name__
        )[:64]
    except Exception:
        return "without a name"


def _words(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except Exception:
        return type(error).__name__
