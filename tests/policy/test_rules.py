"""Rules as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import NOW

from mcilib.policy import Metered, Moment, Plan, ResourceState, Rule, Thermal, Upload

ON_BATTERY: dict[str, Any] = {"battery_present": True, "on_mains": False}


def told(text: str, latches: Any = None, **state: Any) -> dict[str, Any]:
    plan = Rule.parse(text)(ResourceState(**state), latches, NOW)[0]
    assert plan == Plan() or plan.reasons == (text,)
    return plan.levers()


@pytest.mark.parametrize(
    ("levers", "holds"),
    [
        ("upload none", True),
        ("motion none, upload control", True),
        ("bytes 300 KiB", True),
        ("upload scheduled", False),
        ("motion none, read 500ms", False),
    ],
)
def test_a_rule_that_holds_uploads_back_says_so(levers: str, holds: bool) -> None:
    rule = Rule.parse(f"saver: {levers}")
    plan = Plan(upload=Upload.CONTROL) & rule(ResourceState(power_saver=True), None, NOW)[0]
    assert plan.to_send().reason == (rule.text if holds else "")


@pytest.mark.parametrize(
    ("condition", "holds", "not_holds"),
    [
        ("battery", ON_BATTERY, {"battery_present": True, "on_mains": True}),
        ("battery < 30 %", {**ON_BATTERY, "battery_ratio": 0.29}, {**ON_BATTERY, "battery_ratio": 0.3}),
        ("battery<12.5%", {**ON_BATTERY, "battery_ratio": 0.12}, {"battery_ratio": 0.12}),
        ("saver", {"power_saver": True}, {"power_saver": None}),
        ("metered", {"metered": Metered.GUESS}, {"metered": Metered.UNKNOWN}),
        ("constrained", {"constrained": True}, {"constrained": False}),
        ("offline", {"online": False}, {"online": None}),
        ("portal", {"portal": True}, {"portal": None}),
        ("hot", {"thermal": Thermal.CRITICAL}, {"thermal": Thermal.NOMINAL}),
        ("locked", {"session_away": True}, {"session_away": None}),
        ("NOT  Saver", {"power_saver": None}, {"power_saver": True}),
        ("saver and not hot", {"power_saver": True}, {"power_saver": True, "thermal": Thermal.HOT}),
        ("saver and hot", {"power_saver": True, "thermal": Thermal.HOT}, {"power_saver": True}),
        ("00:00-24:00", {}, None),
        ("not 00:00-24:00", None, {}),
    ],
)
def test_conditions(condition: str, holds: Any, not_holds: Any) -> None:
    text = f"{condition}: upload none"
    assert holds is None or told(text, **holds) == {"upload": "none"}
    assert not_holds is None or told(text, **not_holds) == {}


@pytest.mark.parametrize(
    ("levers", "wanted"),
    [
        ("motion thinned", {"motion": "thinned"}),
        ("motion endpoints", {"motion": "endpoints"}),
        ("motion none, upload none", {"motion": "none", "upload": "none"}),
        ("upload control", {"upload": "control"}),
        ("upload scheduled", {"upload": "scheduled"}),
        ("tolerance 4", {"motion": "thinned", "tolerance_px": 4.0}),
        ("tolerance 2.5 px", {"motion": "thinned", "tolerance_px": 2.5}),
        ("read 500ms", {"read_interval_s": 0.5}),
        ("age 5 m", {"batch_age_s": 300.0}),
        ("tick 10 ms", {"tick_ns": 10_000_000}),
        ("cpu low", {"cpu_effort": "low"}),
        ("bytes 300 KiB", {"byte_effort": "high", "upload": "scheduled", "bytes_per_hour": 307_200}),
        ("capture off", {"capture": False}),
    ],
)
def test_levers(levers: str, wanted: dict[str, Any]) -> None:
    assert told(f"saver: {levers}", power_saver=True) == wanted
    assert told(f"saver: {levers}") == {}


def test_the_band_of_a_battery_is_five_points() -> None:
    rule, latches, seen = Rule.parse("battery < 30 % and not saver: motion none"), None, []
    for ratio in (0.31, 0.29, 0.34, None, 0.35, 0.31):
        state = ResourceState(battery_ratio=ratio, **ON_BATTERY)
        plan, latches = rule(state, latches, NOW)
        seen.append(plan != Plan())
    assert seen == [False, True, True, True, False, False]


def test_due() -> None:
    assert Rule.parse("saver: motion none").due_s(NOW) is None
    from datetime import UTC, datetime

    wall_ns = int(datetime(2025, 6, 23, 8, tzinfo=UTC).timestamp()) * 10**9
    rule = Rule.parse("saver and mon-fri 09:00-17:00 and not 08:30-08:45: upload none", tz=UTC)
    assert rule.due_s(Moment(0, wall_ns)) == 1_800


KNOWN = "There are battery, saver, metered, constrained, offline, portal, hot, locked, battery < N %"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("saver", "a rule is CONDITION: LEVER VALUE, such as 'battery < 30 %: motion none'"),
        ("", "a rule is CONDITION: LEVER VALUE"),
        ("mon 09:00-17:00", "a rule is CONDITION: LEVER VALUE"),
        (
            "batery: motion none",
            f"'batery' at character 1: there is no such condition; did you mean 'battery'? {KNOWN}",
        ),
        (
            "saver and  hott: cpu low",
            "'hott' at character 12: there is no such condition; did you mean 'hot'?",
        ),
        ("wind: cpu low", "'wind' at character 1: there is no such condition; there are battery, saver,"),
        ("saver and: cpu low", "'' at character 10: there is no such condition"),
        (": cpu low", "'' at character 1: there is no such condition"),
        ("battery < 0 %: cpu low", "a battery has more than 0 and at most 100 %"),
        ("battery < 101 %: cpu low", "a battery has more than 0 and at most 100 %"),
        ("battery > 30 %: cpu low", "'battery > 30 %' at character 1: there is no such condition"),
        ("fry 9:00-17:00: cpu low", "'fry 9:00-17:00' at character 1: 'fry' is no day"),
        (
            "saver: motoin none",
            "'motoin none' at character 8: there is no such lever; did you mean 'motion'?",
        ),
        ("saver: motion none, ", "'' at character 20: there is no such lever"),
        ("saver: motion full", "'motion full' at character 8: motion is thinned, endpoints or none"),
        ("saver: upload", "upload is scheduled, control or none"),
        ("saver: upload now", "upload is scheduled, control or none"),
        ("saver: tolerance", "it takes pixels, such as 8"),
        ("saver: tolerance 2000", "tolerance_px is 2000.0, not 0 to 1024"),
        ("saver: read 5", "it takes a time, such as 500ms, 2s or 5m"),
        ("saver: read 5s", "read_interval_s is 5.0, not 0 to 1"),
        ("saver: bytes many", "it takes bytes an hour, such as 300 KiB"),
        ("saver: capture on", "capture is off"),
        ("saver: cpu none", "cpu is low"),
        ("saver: cpu low\nhot: cpu low", "one line of at most 200 characters"),
        ("saver: cpu low" + " " * 200 + ", cpu low", "one line of at most 200 characters"),
    ],
)
def test_mistakes_name_their_place_and_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        Rule.parse(text)
    assert why in str(caught.value)


WORDS = st.sampled_from(
    ["battery", "<", "30", "%", "saver", "and", "not", ":", "motion", "none", ",", "9:00-17:00", "mon"]
)


@given(st.lists(WORDS).map(" ".join) | st.text(max_size=40))
def test_every_text_is_a_rule_or_a_value_error(text: str) -> None:
    try:
        rule = Rule.parse(text)
    except ValueError:
        return
    rule(ResourceState(), None, NOW)
    assert rule.text == text.strip()
