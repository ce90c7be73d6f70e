"""What each policy lowers, when, and why."""

from __future__ import annotations

from typing import Any

import pytest
from machines import NOW

from mcilib import limits
from mcilib.policy import (
    BatteryPolicy,
    ByteEffort,
    CpuEffort,
    Metered,
    Motion,
    NetworkPolicy,
    Plan,
    Policy,
    PowerSaverPolicy,
    ResourceState,
    Thermal,
    ThermalPolicy,
    Upload,
    decide,
    default_policies,
)


def plan_of(policy: Policy, latches: Any = None, **state: Any) -> Plan:
    return policy(ResourceState(**state), latches, NOW)[0]


@pytest.mark.parametrize("policy", default_policies(), ids=lambda policy: policy.name)
def test_a_machine_that_tells_nothing_lowers_nothing(policy: Policy) -> None:
    assert plan_of(policy) == Plan()


def on_battery(ratio: float | None) -> dict[str, Any]:
    return {"battery_present": True, "on_mains": False, "battery_ratio": ratio}


def test_battery() -> None:
    plan = plan_of(BatteryPolicy(), **on_battery(0.5))
    assert plan.levers() == {"read_interval_s": 0.75, "batch_age_s": 300.0}
    assert plan.reasons == ("on battery",)
    low = plan_of(BatteryPolicy(), **on_battery(0.149))
    assert low.levers() == {**plan.levers(), "cpu_effort": "low", "upload": "control"}
    assert low.reasons == ("battery below 15%", "on battery")


def test_a_battery_that_does_not_say_is_one_and_none_is_mains() -> None:
    assert plan_of(BatteryPolicy(), battery_present=True) == plan_of(BatteryPolicy(), **on_battery(None))
    assert plan_of(BatteryPolicy(), battery_present=False, on_mains=False) == Plan()
    assert plan_of(BatteryPolicy(), battery_present=True, on_mains=True, battery_ratio=0.01) == Plan()


def test_hysteresis_of_the_battery_goes_on_while_it_charges() -> None:
    policy, latches = BatteryPolicy(0.3, 0.1), None
    told = []
    for ratio, on_mains in [(0.3, False), (0.29, False), (0.39, False), (None, False), (0.35, True), (0.35, False),
                            (0.4, False), (0.3, False)]:  # fmt: skip
        state = ResourceState(battery_present=True, on_mains=on_mains, battery_ratio=ratio)
        plan, latches = policy(state, latches, NOW)
        told.append(plan.upload is Upload.CONTROL)
    assert told == [False, True, True, True, False, True, False, False]


def test_power_saver() -> None:
    assert plan_of(PowerSaverPolicy(), power_saver=False) == Plan()
    plan = plan_of(PowerSaverPolicy(), power_saver=True)
    assert plan.levers() == {
        "read_interval_s": limits.SAVER_READ_INTERVAL_S,
        "motion": "thinned",
        "tolerance_px": 8.0,
        "batch_age_s": 300.0,
        "cpu_effort": "low",
        "upload": "control",
    }
    assert plan_of(PowerSaverPolicy(tolerance_px=4), power_saver=True).tolerance_px == 4
    assert plan.capture


def test_heat() -> None:
    assert plan_of(ThermalPolicy(), thermal=Thermal.NOMINAL) == Plan()
    hot = plan_of(ThermalPolicy(), thermal=Thermal.HOT)
    assert (hot.motion, hot.read_interval_s, hot.cpu_effort, hot.upload) == (
        Motion.THINNED, 1.0, CpuEffort.LOW, Upload.NOW,
    )  # fmt: skip
    critical = plan_of(ThermalPolicy(), thermal=Thermal.CRITICAL)
    assert (critical.motion, critical.upload, critical.capture) == (Motion.NONE, Upload.CONTROL, True)


@pytest.mark.parametrize(
    ("state", "upload", "reason"),
    [
        ({"online": False}, Upload.NONE, "there is no network"),
        ({"portal": True}, Upload.NONE, "the network wants somebody to sign in"),
        ({"metered": Metered.YES}, Upload.CONTROL, "the network is metered"),
        ({"metered": Metered.GUESS}, Upload.CONTROL, "the network is metered"),
        ({"constrained": True}, Upload.CONTROL, "data is to be saved"),
        (
            {"metered": Metered.YES, "online": False},
            Upload.NONE,
            "the network is metered; there is no network",
        ),
        ({"metered": Metered.UNKNOWN, "online": True, "portal": False, "constrained": False}, Upload.NOW, ""),
    ],
)
def test_network(state: dict[str, Any], upload: Upload, reason: str) -> None:
    plan = plan_of(NetworkPolicy(), **state)
    assert (plan.upload, "; ".join(plan.reasons)) == (upload, reason)


@pytest.mark.parametrize("state", [{"metered": Metered.GUESS}, {"constrained": True}])
def test_bytes_that_may_go_over_a_metered_network(state: dict[str, Any]) -> None:
    plan = plan_of(NetworkPolicy(metered_bytes_per_hour=307_200), **state)
    assert (plan.upload, plan.bytes_per_hour, plan.byte_effort) == (
        Upload.SCHEDULED,
        307_200,
        ByteEffort.HIGH,
    )
    assert plan_of(NetworkPolicy(307_200), **state, online=False).upload is Upload.NONE


@pytest.mark.parametrize(
    "make",
    [
        lambda: BatteryPolicy(1.1),
        lambda: BatteryPolicy(0.1, -0.1),
        lambda: BatteryPolicy(float("nan")),
        lambda: NetworkPolicy(-1),
        lambda: PowerSaverPolicy(2_000),
    ],
)
def test_numbers_out_of_range(make: Any) -> None:
    with pytest.raises(ValueError, match=" 0 "):
        make()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"battery_ratio": 0.5, "metered": Metered.YES}, "the network is metered"),
        ({"battery_ratio": 0.1}, "battery below 15%"),
        ({"battery_ratio": 0.5, "thermal": Thermal.CRITICAL}, "the machine is too hot"),
        ({"battery_ratio": 0.5, "thermal": Thermal.HOT, "power_saver": True}, "power saver"),
        ({"battery_ratio": 0.5, "thermal": Thermal.HOT}, ""),
    ],
)
def test_the_uploader_is_told_only_what_holds_uploads_back(state: dict[str, Any], reason: str) -> None:
    on_battery = ResourceState(battery_present=True, on_mains=False, **state)
    plan, _ = decide(default_policies(), on_battery, None, NOW)
    assert "on battery" in plan.reasons
    assert plan.to_send().reason == reason
