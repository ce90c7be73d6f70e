"""What holds of every policy. Each property fails on a policy that is broken in that way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from machines import check_crossings, check_monotone, check_pure, pairs, pasts, ratios, states

from mcilib.policy import (
    BatteryPolicy,
    CpuBudget,
    Moment,
    Motion,
    NetworkPolicy,
    Plan,
    Policy,
    PowerSaverPolicy,
    QuietHours,
    ResourceState,
    Rule,
    ThermalPolicy,
    Upload,
    decide,
    worse,
)

RULES = tuple(
    map(
        Rule.parse,
        (
            "battery < 30 %: motion none, upload none",
            "battery and metered: bytes 300 KiB",
            "saver: tolerance 4",
            "hot and locked: capture off",
            "offline: read 500ms",
            "portal: age 5m",
            "constrained and battery < 15 %: cpu low, tick 10ms",
            "mon-fri 09:00-17:00 and metered: upload none",
        ),
    )
)
POLICIES: tuple[Policy, ...] = (
    BatteryPolicy(),
    NetworkPolicy(),
    NetworkPolicy(300_000),
    PowerSaverPolicy(),
    ThermalPolicy(),
    CpuBudget(),
    QuietHours("mon-fri 22:00-07:00"),
    *RULES,
)


def together(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    return decide(POLICIES, state, latches, moment, Plan(batch_age_s=60.0))


each_policy = pytest.mark.parametrize(
    "policy", [*POLICIES, together], ids=lambda policy: getattr(policy, "name", "together")
)


@given(states, states, states)
def test_worse_is_a_partial_order_up_to_what_policies_can_tell(
    a: ResourceState, b: ResourceState, c: ResourceState
) -> None:
    assert worse(a, a)
    if worse(a, b) and worse(b, c):
        assert worse(a, c)


@each_policy
@given(pair=pairs(), past=pasts, later_ms=st.integers(0, 100_000))
@settings(max_examples=60)
def test_a_worse_state_never_gives_a_costlier_plan(
    policy: Policy, pair: Any, past: Any, later_ms: int
) -> None:
    check_monotone(policy, pair, past, later_ms)


@each_policy
@given(state=states, past=pasts)
@settings(max_examples=30)
def test_policies_are_pure(policy: Policy, state: ResourceState, past: Any) -> None:
    check_pure(policy, state, past)


traces = st.lists(ratios | st.floats(0, 1), max_size=60)


@given(traces)
@pytest.mark.parametrize(
    ("policy", "low", "leave"),
    [
        (BatteryPolicy(), 0.15, 0.2),
        (BatteryPolicy(0.5, 0.2), 0.5, 0.7),
        (RULES[0], 0.3, 0.35),
        (Rule.parse("not battery < 98 %: upload none"), 0.98, 1.0),
    ],
    ids=str,
)
def test_at_most_one_change_for_each_crossing_of_the_band(
    policy: Policy, low: float, leave: float, trace: Any
) -> None:
    check_crossings(policy, trace, low, leave)


@given(states, pasts)
def test_no_policy_ends_capture_unless_it_was_told_to(state: ResourceState, past: Any) -> None:
    for policy in POLICIES:
        if policy is not RULES[3]:
            assert policy(state, None, Moment(0, 0))[0].capture


# --- broken policies --------------------------------------------------------------------------------------------


def generous_when_low(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    low = state.on_battery and state.battery_ratio is not None and state.battery_ratio < 0.15
    return Plan(upload=Upload.NOW if low else Upload.CONTROL), None


def hotter_is_faster(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    return Plan(read_interval_s=0.5 - 0.1 * (state.thermal or 0)), None


def offline_forgets_metered(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    if state.online is False:
        return Plan(upload=Upload.CONTROL), None
    return Plan(upload=Upload.NONE if state.metered.counts else Upload.NOW), None


def climbs_with_the_load(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    return Plan(motion=Motion.NONE if (state.cpu_ratio or 0) < 0.01 else Motion.FULL), None


@pytest.mark.parametrize(
    "broken",
    [
        generous_when_low,
        hotter_is_faster,
        offline_forgets_metered,
        climbs_with_the_load,
        Rule.parse("not saver: motion none"),
    ],
)
def test_a_policy_that_is_costlier_when_it_is_worse_is_found(broken: Policy) -> None:
    @given(pairs(), pasts, st.integers(0, 100_000))
    @settings(max_examples=2_000, database=None, phases=[Phase.generate])
    def found(pair: Any, past: Any, later_ms: int) -> None:
        check_monotone(broken, pair, past, later_ms)

    with pytest.raises(AssertionError):
        found()


def test_a_policy_that_remembers_by_itself_is_found() -> None:
    asked: list[int] = []

    def broken(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
        asked.append(1)
        return Plan(read_interval_s=len(asked) % 2 / 2), None

    def changes_its_latch(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
        latches = latches if latches is not None else []
        latches.append(1)
        return Plan(read_interval_s=len(latches) % 2 / 2), latches

    for each in (broken, changes_its_latch):
        with pytest.raises(AssertionError):
            check_pure(each, ResourceState(), [(ResourceState(), 5)])


def without_a_band(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    return Plan(upload=Upload.CONTROL if (state.battery_ratio or 0) < 0.15 else Upload.NOW), None


def with_the_percent_in_its_reason(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    return Plan(reasons=(f"battery at {state.battery_ratio}",)), None


@pytest.mark.parametrize("broken", [without_a_band, with_the_percent_in_its_reason])
def test_a_policy_that_flaps_is_found(broken: Policy) -> None:
    with pytest.raises(AssertionError):
        check_crossings(broken, [0.16, 0.14, 0.16, 0.14], 0.15, 0.2)
