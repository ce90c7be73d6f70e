"""For any schedule of grants, pauses, exemptions, clock steps, sleeps and events told late: no record exists outside of
what was allowed when it happened; and what was allowed and told in time is recorded."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from consent_world import HOURS, MAKE, Run
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from mcilib.consent import ExemptionState
from mcilib.policy.plan import Motion

YEAR_S = 365 * 86_400
SCOPES = st.frozensets(st.sampled_from(["pointer", "keys", "apps", "titles"]), min_size=1)
SOON_S = st.sampled_from([1, 5, 60, 600, 1_800, 3_600, 7_200, 86_400])
PROMPTLY = st.booleans()
STEP_S = st.sampled_from(
    [2, 30, 600, 1_799, 1_800, 3_600, 7_200, 43_200, 86_400, 30 * 86_400, YEAR_S, 9 * YEAR_S]
)


def op(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


KIND, QUEUE = st.sampled_from(sorted(MAKE)), st.integers(0, 1)
ALWAYS = (
    (op("heard", KIND), 8),
    (op("event", KIND, QUEUE), 4),
    (op("take"), 4),
    (op("tell", QUEUE, st.integers(1, 5)), 2),
    (op("settle") | op("look") | op("close"), 1),
    (op("passes", st.sampled_from([1, 50, 1_000, 5_000, 60_000, 600_000, 1_800_000])), 3),
)
"""What happens in every schedule, and how often."""

UNTIL_S = st.none() | SOON_S
FULL = frozenset(["pointer", "keys", "apps", "titles"])
THEMES = {
    "pauses": [op("pause", SOON_S, PROMPTLY), op("resume", PROMPTLY)],
    "kinds": [op("exempt", st.just("scopes"), SCOPES, UNTIL_S, PROMPTLY)],
    "hours": [op("exempt", st.just("hours"), st.sampled_from(sorted(HOURS)), UNTIL_S, PROMPTLY)],
    "apps": [op("exempt", st.just("apps"), st.just("SECRET*"), UNTIL_S, PROMPTLY)],
    "everything": [op("exempt", st.just("everything"), st.none(), UNTIL_S, PROMPTLY)],
    "decisions": [op("decide", st.integers(0, 5), st.sampled_from([*ExemptionState][1:]), PROMPTLY)],
    "questions": [op("ask", st.booleans(), PROMPTLY)],
    "grants": [op("grant", SCOPES, UNTIL_S), op("grant", st.just(FULL), UNTIL_S)],
    "steps": [op("step", STEP_S.flatmap(lambda s: st.sampled_from([s, -s])))],
    "sleep": [op("sleep", STEP_S)],
    "forgetting": [op("forget")],
    "withdrawal": [op("withdraw")],
}


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Of a few themes each: all of them at once would leave nothing to record."""
    themes = draw(st.lists(st.sampled_from(sorted(THEMES)), min_size=1, max_size=4, unique=True))
    chosen = [which for which, often in ALWAYS for _ in range(often)]
    for theme in themes:
        chosen += THEMES[theme] * 2
    one = st.sampled_from(chosen).flatmap(lambda which: which)
    return draw(st.lists(one, min_size=10, max_size=80))


SCHEDULES = schedules()


def carry_out(schedule: list[tuple[Any, ...]], tz: Any, motion: Motion) -> Run:
    run = Run(tz, motion)
    for name, *arguments in schedule:
        getattr(run, name)(*arguments)
    run.end()
    return run


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEDULES, st.sampled_from([UTC, UTC, ZoneInfo("Europe/Berlin")]), st.sampled_from([*Motion][:3]))
def test_nothing_is_recorded_but_what_was_allowed_and_told_in_time(schedule, tz, motion):
    run = carry_out(schedule, tz, motion)
    event(f"recorded: {min(len(run.recorded), 5)}")
    event(f"forbidden: {min(sum(not all(one.allowed.values()) for one in run.all.values()), 5)}")


