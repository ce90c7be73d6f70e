"""The trajectory: rows become what a person did, with nothing lost, nothing twice, and what was known of the screen."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batches import MS, WALL_NS
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import holding, key_pair, store

import mcilib.reader.hand as hand
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
)
from mcilib.format.batch import Coverage, encode
from mcilib.reader import (
    Break,
    Click,
    Drag,
    KeyRun,
    Motion,
    Place,
    Reader,
    Scrolling,
    trajectory,
    write_trajectory,
)

Read = Callable[..., list[Any]]


@pytest.fixture
def read(tmp_path) -> Read:
    """The items of these batches, the first break (`start`) left out."""

    def read(*batches: Sequence[Event], **fields: Any) -> list[Any]:
        store(tmp_path, *(encode(holding(n, list(events), **fields)) for n, events in enumerate(batches, 1)))
        first, *rest = trajectory(Reader(tmp_path))
        assert isinstance(first, Break)
        assert first.cause == "start"
        return rest

    return read


def move(ms: int, x: float, y: float = 0) -> Move:
    return Move(ms * MS, x, y)


def click(ms: int, x: float = 0, y: float = 0, button: str = "left", held_ms: int = 60) -> list[Event]:
    return [Press(ms * MS, x, y, button), Release((ms + held_ms) * MS, x, y, button)]


def key(ms: int, name: str | None = "letter", held_ms: int = 80) -> list[Event]:
    return [KeyPress(ms * MS, name), KeyRelease((ms + held_ms) * MS, name)]


def steps(ms: int, dy: float, x: float = 0, dx: float = 0) -> Scroll:
    return Scroll(ms * MS, x, 0, dx, dy, 1)


def kinds(items: Sequence[Any]) -> list[str]:
    return [item.kind for item in items]


# --- motion -------------------------------------------------------------------------------------------------


def test_a_motion_goes_on_until_the_pointer_rests(read):
    first, second = read([move(0, 1, 5), move(10, 2, 6), move(510, 3, 7), move(1_011, 4)])
    assert first == Motion(
        device="d0" * 16, boot="b0" * 8, seq=1, i=0, rows=3, t_ns=WALL_NS, monotonic_ns=0,
        duration_ns=510 * MS, at_ns=(0, 10 * MS, 510 * MS), x=(1, 2, 3), y=(5, 6, 7),
    )  # fmt: skip
    assert (second.i, second.at_ns, second.x, second.duration_ns) == (3, (0,), (4,), 0)
    assert (first.whole, second.whole) == (True, False), "the end of the data cuts what may go on"


def test_a_motion_goes_on_across_batches_and_clock_steps(tmp_path):
    first = holding(1, [move(0, 1), move(10, 2)])
    second = holding(2, [move(20, 3)], start_ms=-3_600_000)
    store(tmp_path, encode(first), encode(second))
    _, motion = trajectory(Reader(tmp_path))
    assert (motion.x, motion.at_ns, motion.seq, motion.t_ns) == ((1, 2, 3), (0, 10 * MS, 20 * MS), 1, WALL_NS)


def test_too_long_a_motion_is_cut(read, monkeypatch):
    monkeypatch.setattr(hand, "ROWS_MAX", 3)
    items = read([move(n, n) for n in range(7)])
    assert [(item.x, item.whole) for item in items] == [((0, 1, 2), False), ((3, 4, 5), False), ((6,), False)]


def test_where_batches_meet_time_does_not_go_back_in_an_action(read):
    (item,) = read([move(10, 1), move(20, 2)], [move(15, 3), move(30, 4)])
    assert item.at_ns == (0, 10 * MS, 10 * MS, 20 * MS)


@pytest.mark.parametrize("what", [[move(0, 1)], [steps(0, 1)], key(0)], ids=["motion", "scrolling", "keys"])
@pytest.mark.parametrize("later", [move(9_000, 9), KeyPress(9_000 * MS, "tab"), Focus(9_000 * MS, "a")])
def test_what_has_long_ended_is_whole(read, what, later):
    """Whatever comes next, and not only when the next of its kind does."""
    assert read([*what, later])[0].whole is True


def test_what_has_ended_is_given_while_rows_come():
    """Not only at the end: memory would grow with what waits for it."""
    going = hand.Hand("d0" * 16)
    assert list(going.take(holding(1, click(0)))) == []
    assert [item.kind for item in going.take(holding(2, [move(501, 9)]))] == ["click"]


# --- clicks -------------------------------------------------------------------------------------------------


def test_a_click(read):
    (item,) = read(click(100, 7, 8))
    assert item == Click(
        device="d0" * 16, boot="b0" * 8, seq=1, i=0, rows=2, t_ns=WALL_NS + 100 * MS,
        monotonic_ns=100 * MS, duration_ns=60 * MS, button="left", count=1, place=Place(7, 8),
        at_ns=(0,), held_ns=(60 * MS,), keys_down=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        (click(0) + click(500), [2]),
        (click(0) + click(501), [1, 1]),
        (click(0) + click(200) + click(400), [3]),
        (click(0) + click(450) + click(900), [3]),
        (click(0) + click(200, 4, 4), [2]),
        (click(0) + click(200, 5), [1, 1]),
        (click(0) + click(200, 0, 5), [1, 1]),
        (click(0) + click(200, button="right"), [1, 1]),
        ([*click(0), steps(100, 1), *click(200)], [1, 1]),
        (click(0) + key(100) + click(200), [2]),
    ],
    ids=["just in time", "too late", "triple", "slow triple", "near", "far", "far below", "other button", "scrolled", "typed"],
)  # fmt: skip
def test_clicks_soon_after_each_other_at_one_place_are_one(read, events, counts):
    found = [item for item in read(events) if item.kind == "click"]
    assert [item.count for item in found] == counts
    assert all(item.whole and len(item.at_ns) == len(item.held_ns) == item.count for item in found)


def test_a_double_click_says_when_each_was(read):
    (item,) = read(click(0, held_ms=50) + click(200, 3, held_ms=70))
    assert (item.at_ns, item.held_ns, item.duration_ns) == ((0, 200 * MS), (50 * MS, 70 * MS), 270 * MS)
    assert (item.place, item.rows) == (Place(0, 0), 4)


def test_a_trembling_hand_still_clicks_twice(read):
    """Moves of a few pixels while it clicks, and between, are part of the click."""
    (item,) = read(
        [Press(0, 10, 10, "left"), move(10, 12, 10), Release(60 * MS, 12, 11, "left"), move(90, 8, 13),
         *click(150, 11, 10)]
    )  # fmt: skip
    assert (item.kind, item.count, item.rows) == ("click", 2, 6)


def test_a_pointer_that_went_away_in_between_clicks_anew(read):
    items = read([*click(0), move(100, 30), move(150, 1), *click(200)])
    assert kinds(items) == ["click", "motion", "click"]
    assert [item.rows for item in items] == [2, 2, 2]


def test_a_click_ends_the_motion_that_led_there(read):
    items = read([move(0, 5), *click(10, 5), move(100, 50)])
    assert [(item.kind, item.rows, item.whole) for item in items] == [
        ("motion", 1, True), ("click", 2, True), ("motion", 1, False),
    ]  # fmt: skip


def test_a_press_whose_release_is_not_there(read):
    items = read([Press(0, 1, 1, "left"), *click(3_000), Press(9_000 * MS, 1, 1, "left")])
    assert [(item.count, item.held_ns, item.whole) for item in items] == [
        (1, (None,), False), (1, (60 * MS,), True), (1, (None,), False),
    ]  # fmt: skip


def test_a_release_whose_press_is_not_there_is_no_action(read):
    assert read([Release(0, 1, 1, "left"), KeyRelease(1, "letter")]) == []


def test_no_double_click_while_another_button_is_down(read):
    """Where the pointer went in between is the way of that button."""
    held: list[Event] = [Press(0, 0, 0, "right"), *click(10), *click(200), Release(500 * MS, 0, 0, "right")]
    assert [item.count for item in read(held)] == [1, 1, 1]


def test_a_trembling_hand_scrolls_on(read):
    (item,) = read([steps(0, 1), move(10, 3), steps(20, 1)])
    assert (item.kind, item.rows, item.count) == ("scrolling", 3, 2)


def test_what_lies_below_is_far_too(read):
    assert [
        i.kind for i in read([Press(0, 0, 0, "left"), move(9, 0, 5), Release(60 * MS, 0, 5, "left")])
    ] == ["drag"]
    assert kinds(read([*click(0), move(100, 0, 30), *click(200)])) == ["click", "motion", "click"]


def test_two_buttons_at_once(read):
    items = read(
        [Press(0, 0, 0, "left"), Press(10 * MS, 0, 0, "right"), Release(20 * MS, 0, 0, "left"),
         Release(30 * MS, 0, 0, "right")]
    )  # fmt: skip
    assert [(item.button, item.held_ns) for item in items] == [("left", (20 * MS,)), ("right", (20 * MS,))]


# --- drags --------------------------------------------------------------------------------------------------


def test_a_drag_has_its_way(read):
    (item,) = read([Press(0, 0, 0, "left"), move(10, 3), move(20, 9, 4), Release(30 * MS, 9, 5, "left")])
    assert item == Drag(
        device="d0" * 16, boot="b0" * 8, seq=1, i=0, rows=4, t_ns=WALL_NS, monotonic_ns=0,
        duration_ns=30 * MS, button="left", begin=Place(0, 0), end=Place(9, 5),
        at_ns=(0, 10 * MS, 20 * MS, 30 * MS), x=(0, 3, 9, 9), y=(0, 0, 4, 5), keys_down=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("way", "kind"), [([], "click"), ([4], "click"), ([5], "drag"), ([5, 0], "drag"), ([-5, 0], "drag")]
)
def test_how_far_the_pointer_may_go_in_a_click(read, way, kind):
    moves = [move(10 + n, x) for n, x in enumerate(way)]
    (item,) = read([Press(0, 0, 0, "left"), *moves, Release(60 * MS, way[-1] if way else 0, 0, "left")])
    assert item.kind == kind


def test_a_click_and_then_a_drag(read):
    """As words are selected: the second press goes on as a drag, the click before it stands for itself."""
    items = read([*click(0), Press(200 * MS, 0, 0, "left"), move(250, 40), Release(300 * MS, 40, 0, "left")])
    assert [(item.kind, item.rows) for item in items] == [("click", 2), ("drag", 3)]


def test_a_drag_that_is_cut_says_so(read):
    items = read([Press(0, 0, 0, "left"), move(10, 30)])
    assert [(item.kind, item.whole, item.end) for item in items] == [("drag", False, Place(30, 0))]


def test_what_is_left_of_a_drag_that_was_too_long_is_no_click_that_goes_on(read, monkeypatch):
    monkeypatch.setattr(hand, "ROWS_MAX", 3)
    drag = [Press(0, 0, 0, "left"), move(1, 10), move(2, 20), Release(3 * MS, 20, 0, "left")]
    items = read([*drag, *click(100, 20)])
    assert [(item.kind, item.whole) for item in items] == [("drag", False), ("click", False), ("click", True)]


def test_too_long_a_drag_is_cut_and_goes_on(read, monkeypatch):
    monkeypatch.setattr(hand, "ROWS_MAX", 4)
    items = read([Press(0, 0, 0, "left"), *(move(n, 10 * n) for n in range(1, 6)), Release(9 * MS, 60, 0, "left")])  # fmt: skip
    assert [(item.x, item.rows, item.whole) for item in items] == [
        ((0, 10, 20, 30), 4, False), ((30, 40, 50, 60), 3, False),
    ]  # fmt: skip


# --- scrolls ------------------------------------------------------------------------------------------------


def test_steps_in_one_direction_are_one_scrolling(read):
    (item,) = read([Scroll(0, 5, 5, 0, -2, 2), Scroll(400 * MS, 5, 5, 0, -3, 3)])
    assert item == Scrolling(
        device="d0" * 16, boot="b0" * 8, seq=1, i=0, rows=2, t_ns=WALL_NS, monotonic_ns=0,
        duration_ns=400 * MS, place=Place(5, 5), dx=0, dy=-5, count=5, whole=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("events", "sums"),
    [
        ([steps(0, 1), steps(500, 1)], [(0, 2)]),
        ([steps(0, 1), steps(501, 1)], [(0, 1), (0, 1)]),
        ([steps(0, 1), steps(9, -1)], [(0, 1), (0, -1)]),
        ([steps(0, 1), steps(9, 0, dx=1)], [(0, 1), (1, 0)]),
        ([steps(0, 1), steps(9, 1, x=4)], [(0, 2)]),
        ([steps(0, 1), steps(9, 1, x=5)], [(0, 1), (0, 1)]),
        ([steps(0, 1), move(5, 3), steps(9, 1)], [(0, 2)]),
        ([steps(0, 1), move(5, 30), steps(9, 1)], [(0, 1), (0, 1)]),
        ([steps(0, 1), *click(5), steps(90, 1)], [(0, 1), (0, 1)]),
    ],
)
def test_what_ends_a_scrolling(read, events, sums):
    assert [(item.dx, item.dy) for item in read(events) if item.kind == "scrolling"] == sums


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_run_of_keys_with_rollover(read):
    (item,) = read(
        [
            KeyPress(0, "letter"), KeyPress(90 * MS, "digit"), KeyRelease(100 * MS, "letter"),
            KeyPress(150 * MS, "letter"), KeyRelease(170 * MS, "digit"), KeyRelease(300 * MS, "letter"),
        ]
    )  # fmt: skip
    assert item == KeyRun(
        device="d0" * 16, boot="b0" * 8, seq=1, i=0, rows=6, t_ns=WALL_NS, monotonic_ns=0,
        duration_ns=300 * MS, keys=("letter", "digit", "letter"), at_ns=(0, 90 * MS, 150 * MS),
        held_ns=(100 * MS, 80 * MS, 150 * MS), whole=False,
    )  # fmt: skip


def test_of_several_of_one_class_the_first_down_is_the_first_up(read):
    (item,) = read(
        [KeyPress(0, None), KeyPress(50 * MS, None), KeyRelease(90 * MS, None), KeyRelease(200 * MS, None)]
    )
    assert item.held_ns == (90 * MS, 150 * MS)


@pytest.mark.parametrize(
    ("events", "lengths"),
    [
        (key(0) + key(2_000), [2]),
        (key(0) + key(2_001), [1, 1]),
        (key(0) + click(100) + key(200), [1, 1]),
        ([*key(0), steps(100, 1), *key(200)], [1, 1]),
        ([*key(0), move(100, 1), *key(200)], [2]),
        ([Focus(0, "a"), *key(0), Focus(90 * MS, "b"), *key(200)], [1, 1]),
        ([Focus(0, "a"), *key(0), Focus(90 * MS, "a", "changed"), *key(200)], [2]),
        ([*key(0), Layout(90 * MS, "de"), *key(200)], [1, 1]),
    ],
)
def test_what_ends_a_run_of_keys(read, events, lengths):
    found = [item for item in read(events) if item.kind == "key_run"]
    assert [len(item.keys) for item in found] == lengths
    assert sum(item.rows for item in found) == 2 * sum(lengths)


def test_too_long_a_run_of_keys_is_cut(read, monkeypatch):
    monkeypatch.setattr(hand, "ROWS_MAX", 4)
    items = read([event for n in range(5) for event in key(100 * n)])
    assert [(len(item.keys), item.rows) for item in items] == [(2, 4), (2, 4), (1, 2)]


def test_after_a_gap_of_the_keyboard_no_key_is_down(read):
    items = read([KeyPress(0, "modifier"), Gap(10 * MS, 5, "keyboard"), *click(100)])
    assert items[-1].keys_down == ()


def test_a_key_held_while_clicking(read):
    items = read([KeyPress(0, "modifier"), *click(100), KeyRelease(300 * MS, "modifier"), *click(900)])
    assert kinds(items) == ["key_run", "click", "click"], "in order of when they began"
    run, first, second = items
    assert (run.held_ns, run.rows, run.whole) == ((300 * MS,), 2, True)
    assert (first.keys_down, second.keys_down) == (("modifier",), ())


def test_a_key_that_never_comes_up_is_forgotten(read):
    items = read([KeyPress(0, "modifier"), *click(9_000), *click(10_001)])
    assert [getattr(item, "keys_down", None) for item in items] == [None, ("modifier",), ()]
    assert (items[0].held_ns, items[0].rows) == ((None,), 1)


def test_no_more_keys_are_down_than_there_are_fingers(read, monkeypatch):
    monkeypatch.setattr(hand, "DOWN_MAX", 3)
    items = read([KeyPress(n * MS, f"k{n}") for n in range(6)] + click(10))
    assert items[1].keys_down == ("k3", "k4", "k5")
    buttons = read([Press(n * MS, 0, 0, f"b{n}") for n in range(5)] + [Release(9 * MS, 0, 0, "b0")])
    assert [item.button for item in buttons] == ["b0", "b1", "b2", "b3", "b4"]
    assert next(item.held_ns for item in buttons) == (None,), "the first one was taken to be up"


# --- what was known of the screen ---------------------------------------------------------------------------

LEFT = Display(0, 0, 0, 0, 1280, 800)
RIGHT = Display(0, 1, 1280, -100, 1920, 1080, 2.0)
EDITOR = Focus(0, "editor", "draft", 100, 50, 640, 480)


@pytest.mark.parametrize(
    ("at", "display", "on_display", "in_window"),
    [
        ((110, 70), LEFT, (110, 70), (10, 20)),
        ((100, 50), LEFT, (100, 50), (0, 0)),
        ((740, 50), LEFT, (740, 50), None),
        ((99, 50), LEFT, (99, 50), None),
        ((1279, 799), LEFT, (1279, 799), None),
        ((1280, 0), RIGHT, (0, 100), None),
        ((1300, 990), None, None, None),
    ],
)
def test_where_a_click_is(read, at, display, on_display, in_window):
    (item,) = read([LEFT, RIGHT, EDITOR, *click(10, *at)])
    place = item.place
    assert (place.display, place.on_display, place.in_window) == (display, on_display, in_window)
    assert place.window == (EDITOR if in_window else None)
    assert item.focus == EDITOR


def test_nothing_is_known_before_it_is_told(read):
    (item, *_) = read([*click(0, 5, 5), LEFT, EDITOR])
    assert (item.place, item.focus, item.layout) == (Place(5, 5), None, None)


def test_what_is_known_is_carried_from_batch_to_batch_and_changes(read):
    moved = replace(LEFT, t_ns=900 * MS, x=-10)
    gone = Display(1_800 * MS, 0, 0, 0, 0, 0)
    clicks = read(
        [LEFT, Layout(0, "us"), EDITOR],
        click(10, 100, 60),
        [moved, Focus(900 * MS, "browser"), *click(1_000, 100, 60)],
        [gone, Layout(1_800 * MS, "de"), *click(2_000, 100, 60)],
    )
    assert [item.place.on_display for item in clicks] == [(100, 60), (110, 60), None]
    assert [item.place.in_window for item in clicks] == [(0, 10), None, None]
    assert [item.focus.app for item in clicks] == ["editor", "browser", "browser"]
    assert [item.layout for item in clicks] == ["us", "us", "de"]


def test_mirrored_displays_are_the_first_one(read):
    (item,) = read([replace(LEFT, display=3), replace(LEFT, display=1), *click(0, 5, 5)])
    assert item.place.display.display == 1


def test_who_did_it(read):
    said = read([Press(0, 0, 0, "left", True), Release(60 * MS, 0, 0, "left", True)])
    assert said[0].synthetic is True
    mixed = read([Press(0, 0, 0, "left", True), Release(MS, 0, 0, "left", False), Move(9 * MS, 9, 9, False)])
    assert [item.synthetic for item in mixed] == [None, False]


def test_who_did_both_clicks(read):
    def by(said: bool, ms: int) -> list[Event]:
        return [Press(ms * MS, 0, 0, "left", said), Release((ms + 60) * MS, 0, 0, "left", said)]

    assert [(item.count, item.synthetic) for item in read([*by(True, 0), *by(False, 200)])] == [(2, None)]


# --- breaks -------------------------------------------------------------------------------------------------


def _breaks(items: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(b.cause, b.seq, b.batches, b.duration_ns, b.source) for b in items if isinstance(b, Break)]


def test_what_breaks(tmp_path):
    def down(ms: int) -> list[Event]:
        at = ms * MS
        known: list[Event] = [replace(LEFT, t_ns=at), replace(EDITOR, t_ns=at)]
        return [*known, Press(at, 5, 5, "left"), KeyPress(at, "modifier")]

    store(
        tmp_path,
        encode(holding(3, down(1_000))),
        encode(holding(6, [*click(2_000), *down(2_500)])),
        encode(holding(7, [*click(3_000), *down(3_500)], boot="aa")),
        encode(holding(8, [*click(4_000), *down(4_500)], boot="aa", coverage=Coverage(not_collected_ns=77))),
        encode(holding(9, click(5_000, 120, 60, "right"), boot="aa")),
        encode(holding(1, click(6_000), device="d1")),
    )
    items = list(trajectory(Reader(tmp_path)))
    assert _breaks(items) == [
        ("start", 3, 2, None, None), ("hole", 6, 2, None, None), ("boot", 7, None, None, None),
        ("pause", 8, None, 77, None), ("start", 1, None, None, None),
    ]  # fmt: skip
    of_clicks = {item.monotonic_ns // MS: item for item in items if isinstance(item, Click)}
    for ms in (2_000, 3_000, 4_000, 6_000):
        assert (of_clicks[ms].focus, of_clicks[ms].keys_down) == (None, ()), "all is forgotten"
        assert (of_clicks[ms].place, of_clicks[ms].held_ns) == (Place(0, 0), (60 * MS,))
    carried = of_clicks[5_000]
    assert (carried.focus.app, carried.keys_down) == ("editor", ("modifier",)), "without a break it is not"
    assert carried.place.in_window == (20, 10)
    for ms in (1_000, 2_500, 3_500, 4_500):
        assert (of_clicks[ms].held_ns, of_clicks[ms].whole) == ((None,), False)


def test_what_cannot_be_read_at_the_end_of_a_device_is_not_the_next_ones_hole(tmp_path):
    sealed = encode(holding(2, click(9)), recipients=[key_pair()[1]])
    store(tmp_path, encode(holding(1, click(0))), sealed, encode(holding(1, click(0), device="d1")))
    assert _breaks(list(trajectory(Reader(tmp_path)))) == [("start", 1, None, None, None)] * 2


@pytest.mark.parametrize(
    ("source", "cut"),
    [
        ("pointer", {"click"}), ("keyboard", {"key_run"}), ("suspend", {"click", "key_run"}),
        ("trace", {"click", "key_run"}), ("window", set()), ("display", set()),
    ],
)  # fmt: skip
def test_a_gap_cuts_what_its_source_gives(read, source, cut):
    items = read(
        [LEFT, EDITOR, Press(0, 150, 70, "left"), KeyPress(MS, "letter"), Gap(20 * MS, 10**9, source)],
        [KeyRelease(1_100 * MS, "letter"), Release(1_200 * MS, 150, 70, "left"), *click(9_000, 150, 70)],
    )
    assert _breaks(items) == [("gap", 1, None, 10**9, source)]
    assert {item.kind for item in items[:-1] if item.kind != "break" and None in item.held_ns} == cut
    last = items[-1]
    assert (last.focus is None) is (source == "window")
    assert (last.place.display is None) is (source == "display")


# --- any rows -----------------------------------------------------------------------------------------------

_BUTTONS = st.sampled_from(["left", "right"])
_KEYS = st.sampled_from(["letter", "modifier", None])
_PLACES = st.sampled_from([0, 3, 5, 40, 300])
_MAKE: st.SearchStrategy[Callable[[int], Event]] = st.one_of(
    st.tuples(_PLACES, _PLACES).map(lambda at: lambda t: Move(t, *at)),
    st.tuples(_PLACES, _PLACES).map(lambda at: lambda t: Move(t, *at)),
    st.tuples(_PLACES, _BUTTONS).map(lambda at: lambda t: Press(t, at[0], 0, at[1])),
    st.tuples(_PLACES, _BUTTONS).map(lambda at: lambda t: Release(t, at[0], 0, at[1])),
    st.sampled_from([1, -1]).map(lambda dy: lambda t: Scroll(t, 0, 0, 0, dy, 1)),
    _KEYS.map(lambda name: lambda t: KeyPress(t, name)),
    _KEYS.map(lambda name: lambda t: KeyRelease(t, name)),
    st.sampled_from(["pointer", "keyboard", "suspend"]).map(lambda source: lambda t: Gap(t, 5, source)),
    st.sampled_from(["editor", "browser"]).map(lambda app: lambda t: Focus(t, app, None, 0, 0, 50, 50)),
    st.sampled_from([0, 200]).map(lambda x: lambda t: Display(t, 0, x, 0, 200, 200)),
)
_WAITS_MS = st.sampled_from([0, 1, 30, 30, 200, 501, 2_001])
ROWS = st.lists(st.tuples(_WAITS_MS, _MAKE), max_size=40)


def _events(rows: list[tuple[int, Callable[[int], Event]]]) -> list[Event]:
    events, ms = [], 0
    for wait_ms, make in rows:
        ms += wait_ms
        events.append(make(ms * MS))
    return events


def _of(folder: Path, batches: Sequence[Sequence[Event]], start_ms: Sequence[int] = ()) -> list[Any]:
    starts = [*start_ms, *[0] * len(batches)]
    store(folder, *(encode(holding(n + 1, list(b), start_ms=starts[n])) for n, b in enumerate(batches)))
    return list(trajectory(Reader(folder)))


def _strays(events: list[Event]) -> int:
    """Releases whose press is not there."""
    buttons: set[str] = set()
    keys: list[tuple[str | None, int]] = []
    strays = 0
    for event in events:
        keys = [(name, t_ns) for name, t_ns in keys if event.t_ns - t_ns <= hand.KEY_DOWN_MAX_NS]
        match event:
            case Press():
                buttons.add(event.button)
            case Release():
                strays += event.button not in buttons
                buttons.discard(event.button)
            case KeyPress():
                keys.append((event.key, event.t_ns))
            case KeyRelease():
                first = next((pair for pair in keys if pair[0] == event.key), None)
                strays += first is None
                keys = [pair for pair in keys if pair is not first]
            case Gap():
                buttons = buttons if event.source == "keyboard" else set()
                keys = keys if event.source == "pointer" else []
    return strays


def _neutral(items: list[Any]) -> list[Any]:
    return [replace(item, seq=0, t_ns=0, **({} if isinstance(item, Break) else {"i": 0})) for item in items]


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_each_row_is_in_one_action_and_they_are_in_order(tmp_path_factory, rows):
    events = _events(rows)
    _start, *items = _of(tmp_path_factory.mktemp("store"), [events])
    actions = [item for item in items if not isinstance(item, Break)]
    of_hands = [event for event in events if not isinstance(event, Gap | Focus | Display)]
    assert sum(item.rows for item in actions) == len(of_hands) - _strays(events)
    begun = [item.monotonic_ns for item in items]
    assert begun == sorted(begun)
    moved = sum(len(item.x) for item in actions if isinstance(item, Motion))
    assert moved <= sum(isinstance(event, Move) for event in events)
    scrolled = [item for item in actions if isinstance(item, Scrolling)]
    assert sum(item.count for item in scrolled) == sum(isinstance(event, Scroll) for event in events)
    assert sum(abs(item.dy) for item in scrolled) == sum(isinstance(event, Scroll) for event in events)
    typed = [name for item in actions if isinstance(item, KeyRun) for name in item.keys]
    assert typed == [event.key for event in events if isinstance(event, KeyPress)]
    pressed = sum(item.count if isinstance(item, Click) else 1 for item in actions if item.kind in ("click", "drag"))  # fmt: skip
    assert pressed == sum(isinstance(event, Press) for event in events)
    for item in actions:
        assert events[item.i].t_ns == item.monotonic_ns == item.t_ns - WALL_NS
        times = getattr(item, "at_ns", (0,))
        assert times[0] == 0
        assert list(times) == sorted(times)
        assert times[-1] <= item.duration_ns


@settings(max_examples=100, deadline=None)
@given(
    ROWS, st.lists(st.integers(0, 40), max_size=4), st.lists(st.sampled_from([0, 5_000, -9_000]), max_size=5)
)
def test_neither_batches_nor_clock_steps_change_what_was_done(tmp_path_factory, rows, cuts, start_ms):
    events = _events(rows)
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    split = [events[a:b] for a, b in itertools.pairwise(edges)]
    whole = _of(tmp_path_factory.mktemp("whole"), [events])
    parts = _of(tmp_path_factory.mktemp("split"), split, start_ms)
    if events:
        whole, parts = whole[1:], parts[1:]  # the start is where the first batch begins
        assert _neutral(parts) == _neutral(whole)


def test_actions_that_wait_are_few(read, monkeypatch):
    """A button that stays down does not hold back all that follows."""
    monkeypatch.setattr(hand, "WAITING_MAX", 5)
    events = [Press(0, 0, 0, "left"), *(event for n in range(20) for event in key(5_000 * n + 5_000))]
    items = read(events)
    assert len(items) == 21
    place = kinds(items).index("click")
    assert 0 < place < 20
    rest = [item.monotonic_ns for item in items if item.kind == "key_run"]
    assert rest == sorted(rest)


# --- JSON lines ---------------------------------------------------------------------------------------------


def test_json_lines_to_the_letter(tmp_path):
    events: list[Event] = [
        LEFT, EDITOR, Layout(0, "us"), Move(0, 109, 70), Press(10 * MS, 110, 70, "left", False),
        Release(70 * MS, 110, 70, "left", False), Scroll(700 * MS, 900, 70, 0, -2, 2),
        Press(1_400 * MS, 0, 0, "right"), Release(1_500 * MS, 30, 0, "right"), KeyPress(1_600 * MS, None),
        Gap(9_000 * MS, 5, "pointer"),
    ]  # fmt: skip
    store(tmp_path, encode(holding(2, events)))
    file = io.StringIO()
    counts = write_trajectory(Reader(tmp_path), file)
    assert counts == {"break": 2, "motion": 1, "click": 1, "scrolling": 1, "drag": 1, "key_run": 1}

    def line(ms: int, kind: str, duration_ns: int | None, own: str, i: int | None) -> str:
        lasted = "" if duration_ns is None else f',"duration_ns":{duration_ns}'
        common = '' if i is None else (
            '"app":"editor","title":"draft","layout":"us",'
            + ('"synthetic":false,' if kind == "click" else "")
            + f'"whole":{"true" if kind != "key_run" else "false"},"rows":{1 if kind in ("motion", "scrolling", "key_run") else 2},"i":{i},'
        )  # fmt: skip
        return (
            f'{{"t_ns":{WALL_NS + ms * MS},"kind":"{kind}"{lasted},{own},{common}"monotonic_ns":{ms * MS},'
            f'"boot":"{"b0" * 8}","device":"{"d0" * 16}","seq":2}}'
        )

    display = '"display":0,"display_x":{0},"display_y":{1},"display_width":1280,"display_height":800'
    begin, end = (
        f'"{name}_x":{x},"{name}_y":0,"{name}_display":0,"{name}_display_x":{x},"{name}_display_y":0,'
        f'"{name}_display_width":1280,"{name}_display_height":800'
        for name, x in (("begin", 0), ("end", 30))
    )
    assert file.getvalue().splitlines() == [
        line(0, "break", None, '"cause":"start","batches":1', None),
        line(0, "motion", 0, '"at_ns":[0],"x":[109],"y":[70]', 3),
        line(10, "click", 60 * MS, '"button":"left","count":1,"x":110,"y":70,' + display.format(110, 70)
             + ',"window_x":10,"window_y":20,"at_ns":[0],"held_ns":[60000000],"keys_down":[]', 4),
        line(700, "scrolling", 0, '"x":900,"y":70,' + display.format(900, 70)
             + ',"dx":0,"dy":-2,"count":2,"keys_down":[]', 6),
        line(1_400, "drag", 100 * MS, f'"button":"right",{begin},{end},"at_ns":[0,100000000],"x":[0,30],'
             '"y":[0,0],"keys_down":[]', 7),
        line(1_600, "key_run", 0, '"keys":[null],"at_ns":[0],"held_ns":[null]', 9),
        line(9_000, "break", 5, '"cause":"gap","source":"pointer"', None),
    ]  # fmt: skip
    assert all(json.loads(text) for text in file.getvalue().splitlines())
