"""The document says what the code does. The rules themselves are held by the vectors."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack
import pytest
from batches import batch, columns_of, header, one_of_each, raw_of, sample, with_raw

from mcilib import limits
from mcilib.errors import BatchFormatError
from mcilib.events import EVENT_TYPES, Scroll
from mcilib.format import header as header_module
from mcilib.format import metadata, parse, payload, rows
from mcilib.format.batch import Coverage, decode, encode
from mcilib.format.vocabulary import BY_WORDS, WORDS

SPEC = (Path(__file__).resolve().parents[2] / "docs/spec/batch-format.md").read_text(encoding="utf-8")
ORDER = re.findall(r"in the order `([^`]*)`", SPEC)[0].split()


def test_words_and_their_numbers():
    table = SPEC.split("| numbers | words |")[1].split("\n\n")[0]
    words: list[str] = []
    for first, last, row in re.findall(r"\| (\d+)-(\d+) \| (.*?) \|", table):
        assert int(first) == len(words)
        words += re.findall(r"`([^`]+)`", row)
        assert int(last) == len(words) - 1
    assert tuple(words) == WORDS
    more = SPEC.split("In this column two more numbers are words, ")[1].split(";")[0]
    more_words = {int(number): word for number, word in re.findall(r"(\d+) `([^`]+)`", more)}
    assert more_words == {number: word for number, word in enumerate(BY_WORDS) if number >= len(WORDS)}


def test_kind_codes():
    assert ", ".join(f"{code} `{kind}`" for code, kind in list(enumerate(EVENT_TYPES))[1:]) in SPEC


def test_columns_are_written_in_the_order_of_the_document():
    everything = batch(
        *one_of_each(),
        Scroll(6_000_000_000, 0, 0, 1, 0, 7),
        coverage=Coverage(1, 2, 3, 4, {"spool": 5}),
        levers={"motion": "none"},
        backends={"pointer": "pynput"},
        reasons=("a test",),
        audit="a0" * 32,
    )
    written = list(columns_of(encode(everything)))
    assert written == [name for name in ORDER if name in written]
    assert set(written) >= set(ORDER) - set("vuwChrgH")  # those depend on the numbers


@pytest.mark.parametrize("name", ORDER)
def test_every_column_is_explained(name):
    assert f"`{name}`" in SPEC.split("## Canonical form")[0]


def test_no_other_column_is_known():
    known = {name for name in map(chr, range(33, 127)) if _is_known(name)}
    assert known | {"by", "audit"} == set(ORDER)


def _is_known(name: str) -> bool:
    columns = columns_of(sample())
    columns.setdefault(name, [])
    try:
        decode(with_raw(sample(), msgpack.packb(columns)))
    except BatchFormatError as error:
        return "is not known" not in error.reason
    return True


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("header {:,}", limits.HEADER_MAX_BYTES),
        ("frame | {:,} bytes", limits.FRAME_MAX_BYTES),
        ("content of the payload | {:,} bytes", limits.PAYLOAD_MAX_BYTES),
        ("window {} MiB", payload.WINDOW_MAX_BYTES >> 20),
        ("rows | {:,} |", rows.ROWS_MAX),
        ("entries of all arrays | {:,},", payload.ENTRIES_MAX),
        ("columns {} |", payload.COLUMNS_MAX),
        ("names | {} bytes", metadata.NAME_MAX_BYTES),
        ("titles {},", rows.TITLE_MAX_BYTES),
        ("reasons and software {} |", metadata.REASON_MAX_BYTES),
        ("key ids | {} |", header_module.KEY_IDS_MAX),
        ("header of an age file | {:,} bytes", limits.SEAL_HEADER_MAX_BYTES),
        ("and reasons | {} each", metadata.LEVERS_MAX),
        ("1 to {:,} |", metadata.TICK_MAX_NS),
        ("integer 1 to {}:", metadata.QUANTA_MAX_PER_PX),
        ("the step in nanoseconds (1 to {:,})", parse.STEP_MAX_NS),
        ("up to {}: device pixels", rows.SCALE_MAX),
        ("display (0 to {})", rows.DISPLAY_MAX),
        ("at most {} ms after the first", limits.SCROLL_MERGE_NS // 10**6),
    ],
)
def test_numbers(words, number):
    assert words.format(number) in SPEC


def test_the_decoder_in_the_document_works():
    (code,) = re.findall(r"```python\n(.*?)```", SPEC, re.S)
    names: dict = {}
    exec(code, names)
    head, columns = names["columns_of"](sample())
    assert head == header().to_wire()
    assert columns == msgpack.unpackb(raw_of(sample()))
