"""The bound of thinning, for any motion, in exact arithmetic; and that every event is a row or counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import MS, REST_NS, errors, is_placed, motions, place

from mcilib.clock import ClockAnchor
from mcilib.events import Event, Move, Press, Release, Scroll
from mcilib.format.batch import decode
from mcilib.format.open_batch import OpenBatch
from mcilib.policy.plan import Motion
from mcilib.reader.path import PointerPath
from mcilib.sampler import ThinnedBatch
from mcilib.testing.fakes import example_grant

ANCHOR = ClockAnchor(10**15, 1_750_000_000 * 10**9)
GRANT = example_grant()
TOLERANCES = st.sampled_from([0.0, 0.3, 1.0, 1.0, 2.0, 2.5, 8.0, 1024.0])
TICKS = st.sampled_from([MS, MS, 2 * MS, 7 * MS, 16 * MS, 150 * MS, 1000 * MS])
QUANTA = st.sampled_from([1, 1, 3, 256])


def play(batch: OpenBatch, events: Sequence[Event], splits: Sequence[int] = ()) -> OpenBatch:
    """As the recorder does, in pieces of these lengths."""
    waiting, pieces = deque(events), [*splits, len(events)]
    while waiting:
        most = max(1, min(pieces.pop(0) if len(pieces) > 1 else pieces[0], len(waiting)))
        taken = batch.take_moves(waiting, most, -(2**63), 2**63) if isinstance(batch, ThinnedBatch) else 0
        if not taken:
            assert batch.add(waiting.popleft())
    return batch


def thinned(
    events: Sequence[Event],
    tolerance_px: float,
    motion: Motion = Motion.THINNED,
    *,
    tick_ns: int = MS,
    quanta_per_px: int = 1,
    splits: Sequence[int] = (),
) -> ThinnedBatch:
    batch = ThinnedBatch(
        ANCHOR, motion=motion, tolerance_px=tolerance_px, tick_ns=tick_ns, quanta_per_px=quanta_per_px
    )
    play(batch, events, splits)
    return batch


def kept_times(batch: OpenBatch) -> set[int]:
    """Of the rows; each tells which event it was."""
    return {*batch._t_ns, *(event.t_ns for event in batch._rare)}


def unfolded(events: Sequence[Event], tick_ns: int, quanta_per_px: int) -> list[Event]:
    """The rows without thinning."""
    batch = play(OpenBatch(ANCHOR, tick_ns=tick_ns, quanta_per_px=quanta_per_px), events)
    times = kept_times(batch)
    return [event for event in events if event.t_ns in times]


@settings(max_examples=500, deadline=None)
@given(motions(), TOLERANCES, TICKS, QUANTA, st.lists(st.integers(1, 9), max_size=9))
def test_the_kept_path_is_within_the_tolerance_at_every_moment(events, tolerance_px, tick_ns, quanta, splits):
    batch = thinned(events, tolerance_px, tick_ns=tick_ns, quanta_per_px=quanta, splits=splits)
    rows = unfolded(events, tick_ns, quanta)
    pointer = [event for event in rows if is_placed(event)]
    times = kept_times(batch)
    assert times <= {event.t_ns for event in rows}, "kept rows are samples, and rows without thinning"
    assert {event.t_ns for event in rows if type(event) is not Move} <= times, "nothing else is thinned"
    batch.align()
    zero_ns = batch.anchor.monotonic_ns - tick_ns // 2
    every = [((event.t_ns - zero_ns) // tick_ns, *place(event, quanta)) for event in pointer]
    kept = [n for n, event in enumerate(pointer) if event.t_ns in times]
    if every:
        assert max(errors(every, kept, tick_ns)) <= Fraction(tolerance_px) * quanta
    # Conservation, and what the moves that are left say.
    coalesced = sum(type(event) is Move for event in events) - sum(type(event) is Move for event in rows)
    assert batch.coalesced == coalesced
    assert batch.thinned == len(pointer) - len(kept)
    assert batch.event_count == sum(getattr(event, "count", 1) for event in events)
    written = [
        (event.t_ns, *place(event, quanta))
        for event in pointer
        if type(event) is Move and event.t_ns in times
    ]
    assert list(zip(batch._t_ns, batch._x, batch._y, strict=True)) == written


@settings(max_examples=150, deadline=None)
@given(motions(), TOLERANCES, TICKS, QUANTA)
def test_what_is_read_back_is_the_rows_that_were_kept(events, tolerance_px, tick_ns, quanta):
    batch = thinned(events, tolerance_px, tick_ns=tick_ns, quanta_per_px=quanta)
    sealed = batch.seal(sequence=1, grant=GRANT, boot="0123456789abcdef", clocks={"pointer": "trace"})
    read = decode(sealed.data)
    assert read.seen == batch.event_count
    assert read.metadata.coverage.thinned == batch.thinned
    times = kept_times(batch)
    told = [event for event in events if event.t_ns in times]
    assert [type(event) for event in read.events] == [type(event) for event in told]
    assert [place(event, quanta) for event in read.events if is_placed(event)] == [
        place(event, quanta) for event in told if is_placed(event)
    ]
    assert [getattr(event, "synthetic", None) for event in read.events] == [
        getattr(event, "synthetic", None) for event in told
    ]


@settings(max_examples=150, deadline=None)
@given(motions(), st.lists(st.integers(-300, 300), min_size=60, max_size=60), TOLERANCES, st.integers(1, 7))
def test_times_that_go_back_are_kept_and_break_nothing(events, shifts, tolerance_px, often):
    """Between two of them the bound holds as ever."""
    back_ns, shaken = 0, []
    for n, (event, shift) in enumerate(zip(events, shifts, strict=False)):
        if n % (often * 5) == often:
            back_ns += shift * MS
        shaken.append(type(event)(*[event.t_ns + back_ns, *_fields(event)[1:]]))
    batch = thinned(shaken, tolerance_px)
    assert batch.event_count == sum(getattr(event, "count", 1) for event in shaken)
    rows, times = unfolded(shaken, MS, 1), kept_times(batch)
    pointer = [event for event in rows if is_placed(event)]
    zero_ns = batch.anchor.monotonic_ns - MS // 2
    every = [((event.t_ns - zero_ns) // MS, *place(event, 1)) for event in pointer]
    stretch = 0
    for n in range(1, len(every) + 1):
        if n == len(every) or every[n][0] < every[n - 1][0]:
            if n < len(every):
                assert pointer[n].t_ns in times, "it is kept"
            kept = [k - stretch for k in range(stretch, n) if pointer[k].t_ns in times]
            assert max(errors(every[stretch:n], kept, MS)) <= Fraction(tolerance_px)
            stretch = n
    sealed = batch.seal(sequence=1, grant=GRANT, boot="0123456789abcdef", clocks={"pointer": "trace"})
    assert decode(sealed.data).seen == batch.event_count


def _fields(event: Event) -> list[object]:
    return [getattr(event, name) for name in event.__slots__]


@settings(max_examples=150, deadline=None)
@given(motions(), TICKS)
def test_endpoints_are_where_the_pointer_rested_and_what_is_around_other_rows(events, tick_ns):
    batch = thinned(events, 0.0, Motion.ENDPOINTS, tick_ns=tick_ns)
    rows, times = unfolded(events, tick_ns, 1), kept_times(batch)
    zero_ns = batch.anchor.monotonic_ns - tick_ns // 2
    expected, pointer_before = set(), False
    for n, event in enumerate(rows):
        tick = (event.t_ns - zero_ns) // tick_ns
        after = rows[n + 1] if n + 1 < len(rows) else None
        if (
            type(event) is not Move
            or not pointer_before
            or after is None
            or type(after) is not Move
            or after.synthetic is not event.synthetic
            or _begins_run(rows, n)
            or ((after.t_ns - zero_ns) // tick_ns - tick) * tick_ns > REST_NS
        ):
            expected.add(event.t_ns)
        pointer_before = pointer_before or isinstance(event, Move | Press | Release | Scroll)
    assert times == expected
    assert batch.event_count == sum(getattr(event, "count", 1) for event in events)


def _begins_run(rows: Sequence[Event], n: int) -> bool:
    """The row says something else about being synthetic than the input row before."""
    before = [event.synthetic for event in rows[:n] if hasattr(event, "synthetic")]
    return rows[n].synthetic is not (before[-1] if before else None)


@settings(max_examples=100, deadline=None)
@given(motions(), TICKS)
def test_without_motion_there_are_no_moves_and_all_are_counted(events, tick_ns):
    batch = thinned(events, 0.0, Motion.NONE, tick_ns=tick_ns)
    rows = unfolded(events, tick_ns, 1)
    assert batch._t_ns == []
    assert batch.thinned == sum(type(event) is Move for event in rows)
    assert batch.event_count == sum(getattr(event, "count", 1) for event in events)
    sealed = batch.seal(sequence=1, grant=GRANT, boot="0123456789abcdef", clocks={"pointer": "trace"})
    read = decode(sealed.data)
    said = [(type(event), getattr(event, "synthetic", None)) for event in rows if type(event) is not Move]
    assert [(type(event), getattr(event, "synthetic", None)) for event in read.events] == said


@settings(max_examples=100, deadline=None)
@given(motions(30), TOLERANCES, st.lists(st.integers(0, 200), min_size=5, max_size=20))
def test_the_reader_rebuilds_that_path(events, tolerance_px, moments_ms):
    """Both as batches of ticks of 1 ms: what it gives for any time is as near as promised."""
    batch = thinned(events, tolerance_px)
    pointer = [event for event in unfolded(events, MS, 1) if is_placed(event)]
    if not pointer:
        return
    zero_ns = batch.anchor.monotonic_ns - MS // 2

    def in_ticks(rows: Sequence[Event]) -> list[Move]:
        return [Move((row.t_ns - zero_ns) // MS * MS, *place(row, 1)) for row in rows]

    times = kept_times(batch)
    true = PointerPath(in_ticks(pointer))
    kept = PointerPath(in_ticks([event for event in pointer if event.t_ns in times]))
    begin_ns = in_ticks(pointer)[0].t_ns
    assert kept.at(begin_ns - 1) is None
    for ms in moments_ms:
        for arriving in (False, True):
            one, other = (path.at(begin_ns + ms * MS, arriving=arriving) for path in (true, kept))
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance_px + 1e-6


def test_a_path_is_straight_up_to_100_ms_and_rests_beyond():
    path = PointerPath(
        [Move(0, 0, 0), Move(100 * MS, 10, -20), Move(201 * MS, 30, 30), Move(201 * MS, 40, 40)]
    )
    assert path.at(-1) is None
    assert path.at(0, arriving=True) is None
    assert path.at(0) == (0, 0)
    assert path.at(50 * MS) == (5, -10)
    assert path.at(200 * MS) == path.at(201 * MS, arriving=True) == (10, -20)
    assert path.at(201 * MS) == path.at(10**12) == (40, 40)


def test_a_straight_movement_is_two_rows_and_one_each_100_ms():
    batch = thinned([Move(10**15 + n * MS, 3 * n, 2 * n) for n in range(251)], 1.0)
    assert [(t - 10**15) // MS for t in batch._t_ns] == [0, 100, 200, 250]
    assert batch.thinned == 247


def test_a_pointer_that_goes_on_after_a_rest_needs_no_row_for_the_rest():
    """What rested within the tolerance of the last row is not told; nor is it after a jump within a tick."""
    near = [Move(10**15 + n * 60 * MS, n % 2, 0) for n in range(9)]
    for wait in (200 * MS, 1):
        batch = thinned(
            [*near, Move(near[-1].t_ns + wait, 50, 0), Move(near[-1].t_ns + wait + MS, 99, 99)], 1.0
        )
        assert batch._x == [0, 50, 99]


def test_a_tolerance_of_whole_pixels_is_used_to_the_last_one():
    """8 px off the line is within 8 px; one quantum more is not."""
    moves = [Move(10**15, 0, 0), Move(10**15 + 7 * MS, 8, 0), Move(10**15 + 14 * MS, 0, 0)]
    assert len(thinned(moves, 8.0)) == 2
    assert len(thinned(moves, 8.0 - 1 / 1024)) == 3
    assert (
        len(thinned([moves[0], Move(10**15 + 7 * MS, 8 + 1 / 256, 0), moves[2]], 8.0, quanta_per_px=256)) == 3
    )


def test_a_tolerance_of_part_of_a_pixel_is_used_and_never_exceeded():
    half = [
        Move(10**15, 0, 0),
        Move(10**15 + MS, 1, 0),
        Move(10**15 + 2 * MS, 1, 0),
        Move(10**15 + 3 * MS, 1, 1),
    ]
    half[2] = Move(10**15 + 2 * MS, 1, 1)
    assert len(thinned(half[:3], 0.5)) == 2
    three_tenths = [Move(10**15, 0, 0), Move(10**15 + 3 * MS, 0, 0), Move(10**15 + 10 * MS, 1, 0)]
    three_tenths[1] = Move(10**15 + 3 * MS, 0, 1)
    three_tenths[2] = Move(10**15 + 10 * MS, 1, 3)
    assert len(thinned(three_tenths, 0.3)) == 3, "off by 3/10, which is more than the float 0.3"
    assert len(thinned(three_tenths, 0.301)) == 2


def test_a_kept_row_where_the_last_row_was_is_written():
    """Away and back: the row before is at the same place, the sample before is not."""
    moves = [Move(10**15 + n * MS, x, 0) for n, x in enumerate([0, 1, 2, 1, 0, 0])]
    batch = thinned(moves, 8.0)
    assert (batch._x, batch.thinned, batch.coalesced) == ([0, 0], 3, 1)


def test_what_is_not_valid_is_counted_and_the_rest_goes_on():
    junk: list[Any] = [
        Move(10**15, float("nan"), 0),
        Move(cast(int, "x"), 1, 1),
        Move(10**15, cast(float, None), 2),
        Move(10**15, 2**40, 0),
        Move(2**70, 0, 0),
    ]
    moves: list[Event] = [Move(10**15 + n * MS, 3 * n, 0) for n in range(50)]
    for n, event in enumerate(junk):
        moves.insert(10 * n + 1, event)
    batch = thinned(moves, 1.0)
    assert batch.invalid == len(junk)
    assert batch.event_count == 50
    assert batch._x == [0, 147]


def test_places_no_display_has_are_kept():
    moves = [Move(10**15 + n * MS, 2**28 + n, 0) for n in range(9)]
    assert len(thinned(moves, 8.0)) == 9


@pytest.mark.parametrize("motion", [Motion.THINNED, Motion.ENDPOINTS])
@pytest.mark.parametrize("wait_ns", [0, MS, 101 * MS])
def test_a_place_that_cannot_be_written_is_not_taken_for_one_that_fits(motion, wait_ns):
    begin = [Move(10**15, 0, 0), Move(10**15 + 1, 1, 0)]
    for far in (2**40, -(2**40)):
        for x, y in ((far, 0), (0, far)):
            batch = thinned([*begin, Move(10**15 + 2 + wait_ns, x, y)], 8.0, motion)
            assert (batch.invalid, batch._x) == (1, [0, 1])


def test_scroll_steps_with_a_way_between_them_are_not_one_row():
    """As without thinning, though the way is no row."""
    scrolls = [Scroll(10**15 + n, 0, 0, 0, 1) for n in (0, 9 * MS)]
    away = [Move(10**15 + n * MS, x, 0) for n, x in ((1, 1), (2, 2), (3, 0))]
    batch = thinned([Move(10**15 - MS, 0, 0), scrolls[0], *away, scrolls[1]], 8.0)
    assert batch._rare == scrolls
    none = thinned([scrolls[0], *away, scrolls[1]], 8.0, Motion.NONE)
    assert none._rare == scrolls


def test_a_full_batch_takes_what_needs_no_row():
    batch = ThinnedBatch(ANCHOR, 2, motion=Motion.THINNED, tolerance_px=1.0)
    assert batch.add(Move(10**15, 0, 0))
    straight: deque[Event] = deque(Move(10**15 + n * MS, n, 0) for n in range(1, 20))
    assert batch.take_moves(straight, len(straight), -(2**63), 2**63) == 19
    corner: deque[Event] = deque([Move(10**15 + 20 * MS, 0, 500)])
    assert batch.take_moves(corner, 1, -(2**63), 2**63) == 0
    assert len(corner) == 1
    assert not batch.add(corner[0])
    assert batch._x == [0, 19]


def test_ticks_finer_than_a_plans_are_refused():
    with pytest.raises(ValueError, match="tick_ns"):
        ThinnedBatch(ANCHOR, tick_ns=1_000, motion=Motion.THINNED, tolerance_px=1.0)
