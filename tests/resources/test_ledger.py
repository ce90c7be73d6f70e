"""The impact ledger: which day something counts for, and that nothing is lost or counted twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.resources.energy import MachineEnergy, estimate
from mcilib.resources.ledger import ImpactLedger
from mcilib.statistics import CostStatistics, DiskStatistics, Impact, UploadStatistics
from mcilib.testing.fakes import ManualClock

HOUR_S = 3_600.0


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[ZoneInfo]:
    """The zone of the device, `Europe/Berlin` unless a test names another."""
    name = getattr(request, "param", "Europe/Berlin")
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield ZoneInfo(name)
    monkeypatch.undo()
    time.tzset()


def at(zone: ZoneInfo, *when: int, fold: int = 0) -> ManualClock:
    moment = datetime(*when, tzinfo=zone, fold=fold)  # type: ignore[misc,arg-type]
    return ManualClock(wall_ns=round(moment.timestamp() * 1e9))


def begun(path, clock) -> ImpactLedger:
    ledger = ImpactLedger(path / "impact.json", clock=clock)
    ledger.begin()
    return ledger


def uploads(requests: int, **more) -> UploadStatistics:
    by = {"data": requests - 3, "control": 1, "retry": 1, "split": 1}
    outcomes = {"delivered": requests - 2, "retry": 1, "bad_batch": 1}
    return UploadStatistics(
        requests, requests * 10, requests_by_cause=by, requests_by_outcome=outcomes, **more
    )


def test_everything_that_is_read_is_counted(tmp_path):
    clock = ManualClock()
    ledger = begun(tmp_path, clock)
    clock.advance(100)
    ledger.note(
        cost=CostStatistics(2.5, 70, 3),
        disk=[DiskStatistics(1_000, 4), DiskStatistics(200, 6)],
        upload=uploads(7),
    )
    today = ledger.statistics().today
    assert today == Impact(
        running_s=100.0,
        cpu_s=2.5,
        wakeups=70,
        written_bytes=1_200,
        fsyncs=10,
        sent_bytes=70,
        requests={"data": 4, "control": 1, "retry": 1, "split": 1},
        undelivered_requests=2,
        energy=estimate(
            {
                "cpu_s": 2.5,
                "wakeups": 70,
                "requests": 7,
                "sent_bytes": 70,
                "fsyncs": 10,
                "written_bytes": 1_200,
            }
        ),
    )
    assert today.cpu_ratio == 0.025
    for one in fields(Impact):
        if one.name != "machine":
            assert getattr(today, one.name) != getattr(Impact(), one.name), f"{one.name} is not counted"
    now = ledger.statistics()
    assert now.since_start == now.kept == now.total == today
    assert list(now.days.values()) == [today]


def test_what_is_unknown_stays_unknown(tmp_path):
    clock = ManualClock()
    ledger = begun(tmp_path, clock)
    clock.advance(1)
    ledger.note(cost=CostStatistics(None, None, 2))
    today = ledger.statistics().today
    assert (today.cpu_s, today.wakeups, today.cpu_ratio) == (None, None, None)
    assert today.energy.without == ("cpu_s", "wakeups")


def test_only_growth_counts(tmp_path):
    ledger = begun(tmp_path, ManualClock())
    for fsyncs in (5, 5, 9):
        ledger.note(disk=[DiskStatistics(0, fsyncs)])
    assert ledger.statistics().today.fsyncs == 9


def test_a_counter_that_began_anew(tmp_path):
    """A new uploader after a restart, say."""
    ledger = begun(tmp_path, ManualClock())
    ledger.note(upload=UploadStatistics(bytes_sent=100))
    ledger.note(upload=UploadStatistics(bytes_sent=30))
    assert ledger.statistics().today.sent_bytes == 130


def test_what_was_used_before_it_began_does_not_count(tmp_path):
    ledger = ImpactLedger(tmp_path / "impact.json", clock=ManualClock())
    ledger.begin(cost=CostStatistics(1.0, 10, 1), disk=[DiskStatistics(10, 10)], upload=uploads(5))
    ledger.note(cost=CostStatistics(1.5, 11, 1), disk=[DiskStatistics(12, 13)], upload=uploads(6))
    today = ledger.statistics().today
    assert (today.cpu_s, today.wakeups, today.written_bytes, today.fsyncs) == (0.5, 1, 2, 3)
    assert (today.sent_bytes, sum(today.requests.values()), today.undelivered_requests) == (10, 1, 0)


def test_before_it_began_nothing_is_noted(tmp_path):
    ledger = ImpactLedger(tmp_path / "impact.json", clock=ManualClock())
    ledger.note(disk=[DiskStatistics(1, 1)])
    ledger.save()
    assert not ledger.statistics().days
    assert not list(tmp_path.iterdir())


def test_the_machine_is_kept_apart(tmp_path):
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("package-0\n")
    (folder / "energy_uj").write_text("0\n")
    clock = ManualClock()
    ledger = ImpactLedger(tmp_path / "impact.json", clock=clock, machine=MachineEnergy(tmp_path / "sys"))
    ledger.begin()
    for joules in (60, 150):
        clock.advance(60)
        (folder / "energy_uj").write_text(f"{joules * 10**6}\n")
        ledger.note()
    ledger.save()
    for now in (ledger.statistics(), ImpactLedger.read(ledger.path, clock.wall_ns())):
        assert now.today.machine == {"package": (150.0, 120.0)}
        assert now.today.energy.joules == 0


# --- days ---------------------------------------------------------------------------------------------------


def days(ledger: ImpactLedger) -> dict[str, tuple[float, int]]:
    return {day: (one.running_s / HOUR_S, one.fsyncs) for day, one in ledger.statistics().days.items()}


def test_a_new_day_begins_at_local_midnight(tmp_path, zone):
    clock = at(zone, 2026, 1, 10, 23, 59)
    ledger = begun(tmp_path, clock)
    clock.advance(59)
    ledger.note(disk=[DiskStatistics(0, 1)])
    assert list(days(ledger)) == ["2026-01-10"]
    clock.advance(1)
    ledger.note(disk=[DiskStatistics(0, 3)])
    assert days(ledger)["2026-01-11"][1] == 2
    assert ledger.statistics().today.fsyncs == 2


def test_running_time_is_split_at_midnight(tmp_path, zone):
    clock = at(zone, 2026, 1, 10, 22, 0)
    ledger = begun(tmp_path, clock)
    clock.advance(50 * HOUR_S)  # nobody was awake from one evening to the night after the next
    ledger.note(disk=[DiskStatistics(0, 5)])
    assert days(ledger) == {
        "2026-01-10": (2.0, 0),
        "2026-01-11": (24.0, 0),
        "2026-01-12": (24.0, 0),
        "2026-01-13": (0.0, 5),
    }


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23.0), ((2026, 10, 25), 25.0)])
def test_days_of_23_and_25_hours(tmp_path, zone, day, hours):
    clock = at(zone, *day, 0, 0)
    ledger = begun(tmp_path, clock)
    clock.advance((hours + 1) * HOUR_S)
    ledger.note()
    first, second = days(ledger).items()
    assert first == ("-".join(f"{n:02}" for n in day), (hours, 0))
    assert second[1] == (1.0, 0)


@pytest.mark.parametrize("zone", ["America/Havana", "Asia/Beirut", "Pacific/Apia"], indirect=True)
def test_where_midnight_comes_twice_or_never(tmp_path, zone):
    """Four times a day through a year; Apia left out 30 December 2011 altogether."""
    clock = at(zone, 2011, 1, 1, 0, 30)
    ledger = begun(tmp_path, clock)
    before = 0.0
    for _ in range(365 * 4):
        clock.advance(6 * HOUR_S)
        ledger.note()
        now = ledger.statistics()
        assert now.total.running_s == pytest.approx(before + 6 * HOUR_S)
        before = now.total.running_s
        assert max(day.running_s for day in now.days.values()) <= 25 * HOUR_S + 1
        here = datetime.fromtimestamp(clock.wall_ns() / 1e9, zone)
        assert list(now.days)[-1] == f"{here:%Y-%m-%d}"


@pytest.mark.parametrize("step_s", [-HOUR_S, -30 * 86_400, -60 * 365 * 86_400, 9e9, -9e9, 9e11])
def test_a_clock_that_steps_loses_and_doubles_nothing(tmp_path, zone, step_s):
    clock = at(zone, 2026, 1, 10, 12, 0)
    ledger = begun(tmp_path, clock)
    clock.advance(60)
    ledger.note(disk=[DiskStatistics(0, 1)])
    clock.step_wall(step_s)
    clock.advance(60)
    ledger.note(disk=[DiskStatistics(0, 3)])
    clock.step_wall(-step_s)
    clock.advance(60)
    ledger.note(disk=[DiskStatistics(0, 6)])
    total = ledger.statistics().total
    assert (total.running_s, total.fsyncs) == (180.0, 6)
    assert ledger.statistics().days["2026-01-10"].fsyncs >= 4
    ledger.save()
    assert ImpactLedger.read(ledger.path, clock.wall_ns()).total == total


def test_days_beyond_a_month_are_kept_in_the_total_only(tmp_path, zone):
    clock = at(zone, 2026, 1, 1, 12, 0)
    ledger = begun(tmp_path, clock)
    for n in range(1, 41):
        ledger.note(disk=[DiskStatistics(0, n)])
        clock.advance(86_400)
    now = ledger.statistics()
    assert len(now.days) == limits.LEDGER_DAYS == 31
    assert next(iter(now.days)) == "2026-01-10"
    assert (now.kept.fsyncs, now.total.fsyncs) == (31, 40)
    ledger.save()
    assert ImpactLedger.read(ledger.path, clock.wall_ns()).total.fsyncs == 40
    assert ledger.path.stat().st_size < 8_192


def test_today_is_kept_when_the_clock_went_back(tmp_path, zone):
    clock = at(zone, 2026, 1, 1, 12, 0)
    ledger = begun(tmp_path, clock)
    for n in range(31):
        ledger.note(disk=[DiskStatistics(0, n)])
        clock.advance(86_400)
    clock.step_wall(-365 * 86_400)
    ledger.note(disk=[DiskStatistics(0, 100)])
    assert ledger.statistics().today.fsyncs == 70
    assert len(ledger.statistics().days) == 31


# --- whatever happens ---------------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("used"), st.integers(0, 1_000)),
    st.tuples(st.just("time"), st.floats(0, 3 * 86_400)),
    st.tuples(st.just("wall"), st.floats(-1e10, 1e10)),
    st.tuples(st.just("sleep"), st.floats(0, 1e6)),
    st.tuples(st.sampled_from(("save", "restart", "counter anew")), st.just(0)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=60))
def test_totals_never_go_down_and_days_sum_to_them(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("ledger")
    clock = ManualClock()
    ledger = begun(folder, clock)
    counter = used = running_ns = 0
    for what, amount in steps:
        before_ns = clock.monotonic_ns()
        if what == "used":
            counter, used = counter + amount, used + amount
        elif what == "time":
            clock.advance(amount)
        elif what == "wall":
            clock.step_wall(amount)
        elif what == "sleep":
            clock.suspend(amount)
        elif what == "save":
            ledger.save()
        else:
            counter = 0
        if what == "restart":
            ledger.save()
            ledger = begun(folder, clock)
        running_ns += clock.monotonic_ns() - before_ns
        before = ledger.statistics().total
        ledger.note(disk=[DiskStatistics(0, counter)])
        now = ledger.statistics()
        assert now.total.fsyncs == used >= before.fsyncs
        assert now.total.running_s == pytest.approx(running_ns / 1e9)
        assert now.total.running_s >= before.running_s
        for name in ("fsyncs", "written_bytes"):
            kept = sum(getattr(day, name) for day in now.days.values())
            assert kept == getattr(now.kept, name) <= getattr(now.total, name)
        assert len(now.days) <= limits.LEDGER_DAYS
        assert now.kept == now.total or len(now.days) == limits.LEDGER_DAYS
