"""What is written is read back, exact to the tick and the pixel."""

from __future__ import annotations

from dataclasses import fields, replace

import msgpack
import pytest
from batches import EVENTS, HEADERS, MS, WALL_NS, batch, header, one_of_each, raw_of, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib.clock import ClockAnchor
from mcilib.errors import BatchFormatError
from mcilib.events import EVENT_TYPES, Gap, KeyPress, Move, Press, Scroll, event_count
from mcilib.format.batch import Batch, decode, encode, read_header, split_frames


def _nearest_tick(t_ns: int, anchor_ns: int, tick_ns: int) -> int:
    """Independent of the code: the tick that is nearest, the later one of two."""
    below = anchor_ns + (t_ns - anchor_ns) // tick_ns * tick_ns
    return below if t_ns - below < below + tick_ns - t_ns else below + tick_ns


@settings(max_examples=300, deadline=None)
@given(HEADERS, st.lists(EVENTS, max_size=40))
def test_any_batch_is_read_back_exactly(head, events):
    read = decode(encode(Batch(head, tuple(events))))
    at = head.anchor.monotonic_ns
    expected = tuple(replace(e, t_ns=_nearest_tick(e.t_ns, at, head.tick_ns)) for e in events)
    assert read.events == expected
    times = [event.t_ns for event in expected] or [at]
    assert read.header == replace(
        head,
        rows=len(events),
        events=sum(map(event_count, events)),
        first_ns=min(times),
        last_ns=max(times),
    )


@settings(max_examples=100, deadline=None)
@given(HEADERS, st.lists(EVENTS, max_size=20))
def test_what_was_read_is_written_the_same_again(head, events):
    frame = encode(Batch(head, tuple(events)))
    assert encode(decode(frame)) == frame


def test_every_kind_and_field_is_covered():
    events = decode(sample()).events
    assert {event.kind for event in events} == set(EVENT_TYPES)
    assert events == one_of_each()
    assert [type(getattr(events[4], f.name)) for f in fields(Scroll)] == [int, int, int, float, int, int]


@pytest.mark.parametrize(
    ("written", "read"), [(12.4, 12), (12.6, 13), (-0.4, 0), (-7.5, -8), (1175.421875, 1175)]
)
def test_coordinates_are_whole_pixels_and_integers(written, read):
    (event,) = decode(encode(batch(Move(5_000 * MS, written, 3)))).events
    assert isinstance(event, Move)
    assert (event.x, type(event.x)) == (read, int)


@pytest.mark.parametrize(
    ("offset_ns", "ticks"), [(0, 0), (499_999, 0), (500_000, 1), (-500_000, 0), (-500_001, -1)]
)
def test_times_go_to_the_nearest_tick(offset_ns, ticks):
    (event,) = decode(encode(batch(KeyPress(5_000 * MS + offset_ns, None)))).events
    assert event.t_ns == 5_000 * MS + ticks * MS


def test_whole_scrolls_are_integers_and_fractions_stay_exact():
    steps = (1.0, 0.1, -2.5, 3)
    read = decode(encode(batch(*(Scroll(5_000 * MS, 1, 1, 0, step) for step in steps)))).events
    assert [(e.dy, type(e.dy)) for e in read if isinstance(e, Scroll)] == [
        (1, int),
        (0.1, float),
        (-2.5, float),
        (3, int),
    ]


def test_only_columns_with_something_in_them_are_written():
    assert set(msgpack.unpackb(raw_of(encode(batch(Move(5_000 * MS, 1, 1)))))) == {"kind", "t", "x", "y"}
    assert set(msgpack.unpackb(raw_of(encode(batch(KeyPress(5_000 * MS, None)))))) == {
        "kind",
        "t",
        "key",
        "keys",
    }
    assert msgpack.unpackb(raw_of(encode(batch()))) == {}


def test_rows_are_not_reordered_by_encode():
    events = (Move(5_002 * MS, 1, 1), Gap(5_000 * MS, 1, "keyboard"), Move(5_001 * MS, 2, 2))
    read = decode(encode(batch(*events)))
    assert read.events == events
    assert (read.header.first_ns, read.header.last_ns) == (5_000 * MS, 5_002 * MS)


def test_the_header_is_read_without_the_payload():
    frame = sample()
    assert read_header(frame) == decode(frame).header
    assert read_header(frame).rows == 8
    assert read_header(frame).events == 12


def test_an_empty_batch_carries_its_coverage():
    read = decode(encode(batch()))
    assert read.events == ()
    assert read.header.coverage == {"dropped": {"buffer_full": 3}, "excluded": 4}
    assert read.header.first_ns == read.header.last_ns == 5_000 * MS


def test_higher_levels_are_smaller_and_read_the_same():
    moves = batch(*(Move(5_000 * MS + n * 8 * MS, n * n % 997, n * 7 % 613) for n in range(3000)))
    small, quick = encode(moves, 19), encode(moves, 1)
    assert len(small) < len(quick)
    assert decode(small) == decode(quick)


def test_frames_follow_each_other():
    frames = [encode(batch(Move(5_000 * MS, n, n), sequence=n)) for n in range(1, 5)]
    assert list(split_frames(b"".join(frames))) == frames
    assert list(split_frames(b"")) == []


def test_a_frame_of_a_version_to_come_is_stepped_over():
    frame = bytearray(sample())
    frame[4] = 9
    frames = list(split_frames(bytes(frame) + sample()))
    assert frames[1] == sample()
    with pytest.raises(BatchFormatError, match="format version 9; this mcilib reads 0: upgrade"):
        read_header(frames[0])


NOT_WRITABLE = {
    "NaN": Move(0, float("nan"), 0),
    "infinite": Move(0, 0, float("inf")),
    "far away": Press(0, 2**31, 0, "left"),
    "long name": Press(0, 0, 0, "b" * 129),
    "surrogate": KeyPress(0, "\ud800"),
    "no steps": Scroll(0, 0, 0, 0, 1, 0),
    "NaN steps": Scroll(0, 0, 0, float("nan"), 1),
    "negative gap": Gap(0, -1, "pointer"),
    "long ago": Move(-(2**63), 0, 0),
    "far ahead": Move(2**62, 0, 0),  # its wall time is beyond 64 bit
}


@pytest.mark.parametrize("event", NOT_WRITABLE.values(), ids=NOT_WRITABLE.keys())
def test_what_could_not_be_read_back_is_not_written(event):
    late = header(anchor=ClockAnchor(0, 2**62 + WALL_NS))
    with pytest.raises(ValueError, match="row 1 cannot be written"):
        encode(Batch(late, (Move(0, 1, 1), event)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_id": "0b"},
        {"device": "D" * 32},
        {"participant": "me"},
        {"boot": "0" * 32},
        {"grant": ""},
        {"sequence": -1},
        {"tick_ns": 0},
        {"software": "x" * 257},
        {"sources": {"pointer": 1}},
        {"coverage": {"dropped": {}}},
        {"coverage": {"dropped": {"spool": -1}, "excluded": 0}},
        {"coverage": {"dropped": {}, "excluded": 0.5}},
        {"anchor": ClockAnchor(2**63, 0)},
    ],
    ids=repr,
)
def test_a_header_that_could_not_be_read_back_is_not_written(wrong):
    with pytest.raises(ValueError):
        encode(batch(**wrong))


def test_more_rows_than_a_reader_takes_are_not_written():
    with pytest.raises(ValueError, match="65536 rows"):
        encode(batch(*[Move(5_000 * MS, 1, 1)] * 65_537))
