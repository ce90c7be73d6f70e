"""Weekly windows of local time: over midnight, over the end of the week, over summer time."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import S

from mcilib.policy import Moment, Plan, QuietHours, ResourceState, Rule, Upload

BERLIN = ZoneInfo("Europe/Berlin")
ADELAIDE = ZoneInfo("Australia/Adelaide")


def at(text: str, tz: ZoneInfo = BERLIN, fold: int = 0) -> Moment:
    return Moment(5, int(datetime.fromisoformat(text).replace(tzinfo=tz, fold=fold).timestamp()) * S)


def quiet(policy: Any, moment: Moment) -> bool:
    plan: Plan = policy(ResourceState(), None, moment)[0]
    assert plan == Plan() or plan.upload is Upload.CONTROL
    return plan != Plan()


@pytest.mark.parametrize(
    ("windows", "moment", "wanted"),
    [
        (["mon-fri 22:00-07:00"], "2025-06-20T23:00", True),  # a Friday
        (["mon-fri 22:00-07:00"], "2025-06-21T06:59:59", True),  # Saturday, begun on Friday
        (["mon-fri 22:00-07:00"], "2025-06-21T07:00", False),
        (["mon-fri 22:00-07:00"], "2025-06-21T22:30", False),
        (["mon-fri 22:00-07:00"], "2025-06-23T06:00", False),  # Monday, would have begun on Sunday
        (["sun 22:00-07:00"], "2025-06-23T06:00", True),  # over the end of the week
        (["fri-mon 12:00-13:00"], "2025-06-22T12:00", True),  # Sunday
        (["fri-mon 12:00-13:00"], "2025-06-24T12:00", False),
        (["SAT, sun 0:00-24:00"], "2025-06-22T23:59:59", True),
        (["sat,sun 00:00-24:00"], "2025-06-23T00:00", False),
        (["12:00-13:00", "18:00-19:00"], "2025-06-23T18:30", True),
        ([], "2025-06-23T18:30", False),
    ],
)
def test_windows(windows: list[str], moment: str, wanted: bool) -> None:
    assert quiet(QuietHours(*windows, tz=BERLIN), at(moment)) is wanted


def test_capture_ends_only_on_wish_and_the_times_do_not_travel() -> None:
    moment = at("2025-06-23T12:30")
    plan = QuietHours("12:00-13:00", tz=BERLIN)(ResourceState(), None, moment)[0]
    assert (plan.capture, plan.upload, plan.reasons) == (True, Upload.CONTROL, ("quiet hours",))
    plan = QuietHours("12:00-13:00", capture=False, tz=BERLIN)(ResourceState(), None, moment)[0]
    assert (plan.capture, plan.upload) == (False, Upload.CONTROL)


def test_due() -> None:
    policy = QuietHours("mon-fri 22:00-07:00", tz=BERLIN)
    assert policy.due_s(at("2025-06-20T21:00")) == 3_600
    assert policy.due_s(at("2025-06-20T22:00")) == 9 * 3_600
    assert policy.due_s(at("2025-06-21T07:00")) == (2 * 24 + 15) * 3_600
    assert QuietHours().due_s(at("2025-06-21T07:00")) is None
    later = Moment(5, at("2025-06-20T21:00").wall_ns + S // 2)
    assert policy.due_s(later) == 3_600  # half a second late rather than early


def test_summer_time() -> None:
    policy = QuietHours("02:15-02:45", "07:00-08:00", tz=BERLIN)
    spring = at("2025-03-30T01:50")  # at 2:00 it becomes 3:00
    assert policy.due_s(spring) == 600  # asked again then
    assert not quiet(policy, at("2025-03-30T03:00"))
    assert policy.due_s(at("2025-03-30T03:00")) == 4 * 3_600
    for fold in (0, 1):  # at 3:00 it becomes 2:00: that hour comes twice
        assert quiet(policy, at("2025-10-26T02:30", fold=fold))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "mon-fri ", "sat,sun ", "sun "]), st.integers(0, 47), st.integers(1, 48)
        )
        .filter(lambda w: w[1] != w[2])
        .map(lambda w: f"{w[0]}{w[1] // 2:02}:{w[1] % 2 * 30:02}-{w[2] // 2:02}:{w[2] % 2 * 30:02}"),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([BERLIN, ADELAIDE, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("UTC")]),
    st.sampled_from([1_743_200_000, 1_761_300_000, 1_759_500_000, 1_743_800_000]).flatmap(
        lambda base: st.integers(base - 90_000, base + 250_000)  # around steps of summer time in these places
    ),
)
@settings(max_examples=150)
def test_nothing_changes_before_it_is_due(windows: list[str], tz: ZoneInfo, start_s: int) -> None:
    policy = QuietHours(*windows, tz=tz)
    moment = Moment(0, start_s * S)
    due_s = policy.due_s(moment)
    assert due_s is not None
    assert due_s > 0
    now = quiet(policy, moment)
    for second in {*range(0, int(min(due_s, 400_000)), 1_800), int(due_s) - 1}:
        assert quiet(policy, Moment(0, (start_s + second) * S)) is now, second


def test_the_times_are_those_of_the_system_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    moment = at("2025-06-23T12:30", ZoneInfo("Asia/Tokyo"))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert quiet(QuietHours("12:00-13:00"), moment)
        assert not quiet(QuietHours("12:00-13:00", tz=BERLIN), moment)
        assert quiet(Rule.parse("12:00-13:00: upload control"), moment)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must be such as"),
        ("at night", "must be such as"),
        ("22-7", "must be such as"),
        ("mon 22:00", "must be such as"),
        ("22:00-07:00 mon", "must be such as"),
        ("mon-wed-fri 22:00-07:00", "'mon-wed-fri' is no day"),
        ("mon,fry 22:00-07:00", "'fry' is no day"),
        ("mon, 22:00-07:00", "must be such as"),
        ("25:00-07:00", "a time is"),
        ("22:60-07:00", "a time is"),
        ("24:00-07:00", "a time is"),
        ("22:00-24:01", "a time is"),
        ("07:00-07:00", "a whole day is 00:00-24:00"),
    ],
)
def test_what_is_no_window(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        QuietHours(text)
