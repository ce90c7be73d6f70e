"""The schedule on disk: what it keeps, what it makes of damage, and that no wall clock silences a device."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcilib import limits
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.retry import Schedule, Traffic
from mcilib.delivery.schedule import ENDPOINTS_MAX, Remembered, ScheduleFile, endpoint_of
from mcilib.protocols import Outcome
from mcilib.testing.fakes import FakeTransport

S = 10**9
HOUR_S, DAY_S = 3_600.0, 86_400.0
WALL_NS = 1_750_000_000 * S


@pytest.fixture
def file(tmp_path):
    return ScheduleFile(tmp_path / "schedule.json")


def again(
    file: ScheduleFile, *, after_s: float = 0.0, now_s: float = 5.0, endpoint: str = "e", seed: int = 0
):
    """As another process sees it, whose monotonic clock stands at `now_s`, `after_s` later by the wall."""
    return file.load(
        endpoint,
        now_ns=int(now_s * S),
        wall_ns=WALL_NS + int(after_s * S),
        interval_s=HOUR_S,
        random=Random(seed),
    )


def keep(file: ScheduleFile, schedule: Schedule, traffic: Traffic = Traffic(), endpoint: str = "e") -> None:  # noqa: B008
    file.save(endpoint, Remembered(schedule, traffic), now_ns=100 * S, wall_ns=WALL_NS)


def waits(schedule: Schedule, now_s: float = 5.0) -> tuple[float | None, float]:
    return schedule.wait_s(int(now_s * S)), (schedule.not_before_ns / S) - now_s


def test_everything_comes_back_as_it_was_by_endpoint(file):
    traffic = Traffic().noted(50 * S, 1_000).noted(90 * S, 200)
    schedule = Schedule(
        next_attempt_ns=1_000 * S,
        not_before_ns=700 * S,
        failures=3,
        outcome=Outcome.RETRY,
        rejects_in_a_row=2,
    )
    keep(file, schedule, traffic)
    keep(file, Schedule(next_attempt_ns=200 * S), endpoint="other")
    found = again(file, after_s=30)
    assert found is not None
    assert waits(found.schedule) == (870, 570)
    assert (found.schedule.failures, found.schedule.outcome) == (3, Outcome.RETRY)
    assert found.schedule.rejects_in_a_row == 2
    assert found.traffic.bytes_last_hour(5 * S) == 1_200
    other = again(file, after_s=30, endpoint="other")
    assert other is not None
    assert waits(other.schedule)[0] == 70
    assert other.traffic.bytes_last_hour(5 * S) == 0
    assert again(file, endpoint="third") is None


def test_a_wait_that_ended_meanwhile_goes_on_where_it_was(file):
    """So an agent that runs for minutes a day uploads too, and an office that starts at nine does not at nine."""
    keep(file, Schedule(next_attempt_ns=(100 + 600) * S))
    found = again(file, after_s=16 * HOUR_S)
    assert found is not None
    assert waits(found.schedule)[0] == 600


@pytest.mark.parametrize("step_s", [-10 * 365 * DAY_S, -HOUR_S, 0, HOUR_S, 7 * DAY_S, 10 * 365 * DAY_S])
@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_no_step_of_the_wall_clock_silences_a_device(file, step_s, outcome):
    """Whatever was asked for, the next upload comes within the longest wait there is, and a server's word is kept
    while the clock did not go forward."""
    schedule = Schedule().after(
        outcome or Outcome.DELIVERED, 100 * S, interval_s=HOUR_S, random=Random(1), retry_after_s=500.0
    )
    keep(file, schedule)
    found = again(file, after_s=step_s)
    assert found is not None
    wait_s, not_before_s = waits(found.schedule)
    longest_s = limits.GONE_WAIT_S if outcome is Outcome.GONE else limits.BACKOFF_CAP_S + HOUR_S
    assert wait_s is not None
    assert max(0, not_before_s) <= wait_s <= longest_s
    if step_s <= 0 and outcome is not Outcome.GONE:
        assert not_before_s == 500


def test_gone_is_asked_again_a_day_later_and_not_before(file):
    keep(file, Schedule().after(Outcome.GONE, 100 * S, interval_s=HOUR_S, random=Random(1)))
    for after_s, left_s in ((0, DAY_S), (HOUR_S, DAY_S - HOUR_S), (2 * DAY_S, 0)):
        found = again(file, after_s=after_s)
        assert found is not None
        assert waits(found.schedule) == (left_s, left_s)


def test_a_refusal_is_asked_again_within_an_interval_of_a_restart(file):
    keep(file, Schedule().after(Outcome.REFUSED, 100 * S, interval_s=HOUR_S, random=Random(1)))
    found = [again(file, after_s=1, seed=seed) for seed in range(50)]
    times = [one.schedule.wait_s(5 * S) for one in found if one is not None]
    assert len(times) == 50
    assert max(time for time in times if time is not None) <= HOUR_S
    assert len(set(times)) > 40  # not all at once


@given(
    st.floats(0, 1e6),
    st.floats(0, 1e5),
    st.integers(0, 50),
    st.floats(-1e9, 1e9),
    st.sampled_from(list(Outcome)),
)
def test_any_state_at_any_time_is_within_bounds(
    tmp_path_factory, next_s, not_before_s, failures, after_s, outcome
):
    file = ScheduleFile(tmp_path_factory.getbasetemp() / "any.json")
    schedule = Schedule(
        next_attempt_ns=int((100 + next_s) * S),
        not_before_ns=int((100 + not_before_s) * S),
        failures=failures,
        outcome=outcome,
    )
    keep(file, schedule)
    found = again(file, after_s=after_s)
    assert found is not None
    wait_s, _ = waits(found.schedule)
    assert wait_s is not None
    assert 0 <= wait_s <= limits.RETRY_AFTER_CAP_S + HOUR_S


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.sampled_from([o for o in Outcome if o is not Outcome.GONE]))
def test_a_servers_word_holds_for_as_long_as_it_said(tmp_path_factory, asked_s, after_s, outcome):
    """Where the clock goes forward as time passes: neither sooner nor later, over a restart in between."""
    file = ScheduleFile(tmp_path_factory.getbasetemp() / "asked.json")
    asked_s = min(asked_s, limits.RETRY_AFTER_CAP_S)
    keep(
        file,
        Schedule().after(outcome, 100 * S, interval_s=HOUR_S, random=Random(1), retry_after_s=asked_s),
    )
    found = again(file, after_s=after_s)
    assert found is not None
    wait_s, not_before_s = waits(found.schedule)
    assert not_before_s == pytest.approx(max(0.0, asked_s - after_s), abs=1e-6)
    assert wait_s is not None
    assert wait_s >= not_before_s - 1e-6


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"schema": 2, "endpoints": {"e": {}}}',
        b'{"schema": 1, "endpoints": []}',
        b'{"schema": 1, "endpoints": {"e": 7}}',
        b'{"schema": 1, "endpoints": {"e": {}}}',
        b'{"schema": 1, "endpoints": {"e": {"saved_wall_ns": 1e999}}}',
        b"[" * 100_000,
        b" " * 100_000 + b"{}",
    ],
)
def test_damage_counts_as_nothing_and_is_written_over(file, content):
    file.path.write_bytes(content)
    assert again(file) is None
    keep(file, Schedule(failures=1))
    assert again(file) is not None


GOOD = {
    "saved_wall_ns": WALL_NS, "next_s": 1.0, "not_before_s": 0.0, "failures": 1, "outcome": "retry",
    "rejects_in_a_row": 0, "bytes_last_hour": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize("value", ["x", [], {}, -1e400, float("nan"), True, "missing"])
def test_a_field_of_another_kind_never_raises(file, name, value):
    record = {**GOOD, name: value}
    if value == "missing":
        del record[name]
    file.path.write_text(json.dumps({"schema": 1, "endpoints": {"e": record}}))
    found = again(file)
    assert found is None or 0 <= (waits(found.schedule)[0] or 0) <= limits.BACKOFF_CAP_S


def test_only_so_many_endpoints_are_remembered_the_oldest_goes(file):
    for n in range(ENDPOINTS_MAX):
        keep(file, Schedule(), endpoint=str(n))
    keep(file, Schedule(), endpoint="0")  # used again
    keep(file, Schedule(), endpoint="new")
    found = {str(n): again(file, endpoint=str(n)) for n in range(ENDPOINTS_MAX)}
    assert [name for name, one in found.items() if one is None] == ["1"]
    assert again(file, endpoint="new") is not None


def test_what_is_saved_can_be_read_again_however_long_the_addresses(file):
    for n in range(ENDPOINTS_MAX):
        keep(file, Schedule(failures=n), endpoint=str(n) * 9_000)
        found = again(file, endpoint=str(n) * 9_000)
        assert found is not None
        assert found.schedule.failures == n


def test_what_a_kill_left_halfway_is_harmless(file):
    keep(file, Schedule(failures=4))
    file.path.with_name("schedule.json.new").write_bytes(b'{"schema": 1, "endp')
    found = again(file)
    assert found is not None
    assert found.schedule.failures == 4
    keep(file, Schedule(failures=5))
    assert os.listdir(file.path.parent) == ["schedule.json"]


def test_a_disk_that_refuses_is_not_an_error(small_disk):
    place = small_disk()
    file = ScheduleFile(place / "schedule.json")
    keep(file, Schedule(failures=1))
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    keep(file, Schedule(failures=2))
    found = again(file)
    assert found is not None
    assert found.schedule.failures == 1


def test_a_full_disk_is_not_an_error_and_keeps_what_was_there(small_disk):
    place = small_disk()
    file = ScheduleFile(place / "schedule.json")
    keep(file, Schedule(failures=1))
    with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4_096))
    keep(file, Schedule(failures=2))
    found = again(file)
    assert found is not None
    assert found.schedule.failures == 1
    assert sorted(os.listdir(place)) == ["filler", "schedule.json"]


def test_under_which_name_a_transport_is_remembered():
    assert endpoint_of(HttpTransport("https://collect.example.org/x/")) == "https://collect.example.org:443/x"
    assert endpoint_of(FakeTransport()) == ""
