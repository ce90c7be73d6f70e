"""What is written is read back, exact to the tick and the quantum, and written again is the same."""

from __future__ import annotations

import random
import string
from dataclasses import fields, replace
from fractions import Fraction

import pytest
from batches import (
    BATCHES,
    EVENTS,
    MS,
    WALL_NS,
    batch,
    batches_of,
    columns_of,
    events_at,
    header,
    metadata,
    one_of_each,
    parts,
    sample,
    with_columns,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib.clock import ClockAnchor
from mcilib.errors import BatchFormatError
from mcilib.events import (
    EVENT_TYPES,
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
)
from mcilib.format.batch import (
    Batch,
    Coverage,
    decode,
    decode_rows,
    encode,
    open_payload,
    read_header,
    split_frames,
)


def _nearest_tick(t_ns: int, anchor_ns: int, tick_ns: int) -> int:
    """Independent of the code: the tick that is nearest, the later one of two."""
    below = anchor_ns + (t_ns - anchor_ns) // tick_ns * tick_ns
    return below if t_ns - below < below + tick_ns - t_ns else below + tick_ns


def _nearest_quantum(place: float, quanta_per_px: int) -> float:
    """Independent of the code: exact, halves to even."""
    exact = round(Fraction(place) * quanta_per_px)
    return exact if quanta_per_px == 1 else exact / quanta_per_px


def _as_read(of: Batch) -> list[Event]:
    """What reading must give: every event once, at its tick and its quantum, in order of ticks, else as it came."""
    about = of.metadata
    found = []
    for event in of.events:
        t_ns = _nearest_tick(event.t_ns, about.anchor.monotonic_ns, about.tick_ns)
        if isinstance(event, Move | Press | Release | Scroll):
            x, y = (_nearest_quantum(v, about.quanta_per_px) for v in (event.x, event.y))
            event = replace(event, x=x, y=y)
        found.append(replace(event, t_ns=t_ns))
    return sorted(found, key=lambda event: event.t_ns)


_FRACTIONS = events_at(st.integers(-(10**9), 10**9).map(lambda t: 5_000 * MS + t), st.floats(-(2**21), 2**21))


@settings(max_examples=300, deadline=None)
@given(BATCHES | batches_of(_FRACTIONS))
def test_any_batch_is_read_back_exactly(written):
    read = decode(encode(written))
    assert list(read.events) == _as_read(written)
    assert read.header == written.header
    assert read.metadata == written.metadata


@settings(max_examples=300, deadline=None)
@given(BATCHES)
def test_what_was_read_is_written_the_same_again(written):
    frame = encode(written)
    again = encode(decode(frame))
    assert open_payload(again) == open_payload(frame)
    assert again == frame


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=30), st.randoms())
def test_rows_in_another_order_are_written_in_order_of_time(events, random):
    """Whatever the order, times rise; only rows of one tick keep the order in which they came."""
    shuffled = events.copy()
    random.shuffle(shuffled)
    by_time, anyhow = (decode(encode(batch(*rows))).events for rows in (events, shuffled))
    assert sorted(map(repr, anyhow)) == sorted(map(repr, by_time))
    times = [event.t_ns for event in anyhow]
    assert times == sorted(times)


