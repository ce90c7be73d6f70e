"""Plans that are adopted while it runs: thinning, ticks, ages and compression, what batches tell of it, and that every
event is a row or counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import MS, errors, is_placed, motions, place
from recording import batches, recorder
from waiting import until

from mcilib import Collector, KeyPress, Move, PointerSource, Press, Release, Scroll
from mcilib.events import Event, event_count
from mcilib.format.batch import Batch
from mcilib.policy.plan import ByteEffort, CpuEffort, Motion, Plan
from mcilib.reader import Reader
from mcilib.testing.fakes import ManualClock, example_grant
from mcilib.testing.xvfb import VirtualDisplay

AT = ManualClock().monotonic_ns()
THIN = Plan(motion=Motion.THINNED, tolerance_px=8.0)
PLANS = st.one_of(
    st.builds(Plan, motion=st.just(Motion.THINNED), tolerance_px=st.sampled_from([1.0, 8.0])),
    st.builds(
        Plan,
        motion=st.sampled_from(Motion),
        tolerance_px=st.just(4.0),
        tick_ns=st.sampled_from([MS, 16 * MS]),
    ),
)


def line(count: int, begin: int = 0) -> list[Move]:
    return [Move(AT + n * MS, 3 * n, n) for n in range(begin, begin + count)]


def moves(batch: Batch) -> list[tuple[int, float]]:
    return [((event.t_ns - AT) // MS, event.x) for event in batch.events if isinstance(event, Move)]


def seen(read: Sequence[Batch]) -> int:
    return sum(batch.seen for batch in read)


def test_a_plan_holds_from_the_next_turn_on_and_its_batches_say_so():
    subject, spool = recorder(clock=ManualClock(), started=False)
    plan = Plan(motion=Motion.THINNED, tolerance_px=2.0, reasons=("on battery",))
    subject.emit_all(line(5))
    subject.adopt(plan)
    subject._turn()
    subject.emit_all(line(50, 5))
    subject.adopt(Plan())
    subject._turn()
    subject.emit_all(line(5, 55))
    subject.commit()
    before, thinned, after = batches(spool)
    assert [len(batch.events) for batch in (before, thinned, after)] == [5, 2, 5]
    assert moves(thinned) == [(5, 15), (54, 162)]
    assert thinned.metadata.levers == {"motion": "thinned", "tolerance_px": 2.0}
    assert thinned.metadata.reasons == ("on battery",)
    assert [batch.metadata.coverage.thinned for batch in (before, thinned, after)] == [0, 48, 0]
    assert before.metadata.levers == after.metadata.levers == {}
    assert before.metadata.reasons == after.metadata.reasons == ()
    statistics = subject.statistics()
    assert (statistics.thinned, statistics.captured, statistics.dropped) == (48, {"move": 60}, {})
    assert seen(batches(spool)) == 60


@pytest.mark.parametrize(
    ("other", "closes"),
    [
        (Plan(motion=Motion.ENDPOINTS, tolerance_px=8.0), True),
        (Plan(motion=Motion.THINNED, tolerance_px=9.0), True),
        (Plan(motion=Motion.THINNED, tolerance_px=8.0, tick_ns=4 * MS), True),
        (Plan(motion=Motion.THINNED, tolerance_px=8.0, batch_age_s=300.0, reasons=("why",)), False),
        (THIN, False),
    ],
)
def test_a_batch_ends_when_its_rows_would_mean_something_else(other, closes):
    subject, spool = recorder(clock=ManualClock(), started=False)
    subject.adopt(THIN)
    subject._turn()
    subject.emit_all(line(3))
    subject.adopt(other)
    subject._turn()
    assert len(batches(spool)) == closes
    subject.emit_all(line(3, 3))
    subject.commit()
    read = batches(spool)
    assert len(read) == 1 + closes
    assert read[0].metadata.levers == THIN.levers(), "of the plan under which it was begun"
    assert read[-1].metadata.levers == (other if closes else THIN).levers()
    assert read[-1].metadata.tick_ns == other.tick_ns


def test_rows_of_wider_ticks_are_in_the_middle_of_theirs():
    subject, spool = recorder(clock=ManualClock(), started=False)
    subject.emit_all(line(3))
    subject.adopt(Plan(tick_ns=250 * MS, motion=Motion.THINNED, tolerance_px=1.0))
    subject._turn()
    subject.emit_all([Move(AT + ms * MS, ms, ms) for ms in (40, 150, 300, 700)])
    subject.commit()
    assert moves(batches(spool)[1]) == [(40, 40), (40, 150), (290, 300), (790, 700)]


def test_the_phase_of_ticks_is_that_of_moves_that_are_kept():
    subject, spool = recorder(clock=ManualClock(), started=False)
    subject.adopt(Plan(motion=Motion.NONE))
    subject._turn()
    subject.emit_all([*line(3), KeyPress(AT, "tab")])
    subject.adopt(Plan())
    subject._turn()
    off = [Move(AT + n * MS + 400_000, n, n) for n in range(9)]
    subject.emit_all(off)
    subject.commit()
    assert list(batches(spool)[1].events) == off


def test_endpoints_and_no_motion_keep_clicks():
    for motion, kept in ((Motion.ENDPOINTS, [0, 27]), (Motion.NONE, [])):
        subject, spool = recorder(clock=ManualClock(), started=False)
        subject.adopt(Plan(motion=motion))
        subject._turn()
        subject.emit_all(
            [*line(10), Press(AT + 300 * MS, 27, 9, "left"), Release(AT + 301 * MS, 27, 9, "left")]
        )
        subject.commit()
        [batch] = batches(spool)
        assert [x for _, x in moves(batch)] == kept
        assert [event.kind for event in batch.events if type(event) is not Move] == ["press", "release"]
        assert batch.metadata.coverage.thinned == 10 - len(kept)


@pytest.mark.parametrize("motion", [Motion.THINNED, Motion.ENDPOINTS, Motion.NONE])
def test_a_grant_that_ends_meanwhile_ends_thinning_too(motion):
    grant = example_grant(expires_in=timedelta(seconds=2))
    clock = ManualClock(wall_ns=int(datetime.now(UTC).timestamp() * 1e9))
    left_ns = (grant.expires_ns or 0) - clock.wall_ns()
    subject, spool = recorder(grant=grant, clock=clock, started=False)
    subject.adopt(Plan(motion=motion, tolerance_px=8.0))
    subject._turn()
    allowed = [Move(AT + n * MS, 3 * n, n) for n in range(100)]
    late = [Move(AT + left_ns + n * MS, 3 * n, 7) for n in range(100)]
    subject.emit_all([*allowed, *late])
    subject.commit()
    statistics = subject.statistics()
    assert (statistics.excluded, statistics.captured) == (100, {"move": 100})
    assert all(x < 300 and t < 1_000 for batch in batches(spool) for t, x in moves(batch))


def test_moves_of_a_batch_that_came_to_nothing_are_told_by_the_next():
    subject, spool = recorder(clock=ManualClock(), started=False)
    subject.adopt(Plan(motion=Motion.NONE))
    subject._turn()
    subject.emit_all([*line(5), Move(AT + 5 * MS, 12, 4)])
    subject.commit()
    assert batches(spool) == []
    subject.emit(Press(AT + 6 * MS, 1, 1, "left"))
    subject.commit()
    [batch] = batches(spool)
    assert (batch.metadata.coverage.thinned, batch.metadata.coverage.coalesced) == (5, 1)
    assert batch.metadata.coverage.dropped == {}
    assert batch.seen == 7
    assert subject.statistics().thinned == 5
    assert subject.statistics().dropped == {}


def test_the_age_of_a_plan_is_that_of_the_open_batch_too_but_never_less_than_the_usual_one():
    clock = ManualClock()
    subject, spool = recorder(clock=clock, max_age_s=60.0, started=False)
    subject.emit(Move(AT, 1, 1))
    subject._turn()
    for age_s, ends_s in ((300.0, 300.0), (100.0, 100.0), (5.0, 60.0)):
        subject.adopt(Plan(batch_age_s=age_s))
        subject._turn()
        assert subject._batcher.ends_ns == AT + ends_s * 1e9
    clock.advance(61)
    subject._turn()
    assert len(batches(spool)) == 1


@pytest.mark.parametrize(
    "plan",
    [Plan(), Plan(cpu_effort=CpuEffort.LOW), Plan(byte_effort=ByteEffort.HIGH)],
    ids=["usual", "low", "high"],
)
def test_compression_is_that_of_the_plan(plan):
    subject, spool = recorder(clock=ManualClock(), started=False, zstd_level=5)
    subject.adopt(plan)
    subject._turn()
    subject.emit_all([Move(AT + n * 3 * MS, n * n % 777, n * 7919 % 500) for n in range(3_000)])
    subject._turn()
    batch = subject._batcher.open
    assert batch is not None
    subject.commit()
    [id_] = spool.waiting()
    written = spool.read(id_)
    assert written is not None

    def size(level: int) -> int:
        sealed = batch.seal(
            sequence=1, grant=subject._gate.grant, boot=subject._boot, clocks={"pointer": "trace"},
            levers=plan.levers(), level=level,
        )  # fmt: skip
        return len(sealed.data)

    sizes = {level: size(level) for level in (3, 5, 19)}
    assert len(set(sizes.values())) == 3, "they can be told apart"
    assert len(written.data) == sizes[plan.zstd_level(5)]


def test_reasons_are_cut_to_what_a_batch_has_room_for():
    subject, spool = recorder(clock=ManualClock(), started=False)
    subject.adopt(
        Plan(
            motion=Motion.THINNED,
            tolerance_px=1.0,
            reasons=("x" + "\N{EURO SIGN}" * 200, "\ud800", *"abc" * 40),
        )
    )
    subject._turn()
    subject.emit_all(line(3))
    subject.commit()
    [batch] = batches(spool)
    assert batch.metadata.reasons[0] == "x" + "\N{EURO SIGN}" * 85
    assert batch.metadata.reasons[1] == "?"
    assert len(batch.metadata.reasons) == 32


def test_a_plan_wakes_the_thread_whoever_adopts_it_and_the_newest_counts():
    subject, spool = recorder(max_age_s=3_600.0)
    now_ns = subject._clock.monotonic_ns()
    subject.emit(Move(now_ns, 1, 1))
    others = [threading.Thread(target=subject.adopt, args=(Plan(tick_ns=n * MS),)) for n in range(2, 20)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    last = Plan(motion=Motion.NONE)
    subject.adopt(last)
    until(lambda: subject._batcher._plan is last, what="the plan")
    until(spool.waiting, what="the batch before it")
    subject.stop()


def test_of_two_plans_within_one_turn_the_older_is_forgotten():
    subject, _ = recorder(clock=ManualClock(), started=False)
    older, newer = Plan(tick_ns=2 * MS), Plan(tick_ns=3 * MS)
    subject.adopt(older)
    subject.adopt(newer)
    for _ in range(3):
        subject._turn()
        assert subject._batcher._plan is newer


@settings(max_examples=80, deadline=None)
@given(motions(), st.lists(st.one_of(st.none(), PLANS), min_size=60, max_size=60), st.integers(1, 6))
def test_every_event_is_a_row_or_counted_whatever_the_plans(events, plans, max_events):
    subject, spool = recorder(clock=ManualClock(), max_events=max_events, started=False)
    for event, plan in zip(events, plans, strict=False):
        subject.emit(event)
        if plan is not None:
            subject.adopt(plan)
            subject._turn()
    subject.commit()
    read, statistics = batches(spool), subject.statistics()
    untold = (subject._aside - subject._told).total()  # of batches that came to nothing at the end
    assert seen(read) + untold == sum(map(event_count, events)) == sum(statistics.captured.values())
    others = Counter(type(event) for event in events if type(event) not in (Move, Scroll))
    assert Counter(type(row) for batch in read for row in batch.events if type(row) in others) == others
    scrolls = [row for batch in read for row in batch.events if isinstance(row, Scroll)]
    assert sum(row.count for row in scrolls) == sum(isinstance(event, Scroll) for event in events)
    assert statistics.thinned + statistics.coalesced == sum(
        isinstance(event, Move) for event in events
    ) - sum(isinstance(row, Move) for batch in read for row in batch.events)


@settings(max_examples=80, deadline=None)
@given(motions(), st.integers(1, 6), st.sampled_from([1.0, 8.0]), st.integers(1, 20))
def test_the_bound_holds_over_all_batches_together(events, max_events, tolerance_px, turn):
    """Each event has a millisecond of its own, so that its time tells which it is."""
    events = [_at(event, (event.t_ns // MS + n) * MS) for n, event in enumerate(events)]
    rows = {}
    for name, plan in (("every", Plan()), ("kept", Plan(motion=Motion.THINNED, tolerance_px=tolerance_px))):
        subject, spool = recorder(clock=ManualClock(), max_events=max_events, started=False)
        subject.adopt(plan)
        subject._turn()
        for begin in range(0, len(events), turn):
            subject.emit_all(events[begin : begin + turn])
            subject._turn()
        subject.commit()
        rows[name] = [row for batch in batches(spool) for row in batch.events]
    every = [(row.t_ns // MS, *place(row, 1)) for row in rows["every"] if is_placed(row)]
    at = {tick: n for n, (tick, _, _) in enumerate(every)}
    kept = [(row.t_ns // MS, *place(row, 1)) for row in rows["kept"] if is_placed(row)]
    assert all(every[at[sample[0]]] == sample for sample in kept)
    if every:
        assert max(errors(every, [at[sample[0]] for sample in kept], MS)) <= Fraction(tolerance_px)
    for names in ("every", "kept"):
        rows[names] = [row for row in rows[names] if type(row) is not Move]
    assert rows["every"] == rows["kept"], "nothing else is thinned, or folded otherwise"


def _at(event: Event, t_ns: int) -> Event:
    return type(event)(t_ns, *[getattr(event, name) for name in event.__slots__[1:]])


def test_drags_on_a_real_display_keep_their_ends_and_their_way(xserver: VirtualDisplay, tmp_path):
    collector = Collector(sources=[PointerSource()], grant=example_grant(), state_dir=tmp_path / "state")
    xserver.move(5, 5)
    xserver.sync()
    with collector:
        collector._recorder.adopt(Plan(motion=Motion.THINNED, tolerance_px=8.0))
        injected, moved = [], 0
        for n in range(5):
            begin, end = (100 + 150 * n, 100), (140 + 150 * n, 500)
            xserver.move(*begin)
            xserver.button(1, True)
            for step in range(1, 101):
                xserver.move(begin[0] + 40 * step // 100, begin[1] + 4 * step)
                if step % 10 == 0:
                    xserver.sync()
            xserver.button(1, False)
            xserver.sync()
            injected += [("press", *begin), ("release", *end)]
            moved += 101

        def captured() -> int:
            return sum(collector.statistics().capture.captured.values())

        until(lambda: captured() >= moved + 10, what="all events")
        statistics = collector.statistics().capture
    read = list(Reader(tmp_path / "state" / "spool").batches())
    rows = [row for batch in read for row in batch.events]
    assert [(row.kind, row.x, row.y) for row in rows if isinstance(row, Press | Release)] == injected
    assert seen(read) == moved + 10
    assert statistics.thinned > moved // 2
    assert sum(batch.metadata.coverage.thinned for batch in read) == statistics.thinned
    down = None
    for row in rows:
        if isinstance(row, Press):
            down = row
        elif isinstance(row, Release):
            down = None
        elif isinstance(row, Move) and down is not None:
            assert abs((row.x - down.x) - (row.y - down.y) / 10) <= 1, "a sample of the way"
