"""The open batch: what it folds, counts and refuses, and what it seals."""

from __future__ import annotations

from fractions import Fraction

import pytest
from batches import EVENTS, MS, WALL_NS
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.clock import ClockAnchor
from mcilib.consent import Grant
from mcilib.events import Event, Gap, KeyPress, Move, Press, Scroll, event_count
from mcilib.format.batch import OpenBatch, decode, read_header

ANCHOR = ClockAnchor(5_000 * MS, WALL_NS)
GRANT = Grant.give(operator="Example Lab", purpose="tests", scopes=["keys", "pointer"])


def _filled(*events: Event, **options: int) -> OpenBatch:
    batch = OpenBatch(ANCHOR, **options)
    for event in events:
        batch.add(event)
    return batch


def _sealed(batch: OpenBatch, **options):
    given_ = {
        "sequence": 1,
        "grant": GRANT,
        "boot": "b0" * 8,
        "sources": {"pointer": "trace"},
        "coverage": {},
    }
    return batch.seal(**{**given_, **options})


def _rows(batch: OpenBatch) -> tuple[Event, ...]:
    return decode(_sealed(batch).data).events


def _scroll(at_ms: int, dy: float = 1, *, x: float = 10, dx: float = 0, count: int = 1) -> Scroll:
    return Scroll(at_ms * MS, x, 20, dx, dy, count)


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
    "something between": (_scroll(5_000), KeyPress(5_005 * MS, "ctrl+s"), _scroll(5_010)),
    "not a scroll before": (Move(5_000 * MS, 10, 20), _scroll(5_001)),
    "count too large": (_scroll(5_000, count=2**31 - 1), _scroll(5_001)),
    "sum too large": (_scroll(5_000, 2**53), _scroll(5_001)),
}


@pytest.mark.parametrize("events", SEPARATE.values(), ids=SEPARATE.keys())
def test_other_scrolls_stay_apart(events):
    batch = _filled(*events)
    assert len(batch) == len(events)
    assert batch.event_count == sum(map(event_count, events))
    assert batch.invalid == 0
    assert _sealed(batch)


def test_a_row_holds_no_more_than_the_window():
    assert _rows(_filled(*(_scroll(5_000 + ms) for ms in (0, 30, 51, 60)))) == (
        _scroll(5_000, 2, count=2),
        _scroll(5_051, 2, count=2),
    )


def test_the_merge_window_is_the_limit(monkeypatch):
    monkeypatch.setattr(limits, "SCROLL_MERGE_NS", 5 * MS)
    assert len(_filled(_scroll(5_000), _scroll(5_006))) == 2
    assert len(_filled(_scroll(5_000), _scroll(5_005))) == 1


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
                dx, dy = by_place.get(row.x, (0, 0))
                by_place[row.x] = dx + row.dx, dy + row.dy
        return by_place, sum(map(event_count, rows))

    rows = _rows(_filled(*events))
    assert totals(rows) == totals(events)
    assert {r.t_ns for r in rows if isinstance(r, Scroll)} <= {e.t_ns for e in events}


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS | _STEP, max_size=20))
def test_counts_agree_with_the_header_and_the_rows(events):
    batch = _filled(*events)
    by_kind: dict[str, int] = {}
    for event in events:
        by_kind[event.kind] = by_kind.get(event.kind, 0) + event_count(event)
    assert batch.captured == by_kind
    sealed = decode(_sealed(batch).data)
    assert (
        sealed.header.events
        == batch.event_count
        == sum(by_kind.values())
        == sum(map(event_count, sealed.events))
    )
    assert sealed.header.rows == len(batch) == len(sealed.events)
    times = [row.t_ns for row in sealed.events]
    assert times == sorted(times)


