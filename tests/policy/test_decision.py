"""The decision over all policies, and what is set by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import NOW, moments, plans, states

from mcilib.policy import (
    BatteryPolicy,
    CpuBudget,
    CpuEffort,
    Moment,
    Motion,
    NetworkPolicy,
    Override,
    Plan,
    Policy,
    PowerSaverPolicy,
    ResourceState,
    Upload,
    apply_overrides,
    decide,
    due_s,
    troubles,
)

SAVER = ResourceState(power_saver=True)


def raising(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
    raise LookupError("no such thing")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Broken:
    name = "mine"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, state: ResourceState, latches: Any, moment: Moment) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def due_s(self, moment: Moment) -> Any:
        return self(SAVER, None, moment)


def test_the_meet_of_base_and_all() -> None:
    policies = (BatteryPolicy(), NetworkPolicy(), PowerSaverPolicy(tolerance_px=3))
    plan, latches = decide(policies, SAVER, None, NOW, Plan(batch_age_s=900.0, read_interval_s=0.1))
    assert (plan.batch_age_s, plan.read_interval_s, plan.tolerance_px) == (900.0, 1.0, 3)
    assert plan.reasons == ("power saver",)
    assert troubles(latches) == ()
    assert decide((), SAVER, None, NOW)[0] == Plan()


def test_each_policy_gets_its_own_latches_back() -> None:
    policies = (PowerSaverPolicy(), BatteryPolicy())
    low = ResourceState(battery_present=True, battery_ratio=0.1)
    between = ResourceState(battery_present=True, battery_ratio=0.17)
    _, latches = decide(policies, low, None, NOW)
    assert decide(policies, between, latches, NOW)[0].upload is Upload.CONTROL
    for other in (None, "nonsense", decide(policies[:1], low, None, NOW)[1]):
        assert decide(policies, between, other, NOW)[0].upload is Upload.NOW


@pytest.mark.parametrize(
    "answer",
    [None, 7, (), (Plan(),), (None, None), (Plan(), 1, 2), ("plan", 0), ValueError("why"), Unspeakable()],
)
def test_a_policy_that_fails_lets_control_records_go_and_is_told_of(answer: Any) -> None:
    plan, latches = decide((Broken(answer), PowerSaverPolicy()), ResourceState(), None, NOW)
    assert plan == Plan(upload=Upload.CONTROL, reasons=("policy mine failed",))
    (trouble,) = troubles(latches)
    assert trouble.startswith("policy mine failed (")


def test_the_trouble_names_the_policy_and_the_error_and_the_latch_stays() -> None:
    fails = [False]

    def sometimes(state: ResourceState, latches: Any, moment: Moment) -> tuple[Plan, Any]:
        return raising(state, latches, moment) if fails[0] else (Plan(), (latches or 0) + 1)

    _, latches = decide((sometimes,), SAVER, None, NOW)
    fails[0] = True
    _, latches = decide((sometimes,), SAVER, latches, NOW)
    assert troubles(latches) == ("policy sometimes failed (LookupError: no such thing)",)
    fails[0] = False
    _, latches = decide((sometimes,), SAVER, latches, NOW)
    assert (latches.each, troubles(latches)) == ((2,), ())


def test_due_is_the_least_within_bounds() -> None:
    policies: list[Policy] = [Broken(wait) for wait in (None, "soon", ValueError(), math.nan, math.inf)]
    assert due_s([*policies, CpuBudget(), raising], NOW) is None
    assert due_s([*policies, Broken(70), Broken(60.5)], NOW) == 60.5
    assert due_s([Broken(0)], NOW) == due_s([Broken(-5)], NOW) == 1.0
    assert due_s([Broken(1e30)], NOW) == 7 * 86_400


@given(states, moments, plans)
def test_the_base_is_never_exceeded(state: ResourceState, moment: Moment, base: Plan) -> None:
    policies = (BatteryPolicy(), NetworkPolicy(), PowerSaverPolicy(), CpuBudget())
    plan, _ = decide(policies, state, None, moment, base)
    assert plan.frugal_as(base)
    assert decide(policies[::-1], state, None, moment, base)[0] == plan


# --- overrides --------------------------------------------------------------------------------------------------


def test_what_is_set_by_hand_wins_and_says_who() -> None:
    plan = Plan(motion=Motion.THINNED, tolerance_px=8, upload=Upload.CONTROL, reasons=("power saver",))
    overrides = [Override("participant", "motion", "none"), Override("host", "upload", Upload.NOW)]
    told = apply_overrides(plan, overrides)
    assert (told.motion, told.upload, told.tolerance_px) == (Motion.NONE, Upload.NOW, 8)
    assert told.reasons == ("host set upload to now", "participant set motion to none", "power saver")
    assert told.to_send().reason == ""
    assert apply_overrides(plan, []) == plan


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"upload": "none"}, "host set upload to none"),
        ({"upload": "scheduled", "motion": "none"}, ""),
        ({"bytes_per_hour": 9}, "host set bytes_per_hour to 9; power saver"),
        ({"bytes_per_hour": None}, "power saver"),
        ({"motion": "none"}, "power saver"),
    ],
)
def test_what_was_set_by_hand_is_told_to_the_uploader_when_it_holds_back(overrides: Any, told: str) -> None:
    plan = Plan(upload=Upload.CONTROL, reasons=("power saver",)) & Plan(
        cpu_effort=CpuEffort.LOW, reasons=("hot",)
    )
    by_hand = [Override("host", lever, value) for lever, value in overrides.items()]
    assert apply_overrides(plan, by_hand).to_send().reason == told


def test_of_one_lever_the_participants_wins_then_the_later() -> None:
    host = [Override("host", "tolerance_px", value) for value in (1.0, 2.0)]
    assert apply_overrides(Plan(), host).tolerance_px == 2
    for order in (1, -1):
        both = [Override("participant", "tolerance_px", 5.0), *host][::order]
        told = apply_overrides(Plan(), both)
        assert (told.tolerance_px, told.reasons) == (5, ("participant set tolerance_px to 5.0",))


@given(plans, st.sampled_from(["host", "participant"]), st.sampled_from(CpuEffort))
def test_only_the_lever_that_was_set_changes(plan: Plan, by: Any, value: CpuEffort) -> None:
    told = apply_overrides(plan, [Override(by, "cpu_effort", value)])
    assert told.cpu_effort is value
    assert {**told.levers(), "cpu_effort": 0} == {**plan.levers(), "cpu_effort": 0}


@pytest.mark.parametrize(
    ("by", "lever", "value", "why"),
    [
        ("operator", "motion", "none", "by host or participant"),
        ("host", "speed", 1, "no lever 'speed'; there are capture, "),
        ("host", "reasons", ("a",), "no lever 'reasons'"),
        ("host", "motion", "nun", "motion is one of full, thinned, endpoints, none, not 'nun'"),
        ("host", "motion", 3, "motion is 3"),
        ("host", "tolerance_px", 9_999, "tolerance_px is 9999"),
        ("host", "tolerance_px", "much", "not supported"),
        ("host", "capture", True, "only set capture to False"),
        ("participant", "capture", 1, "capture is 1"),
    ],
)
def test_overrides_that_are_refused(by: Any, lever: str, value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Override(by, lever, value)
