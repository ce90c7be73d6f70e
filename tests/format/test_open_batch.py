"""The open batch: what it folds, counts and refuses, when it is full, and what it seals."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from batches import EVENTS, MS, WALL_NS, columns_of, events_at
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.clock import ClockAnchor
from mcilib.consent import Grant
from mcilib.events import (
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    KeyRelease,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
    event_count,
)
from mcilib.format.batch import Batch, Coverage, decode
from mcilib.format.columns import _Kept
from mcilib.format.open_batch import ROW_BYTES, OpenBatch
from mcilib.format.rare import to_quanta

ANCHOR = ClockAnchor(5_000 * MS, WALL_NS)
GRANT = Grant.give(operator="Example Lab", purpose="tests", scopes=["keys", "pointer"])


def _filled(*events: Event, **options) -> OpenBatch:
    batch = OpenBatch(ANCHOR, **options)
    for event in events:
        assert batch.add(event)
    return batch


def _sealed(batch: OpenBatch, **options):
    given_ = {"sequence": 1, "grant": GRANT, "boot": "b0" * 8, "clocks": {"pointer": "trace"}}
    return batch.seal(**{**given_, **options})


def _read(batch: OpenBatch, **options) -> Batch:
    return decode(_sealed(batch, **options).data)


def _rows(batch: OpenBatch) -> tuple[Event, ...]:
    return _read(batch).events


def _move(at_ms: float, x: float = 1, y: float = 1, said: bool | None = None) -> Move:
    return Move(int(at_ms * MS), x, y, said)


def _scroll(at_ms: int, dy: float = 1, *, x: float = 10, dx: float = 0, count: int = 1) -> Scroll:
    return Scroll(at_ms * MS, x, 20, dx, dy, count)


# --- scrolls fold -------------------------------------------------------------------------------------------


def test_scrolls_of_one_direction_become_one_row():
    batch = _filled(_scroll(5_000, 1), _scroll(5_010, 2, count=2), _scroll(5_050, 1))
    assert _rows(batch) == (_scroll(5_000, 4, count=4),)
    assert (len(batch), batch.event_count, batch.captured) == (1, 4, {"scroll": 4})


SEPARATE = {
    "too late": (_scroll(5_000), _scroll(5_051)),
    "before the row": (_scroll(5_010), _scroll(5_009)),
    "other way": (_scroll(5_000, 1), _scroll(5_010, -1)),
    "other way across": (_scroll(5_000, 1, dx=1), _scroll(5_010, 1, dx=-1)),
    "slanted": (_scroll(5_000, 1), _scroll(5_010, 1, dx=1)),
    "elsewhere": (_scroll(5_000), _scroll(5_010, x=11)),
    "key between": (_scroll(5_000), KeyPress(5_005 * MS, "ctrl+s"), _scroll(5_010)),
    "gap between": (_scroll(5_000), Gap(5_005 * MS, 1, "pointer"), _scroll(5_010)),
    "move between": (_scroll(5_000), _move(5_005, 11, 20), _scroll(5_010)),
    "not a scroll before": (_move(5_000, 10, 20), _scroll(5_001)),
    "by a program": (_scroll(5_000), Scroll(5_001 * MS, 10, 20, 0, 1, 1, True)),
    "count too large": (_scroll(5_000, count=2**31 - 1), _scroll(5_001)),
    "sum too large": (_scroll(5_000, 2**53), _scroll(5_001)),
}


@pytest.mark.parametrize("events", SEPARATE.values(), ids=SEPARATE.keys())
def test_other_scrolls_stay_apart(events):
    batch = _filled(*events)
    assert len(batch) == len(events)
    assert batch.event_count == sum(map(event_count, events))
    assert (batch.invalid, batch.coalesced) == (0, 0)
    assert _sealed(batch)


def test_a_move_to_the_same_place_does_not_end_a_scroll_row():
    batch = _filled(_scroll(5_000), _move(5_010, 10, 20), _scroll(5_020))
    assert _rows(batch) == (_scroll(5_000, 2, count=2),)
    assert batch.captured == {"scroll": 2, "move": 1}


def test_a_row_holds_no_more_than_the_window():
    assert _rows(_filled(*(_scroll(5_000 + ms) for ms in (0, 30, 51, 60)))) == (
        _scroll(5_000, 2, count=2),
        _scroll(5_051, 2, count=2),
    )


def test_the_merge_window_is_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "SCROLL_MERGE_NS", 5 * MS)
    assert len(_filled(_scroll(5_000), _scroll(5_006))) == 2
    assert len(_filled(_scroll(5_000), _scroll(5_005))) == 1
    assert _filled(_scroll(5_000)).growing_until_ns == 5_005 * MS


_STEP = st.builds(
    Scroll,
    st.integers(5_000, 5_300).map(lambda ms: ms * MS),
    st.sampled_from([1, 2]),
    st.just(3),
    st.sampled_from([0, 0, 0.25, -1]),
    st.sampled_from([1, 1, 1, -1, 0.5, 2]),
    st.integers(1, 3),
)
"""Scroll steps that often fold, whose sums are exact as floats."""


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_STEP | st.builds(Move, st.just(5_000 * MS), st.just(1), st.just(3)), max_size=30), st.booleans()
)
def test_totals_stay_exact_whatever_is_folded(events, in_order):
    if in_order:
        events.sort(key=lambda event: event.t_ns)

    def totals(rows):
        by_place: dict = {}
        for row in rows:
            if isinstance(row, Scroll):
                dx, dy, count = by_place.get(row.x, (0, 0, 0))
                by_place[row.x] = dx + row.dx, dy + row.dy, count + row.count
        return by_place

    batch = _filled(*events)
    rows = _rows(batch)
    assert totals(rows) == totals(events)
    assert {r.t_ns for r in rows if isinstance(r, Scroll)} <= {e.t_ns for e in events}
    assert sum(map(event_count, rows)) + batch.coalesced == sum(map(event_count, events))


# --- moves to the same place --------------------------------------------------------------------------------


def test_moves_to_where_the_pointer_is_are_counted_and_no_rows():
    batch = _filled(
        _move(5_000, 3, 4), _move(5_001, 3, 4), _move(5_002, 3.4, 4), _move(5_003, 4, 4), _move(5_004, 3, 4)
    )
    assert [row.x for row in _rows(batch)] == [3, 4, 3]
    assert (batch.coalesced, batch.captured) == (2, {"move": 5})
    assert _read(batch, coverage=Coverage(coalesced=10)).metadata.coverage.coalesced == 12


@pytest.mark.parametrize("make", [
    lambda x: Press(5_000 * MS, x, 1, "left"), lambda x: Release(5_000 * MS, x, 1, "left"),
    lambda x: Scroll(5_000 * MS, x, 1, 0, 1),
], ids=["press", "release", "scroll"])  # fmt: skip
def test_every_pointer_row_says_where_the_pointer_is(make):
    batch = _filled(make(7), _move(5_001, 7, 1), _move(5_002, 8, 1))
    assert (len(batch), batch.coalesced) == (2, 1)
    assert _filled(make(7)).pointer_at == (7, 1)


def test_keys_and_displays_do_not_move_the_pointer():
    batch = _filled(
        _move(5_000), KeyPress(5_001 * MS, "tab"), Display(5_002 * MS, 0, 9, 9, 9, 9), _move(5_003)
    )
    assert (batch.coalesced, batch.pointer_at) == (1, (1, 1))


def test_the_batch_before_says_where_the_pointer_is():
    assert OpenBatch(ANCHOR).pointer_at is None
    batch = _filled(_move(5_000, 0, 0))
    assert batch.coalesced == 0  # nowhere is not the corner
    following = _filled(_move(5_001, 0, 0), _move(5_002, 1, 0), pointer_at=batch.pointer_at)
    assert (len(following), following.coalesced, following.pointer_at) == (1, 1, (1, 0))


def test_the_place_is_in_quanta():
    batch = _filled(_move(5_000, 1), _move(5_001, 1 + 1 / 512), _move(5_002, 1 + 1 / 256), quanta_per_px=256)
    assert [row.x for row in _rows(batch)] == [1.0, 1.00390625]
    assert (batch.coalesced, batch.pointer_at) == (1, (257, 256))
    assert _read(batch).metadata.quanta_per_px == 256


# --- full ---------------------------------------------------------------------------------------------------


def test_full_counts_rows_not_steps():
    batch = _filled(_scroll(5_000), _scroll(5_001), _scroll(5_002), max_events=2)
    assert not batch.full
    assert batch.add(_move(5_003))
    assert batch.full


def test_a_full_batch_takes_what_needs_no_row_and_nothing_else():
    batch = _filled(_move(5_000, 10, 20), _scroll(5_000), max_events=2)
    refused: tuple[Event, ...] = (
        _move(5_001, 11, 20), KeyPress(5_001 * MS, "tab"), _scroll(5_001, -1), Gap(5_001 * MS, 1, "pointer"),
    )  # fmt: skip
    for event in refused:
        assert not batch.add(event)
    assert (len(batch), batch.captured) == (2, {"move": 1, "scroll": 1})
    for event in (_move(5_002, 10, 20), _scroll(5_002), _move(5_003, float("nan"))):
        assert batch.add(event)
    assert (len(batch), batch.captured, batch.invalid) == (2, {"move": 2, "scroll": 2}, 1)
    assert _rows(batch) == (_move(5_000, 10, 20), _scroll(5_000, 2, count=2))


def test_what_was_refused_leaves_no_trace():
    full = _filled(_move(5_000), max_events=1)
    assert not full.add(_move(5_001, 5, 5, True))
    assert not full.add(Press(5_001 * MS, 6, 6, "left", True))
    assert full.pointer_at == (1, 1)
    assert full.growing_until_ns is None
    assert _rows(full) == (_move(5_000),)


def test_room_by_bytes_counts_rows_and_names():
    assert _count(lambda n: _move(5_000 + n, n), max_bytes=10 * ROW_BYTES) == 10
    assert _count(lambda n: _move(5_000 + n, n), max_bytes=1) == 1
    long = "k" * 112  # seven rows' worth
    assert _count(lambda n: KeyPress(5_000 * MS, long), max_bytes=80 * ROW_BYTES) == 10
    assert _count(lambda n: Press(5_000 * MS, 1, 1, long), max_bytes=80 * ROW_BYTES) == 10
    assert _count(lambda n: Gap(5_000 * MS, 1, long), max_bytes=80 * ROW_BYTES) == 10
    assert _count(lambda n: Layout(5_000 * MS, long), max_bytes=80 * ROW_BYTES) == 10
    assert _count(lambda n: Focus(5_000 * MS, "a" * 12, "t" * 100), max_bytes=80 * ROW_BYTES) == 10
    assert _count(lambda n: Focus(5_000 * MS, "a", "ß" * 56), max_bytes=80 * ROW_BYTES) == 10


def _count(make, **options) -> int:
    batch = OpenBatch(ANCHOR, **options)
    n = 0
    while batch.add(make(n)):
        n += 1
    assert batch.full
    assert len(batch) == n
    return n


def test_default_limits_are_used():
    assert _count(lambda n: _move(5_000 + n, n)) == limits.BATCH_MAX_EVENTS
    assert _read(_filled()).metadata.tick_ns == limits.TICK_NS
    titles = _count(lambda n: Focus(5_000 * MS, None, "t" * 496), max_events=65_536)
    assert titles == limits.BATCH_MAX_BYTES // 512


@pytest.mark.parametrize("option", [
    {"max_events": 0}, {"max_events": -1}, {"max_events": 65_537}, {"max_bytes": 0},
    {"max_bytes": limits.PAYLOAD_MAX_BYTES + 1}, {"tick_ns": 0}, {"tick_ns": 60_000_000_001},
    {"quanta_per_px": 0}, {"quanta_per_px": 257},
], ids=repr)  # fmt: skip
def test_an_option_that_cannot_be_is_refused_at_once(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        OpenBatch(ANCHOR, **option)


# --- however it is split ------------------------------------------------------------------------------------

_TICKS = st.integers(0, 400).map(lambda ms: 5_000 * MS + ms * MS)
_OFTEN_FOLDED: st.SearchStrategy[Event] = st.one_of(
    st.builds(Move, _TICKS, st.integers(1, 3), st.just(1), st.sampled_from([None, None, True])),
    st.builds(Scroll, _TICKS, st.integers(1, 2), st.just(1), st.just(0), st.sampled_from([1, 1, -1])),
    st.builds(KeyPress, _TICKS, st.sampled_from(["tab", "ctrl+c", None])),
    st.builds(Press, _TICKS, st.integers(1, 2), st.just(1), st.just("left")),
    events_at(_TICKS),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_OFTEN_FOLDED, max_size=60).map(lambda events: sorted(events, key=lambda e: e.t_ns)),
    st.integers(1, 12),
    st.integers(1, 400),
)
def test_where_a_full_batch_ends_changes_no_row(events, max_events, max_bytes):
    def read(**options) -> tuple[list[Event], int]:
        rows: list[Event] = []
        batch = OpenBatch(ANCHOR, **options)
        coalesced = 0
        for event in events:
            if not batch.add(event):
                rows += _rows(batch)
                coalesced += batch.coalesced
                batch = OpenBatch(ANCHOR, **options, pointer_at=batch.pointer_at)
                assert batch.add(event)
        return rows + list(_rows(batch)), coalesced + batch.coalesced

    assert read(max_events=max_events, max_bytes=max_bytes) == read()


# --- counts and order ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS | _STEP, max_size=20))
def test_counts_agree_with_the_rows(events):
    batch = _filled(*events)
    by_kind: dict[str, int] = {}
    for event in events:
        by_kind[event.kind] = by_kind.get(event.kind, 0) + event_count(event)
    assert batch.captured == by_kind
    assert batch.event_count == sum(by_kind.values())
    sealed = _read(batch)
    assert sealed.seen == batch.event_count
    assert sealed.kept == batch.event_count - batch.coalesced
    assert len(sealed.events) == len(batch)
    assert all(a.t_ns <= b.t_ns for a, b in pairwise(sealed.events))


_NEAR = events_at(
    st.integers(0, 30).map(lambda n: 5_000 * MS + n * MS // 3), st.integers(-9, 9) | st.floats(-9, 9)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_NEAR, max_size=30), st.sampled_from([1, 256]))
def test_rows_are_sealed_in_order_of_time_and_stable(events, quanta):
    batch = OpenBatch(ANCHOR, quanta_per_px=quanta)
    kept = []  # as they came
    for event in events:
        rows = len(batch)
        batch.add(event)
        if len(batch) > rows:
            kept.append(event)
    assume(len(kept) == len(events))

    def tick(event):
        return (event.t_ns - ANCHOR.monotonic_ns + MS // 2) // MS

    read = _rows(batch)
    assert [(row.kind, tick(row)) for row in read] == [
        (event.kind, tick(event)) for event in sorted(kept, key=tick)
    ]
    for row, event in zip(read, sorted(kept, key=tick), strict=True):
        assert getattr(row, "synthetic", None) is getattr(event, "synthetic", None)
        for name in ("x", "y") if isinstance(event, Move | Press | Release | Scroll) else ():
            assert abs(getattr(row, name) - getattr(event, name)) <= 0.5 / quanta


def test_sources_that_interleave_are_put_in_order():
    batch = _filled(
        _move(5_002.3),
        KeyPress(int(5_002.2 * MS), "tab"),
        Press(5_003 * MS, 1, 1, "left"),
        Gap(4_000 * MS, 5, "keyboard"),
        KeyPress(5_003 * MS, None),
        _move(5_003, 2, 2),
        KeyRelease(5_002 * MS, "tab"),
    )
    rows = _rows(batch)
    assert [row.kind for row in rows] == [
        "gap", "move", "key_press", "key_release", "press", "key_press", "move",
    ]  # fmt: skip
    assert [row.t_ns // MS for row in rows] == [4_000, 5_002, 5_002, 5_002, 5_003, 5_003, 5_003]


def test_who_made_it_is_kept_in_runs():
    events = (
        _move(5_000, 1), _move(5_001, 2, said=True), KeyPress(5_002 * MS, "tab", True), Gap(5_003 * MS, 1, "x"),
        _move(5_004, 3, said=False), Press(5_005 * MS, 3, 1, "left"), Scroll(5_006 * MS, 3, 1, 0, 1, 1, False),
    )  # fmt: skip
    sealed = _sealed(_filled(*events)).data
    assert decode(sealed).events == events
    assert columns_of(sealed)["z"] == [1, True, 2, False, 1, None, 1, False]
    assert "z" not in columns_of(_sealed(_filled(*events[:1])).data)


# --- what cannot be written ---------------------------------------------------------------------------------

INVALID = (
    Move(5_000 * MS, float("nan"), 1),
    Move(5_000 * MS, 1, float("-inf")),
    Move(5_000 * MS, 2**31, 1),
    Move(2**63, 1, 1),
    Move("now", 1, 1),  # type: ignore[arg-type]
    Move(5_000 * MS, None, 1),  # type: ignore[arg-type]
    Move(5_000 * MS, 9, 9, "maybe"),  # type: ignore[arg-type]
    Press(5_000 * MS, 1, 1, "b" * 200),
    Press(5_000 * MS, 1, 1, None),  # type: ignore[arg-type]
    Press(5_000 * MS, 1, 1, "left", 1),  # type: ignore[arg-type]
    Scroll(5_000 * MS, 1, 1, 0, 1, -4),
    Scroll(5_000 * MS, 1, 1, 0, float("nan")),
    KeyPress(5_000 * MS, "\udcff"),
    Gap(5_000 * MS, -5, "pointer"),
    KeyPress(2**63, "tab"),
    KeyPress(-(2**63), "tab"),
    Display(5_000 * MS, 0, 0, 0, -1, 5),
    Display(5_000 * MS, 0, 0, 0, 1, 5, rotation=45),
    Layout(5_000 * MS, "l" * 129),
    Focus(5_000 * MS, "a", "t" * 513),
    Focus(5_000 * MS, "a", None, 1, 2),
    "no event at all",
)


@pytest.mark.parametrize("event", INVALID, ids=repr)
def test_what_cannot_be_written_is_counted_and_harms_nothing(event):
    batch = _filled(_move(5_000, 1, 1), event, _move(5_001, 2, 2))
    assert (len(batch), batch.invalid, batch.captured) == (2, 1, {"move": 2})
    sealed = _read(batch, coverage=Coverage(excluded=7, dropped={"spool": 2, "invalid": 1}))
    assert sealed.metadata.coverage == Coverage(excluded=7, dropped={"spool": 2, "invalid": 2})
    assert sealed.events == (_move(5_000, 1, 1), _move(5_001, 2, 2))


def test_numbers_of_other_libraries_are_written_as_plain_ones():
    n = Fraction  # stands for numpy's integers: a number that msgpack does not take
    batch = _filled(
        Move(n(5_000 * MS), n(3), n(4)), Scroll(n(5_001 * MS), n(3), n(4), n(0), n(2), n(2)),  # type: ignore[arg-type]
        Gap(n(5_002 * MS), n(7), "pointer"), Display(5_003 * MS, n(0), n(1), n(2), n(3), n(4), n(1), n(90)),  # type: ignore[arg-type]
        Focus(5_004 * MS, "a", None, n(1), n(2), n(3), n(4)), Move(5_005.0 * MS, 1.0, 2.0),  # type: ignore[arg-type]
        Press(5_006.0 * MS, 3.0, 2.0, "left"),  # type: ignore[arg-type]
    )  # fmt: skip
    assert batch.invalid == 0
    rows = _rows(batch)
    assert rows == (
        Move(5_000 * MS, 3, 4), Scroll(5_001 * MS, 3, 4, 0, 2, 2), Gap(5_002 * MS, 7, "pointer"),
        Display(5_003 * MS, 0, 1, 2, 3, 4, 1, 90), Focus(5_004 * MS, "a", None, 1, 2, 3, 4),
        Move(5_005 * MS, 1, 2), Press(5_006 * MS, 3, 2, "left"),
    )  # fmt: skip
    assert {type(row.t_ns) for row in rows} == {int}
    assert [type(count) for count in batch.captured.values()] == [int] * 6


# --- the clock's phase --------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_ns", [0, 250_000, 499_000, 500_000, 900_000])
def test_align_puts_times_in_the_middle_of_ticks(offset_ns):
    """Noise of 0.2 ms about a steady rate crosses no edge, wherever in a tick the rate sits."""
    times = [5_000 * MS + 8 * MS * n + offset_ns + (200_000, -200_000, 0)[n % 3] for n in range(60)]
    batch = _filled(*(Move(t, n, n) for n, t in enumerate(times)))
    wall_ns = batch.anchor.to_wall_ns(times[0])
    phase_ns = batch.align()
    assert 0 <= phase_ns < MS
    assert batch.anchor.monotonic_ns % MS == phase_ns
    assert ANCHOR.monotonic_ns - MS < batch.anchor.monotonic_ns <= ANCHOR.monotonic_ns
    assert batch.anchor.to_wall_ns(times[0]) == wall_ns
    rows = _rows(batch)
    assert {b.t_ns - a.t_ns for a, b in pairwise(rows)} == {8 * MS}


def test_align_to_a_phase_keeps_to_it():
    first = _filled(*(Move(5_000 * MS + 8 * MS * n + 123_456, n, n) for n in range(60)))
    phase_ns = first.align()
    assert phase_ns == 123_456
    later = OpenBatch(ClockAnchor(9_000 * MS + 777, WALL_NS))
    assert later.align(phase_ns) == phase_ns
    assert later.anchor == ClockAnchor(8_999 * MS + 123_456, WALL_NS - 777 - MS + 123_456)
    assert later.align(phase_ns) == phase_ns
    assert later.anchor.monotonic_ns == 8_999 * MS + 123_456


def test_align_without_moves_chooses_something():
    assert 0 <= _filled(KeyPress(5_000 * MS, "tab")).align() < MS
    assert OpenBatch(ANCHOR, tick_ns=1).align() == 0


# --- sealing ------------------------------------------------------------------------------------------------


def test_seal_says_whose_it_is_under_which_grant_and_what_is_not_in_it():
    coverage = Coverage(1, 2, 3, 4, {"buffer_full": 5})
    sealed = _sealed(
        _filled(_move(5_010)), sequence=77, batch_id="0123456789abcdef" * 2, coverage=coverage,
        levers={"motion": "thinned", "tolerance_px": 2}, reasons=("battery below 20 %",),
        backends={"pointer": "xrecord"}, audit="0a" * 32,
    )  # fmt: skip
    batch = decode(sealed.data)
    header, about = batch.header, batch.metadata
    assert (sealed.batch_id, sealed.sequence) == (header.batch_id, header.sequence)
    assert (header.batch_id, header.sequence) == ("0123456789abcdef" * 2, 77)
    assert (header.device, header.participant, header.grant) == (
        GRANT.device,
        GRANT.participant,
        GRANT.digest,
    )
    assert (about.boot, about.anchor, about.clocks) == ("b0" * 8, ANCHOR, {"pointer": "trace"})
    assert (about.backends, about.audit) == ({"pointer": "xrecord"}, "0a" * 32)
    assert (about.coverage, about.levers) == (coverage, {"motion": "thinned", "tolerance_px": 2})
    assert about.reasons == ("battery below 20 %",)
    assert about.software.startswith("mcilib/")
    assert not header.sealed


def test_ids_are_random_and_sealing_twice_gives_the_same_rows():
    batch = _filled(_move(5_000))
    first, second = _sealed(batch), _sealed(batch)
    assert first.batch_id != second.batch_id
    assert decode(first.data).events == decode(second.data).events
    assert batch.add(_scroll(5_001))
    assert len(_rows(batch)) == 2


def test_the_level_reaches_the_compressor():
    batch = _filled(*(Move(5_000 * MS + n * 8 * MS, n * n % 997, n * 7 % 613) for n in range(3000)))
    assert len(_sealed(batch, level=19).data) < len(_sealed(batch, level=1).data)


def test_recipients_reach_the_seal():
    from mcilib.format.seal import generate, key_id

    identity, recipient = generate()
    sealed = _sealed(_filled(_move(5_000)), recipients=[recipient])
    assert decode(sealed.data, [identity]).events == (_move(5_000),)
    assert decode(sealed.data, [identity]).header.key_ids == (key_id(recipient),)


@pytest.mark.parametrize(
    "wrong", [{"boot": "x"}, {"sequence": -1}, {"batch_id": "12"}, {"coverage": Coverage(excluded=-1)}]
)
def test_seal_refuses_what_is_not_of_the_form(wrong):
    with pytest.raises(ValueError):
        _sealed(_filled(), **wrong)


def test_properties_are_copies():
    batch = _filled(_move(5_000))
    batch.captured["move"] = 99
    assert batch.captured == {"move": 1}


def test_a_function_is_kept_for_small_arguments_only() -> None:
    kept = _Kept(lambda ticks: 2 * ticks)
    assert [kept[ticks] for ticks in (-(10**9), -1, 0, 1023, 1024)] == [-2 * 10**9, -2, 0, 2046, 2048]
    assert list(kept) == [0, 1023]


@pytest.mark.parametrize(
    ("place", "quanta_per_px", "quanta"), [(1.1, 15, 17), (-1.1, 15, -17), (0.5, 3, 2), (0.5, 5, 2)]
)
def test_a_place_goes_to_the_nearest_quantum(place: float, quanta_per_px: int, quanta: int) -> None:
    assert to_quanta(place, quanta_per_px) == quanta  # 1.1 is a little more than 1.1
