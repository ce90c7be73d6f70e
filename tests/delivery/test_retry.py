"""The outcome table and the schedule, without a clock."""

from __future__ import annotations

import ssl
from email.utils import formatdate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcilib import limits
from mcilib.delivery.retry import (
    RetryBudget,
    Schedule,
    Traffic,
    backoff_s,
    outcome_of_error,
    outcome_of_status,
    retry_after_s,
)
from mcilib.protocols import Outcome

SECOND_NS = 1_000_000_000

TABLE = {
    Outcome.DELIVERED: [200, 201, 202, 204, 299],
    Outcome.NOT_OUR_SERVER: [300, 301, 302, 303, 304, 307, 308],
    Outcome.BAD_BATCH: [400, 413, 415, 422],
    Outcome.REFUSED: [401, 403, 404, 405, 407],
    Outcome.RETRY: [
        408,
        409,
        425,
        429,
        500,
        501,
        502,
        503,
        504,
        507,
        511,
        599,
        402,
        406,
        418,
        451,
        100,
        999,
        0,
    ],
    Outcome.GONE: [410],
}


@pytest.mark.parametrize(("status", "outcome"), [(s, outcome) for outcome, row in TABLE.items() for s in row])
def test_each_status_has_its_outcome(status, outcome):
    assert outcome_of_status(status) is outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ssl.SSLCertVerificationError("bad"), Outcome.REFUSED),
        (ssl.CertificateError("bad"), Outcome.REFUSED),
        (ssl.SSLError("handshake"), Outcome.RETRY),
        (ConnectionRefusedError(), Outcome.RETRY),
        (ConnectionResetError(), Outcome.RETRY),
        (TimeoutError(), Outcome.RETRY),
        (PermissionError(), Outcome.RETRY),
        (OSError(101, "Network is unreachable"), Outcome.RETRY),
        (ValueError(), Outcome.RETRY),
    ],
)
def test_each_error_has_its_outcome(error, outcome):
    assert outcome_of_error(error) is outcome


# --- Retry-After --------------------------------------------------------------------------------------------


def date(unix_s: float) -> str:
    return formatdate(unix_s, usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "response_date", "seconds"),
    [
        ("120", None, 120),
        (" 7 ", None, 7),
        ("0", None, 0),
        ("86401", None, 86_400),
        ("9" * 5_000, None, 86_400),
        (date(1_000_060), date(1_000_000), 60),  # this device's clock says 0
        (date(1_000_000), date(1_000_060), 0),
        (date(9_000_000), date(1_000_000), 86_400),
        (date(90), None, 90),  # no Date: the device's clock stands in
        (date(90), "soon", 90),
        (None, None, 0),
        ("", None, 0),
        ("-5", None, 0),
        ("1.5", None, 0),
        ("٣", None, 0),
        ("later", date(0), 0),
        ("Fri, 99 Foo 2020 99:99:99 GMT", date(0), 0),
    ],
)
def test_retry_after_in_both_forms(retry_after, response_date, seconds):
    assert retry_after_s(retry_after, response_date, wall_s=0.0) == seconds


@given(st.text(), st.text(), st.floats(0, 4e9))
def test_retry_after_of_any_text_is_within_a_day(retry_after, response_date, wall_s):
    assert 0 <= retry_after_s(retry_after, response_date, wall_s) <= limits.RETRY_AFTER_CAP_S


# --- schedule -----------------------------------------------------------------------------------------------


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(
    ("failures", "bound_s"), [(0, 30), (1, 60), (2, 120), (8, 7_680), (9, 14_400), (10**6, 14_400)]
)
def test_the_bound_of_the_back_off_doubles_to_the_cap(failures, bound_s):
    assert backoff_s(failures, 0, Highest()) == bound_s
    assert backoff_s(failures, 40, Highest()) == bound_s


@pytest.mark.parametrize(("failures", "bound_s"), [(0, 2_700), (1, 5_400), (2, 10_800), (3, 14_400)])
def test_the_back_off_begins_with_three_quarters_of_the_interval(failures, bound_s):
    assert backoff_s(failures, 3_600, Highest()) == bound_s


@given(st.integers(0, 10_000), st.floats(0, 1e9), st.randoms(use_true_random=False))
def test_the_back_off_is_full_jitter(failures, interval_s, random):
    first_s = max(limits.BACKOFF_FIRST_S, 0.75 * interval_s)
    bound_s = min(limits.BACKOFF_CAP_S, first_s * 2 ** min(failures, 32))
    assert 0 <= backoff_s(failures, interval_s, random) <= bound_s


def test_the_back_off_is_spread_evenly():
    waits = [backoff_s(20, 3_600, Random(i)) for i in range(2_000)]
    assert 0.45 < sum(waits) / len(waits) / limits.BACKOFF_CAP_S < 0.55


