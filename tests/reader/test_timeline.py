"""The timeline: what is there of each device, what is not, and what happened to its clocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from batches import MS, WALL_NS, with_crc
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import frame, holding, key_pair, moves, store

from mcilib.events import Gap, KeyPress, Move, Scroll
from mcilib.format.batch import Coverage, encode
from mcilib.reader import Boot, ClockStep, Hole, Reader, Segment, Totals, coverage, timeline

D0, D1 = "d0" * 16, "d1" * 16


def _told(reader: Reader) -> list[Any]:
    """The timeline with a segment as its number."""
    return [part.sequence if isinstance(part, Segment) else part for part in timeline(reader)]


def test_batches_that_follow_each_other(tmp_path):
    store(tmp_path, frame(2, 20), frame(1, 10), frame(3, 30))
    assert _told(Reader(tmp_path)) == [Boot(D0, 1, "b0" * 8), 1, 2, 3]


def test_numbers_that_are_missing_are_holes(tmp_path):
    store(tmp_path, frame(3, 30), frame(4, 40), frame(9, 90), frame(11, 95))
    assert _told(Reader(tmp_path)) == [
        Hole(D0, 1, 2, "missing"), Boot(D0, 3, "b0" * 8), 3, 4, Hole(D0, 5, 8, "missing"), 9,
        Hole(D0, 10, 10, "missing"), 11,
    ]  # fmt: skip
    assert Hole(D0, 5, 8, "missing").batches == 4


def test_a_batch_that_is_here_and_cannot_be_read_is_a_hole_with_its_cause(tmp_path):
    wrong = encode(moves(2, 20))
    wrong = wrong[:-30] + bytes(26) + wrong[-4:]
    store(
        tmp_path,
        frame(1, 10),
        with_crc(wrong),
        frame(3, 30, recipients=[key_pair()[1]]),
        frame(4, 40),
    )
    reader = Reader(tmp_path)
    expected = [
        Boot(D0, 1, "b0" * 8), 1, Hole(D0, 2, 2, "damaged"), Hole(D0, 3, 3, "sealed"), 4,
    ]  # fmt: skip
    assert _told(reader) == expected
    assert _told(reader) == expected, "a second pass says the same"
    opened = Reader(tmp_path, identities=[key_pair()[0]])
    assert _told(opened) == [*expected[:3], 3, 4]


def test_a_torn_file_leaves_a_hole(tmp_path):
    store(tmp_path, frame(1, 10), frame(2, 20)[:-1], frame(3, 30))
    assert _told(Reader(tmp_path)) == [Boot(D0, 1, "b0" * 8), 1, Hole(D0, 2, 2, "missing"), 3]


def test_each_device_begins_anew(tmp_path):
    store(tmp_path, frame(2, 10, device="d1"), frame(1, 10), frame(7, 10))
    assert _told(Reader(tmp_path)) == [
        Boot(D0, 1, "b0" * 8), 1, Hole(D0, 2, 6, "missing"), 7,
        Hole(D1, 1, 1, "missing"), Boot(D1, 2, "b0" * 8), 2,
    ]  # fmt: skip


def test_another_boot_is_told_and_is_no_clock_step(tmp_path):
    store(tmp_path, frame(1, 10), frame(2, 20, boot="aa", start_ms=10**7), frame(3, 30, start_ms=0))
    assert _told(Reader(tmp_path)) == [
        Boot(D0, 1, "b0" * 8), 1, Boot(D0, 2, "aa" * 8), 2, Boot(D0, 3, "b0" * 8), 3,
    ]  # fmt: skip


def test_steps_of_the_wall_clock(tmp_path):
    store(
        tmp_path,
        frame(1, 10),
        frame(2, 20, start_ms=-3_600_000),
        frame(3, 30, start_ms=-3_599_000),  # one second: how clocks are kept right
        frame(5, 50, start_ms=-3_597_999),  # also across a hole
    )
    assert _told(Reader(tmp_path)) == [
        Boot(D0, 1, "b0" * 8), 1, ClockStep(D0, 2, -3_600_000 * MS), 2, 3,
        Hole(D0, 4, 4, "missing"), ClockStep(D0, 5, 1_001 * MS), 5,
    ]  # fmt: skip


def test_two_batches_of_one_number_are_both_there(tmp_path):
    again = encode(moves(1, 20, batch_id="f" * 32))
    store(tmp_path, frame(1, 10), again, frame(2, 30))
    assert _told(Reader(tmp_path)) == [Boot(D0, 1, "b0" * 8), 1, 1, 2]


def test_a_segment_says_when_and_what(tmp_path):
    gap = Gap(15 * MS, 600 * 10**9, "pointer")
    batch = holding(1, [Move(10 * MS, 1, 2), gap, KeyPress(40 * MS, "tab")], start_ms=5)
    store(tmp_path, encode(batch), encode(moves(2)))
    segment, empty = (part for part in timeline(Reader(tmp_path)) if isinstance(part, Segment))
    assert (segment.begin_ns, segment.end_ns) == (10 * MS, 40 * MS)
    assert (segment.begin_wall_ns, segment.end_wall_ns) == (WALL_NS + 15 * MS, WALL_NS + 45 * MS)
    assert segment.gaps == (gap,)
    assert [row.wall_ns for row in segment.rows()] == [WALL_NS + ms * MS for ms in (15, 20, 45)]
    assert list(segment.rows()) == list(Reader(tmp_path).rows())
    assert (empty.begin_ns, empty.end_ns, empty.gaps) == (0, 0, ())


def test_coverage_adds_up(tmp_path):
    first = Coverage(coalesced=5, thinned=7, excluded=2, not_collected_ns=60, dropped={"buffer_full": 3})
    second = Coverage(coalesced=1, dropped={"buffer_full": 1, "spool": 10}, not_collected_ns=9)
    store(
        tmp_path,
        encode(holding(1, [Scroll(0, 1, 2, 0, 4, 4), Gap(5, 100, "pointer")], coverage=first)),
        encode(holding(4, [Move(0, 1, 2), Gap(5, 20, "pointer"), Gap(6, 3, "keyboard")], coverage=second)),
        encode(holding(5, [], start_ms=10**6, coverage=Coverage())),
        frame(2, 1, device="d1"),
    )
    totals = coverage(timeline(Reader(tmp_path)))
    assert totals[D0] == Totals(
        segments=3, rows=5, seen=5 + 5 + 7 + 2 + 3 + 3 + 1 + 11, kept=8, coalesced=6, thinned=7, excluded=2,
        dropped={"buffer_full": 4, "spool": 10}, not_collected_ns=69,
        gap_ns={"pointer": 120, "keyboard": 3}, holes={"missing": 2}, boots=1, clock_steps=1,
    )  # fmt: skip
    assert (totals[D1].rows, totals[D1].holes) == (1, {"missing": 1})
    assert list(totals) == [D0, D1]


# --- prefixes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What happens before the next batch, and what is in it."""

    lost: int
    boot: str
    wall_step_ms: int
    times_ms: tuple[int, ...]
    fate: str