def test_rows_that_somebody_wrote_out_of_order_are_put_in_order():
    frame = encode(batch(Move(5_000 * MS, 1, 1), KeyPress(5_001 * MS, "tab"), Move(5_002 * MS, 2, 2)))
    late = with_columns(frame, j=[9])  # the key 9 ms after the first move, the second one a tick after that
    early = with_columns(frame, j=[-9])
    assert [(row.kind, row.t_ns // MS) for row in decode(late).events] == [
        ("move", 5_000), ("key_press", 5_009), ("move", 5_010),
    ]  # fmt: skip
    assert [(row.kind, row.t_ns // MS) for row in decode(early).events] == [
        ("key_press", 4_991), ("move", 4_992), ("move", 5_000),
    ]  # fmt: skip
    normal = encode(decode(early))
    assert open_payload(normal) != open_payload(early)
    assert decode(normal) == decode(early)
    assert open_payload(encode(decode(normal))) == open_payload(normal)


def test_columns_that_nobody_needs_are_left_out_when_written_again():
    """The same rows said at greater length: accepted, and written as we write them."""
    frame = encode(
        batch(Move(5_000 * MS, 1, 1), Press(5_001 * MS, 1, 1, "left"), Scroll(5_002 * MS, 1, 1, 0, 1))
    )
    wordy = with_columns(
        frame, a=[0, 1], p=[1, 0], q=[1, 0], B=["left"], b=[0], d=[0], c=[1], w=0, z=[0, None], zz=["newer"]
    )
    assert decode(wordy) == decode(frame)
    assert encode(decode(wordy)) == frame


def test_every_kind_and_field_is_covered():
    read = decode(sample())
    assert {event.kind for event in read.events} == set(EVENT_TYPES)
    assert read.events == one_of_each()
    steps = [event for event in read.events if isinstance(event, Scroll)]
    assert [type(getattr(steps[0], f.name)).__name__ for f in fields(Scroll)] == [
        "int", "int", "int", "int", "int", "int", "NoneType",
    ]  # fmt: skip
    assert (type(steps[1].dx), steps[1].synthetic) == (float, True)


def test_everything_about_a_batch_is_read_back():
    about = metadata(
        tick_ns=2 * MS, quanta_per_px=256, software="other/7", platform="plan9", clocks={"pointer": "x11", "mine": "?"},
        backends={"mine": "of mine"},
        coverage=Coverage(1, 2, 3, 4, {"spool": 5, "of mine": 6}),
        levers={"capture": True, "motion": "thinned", "px": 2.5, "age_s": 300, "none": None},
        reasons=("battery at 12 %", "metered"),
        audit="0a" * 32,
    )  # fmt: skip
    head = header(sequence=10**16 - 1)
    assert decode(encode(Batch(head, about, ()))) == Batch(head, about, ())
    for field in fields(about):  # each of them differs from what is there when nothing is said
        assert getattr(about, field.name) != getattr(metadata(), field.name) or field.name in (
            "anchor",
            "boot",
        )


@pytest.mark.parametrize(
    ("written", "read"), [(12.4, 12), (12.6, 13), (-0.4, 0), (-7.5, -8), (1175.421875, 1175)]
)
def test_positions_are_whole_pixels_and_integers(written, read):
    move, press = decode(
        encode(batch(Move(5_000 * MS, written, 3), Press(5_000 * MS, written, 3, "left")))
    ).events
    assert (move.x, type(move.x)) == (press.x, type(press.x)) == (read, int)


@pytest.mark.parametrize(
    ("written", "read"), [(12.4, 12.3984375), (-0.001, 0.0), (1175.421875, 1175.421875), (3, 3.0)]
)
def test_positions_keep_fractions_where_the_quantum_is_finer(written, read):
    events = (Move(5_000 * MS, written, 3), Scroll(5_000 * MS, written, 3, 0, 1))
    for event in decode(encode(batch(*events, quanta_per_px=256))).events:
        assert (event.x, type(event.x)) == (read, float)


@pytest.mark.parametrize(
    ("offset_ns", "ticks"), [(0, 0), (499_999, 0), (500_000, 1), (-500_000, 0), (-500_001, -1)]
)
def test_times_go_to_the_nearest_tick(offset_ns, ticks):
    for event in (KeyPress(5_000 * MS + offset_ns, None), Move(5_000 * MS + offset_ns, 1, 1)):
        (read,) = decode(encode(batch(event))).events
        assert read.t_ns == 5_000 * MS + ticks * MS


def test_whole_scrolls_are_integers_and_fractions_stay_exact():
    steps = (1.0, 0.1, -2.5, 3)
    read = decode(encode(batch(*(Scroll(5_000 * MS, 1, 1, 0, step) for step in steps)))).events
    assert [(e.dy, type(e.dy)) for e in read if isinstance(e, Scroll)] == [
        (1, int), (0.1, float), (-2.5, float), (3, int),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=300),
    st.sampled_from([15_625_000, 15_600_100]),
    st.sampled_from([MS, 250_000]),
)  # fmt: skip
def test_times_of_a_coarse_clock_are_exact_too(steps, step_ns, tick_ns):
    """They are written as steps of that clock, which must not cost a tick."""
    t_ns, x, y, events = 5_000 * MS, 0, 0, []
    for waits, dx, dy in steps:
        t_ns, x, y = t_ns + waits * step_ns, x + dx, y + dy
        events.append(Move(t_ns + (dx % 7 == 3) * 4 * MS, x, y))  # some are off
    written = batch(*events, tick_ns=tick_ns)
    assert list(decode(encode(written)).events) == _as_read(written)


def test_the_coarse_clock_is_found():
    columns = columns_of(encode(batch(*(Move(5_000 * MS + n * n * 15_625_000, n, n) for n in range(40)))))
    assert columns["C"][0] == 15_625_000


def test_only_columns_with_something_in_them_are_written():
    about = {"M", "S", "D"}
    assert set(columns_of(encode(batch(Move(5_000 * MS, 1, 1))))) == {"x", "y", "t", *about}
    assert set(columns_of(encode(batch(KeyPress(5_000 * MS, None))))) == {"k", "i", "j", "E", *about}
    assert set(columns_of(encode(batch(clocks={}, coverage=Coverage())))) == {"M"}
    # Where the last move was, a button press needs no place of its own.
    clicked = batch(Move(5_000 * MS, 5, 5), Press(5_001 * MS, 5, 5, "left"))
    assert set(columns_of(encode(clicked))) == {"x", "y", "t", "k", "i", "j", "B", *about}


def test_the_header_is_read_without_the_payload():
    frame = sample()
    assert read_header(frame) == decode(frame).header == header()
    head, payload = parts(frame)
    assert b"\xaa" * 16 in head  # in clear
    assert len(head) + len(payload) + 18 == len(frame)


def test_columns_without_records_say_the_same():
    frame = sample()
    about, rows = decode_rows(frame)
    assert about == decode(frame).metadata
    assert rows.events(about) == decode(frame).events
    assert (rows.ticks, rows.x, rows.y) == ([28, 35, 70], [640, 641, -4], [400, 900, 401])
    assert len(rows) == len(one_of_each())


def test_an_empty_batch_carries_its_coverage():
    read = decode(encode(batch()))
    assert read.events == ()
    assert read.metadata.coverage == Coverage(excluded=4, dropped={"buffer_full": 3})
    assert (read.kept, read.seen) == (0, 7)


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
    with pytest.raises(BatchFormatError, match="format version 9; this mcilib reads up to 1: upgrade"):
        read_header(frames[0])


# --- sealed -------------------------------------------------------------------------------------------------


def test_a_sealed_batch_is_read_back_by_each_of_its_recipients():
    from mcilib.format.seal import generate, key_id

    keys = [generate() for _ in range(2)]
    written = batch(*one_of_each())
    frame = encode(written, recipients=[recipient for _, recipient in keys])
    for identity, _ in keys:
        read = decode(frame, [identity])
        assert (read.metadata, read.events) == (written.metadata, written.events)
        assert read.header == header(key_ids=tuple(key_id(recipient) for _, recipient in keys))
    again = encode(decode(frame, [keys[0][0]]), recipients=[recipient for _, recipient in keys])
    assert open_payload(again, [keys[1][0]]) == open_payload(frame, [keys[0][0]])
    assert encode(decode(frame, [keys[0][0]])) == encode(written)  # and in clear


# --- what is not written ------------------------------------------------------------------------------------

NOT_WRITABLE = {
    "NaN": Move(0, float("nan"), 0),
    "infinite": Move(0, 0, float("inf")),
    "far away": Press(0, 2**31, 0, "left"),
    "long name": Press(0, 0, 0, "b" * 129),
    "surrogate": KeyPress(0, "\ud800"),
    "no steps": Scroll(0, 0, 0, 0, 1, 0),
    "NaN steps": Scroll(0, 0, 0, float("nan"), 1),
    "negative gap": Gap(0, -1, "pointer"),
    "many displays": Display(0, 256, 0, 0, 1, 1),
    "tiny display": Display(0, 0, 0, 0, 1, 1, 0),
    "leaning display": Display(0, 0, 0, 0, 1, 1, 1, 30),
    "long layout": Layout(0, "l" * 129),
    "long title": Focus(0, "app", "t" * 513),
    "half a place": Focus(0, "app", None, 1, None, 3, 4),
    "long ago": Move(-(2**63), 0, 0),
    "far ahead": Move(2**62, 0, 0),  # its wall time is beyond 64 bit
}


@pytest.mark.parametrize("event", NOT_WRITABLE.values(), ids=NOT_WRITABLE.keys())
def test_what_could_not_be_read_back_is_not_written(event):
    late = batch(Move(0, 1, 1), event, anchor=ClockAnchor(0, 2**62 + WALL_NS))
    with pytest.raises(ValueError, match="row 1 cannot be written"):
        encode(late)


def test_the_range_of_positions_shrinks_with_the_quantum():
    far = (2**31 - 1) // 256
    assert decode(encode(batch(Move(0, far, -far), quanta_per_px=256))).events == (Move(0, far, -far),)
    with pytest.raises(ValueError, match="row 0 cannot be written"):
        encode(batch(Move(0, far + 1, 0), quanta_per_px=256))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_id": "0b"},
        {"device": "D" * 32},
        {"participant": "me"},
        {"grant": ""},
        {"sequence": -1},
        {"sequence": 10**16},
        {"boot": "0" * 32},
        {"tick_ns": 0},
        {"quanta_per_px": 0},
        {"quanta_per_px": 257},
        {"quanta_per_px": 1.5},
        {"software": "x" * 257},
        {"platform": "x" * 129},
        {"clocks": {"pointer": None}},
        {"backends": {"keyboard": "xrecord"}},
        {"backends": {"pointer": None}},
        {"audit": "0A" * 32},
        {"audit": "0a" * 31},
        {"audit": "0a" * 32 + "\n"},
        {"backends": {"pointer": "x" * 129}},
        {"clocks": {f"source{n}": "x11" for n in range(33)}},
        {"coverage": Coverage(dropped={"spool": -1})},
        {"coverage": Coverage(excluded=0.5)},  # type: ignore[arg-type]
        {"coverage": Coverage(thinned=2**63)},
        {"levers": {"x": float("nan")}},
        {"levers": {"x": [1]}},
        {"reasons": ("x" * 257,)},
        {"anchor": ClockAnchor(2**63, 0)},
    ],
    ids=repr,
)
def test_what_a_batch_says_about_itself_can_be_read_back_or_is_not_written(wrong):
    with pytest.raises(ValueError):
        encode(batch(**wrong))


def test_more_rows_than_a_reader_takes_are_not_written():
    with pytest.raises(ValueError, match="65536 rows"):
        encode(batch(*[Move(5_000 * MS, 1, 1)] * 65_537))


# --- what is too much to be written --------------------------------------------------------------------------


def _titles(rows: int, alphabet: str) -> Batch:
    """That many windows with the longest titles, which zstd can pack no better than the alphabet allows."""
    rng = random.Random(1)
    return batch(*(Focus(5_000 * MS, None, "".join(rng.choices(alphabet, k=512))) for _ in range(rows)))


@pytest.mark.parametrize(
    ("too_much", "reason"),
    [
        (lambda: _titles(17_000, "a"), "payload would be too large"),
        (lambda: _titles(14_000, string.printable), "frame would be too large"),
        (lambda: batch(boot="no hex digits at"), "boot"),
        (lambda: batch(batch_id="0B" * 16), "hex digits"),
    ],
    ids=["payload", "frame", "boot", "batch id"],
)
def test_what_no_reader_would_take_is_not_written(too_much, reason):
    with pytest.raises(ValueError, match=reason):
        encode(too_much(), level=1)
