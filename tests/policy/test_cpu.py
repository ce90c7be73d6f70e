"""The CPU budget on simulated machines: cost = fixed + load * factor of the level, with noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import S

from mcilib import limits
from mcilib.policy import CpuBudget, Moment, Motion, Plan, Policy, ResourceState
from mcilib.policy.cpu import COSTS, LADDER, Loop

STEP_AT_S, LASTS_S = 30.0, 180.0


@dataclass(frozen=True)
class Machine:
    """Costs in parts of the budget."""

    factors: tuple[float, ...] = COSTS
    load: float = 0.9
    fixed: float = 0.05
    noise: float = 0.1
    lag_s: float = 0.2
    """How long a plan takes to be in force, at most."""
    budget: float = 0.02


@dataclass
class Run:
    """What came of it, every 0.1 s: cost in parts of the budget, level of the loop."""

    costs: list[float] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)

    def mean_5s(self, at_s: float) -> float:
        first = round(at_s * 10)
        return sum(self.costs[first : first + 50]) / 50

    @property
    def overshoot(self) -> float:
        """The highest mean over 5 s around and after the step of the load, beyond the budget."""
        return max(self.mean_5s(at / 10) for at in range(260, len(self.costs) - 50)) - 1

    @property
    def back_after_s(self) -> float:
        """After the step, until no mean over 5 s is above the budget any more (but for noise of 2 %)."""
        above = [at / 10 for at in range(300, len(self.costs) - 50) if self.mean_5s(at / 10) > 1.02]
        return max(above, default=STEP_AT_S) - STEP_AT_S

    @property
    def oscillations(self) -> int:
        """Steps up that were taken back."""
        levels = [b for a, b in zip([-1, *self.levels], self.levels, strict=False) if a != b]
        return sum(a > b < c for a, b, c in zip(levels, levels[1:], levels[2:], strict=False))


def run(
    policy: Policy,
    machine: Machine,
    seed: int,
    *,
    times: float = 3.0,
    lasts_s: float = LASTS_S,
    start: Any = None,
) -> Run:
    """The load grows by `times` after 30 s; it is measured about once a second."""
    rng, told, latches = Random(seed), Run(), start
    coming: list[tuple[float, int]] = []
    in_force, at, spent, measured_at = 0, 0.0, 0.0, 0.0
    next_at = rng.uniform(0.3, 1.2)
    level = 0
    while at < STEP_AT_S + lasts_s:
        while coming and coming[0][0] <= at:
            in_force = coming.pop(0)[1]
        load = machine.load * (times if at >= STEP_AT_S else 1)
        cost = (machine.fixed + load * machine.factors[in_force]) * max(0.0, rng.gauss(1, machine.noise))
        told.costs.append(cost)
        spent += cost / 10
        at = round(at + 0.1, 1)
        if at >= next_at:
            ratio = spent / (at - measured_at) * machine.budget
            moment = Moment(int(at * S), 0)
            plan, latches = policy(ResourceState(cpu_ratio=ratio), latches, moment)
            if (now := LADDER.index(replace(plan, reasons=()))) != level:
                level = now
                coming.append((at + rng.uniform(0, machine.lag_s), level))
            spent, measured_at, next_at = 0.0, at, at + rng.uniform(0.8, 1.2)
        told.levels.append(level)
    return told


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Each level costs up to 1.4 times more or less than thought; now and then one does not help at all."""
    errors = draw(st.lists(st.floats(1 / 1.4, 1.4), min_size=5, max_size=5))
    factors = [1.0, *(cost * error for cost, error in zip(COSTS[1:], errors, strict=True))]
    useless = draw(st.sampled_from((None, None, 1, 2, 3, 4)))
    if useless is not None:
        factors[useless] = factors[useless - 1]
    for level in range(1, len(factors)):
        factors[level] = min(factors[level], factors[level - 1])
    fixed = draw(st.floats(0, 0.3))
    load = draw(st.floats(0.1, 0.95 - fixed))
    if fixed + 3 * load * factors[-1] > 0.9:  # no level could keep this budget
        load = (0.9 - fixed) / 3 / factors[-1]
    return Machine(tuple(factors), load, fixed, draw(st.floats(0, 0.1)), draw(st.floats(0, 0.3)))


def check_step(told: Run) -> None:
    assert told.back_after_s <= 10
    assert told.overshoot <= 0.5
    assert told.oscillations <= 1


@given(machines(), st.integers(0, 2**32))
@settings(max_examples=120, deadline=None)
def test_a_load_that_trebles_is_back_within_ten_seconds(machine: Machine, seed: int) -> None:
    check_step(run(CpuBudget(machine.budget), machine, seed))


def test_no_level_touches_keys_or_clicks_and_each_is_more_frugal() -> None:
    assert LADDER[0] == Plan()
    assert len(LADDER) == len(COSTS)
    for above, below in pairwise(LADDER):
        assert below.capture
        assert below.frugal_as(above)
        assert below != above
        assert (below.upload, below.tick_ns, below.batch_age_s) == (
            above.upload,
            above.tick_ns,
            above.batch_age_s,
        )
    assert LADDER[-1].motion is Motion.NONE
    assert sorted(COSTS, reverse=True) == list(COSTS)


def test_it_goes_up_again_when_the_load_has_gone() -> None:
    low = Machine(load=0.1)
    latches = Loop(level=5, step_ns=0, seen_ns=0)
    told = run(CpuBudget(0.02), low, 1, times=1, lasts_s=400, start=latches)
    assert told.levels[-1] == 0
    assert told.oscillations == 0
    assert max(told.costs[-500:]) < 1