STEPS = st.lists(
    st.builds(
        Step,
        lost=st.sampled_from([0, 0, 0, 1, 3]),
        boot=st.sampled_from(["b0", "b0", "b0", "aa"]),
        wall_step_ms=st.sampled_from([0, 0, 1, -900, -3_600_000, 86_400_000]),
        times_ms=st.lists(st.integers(-50, 500), max_size=4).map(lambda times: tuple(sorted(times))),
        fate=st.sampled_from(["read", "read", "read", "sealed", "torn"]),
    ),
    max_size=8,
)


def _frames(steps: list[Step]) -> list[bytes]:
    frames, number, start_ms = [], 0, 0
    for step in steps:
        number += 1 + step.lost
        start_ms += step.wall_step_ms
        recipients = [key_pair()[1]] if step.fate == "sealed" else []
        data = frame(number, *step.times_ms, boot=step.boot, start_ms=start_ms, recipients=recipients)
        frames.append(data[:-1] if step.fate == "torn" else data)
    return frames


@settings(max_examples=150, deadline=None)
@given(STEPS, st.data())
def test_any_prefix_of_a_devices_batches_reads_as_a_prefix_of_its_timeline(tmp_path_factory, steps, data):
    """Also across clock steps, boots, holes, and batches that cannot be read."""
    frames = _frames(steps)
    first = data.draw(st.integers(0, len(frames)))
    folder = store(tmp_path_factory.mktemp("store"), *frames)
    part = store(tmp_path_factory.mktemp("part"), *frames[:first])
    whole_parts, parts = list(timeline(Reader(folder))), list(timeline(Reader(part)))
    assert parts == whole_parts[: len(parts)]
    rows = list(Reader(part).rows())
    assert rows == list(Reader(folder).rows())[: len(rows)]
    of_segments = [row for one in parts if isinstance(one, Segment) for row in one.rows()]
    assert rows == of_segments
    read = [step for step in steps[:first] if step.fate == "read"]
    assert [one.sequence for one in parts if isinstance(one, Segment)] == [
        sum(1 + step.lost for step in steps[: n + 1])
        for n, step in enumerate(steps[:first])
        if step.fate == "read"
    ]
    assert len(of_segments) == sum(len(step.times_ms) for step in read)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_everything_up_to_the_last_number_is_a_segment_or_in_a_hole(tmp_path_factory, steps):
    steps = [replace(step, fate="read" if step.fate == "torn" else step.fate) for step in steps]
    folder = store(tmp_path_factory.mktemp("store"), *_frames(steps))
    numbers: list[int] = []
    for part in timeline(Reader(folder)):
        if isinstance(part, Segment):
            numbers.append(part.sequence)
        elif isinstance(part, Hole):
            numbers += range(part.sequence, part.last + 1)
    assert numbers == list(range(1, sum(1 + step.lost for step in steps) + 1))
