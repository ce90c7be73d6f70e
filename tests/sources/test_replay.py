"""Traces played again: the same events, at their own pace or as fast as possible."""

from __future__ import annotations

import gzip
import time

import pytest
from waiting import until

from mcilib import (
    Collector,
    KeyDetail,
    KeyPress,
    Move,
    Press,
    Reader,
    Release,
    ReplaySource,
    Scroll,
    TraceError,
)
from mcilib.testing.conformance import check_source
from mcilib.testing.fakes import ListSink, ManualClock, example_grant

POINTER = """t_ns,kind,x,y,button
1000000000,move,10,20,
1100000000,move,11.5,21.25,
1200000000,press,11,21,left
1300000000,release,11,21,left
1400000000,scroll_down,11,21,
"""
KEYS = """t_ns,kind,key
5,press,ctrl
6,press,c
7,release,c
8,release,ctrl
9,press,symbol_2e
10,release,symbol_2e
11,press,A
12,release,A
13,press,space
14,release,space
"""


@pytest.fixture
def pointer_trace(tmp_path):
    path = tmp_path / "pointer.csv"
    path.write_text(POINTER)
    return path


@pytest.fixture
def key_trace(tmp_path):
    path = tmp_path / "keys.csv.gz"
    path.write_bytes(gzip.compress(KEYS.encode()))
    return path


def played(source):
    sink = ListSink()
    source.start(sink)
    assert source.wait(10)
    source.stop()
    return sink.events


def test_source_promise(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(
        "t_ns,kind,x,y,button\n" + "".join(f"{n * 50_000_000},move,{n},1,\n" for n in range(2_000))
    )
    check_source(lambda: ReplaySource(path), lambda source: time.sleep(0.2))


def test_pointer_rows(pointer_trace):
    events = played(ReplaySource(pointer_trace, speed=None))
    start = events[0].t_ns
    assert events == [
        Move(start, 10, 20),
        Move(start + 100_000_000, 11.5, 21.25),
        Press(start + 200_000_000, 11, 21, "left"),
        Release(start + 300_000_000, 11, 21, "left"),
        Scroll(start + 400_000_000, 11, 21, 0, -1),
    ]


def test_keyboard_rows_keep_classes_only(key_trace):
    source = ReplaySource(key_trace, speed=None)
    assert (source.name, source.scope) == ("keyboard", "keys")
    keys = [event.key for event in played(source) if isinstance(event, KeyPress)]
    assert keys == ["modifier", "ctrl+c", "punctuation", "letter", "space"]
    timing = ReplaySource(key_trace, speed=None, detail=KeyDetail.TIMING)
    assert {event.key for event in played(timing)} == {None}
    assert played(ReplaySource(key_trace, speed=None, detail=KeyDetail.NONE)) == []


def test_a_modifier_whose_release_is_missing_names_no_letters(tmp_path):
    path = tmp_path / "keys.csv"
    rows = [f"{n * 1_500_000_000},press,{key}" for n, key in enumerate(["ctrl", "c", "x", "y"])]
    path.write_text("\n".join(["t_ns,kind,key", *rows]) + "\n")
    keys = [event.key for event in played(ReplaySource(path, speed=None))]
    assert keys == ["modifier", "ctrl+c", "letter", "letter"]


def test_times_are_those_of_the_clock(pointer_trace):
    events = played(ReplaySource(pointer_trace, speed=None, clock=ManualClock(monotonic_ns=5)))
    assert events[0].t_ns == 5


@pytest.mark.parametrize(("speed", "least_s"), [(1.0, 0.4), (4.0, 0.1)])
def test_its_own_pace_and_others(pointer_trace, speed, least_s):
    began = time.monotonic()
    events = played(ReplaySource(pointer_trace, speed=speed))
    took = time.monotonic() - began
    assert took >= least_s - 0.01
    assert took < least_s + 5
    assert events[-1].t_ns - events[0].t_ns == int(400_000_000 / speed)


def test_as_fast_as_it_is_taken_loses_nothing(tmp_path):
    path = tmp_path / "long.csv"
    rows = 100_000
    path.write_text(
        "t_ns,kind,x,y,button\n"
        + "".join(f"{n * 1_000_000},move,{n % 999},{n % 777},\n" for n in range(rows))
    )
    source = ReplaySource(path, speed=None)
    options = {
        "grant": example_grant(),
        "state_dir": tmp_path / "state",
        "policies": (),
    }  # nothing is thinned
    with Collector(sources=[source], **options) as collector:
        assert source.wait(60)
        until(lambda: sum(collector.statistics().capture.captured.values()) == rows)
        assert collector.statistics().capture.dropped == {}
    places = [(event.x, event.y) for event in Reader(tmp_path / "state" / "spool").events()]
    assert places == [(n % 999, n % 777) for n in range(rows)]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "no header", 1),
        ("a,b\n", "no header", 1),
        ("t_ns,kind,x,y,button\n1,jump,1,2,\n", "line 2", 2),
        ("t_ns,kind,x,y,button\n1,move,1,2,\n2,move,one,2,\n", "line 3", 3),
        ("t_ns,kind,key\n1,press,a\nx,release,a\n", "line 3", 3),
        ("t_ns,kind,key\n1,press\n", "line 2", 2),
        ("t_ns,kind,key\n1,press,symbol_ffffffffffff\n", "line 2", 2),
        (f"t_ns,kind,x,y,button\n{10**30},move,1,2,\n", "line 2", 2),
    ],
)
def test_what_is_no_trace_is_named_by_line(tmp_path, text, message, line):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    if line == 1:
        with pytest.raises(TraceError, match=message) as caught:
            ReplaySource(path)
        assert caught.value.line == 1
        return
    source = ReplaySource(path, speed=None)
    played(source)
    [problem] = source.health().problems
    assert message in problem.message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(TraceError, match=r"No such file"):
        ReplaySource(tmp_path / "missing.csv")
    (tmp_path / "not.csv.gz").write_bytes(b"plain text")
    with pytest.raises(TraceError, match="cannot be opened"):
        ReplaySource(tmp_path / "not.csv.gz")
    cut = gzip.compress(POINTER.encode() * 50)[:-20]
    (tmp_path / "cut.csv.gz").write_bytes(cut)
    source = ReplaySource(tmp_path / "cut.csv.gz", speed=None)
    played(source)
    assert not source.health().ok


@pytest.mark.parametrize("speed", [0, -1])
def test_speeds_that_cannot_be(pointer_trace, speed):
    with pytest.raises(TraceError, match="speed"):
        ReplaySource(pointer_trace, speed=speed)
