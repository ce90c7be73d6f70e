"""States of a machine, moments and plans for properties of policies, and the properties themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from mcilib.policy import (
    ByteEffort,
    CpuEffort,
    Metered,
    Moment,
    Motion,
    Plan,
    Policy,
    ResourceState,
    Thermal,
    Upload,
    worse,
)

S = 1_000_000_000
NOW = Moment(1_000 * S, 1_750_000_000 * S)

maybe = st.sampled_from((None, False, True))
ratios = st.sampled_from((None, 0.0, 0.05, 0.149, 0.15, 0.17, 0.199, 0.2, 0.299, 0.3, 0.35, 0.5, 1.0))
states = st.builds(
    ResourceState,
    battery_present=maybe,
    battery_ratio=ratios,
    on_mains=maybe,
    power_saver=maybe,
    thermal=st.sampled_from((None, *Thermal)),
    online=maybe,
    metered=st.sampled_from(Metered),
    constrained=maybe,
    portal=maybe,
    free_disk_bytes=st.sampled_from((None, 0, 10**12)),
    session_away=maybe,
    cpu_ratio=st.sampled_from((None, 0.0, 1e-6, 0.001, 0.005, 0.01, 0.0199, 0.021, 0.04, 0.2, 3.0)),
)
moments = st.builds(Moment, st.integers(0, 10**15), st.integers(0, 4_000_000_000 * S))
REASONS = st.lists(st.sampled_from(("a", "b", "c")), unique=True).map(lambda r: tuple(sorted(r)))
plans = st.builds(
    Plan,
    capture=st.booleans(),
    read_interval_s=st.floats(0, 1),
    motion=st.sampled_from(Motion),
    tolerance_px=st.floats(0, 1024),
    tick_ns=st.integers(10**6, 10**9),
    batch_age_s=st.floats(0.001, 86_400),
    cpu_effort=st.sampled_from(CpuEffort),
    byte_effort=st.sampled_from(ByteEffort),
    upload=st.sampled_from(Upload),
    bytes_per_hour=st.none() | st.integers(0, 10**9),
    reasons=REASONS,
    upload_reasons=st.none() | REASONS,
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[ResourceState, ResourceState]:
    """A state, and one that is worse: a few fields drawn anew."""
    better = draw(states)
    other = draw(states)
    names = [name for name in ResourceState.__dataclass_fields__ if draw(st.booleans())]
    changed = ResourceState(
        **{
            name: getattr(other if name in names else better, name)
            for name in ResourceState.__dataclass_fields__
        }
    )
    if worse(better, changed) and not worse(changed, better):
        return changed, better
    assume(worse(changed, better))
    return better, changed


def latches_after(policy: Policy, past: list[tuple[ResourceState, int]]) -> tuple[Any, Moment]:
    """The latches after a past of states, each so many milliseconds after the one before; and the moment then."""
    latches, ns = None, 0
    for state, passed_ms in past:
        ns += passed_ms * 1_000_000
        _, latches = policy(state, latches, Moment(ns, NOW.wall_ns + ns))
    return latches, Moment(ns, NOW.wall_ns + ns)


pasts = st.lists(st.tuples(states, st.integers(0, 100_000)), max_size=12)


def check_monotone(
    policy: Policy,
    pair: tuple[ResourceState, ResourceState],
    past: list[tuple[ResourceState, int]],
    later_ms: int,
) -> None:
    """For equal latches a worse state never gives a costlier plan."""
    better, bad = pair
    latches, then = latches_after(policy, past)
    moment = Moment(then.monotonic_ns + later_ms * 10**6, then.wall_ns + later_ms * 10**6)
    generous, _ = policy(better, latches, moment)
    frugal, _ = policy(bad, latches, moment)
    assert frugal.frugal_as(generous), (generous.levers(), frugal.levers())


def check_pure(policy: Policy, state: ResourceState, past: list[tuple[ResourceState, int]]) -> None:
    """The same arguments, the same answer, whatever was asked in between."""
    latches, then = latches_after(policy, past)
    first = policy(state, latches, then)
    policy(ResourceState(), None, NOW)
    again, _ = latches_after(policy, past)
    assert again == latches
    assert policy(state, latches, then) == first


def check_crossings(policy: Policy, trace: list[float | None], low: float, leave: float) -> None:
    """At most one change of the plan for each full crossing of the band, from below `low` to `leave` or back."""
    crossings, changes, below = 0, 0, False
    plan: Plan | None = None
    latches: Any = None
    for ratio in trace:
        if ratio is not None and (ratio < low if not below else ratio >= leave):
            below, crossings = not below, crossings + 1
        state = ResourceState(battery_present=True, on_mains=False, battery_ratio=ratio)
        before = plan
        plan, latches = policy(state, latches, NOW)
        changes += before is not None and plan != before
    assert changes <= crossings