def test_rows_are_sealed_in_order_of_time_and_stable():
    late = Press(5_003 * MS, 1, 1, "left")
    batch = _filled(
        Move(5_002 * MS + 300_000, 1, 1),
        KeyPress(5_002 * MS + 200_000, "tab"),
        late,
        Gap(4_000 * MS, 5, "keyboard"),
        KeyPress(5_003 * MS, None),
    )
    rows = _rows(batch)
    assert [row.kind for row in rows] == ["gap", "key_press", "move", "press", "key_press"]
    assert [row.t_ns // MS for row in rows] == [4_000, 5_002, 5_002, 5_003, 5_003]


def test_full_counts_rows_not_steps():
    batch = _filled(_scroll(5_000), _scroll(5_001), _scroll(5_002), max_events=2)
    assert not batch.full
    batch.add(Move(5_003 * MS, 1, 1))
    assert batch.full


def test_default_limits_are_used():
    assert _sealed(_filled(*[Move(5_000 * MS, 1, 1)] * limits.BATCH_MAX_EVENTS))
    assert _filled(*[Move(5_000 * MS, 1, 1)] * limits.BATCH_MAX_EVENTS).full
    assert not _filled(*[Move(5_000 * MS, 1, 1)] * (limits.BATCH_MAX_EVENTS - 1)).full
    assert read_header(_sealed(_filled()).data).tick_ns == limits.TICK_NS


@pytest.mark.parametrize("max_events", [0, -1, 65_537])
def test_a_size_that_cannot_be_is_refused_at_once(max_events):
    with pytest.raises(ValueError, match="max_events"):
        OpenBatch(ANCHOR, max_events)


def test_a_tick_that_cannot_be_is_refused_at_once():
    with pytest.raises(ValueError, match="tick"):
        OpenBatch(ANCHOR, tick_ns=0)


INVALID = (
    Move(5_000 * MS, float("nan"), 1),
    Move(5_000 * MS, 1, float("-inf")),
    Move(2**63, 1, 1),
    Move("now", 1, 1),  # type: ignore[arg-type]
    Move(5_000 * MS, None, 1),  # type: ignore[arg-type]
    Press(5_000 * MS, 1, 1, "b" * 200),
    Press(5_000 * MS, 1, 1, None),  # type: ignore[arg-type]
    Scroll(5_000 * MS, 1, 1, 0, 1, -4),
    KeyPress(5_000 * MS, "\udcff"),
    Gap(5_000 * MS, -5, "pointer"),
    KeyPress(2**63, "tab"),
    KeyPress(-(2**63), "tab"),
    "no event at all",
)


@pytest.mark.parametrize("event", INVALID, ids=repr)
def test_what_cannot_be_written_is_counted_and_harms_nothing(event):
    batch = _filled(Move(5_000 * MS, 1, 1), event, Move(5_001 * MS, 2, 2))
    assert (len(batch), batch.invalid, batch.captured) == (2, 1, {"move": 2})
    sealed = decode(_sealed(batch, coverage={"dropped": {"spool": 2}, "excluded": 7}).data)
    assert sealed.header.coverage == {"dropped": {"spool": 2, "invalid": 1}, "excluded": 7}
    assert len(sealed.events) == 2


def test_integers_of_other_libraries_are_written_as_plain_ones():
    n = Fraction  # stands for numpy's integers: a number that msgpack does not take
    batch = _filled(Move(n(5_000 * MS), n(3), n(4)), Scroll(n(5_001 * MS), n(3), n(4), n(0), n(2), n(2)))  # type: ignore[arg-type]
    batch.add(Gap(n(5_002 * MS), n(7), "pointer"))  # type: ignore[arg-type]
    assert batch.invalid == 0
    assert _rows(batch) == (
        Move(5_000 * MS, 3, 4),
        Scroll(5_001 * MS, 3, 4, 0, 2, 2),
        Gap(5_002 * MS, 7, "pointer"),
    )
    assert _sealed(batch, coverage={"excluded": 2})
    assert [type(count) for count in batch.captured.values()] == [int, int, int]


def test_seal_says_whose_it_is_and_under_which_grant():
    sealed = _sealed(_filled(Move(5_010 * MS, 1, 1)), sequence=77, batch_id="0123456789abcdef" * 2)
    header = read_header(sealed.data)
    assert (
        (sealed.batch_id, sealed.sequence)
        == (header.batch_id, header.sequence)
        == ("0123456789abcdef" * 2, 77)
    )
    assert (header.device, header.participant, header.grant) == (
        GRANT.device,
        GRANT.participant,
        GRANT.digest,
    )
    assert (header.boot, header.anchor, header.sources) == ("b0" * 8, ANCHOR, {"pointer": "trace"})
    assert (header.first_ns, header.last_ns) == (5_010 * MS, 5_010 * MS)
    assert header.software.startswith("mcilib/")


def test_ids_are_random_and_sealing_twice_gives_the_same_rows():
    batch = _filled(Move(5_000 * MS, 1, 1))
    first, second = _sealed(batch), _sealed(batch)
    assert first.batch_id != second.batch_id
    assert decode(first.data).events == decode(second.data).events


def test_the_level_reaches_the_compressor():
    batch = _filled(*(Move(5_000 * MS + n * 8 * MS, n * n % 997, n * 7 % 613) for n in range(3000)))
    assert len(_sealed(batch, level=19).data) < len(_sealed(batch, level=1).data)


@pytest.mark.parametrize(
    "wrong", [{"boot": "x"}, {"sequence": -1}, {"batch_id": "12"}, {"coverage": {"excluded": "?"}}]
)
def test_seal_refuses_what_is_not_of_the_form(wrong):
    with pytest.raises(ValueError):
        _sealed(_filled(), **wrong)


def test_properties_are_copies():
    batch = _filled(Move(5_000 * MS, 1, 1))
    batch.captured["move"] = 99
    assert batch.captured == {"move": 1}