AFTER = [
    (Outcome.DELIVERED, 0, 100.0, 0),
    (Outcome.BAD_BATCH, 0, 100.0, 0),
    (Outcome.RETRY, 0, 600.0, 3),
    (Outcome.NOT_OUR_SERVER, 0, 600.0, 3),
    (Outcome.REFUSED, 0, limits.BACKOFF_CAP_S, 3),
    # Retry-After is a minimum whatever the outcome, and no moment at which all come at once
    (Outcome.DELIVERED, 500, 600.0, 0),
    (Outcome.RETRY, 700, 800.0, 3),
    (Outcome.RETRY, 5, 600.0, 3),
    (Outcome.REFUSED, 20_000, 20_100.0, 3),
]


@pytest.mark.parametrize(("outcome", "retry_after", "wait_s", "failures"), AFTER)
def test_the_schedule_after_each_outcome(outcome, retry_after, wait_s, failures):
    schedule = Schedule(failures=2).after(
        outcome, 7 * SECOND_NS, interval_s=100, random=Highest(), retry_after_s=retry_after
    )
    assert schedule.wait_s(7 * SECOND_NS) == wait_s
    assert schedule.failures == failures
    assert schedule.not_before_ns == (7 + retry_after) * SECOND_NS


def test_after_gone_nothing_is_planned():
    schedule = Schedule().after(Outcome.GONE, 0, interval_s=1, random=Random())
    assert schedule.wait_s(10**18) is None
    assert schedule.woken(10**18, 1, Random()) == schedule


def test_held_is_asked_again_after_one_interval_and_is_no_failure():
    schedule = Schedule(failures=2).held(0, interval_s=60)
    assert (schedule.wait_s(0), schedule.failures) == (60, 2)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.GONE])
def test_retry_after_is_never_jumped_and_spreads_over_as_long_again(outcome):
    waits = [
        Schedule().after(outcome, 0, interval_s=3_600, random=Random(i), retry_after_s=60).wait_s(0) or 0
        for i in range(200)
    ]
    assert min(waits) >= 60
    assert outcome in (Outcome.DELIVERED, Outcome.BAD_BATCH) or max(waits) - min(waits) > 50


def test_the_first_upload_is_at_any_moment_of_the_first_interval():
    waits = [Schedule.first(0, interval_s=3_600, random=Random(i)).wait_s(0) or 0 for i in range(200)]
    assert 0 <= min(waits) < 200
    assert 3_400 < max(waits) <= 3_600


def test_woken_moves_only_what_was_due_and_keeps_the_servers_word():
    schedule = Schedule(next_attempt_ns=50 * SECOND_NS, not_before_ns=0)
    assert schedule.woken(10 * SECOND_NS, 3_600, Highest()) == schedule
    assert schedule.woken(60 * SECOND_NS, 3_600, Highest()).wait_s(60 * SECOND_NS) == 3_600
    asked = Schedule(next_attempt_ns=0, not_before_ns=500 * SECOND_NS)
    assert asked.woken(60 * SECOND_NS, 3_600, Highest()).next_attempt_ns == 4_100 * SECOND_NS


def test_hastened_comes_sooner_but_not_at_once_and_not_before_the_servers_word():
    late = Schedule(next_attempt_ns=9_000 * SECOND_NS, failures=2)
    assert late.hastened(0, 3_600, Highest()).wait_s(0) == 3_600
    soon = Schedule(next_attempt_ns=9 * SECOND_NS)
    assert soon.hastened(0, 3_600, Highest()) == soon
    asked = Schedule(next_attempt_ns=9_000 * SECOND_NS, not_before_ns=500 * SECOND_NS)
    assert asked.hastened(0, 3_600, Highest()).wait_s(0) == 4_100
    ended = Schedule().after(Outcome.GONE, 0, interval_s=1, random=Random())
    assert ended.hastened(0, 1, Random()) == ended


# --- traffic ------------------------------------------------------------------------------------------------


def test_no_more_than_fifteen_requests_in_any_minute():
    traffic, now_ns, made = Traffic(), 0, []
    for _ in range(40):
        now_ns += int(traffic.wait_s(now_ns) * SECOND_NS)
        made.append(now_ns)
        traffic = traffic.noted(now_ns, 10)
        now_ns += SECOND_NS // 10
    assert made[14] < 2 * SECOND_NS  # the first fifteen at once
    window_ns = 60 * SECOND_NS
    assert max(sum(at <= other < at + window_ns for other in made) for at in made) == 15


def test_the_bytes_of_the_last_hour():
    traffic = Traffic().noted(0, 100).noted(1_800 * SECOND_NS, 20)
    assert traffic.bytes_last_hour(1_800 * SECOND_NS) == 120
    assert traffic.bytes_last_hour(3_600 * SECOND_NS) == 20
    assert traffic.noted(3_601 * SECOND_NS, 1).requests[0] == (1_800 * SECOND_NS, 20)


def test_the_retry_budget_is_a_burst_and_then_a_tenth():
    budget = RetryBudget()
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    taken = 0
    for _ in range(1_000):
        budget.request()
        taken += budget.take()
    assert taken == 100
    for _ in range(1_000):
        budget.request()
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_an_endless_interval_does_not_overflow():
    assert Schedule().after(Outcome.DELIVERED, 0, interval_s=float("inf"), random=Random()).wait_s(0) == 1e9