NIGHT, DAY_S, TO_SUMMER_TIME_S = "22:00-07:00", 86_400, 24_667_200
OPEN: list[tuple[Any, ...]] = [("heard", "press"), ("take",)]
LATE: list[tuple[Any, ...]] = [
    ("event", "press", 0),
    ("passes", 1_000),
    ("tell", 0, 1),
    ("take",),
    ("close",),
]
#: one for each check that a random schedule seldom needs
SELDOM: dict[str, list[tuple[Any, ...]]] = {
    "approved is as good as pending": [
        ("exempt", "scopes", frozenset(["pointer"]), None, True), ("decide", 0, ExemptionState.APPROVED, True), *OPEN
    ],
    "what has ended is recorded again": [
        ("exempt", "scopes", frozenset(["pointer"]), 60, True), *OPEN, ("passes", 61_000), ("look",), *OPEN
    ],
    "a pause that a step does not end": [("pause", 600, True), ("step", 3_600), ("look",), *OPEN],
    "a pause that a step does not stretch": [
        ("pause", 600, True), *OPEN, ("step", -3_600), ("passes", 600_000), ("look",), *OPEN
    ],
    "a pause that ends asleep": [("pause", 600, True), *OPEN, ("sleep", 600), ("look",), *OPEN],
    "hours that came while a batch was open": [
        ("exempt", "hours", "12:01-12:03", None, True), *OPEN, ("passes", 60_000), *LATE
    ],
    "hours that came and went between two looks": [
        ("exempt", "hours", "12:01-12:03", None, True), ("passes", 60_000), ("event", "press", 0), ("passes", 180_000),
        ("tell", 0, 1), ("take",),
    ],
    "hours that came by a step and went": [
        ("exempt", "hours", "mon-fri 14:00-15:00", None, True), ("step", 7_200), ("event", "press", 0),
        ("passes", 3_600_000), ("tell", 0, 1), ("take",),
    ],
    "hours that came while it slept, with an open batch": [
        ("exempt", "hours", NIGHT, None, True), *OPEN, ("sleep", 43_200), *LATE
    ],
    "hours that came while it slept, without a batch": [
        ("exempt", "hours", NIGHT, None, True), ("heard", "press"), ("heard", "press"), ("heard", "press"),
        ("sleep", 43_200), ("heard", "press"), ("heard", "press"), ("take",),
    ],
    "hours that came while it slept, taken for before": [
        ("exempt", "hours", NIGHT, None, True), ("sleep", 43_200), *LATE
    ],
    "hours that came by a step, with an open batch": [
        ("exempt", "hours", NIGHT, None, True), *OPEN, ("step", 43_200), ("heard", "press"), ("take",),
    ],
    "a grant that ended while it slept, and another one": [
        ("grant", FULL, 60), ("sleep", 3_600), ("heard", "press"), ("grant", FULL, None),
    ],
    "a grant that ended, and a clock that went back": [
        ("grant", FULL, 60), ("passes", 61_000), ("event", "press", 0), ("look",), ("event", "press", 0),
        ("step", -3_600), ("tell", 0, 2), ("take",),
    ],
    "programs that are exempt again, since the clock went back": [
        ("exempt", "apps", "SECRET*", 60, True), ("heard", "focus"), ("passes", 65_000), ("take",), ("close",),
        ("look",), ("take",), ("step", -3_600), ("heard", "press"), ("take",), ("heard", "secret"), ("take",),
        ("heard", "press"), ("passes", 5_000), ("take",),
    ],
    "programs that were exempt between two takes": [
        ("exempt", "apps", "SECRET*", 1, False), ("heard", "secret"), ("heard", "press"), ("passes", 1_000), ("look",),
        ("take",),
    ],
    "summer time": [
        ("step", TO_SUMMER_TIME_S), ("exempt", "hours", "03:30-04:00", None, True), ("passes", 95 * 60_000), *LATE
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SELDOM)
def test_what_random_schedules_seldom_need(name):
    runs = [carry_out(SELDOM[name], tz, Motion.FULL) for tz in (UTC, ZoneInfo("Europe/Berlin"))]
    forbidden = [one for run in runs for one in run.all.values() if not all(one.allowed.values())]
    assert forbidden, "it shows nothing"
