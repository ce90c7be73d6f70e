"""How much the spool keeps, and how long: bytes, files, free disk, age by its own clock."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise

import pytest

from mcilib import Collector, limits
from mcilib.delivery._age import AgeClock, Anchor
from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import Fate
from mcilib.testing.fakes import FakeSource, ManualClock, example_batch, example_grant

HOUR_S, DAY_S = 3_600, 86_400


def names(folder):
    return sorted(item.name for item in folder.iterdir())


# --- size ---------------------------------------------------------------------------------------------------


def test_max_files_evicts_the_oldest_and_counts_it(tmp_path, seal, conserves):
    with DirectorySpool(tmp_path, max_files=3) as spool:
        ids = [spool.commit(seal()).batch_id for _ in range(5)]
        assert spool.waiting() == tuple(ids[2:])
        assert spool.statistics().lost["evicted"] == 2
        assert conserves(spool)


def test_max_bytes_evicts_as_many_as_it_takes(tmp_path, seal, conserves):
    with DirectorySpool(tmp_path, max_bytes=1_000) as spool:
        ids = [spool.commit(seal(300)).batch_id for _ in range(3)]
        assert spool.waiting() == tuple(ids)
        big = spool.commit(seal(800)).batch_id
        assert spool.waiting() == (big,)
        assert spool.statistics().lost["evicted"] == 3
        exact = spool.commit(seal(200)).batch_id
        assert spool.waiting() == (big, exact)
        assert conserves(spool)


def test_sizes_are_those_of_the_files_and_not_of_the_counters(tmp_path, seal):
    with DirectorySpool(tmp_path) as spool:
        for _ in range(3):
            spool.commit(seal(300))
    os.truncate(next((tmp_path / "ready").glob("0000000000000002-*")), 100)
    with DirectorySpool(tmp_path, max_bytes=1_000) as spool:
        assert spool.statistics().waiting_bytes == 700
        spool.commit(seal(300))
        assert len(spool.waiting()) == 4
        spool.commit(seal(1))
        assert len(spool.waiting()) == 4


# --- the disk -----------------------------------------------------------------------------------------------


def test_with_too_little_free_a_tenth_goes_at_each_commit(small_disk, seal, conserves):
    disk = small_disk(options="size=8m")
    with DirectorySpool(disk / "spool", min_free_bytes=500_000) as spool:
        for _ in range(40):
            spool.commit(seal(4_000))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 400_000))
        seen: list[int] = []
        while len(seen) < 100:
            spool.commit(seal(4_000))
            seen.append(len(spool.waiting()))
            if shutil.disk_usage(disk).free >= 500_000:
                break
        assert seen[0] == 41 - 5
        assert all(before - after <= before // 10 + 1 for before, after in pairwise(seen))
        assert shutil.disk_usage(disk).free >= 500_000
        assert spool.statistics().lost["evicted"] == 41 + len(seen) - 1 - seen[-1]
        assert conserves(spool)
        spool.commit(seal(4_000))
        assert spool.read(spool.waiting()[-1]) is not None


def test_with_far_too_little_free_for_long_a_few_stay(small_disk, seal, conserves):
    disk = small_disk(options="size=8m")
    with DirectorySpool(disk / "spool", min_free_bytes=800_000) as spool:
        for _ in range(25):
            spool.commit(seal(4_000))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 300_000))
        for _ in range(25):
            newest = spool.commit(seal(4_000))
            assert spool.read(newest.batch_id) == newest
        assert 5 <= len(spool.waiting()) <= 10
        assert conserves(spool)


@pytest.mark.parametrize(("min_free_bytes", "evicted"), [(0, 0), (limits.SPOOL_MIN_FREE_BYTES, 1)])
def test_the_floor_is_at_most_a_tenth_of_the_disk(small_disk, seal, min_free_bytes, evicted):
    disk = small_disk(options="size=8m")
    with DirectorySpool(disk / "spool", min_free_bytes=min_free_bytes) as spool:
        for _ in range(3):
            spool.commit(seal())
        assert len(spool.waiting()) == 3, "more than a tenth is free"
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 700_000))
        spool.commit(seal())
        assert spool.statistics().lost["evicted"] == evicted


# --- age ----------------------------------------------------------------------------------------------------


class Machine:
    """A device: boots, runs, sleeps, is switched off; its clock may be set at any time."""

    def __init__(self, path, **options):
        self._path, self._options = path, options
        self._wall_ns, self._boots = 1_750_000_000_000_000_000, 0
        self.spool = None

    def boot(self):
        self._boots += 1
        self.clock = ManualClock(monotonic_ns=7 * self._boots * 10**9, wall_ns=self._wall_ns)
        return self.start()

    def start(self):
        self.spool = DirectorySpool(self._path, clock=self.clock, boot=f"boot {self._boots}", **self._options)
        self.spool.open()
        return self.spool

    def off(self, seconds, step_s=0.0):
        self.spool.close()
        self._wall_ns = self.clock.wall_ns() + int((seconds + step_s) * 1e9)


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path / "spool")
    made.boot()
    yield made
    made.spool.close()


def test_a_batch_expires_after_max_age_and_is_counted_as_that(tmp_path, seal, conserves):
    clock = ManualClock()
    with DirectorySpool(tmp_path, max_age_s=100, max_files=3, clock=clock, boot="b") as spool:
        old = [spool.commit(seal()).batch_id for _ in range(2)]
        clock.advance(60)
        young = spool.commit(seal()).batch_id
        clock.advance(40)
        assert spool.waiting() == (*old, young)
        clock.advance(0.1)
        newest = [spool.commit(seal()).batch_id for _ in range(3)]
        assert spool.waiting() == tuple(newest)
        assert {cause: n for cause, n in spool.statistics().lost.items() if n} == {"expired": 2, "evicted": 1}
        assert conserves(spool)


def test_the_default_is_two_weeks(machine, seal):
    machine.spool.commit(seal())
    machine.clock.advance(14 * DAY_S)
    machine.spool.commit(seal())
    assert len(machine.spool.waiting()) == 2
    machine.clock.advance(1)
    machine.spool.commit(seal())
    assert machine.spool.statistics().lost["expired"] == 1


STEPS = [-HOUR_S, 7 * DAY_S, 3_652 * DAY_S, -3_652 * DAY_S]


@pytest.mark.parametrize("step_s", STEPS)
@pytest.mark.parametrize("when", ["running", "restart", "off"])
def test_a_step_of_the_wall_clock_evicts_nothing_and_stops_no_ageing(machine, seal, step_s, when):
    batch_id = machine.spool.commit(seal()).batch_id
    for _ in range(5):
        machine.clock.advance(DAY_S)
        machine.spool.commit(seal())
    match when:
        case "running":
            machine.clock.step_wall(step_s)
        case "restart":
            machine.spool.close()
            machine.clock.step_wall(step_s)
            machine.start()
        case "off":
            machine.off(0, step_s)
            machine.boot()
    spool = machine.spool
    spool.commit(seal())
    assert batch_id in spool.waiting()
    assert spool.statistics().lost["expired"] == 0
    machine.clock.advance(10 * DAY_S)
    spool.commit(seal())
    assert batch_id not in spool.waiting(), "it has waited 15 days, whatever the wall clock says"
    assert spool.statistics().lost["expired"] >= 1


def test_a_day_asleep_and_a_day_off_are_days(machine, seal):
    batch_id = machine.spool.commit(seal()).batch_id
    machine.clock.suspend(DAY_S)
    assert machine.spool.waiting(DAY_S) == (batch_id,)
    assert machine.spool.waiting(DAY_S + 1) == ()
    machine.off(DAY_S)
    machine.boot()
    assert machine.spool.waiting(2 * DAY_S) == (batch_id,)
    assert machine.spool.waiting(2 * DAY_S + 1) == ()


def test_fourteen_days_of_eight_hours_offline_and_held_for_a_day_lose_nothing(machine, seal, conserves):
    committed = []
    for _ in range(14):
        for _ in range(24):  # a batch every twenty minutes
            committed.append(machine.spool.commit(seal()).batch_id)
            machine.clock.advance(1_200)
        held = set(committed) - set(machine.spool.waiting(DAY_S))
        assert held == set(committed[-24:]), "those of today are held, the others may go"
        machine.off(16 * HOUR_S)
        machine.boot()
    assert machine.spool.waiting() == tuple(committed)
    assert sum(machine.spool.statistics().lost.values()) == 0
    assert conserves(machine.spool)


def test_the_clock_goes_on_after_a_power_cut(tmp_path, seal):
    """A run that only commits writes its clock once an hour."""
    machine = Machine(tmp_path / "spool")
    machine.boot()
    batch_id = machine.spool.commit(seal()).batch_id
    for _ in range(10 * 24):
        machine.clock.advance(HOUR_S)
        machine.spool.commit(seal())
    state = (tmp_path / "spool" / "state.json").read_bytes()
    machine.off(DAY_S)
    assert (tmp_path / "spool" / "state.json").read_bytes() == state, "closing writes nothing"
    machine.boot()
    assert machine.spool.waiting(11 * DAY_S) == (batch_id,)
    machine.spool.close()


def test_dates_of_files_mean_something_and_a_copy_without_them_is_young(tmp_path, seal):
    clock = ManualClock()
    with DirectorySpool(tmp_path, clock=clock, boot="b") as spool:
        spool.commit(seal())
        clock.advance(DAY_S)
        (file,) = (tmp_path / "ready").iterdir()
        assert clock.wall_ns() - file.stat().st_mtime_ns == DAY_S * 10**9
    os.utime(file)  # far in the future of that clock
    with DirectorySpool(tmp_path, clock=clock, boot="b") as spool:
        assert len(spool.waiting()) == 1
        assert spool.waiting(1) == ()
        clock.advance(1)
        assert len(spool.waiting(1)) == 1


@pytest.mark.parametrize(
    "anchor",
    [None, {}, [], "x", {"age_ns": 1}, {"age_ns": 1.5, "began_ns": 0, "boot": "b", "running_ns": 0, "wall_ns": 0},
     {"age_ns": 2**63, "began_ns": 0, "boot": "b", "running_ns": 0, "wall_ns": 0},
     {"age_ns": True, "began_ns": 0, "boot": "b", "running_ns": 0, "wall_ns": 0},
     {"age_ns": 1, "began_ns": 0, "boot": 5, "running_ns": 0, "wall_ns": 0}],
)  # fmt: skip
def test_a_damaged_clock_begins_again(anchor):
    clock = ManualClock()
    assert Anchor.from_record(anchor) is None
    assert AgeClock(Anchor.from_record(anchor), clock, "b").now_ns() == clock.wall_ns()


def test_a_clock_that_says_it_has_not_booted_but_runs_backwards_is_not_believed():
    before = ManualClock(monotonic_ns=10**15)
    anchor = AgeClock(None, before, "same").anchor()
    after = ManualClock(monotonic_ns=5, wall_ns=before.wall_ns() + 60 * 10**9)
    assert AgeClock(anchor, after, "same").now_ns() == anchor.age_ns + 60 * 10**9


# --- kept for a look ----------------------------------------------------------------------------------------


def test_what_is_kept_for_a_look_has_limits_of_its_own(tmp_path, seal, conserves):
    clock = ManualClock()
    with DirectorySpool(tmp_path, clock=clock, boot="b") as spool:

        def reject(size_bytes):
            spool.settle(spool.commit(seal(size_bytes)).batch_id, Fate.REJECTED)

        for size_bytes in (600_000, 300_000, 300_000):
            reject(size_bytes)
        assert [name[:16] for name in names(tmp_path / "bad")] == [f"{n:016d}" for n in (2, 3)], (
            "1 MiB together"
        )
        reject(limits.BAD_MAX_BYTES + 1)
        assert len(names(tmp_path / "bad")) == 2, "one that is too large is not kept"
        for _ in range(7):
            reject(10)
        assert len(names(tmp_path / "bad")) == limits.BAD_MAX_FILES
        clock.advance(limits.BAD_MAX_AGE_S - 60)
        reject(10)
        spool.commit(seal())
        assert len(names(tmp_path / "bad")) == limits.BAD_MAX_FILES
        clock.advance(61)
        spool.commit(seal())
        assert len(names(tmp_path / "bad")) == 1
        clock.advance(limits.BAD_MAX_AGE_S)
        assert conserves(spool)
    with DirectorySpool(tmp_path, clock=clock, boot="b"):
        assert names(tmp_path / "bad") == []


# --- in a collector -----------------------------------------------------------------------------------------


def test_the_options_of_a_collector_are_those_of_its_spool(small_disk, seal):
    disk, clock = small_disk(options="size=8m"), ManualClock()
    collector = Collector(
        sources=[FakeSource()], grant=example_grant(), state_dir=disk / "state", clock=clock,
        spool_max_bytes=3_000, spool_max_files=5, spool_max_age_s=60, spool_min_free_bytes=700_000,
    )  # fmt: skip
    (disk / "state").mkdir()

    def lost():
        return {cause: n for cause, n in spool.statistics().lost.items() if n}

    with collector.spool as spool:
        for _ in range(6):
            spool.commit(seal(10))
        assert lost() == {"evicted": 1}
        spool.commit(seal(2_990))
        assert lost() == {"evicted": 5}
        clock.advance(61)
        good = spool.commit(example_batch)
        assert lost() == {"evicted": 5, "expired": 2}
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 600_000))
        bad = spool.commit(example_batch)
        assert spool.waiting() == (bad.batch_id,)
        assert spool.read(good.batch_id) is None
        (file,) = (spool.path / "ready").iterdir()
        file.write_bytes(bad.data[:-1] + bytes([bad.data[-1] ^ 1]))
        assert spool.read(bad.batch_id) is None
        assert lost() == {"evicted": 6, "expired": 2, "damaged": 1}


def test_a_collector_can_be_told_to_leave_less_free(small_disk):
    """Less than by default, which is a tenth of this disk."""
    disk = small_disk(options="size=8m")
    collector = Collector(
        sources=[FakeSource()], grant=example_grant(), state_dir=disk / "state", spool_min_free_bytes=100_000
    )
    (disk / "state").mkdir()
    with collector.spool as spool:
        spool.commit(example_batch)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 600_000))
        spool.commit(example_batch)
        assert len(spool.waiting()) == 2
