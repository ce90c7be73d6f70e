"""Each option of [adapt] changes what the policies say."""

from __future__ import annotations

from typing import Any

import pytest
from machines import NOW

from mcilib.config.policies import policies_of
from mcilib.config.table import POLICIES, AdaptSettings
from mcilib.policy import Metered, Plan, ResourceState, Thermal, decide, default_policies


def told(state: ResourceState, **options: Any) -> dict[str, Any]:
    return decide(policies_of(AdaptSettings(**options)), state, None, NOW)[0].levers()


TELLING = {
    "battery": ResourceState(battery_present=True, battery_ratio=0.25),
    "network": ResourceState(metered=Metered.YES),
    "saver": ResourceState(power_saver=True),
    "thermal": ResourceState(thermal=Thermal.HOT),
    "cpu": ResourceState(cpu_ratio=0.04),
}


def test_the_defaults_are_those_of_the_library() -> None:
    assert policies_of(AdaptSettings()) == default_policies()
    assert tuple(TELLING) == POLICIES


@pytest.mark.parametrize("name", TELLING)
def test_policies_are_those_that_are_named(name: str) -> None:
    assert told(TELLING[name]) == told(TELLING[name], policies=(name,)) != {}
    assert told(TELLING[name], policies=tuple(each for each in POLICIES if each != name)) == {}
    assert told(TELLING[name], policies=()) == {}


@pytest.mark.parametrize(
    ("state", "options", "lever", "wanted"),
    [
        (TELLING["battery"], {"battery_low": 0.3}, "upload", "control"),
        (TELLING["cpu"], {"cpu_budget": 0.05}, "read_interval_s", None),
        (TELLING["saver"], {"saver_tolerance_px": 4.0}, "tolerance_px", 4.0),
        (TELLING["network"], {"metered_bytes_per_hour": 500}, "bytes_per_hour", 500),
        (ResourceState(), {"quiet_hours": ("00:00-24:00",)}, "upload", "control"),
        (TELLING["thermal"], {"rules": ("hot: motion none", "hot: tick 5ms")}, "tick_ns", 5_000_000),
        (TELLING["thermal"], {"rules": ("hot: motion none", "hot: tick 5ms")}, "motion", "none"),
    ],
)
def test_each_option_is_obeyed(
    state: ResourceState, options: dict[str, Any], lever: str, wanted: Any
) -> None:
    assert told(state, **options).get(lever) == wanted != told(state).get(lever)


def test_nothing_known_lowers_nothing() -> None:
    assert decide(default_policies(), ResourceState(), None, NOW)[0] == Plan()
