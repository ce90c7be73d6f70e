"""JSON lines: exactly the fields that are promised. What is written is whole or not there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from batches import BATCHES, MS, WALL_NS, batch, one_of_each
from hypothesis import given, settings
from stores import frame, frame_v0, key_pair, store

from mcilib.clock import ClockAnchor
from mcilib.events import KeyPress, Move
from mcilib.format.batch import decode, encode
from mcilib.reader import Reader, Row, write_jsonl
from mcilib.reader.fields import FIELDS, record


@pytest.fixture
def sample(tmp_path):
    return store(tmp_path / "store", encode(batch(*one_of_each(), sequence=3)))


def _lines(store: Path) -> list[str]:
    file = io.StringIO()
    write_jsonl(Reader(store), file)
    return file.getvalue().splitlines()


def test_json_lines_to_the_letter(sample):
    own = [
        '"kind":"display","x":0,"y":0,"display":0,"width":1280,"height":800,"scale":1.0,"rotation":0',
        '"kind":"display","x":-1920,"y":-180,"display":1,"width":1920,"height":1080,"scale":1.25,"rotation":90',
        '"kind":"layout","layout":"de(nodeadkeys)"',
        '"kind":"focus","x":20,"y":30,"width":640,"height":480,"app":"editor","title":"notes \\u2014 draft"',
        '"kind":"move","x":640,"y":400',
        '"kind":"move","x":641,"y":900',
        '"kind":"press","x":641,"y":900,"button":"left"',
        '"kind":"release","x":-3,"y":401,"button":"button9"',
        '"kind":"scroll","x":-3,"y":401,"dx":0,"dy":-5,"count":5',
        '"kind":"scroll","x":-3,"y":401,"dx":0.25,"dy":0,"count":1,"synthetic":true',
        '"kind":"move","x":-4,"y":401,"synthetic":true',
        '"kind":"key_press","key":"ctrl+c","synthetic":false',
        '"kind":"key_release","key":"ctrl+c","synthetic":false',
        '"kind":"key_press","key":null',
        '"kind":"gap","duration_ns":600000000000,"source":"pointer"',
        '"kind":"display","x":0,"y":0,"display":1,"width":0,"height":0,"scale":1.0,"rotation":0',
        '"kind":"focus","x":null,"y":null,"width":null,"height":null,"app":null,"title":null',
    ]
    common = f'"boot":"{"b0" * 8}","participant":"{"aa" * 16}","device":"{"de" * 16}","batch":"{"0b" * 16}","seq":3'
    assert _lines(sample) == [
        f'{{"t_ns":{WALL_NS + 7 * MS * n},{text},"monotonic_ns":{(5_000 + 7 * n) * MS},{common},"i":{n}}}'
        for n, text in enumerate(own)
    ]


def test_every_field_is_used_and_in_the_promised_order(sample):
    used: set[str] = set()
    for line in _lines(sample):
        names = list(json.loads(line))
        used.update(names)
        assert names[:2] == list(FIELDS[:2])
        assert names[-7:] == list(FIELDS[-7:])
    assert used == set(FIELDS)


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_each_line_is_the_record_of_its_row(tmp_path_factory, made):
    folder = store(tmp_path_factory.mktemp("store"), encode(made))
    read = decode(encode(made))
    assert [json.loads(line) for line in _lines(folder)] == [
        record(Row(event, read, index)) for index, event in enumerate(read.events)
    ]


def test_fractions_of_a_pixel(tmp_path):
    moves = [Move(0, 1.5, -0.25), Move(MS, 2, 3)]
    store(tmp_path, encode(batch(*moves, anchor=ClockAnchor(0, 0), quanta_per_px=4)))
    assert [(row["x"], row["y"]) for row in map(json.loads, _lines(tmp_path))] == [(1.5, -0.25), (2, 3)]


def test_version_0_has_the_same_fields(tmp_path):
    first, second, third = map(json.loads, _lines(store(tmp_path, frame_v0())))
    assert (first["kind"], first["x"], first["y"], first["t_ns"]) == ("move", 7, 8, WALL_NS)
    assert (second["kind"], second["key"], second["monotonic_ns"]) == ("key_press", "letter", 2 * MS)
    assert (third["i"], third["boot"]) == (2, "b0" * 8)


def test_the_result_counts_events_rows_and_batches(sample):
    (sample / "empty.mcib").write_bytes(encode(batch(batch_id="ee" * 16)))
    result = write_jsonl(Reader(sample), io.StringIO())
    assert result.rows == 17
    assert result.counts == {
        "display": 3, "layout": 1, "focus": 2, "move": 3, "press": 1, "release": 1, "scroll": 6,
        "key_press": 2, "key_release": 1, "gap": 1,
    }  # fmt: skip
    assert result.batches == {"0b" * 16, "ee" * 16}


def test_what_could_not_be_read_is_not_counted_as_exported(sample):
    store(sample, frame(8, 10)[:-1], frame(9, 10, recipients=[key_pair()[1]]), names="x{}.mcib")
    reader = Reader(sample)
    assert write_jsonl(reader, io.StringIO()).batches == {"0b" * 16}
    assert (len(reader.damaged), len(reader.sealed)) == (1, 1)


def test_text_beyond_ascii_is_escaped(tmp_path):
    (tmp_path / "1.mcib").write_bytes(encode(batch(KeyPress(5_000 * MS, "ctrl+é\n\u2028"))))
    (line,) = _lines(tmp_path)
    assert line.isascii()
    assert json.loads(line)["key"] == "ctrl+é\n\u2028"