def test_a_budget_that_no_level_can_keep_ends_at_the_last_and_stays() -> None:
    told = run(CpuBudget(0.02), Machine(fixed=2.0, load=0.1), 2)
    assert set(told.levels[-1_500:]) == {len(LADDER) - 1}
    assert told.oscillations == 0


def test_a_step_up_that_always_fails_is_tried_less_and_less() -> None:
    """The third level costs a tenth of what the second does: far from what is thought."""
    cliff = Machine((1.0, 1.0, 1.0, 0.1, 0.1, 0.1), load=0.8, fixed=0.0)
    hour = run(CpuBudget(0.02), cliff, 3, lasts_s=3_600)
    assert 2 <= hour.oscillations <= 6
    assert run(CpuBudget(0.02), cliff, 3).oscillations <= 1


def test_without_input_nothing_changes() -> None:
    policy = CpuBudget(0.02)
    latches: Any = Loop(level=3, step_ns=0, seen_ns=0, calm_s=59.0)
    for ratio in (None, 0.0, float("nan"), -1.0):
        plan, after = policy(ResourceState(cpu_ratio=ratio), latches, Moment(10**15, 0))
        assert after == latches
        assert plan.reasons == ("CPU budget of 0.02",)


def test_a_night_without_input_does_not_count_as_calm() -> None:
    policy = CpuBudget(0.02)
    _, after = policy(
        ResourceState(cpu_ratio=0.001), Loop(level=3, step_ns=0, seen_ns=0), Moment(36_000 * S, 0)
    )
    assert (after.level, after.calm_s) == (3, limits.CPU_SAMPLE_CAP_S)
    for clock_back in (Moment(0, 0), Moment(5, 0)):
        _, again = policy(ResourceState(cpu_ratio=0.001), after, clock_back)
        assert (again.level, again.calm_s >= 0) == (3, True)


def test_a_measurement_that_is_told_twice_is_one_step() -> None:
    policy, state = CpuBudget(0.02), ResourceState(cpu_ratio=0.022)
    plan, latches = policy(state, None, Moment(S, 0))
    assert latches.level == 1
    for ms in (1, 100, 600):
        assert policy(state, latches, Moment(S + ms * 10**6, 0))[0] == plan
    assert policy(state, latches, Moment(2 * S, 0))[1].level > 1


def test_the_reason_names_the_budget_and_no_changing_number() -> None:
    policy = CpuBudget(0.05)
    plans = [policy(ResourceState(cpu_ratio=ratio), Loop(level=4), Moment(1, 0))[0] for ratio in (0.01, 0.02)]
    assert plans[0] == plans[1]
    assert plans[0].reasons == ("CPU budget of 0.05",)
    for ratio in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="CPU budget"):
            CpuBudget(ratio)


loops = st.builds(
    Loop,
    level=st.integers(0, 5),
    step_ns=st.none() | st.integers(0, 100 * S),
    seen_ns=st.none() | st.integers(0, 100 * S),
    calm_s=st.sampled_from((0.0, 30.0, 59.0, 60.0, 500.0)),
    hold_s=st.sampled_from((60.0, 120.0)),
    failed=st.integers(-1, 4),
    trial_s=st.none() | st.floats(0, 200),
)
costs = st.floats(1e-6, 0.1)


@given(loops, costs, costs, st.integers(0, 110 * S))
@settings(max_examples=500)
def test_from_the_same_place_a_higher_load_never_goes_further_up(
    loop: Loop, a: float, b: float, ns: int
) -> None:
    policy = CpuBudget(0.02)
    levels = [policy(ResourceState(cpu_ratio=cpu), loop, Moment(ns, 0))[1].level for cpu in sorted((a, b))]
    assert levels == sorted(levels)


# --- broken loops -----------------------------------------------------------------------------------------------


def one_level_at_a_time_every_five_seconds(
    state: ResourceState, latches: Any, moment: Moment
) -> tuple[Plan, Any]:
    level, last_ns = latches or (0, 0)
    if moment.monotonic_ns - last_ns >= 5 * S and (state.cpu_ratio or 0) > 0.02:
        level, last_ns = min(level + 1, 5), moment.monotonic_ns
    return LADDER[level], (level, last_ns)


def without_hold(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    level = latches or 0
    level = min(level + 1, 5) if (state.cpu_ratio or 0) > 0.02 else max(level - 1, 0)
    return LADDER[level], level


def does_nothing(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    return LADDER[0], None


@pytest.mark.parametrize("broken", [one_level_at_a_time_every_five_seconds, without_hold, does_nothing])
def test_a_broken_loop_is_found(broken: Policy) -> None:
    with pytest.raises(AssertionError):
        check_step(run(broken, Machine(), 4))


def test_a_hold_that_does_not_double_is_found() -> None:
    class Forgetful(CpuBudget):
        def __call__(self, state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Loop]:
            plan, loop = super().__call__(state, latches, moment)
            return plan, replace(loop, hold_s=limits.CPU_HOLD_FIRST_S)

    cliff = Machine((1.0, 1.0, 1.0, 0.1, 0.1, 0.1), load=0.8, fixed=0.0)
    assert run(Forgetful(0.02), cliff, 3, lasts_s=3_600).oscillations > 12
