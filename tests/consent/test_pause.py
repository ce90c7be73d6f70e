"""A pause lasts as long as was said: through restarts, boots, sleep, and clocks that are stepped by years."""

from __future__ import annotations

import pytest
from deciding import Place

from mcilib import limits
from mcilib.consent.pause import Now, Pause
from mcilib.errors import ConfigError

YEAR_S = 365 * 86_400.0
S = 1_000_000_000


def left_s(place: Place) -> float:
    pause = place.participant.state.pause
    return 0.0 if pause is None else pause.left_ns(place.participant.now()) / S


def is_paused(place: Place) -> bool:
    whole = place.participant.barred().all
    return whole is not None and whole.code == "paused"


def test_it_begins_at_once_counts_down_and_ends_by_itself(place):
    pause = place.participant.pause(600)
    assert pause.duration_ns == 600 * S
    whole = place.participant.barred().all
    assert whole is not None
    assert whole.words == "you have paused it, 10 min left"
    place.clock.advance(599)
    assert left_s(place) == 1
    assert is_paused(place)
    place.clock.advance(1)
    assert not is_paused(place)
    assert left_s(place) == 0


def test_resume_ends_it(place):
    place.participant.pause(600)
    place.participant.resume()
    assert not is_paused(place)
    assert not place.again().barred().all


def test_a_second_one_is_in_place_of_the_first(place):
    place.participant.pause(600)
    place.clock.advance(300)
    place.participant.pause(60)
    assert left_s(place) == 60


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S, 20 * YEAR_S, -1.0, 601.0])
def test_no_step_of_the_wall_clock_counts_within_a_boot(place, step_s):
    place.participant.pause(600)
    place.clock.advance(100)
    place.clock.step_wall(step_s)
    assert left_s(place) == 500
    place.again()  # another process of the same boot
    assert left_s(place) == 500
    place.clock.step_wall(-2 * step_s)
    place.clock.advance(499)
    assert is_paused(place)
    place.clock.advance(1)
    assert not is_paused(place)


def test_time_asleep_counts(place):
    place.participant.pause(600)
    place.clock.suspend(599)
    assert left_s(place) == 1
    place.clock.suspend(10)
    assert not is_paused(place)


def test_after_another_boot_the_wall_clock_counts(place):
    place.participant.pause(600)
    place.clock.advance(200)
    place.next_boot()
    assert left_s(place) == 400
    place.clock.step_wall(YEAR_S)  # from here on it has no say any more
    assert left_s(place) == 400
    place.again()
    assert left_s(place) == 400
    place.clock.suspend(400)
    assert not is_paused(place)


@pytest.mark.parametrize(("step_s", "expected_s"), [(-YEAR_S, 600), (-300, 600), (YEAR_S, 0)])
def test_after_another_boot_with_another_time_it_is_never_longer_than_it_was(place, step_s, expected_s):
    place.participant.pause(600)
    place.clock.advance(200)
    place.clock.step_wall(step_s)
    place.next_boot()
    assert left_s(place) == expected_s


def test_who_looks_at_the_right_moment_is_told(place):
    place.participant.pause(30)
    assert place.participant.barred().due_s == 30
    place.participant.pause(600)
    assert place.participant.barred().due_s == limits.PAUSE_LOOK_S  # a machine that slept meanwhile


@pytest.mark.parametrize("duration_s", [0, -1, limits.PAUSE_CAP_S + 0.1, float("nan"), float("inf")])
def test_what_is_no_pause_is_refused_and_changes_nothing(place, duration_s):
    with pytest.raises(ConfigError, match="is not allowed"):
        place.participant.pause(duration_s)
    assert not place.changes
    assert place.participant.state.pause is None


def test_an_operator_may_allow_longer_ones(place):
    with pytest.raises(ConfigError):
        place.participant.pause(limits.PAUSE_CAP_S + 1)
    participant = place.again(pause_cap_s=7_200.0)
    participant.pause(7_200)
    assert left_s(place) == 7_200


def test_without_a_duration_it_is_the_usual_one_or_the_cap(place):
    assert place.participant.pause().duration_ns == limits.PAUSE_S * S
    assert place.again(pause_cap_s=60.0).pause().duration_ns == 60 * S


@pytest.mark.parametrize(
    "change",
    [
        {"duration_ns": -1},
        {"duration_ns": 1.5},
        {"boot": 3},
        {"wall_ns": None},
        {"monotonic_ns": True},
        {"boot": None},
    ],
)
def test_what_was_not_written_by_us_is_no_pause(change):
    written = Pause(Now(1, 2, 3, "b0"), 4).to_json()
    assert Pause.from_json(written) == Pause(Now(1, 2, 3, "b0"), 4)
    with pytest.raises((ValueError, TypeError)):
        Pause.from_json({**written, **change})
