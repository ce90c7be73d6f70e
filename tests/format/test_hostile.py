"""Whatever the bytes: a refusal in words, bounded memory and time, nothing else.

The vectors (`test_vectors.py`) hold every rule of the document to one example. Here is what a vector cannot be: damage of every kind,
frames that are made to harm, and mutants by the thousand.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import msgpack
import pytest
import zstandard
from batches import (
    PREFIX_BYTES,
    batch,
    columns_of,
    frame_of,
    one_of_each,
    parts,
    raw_of,
    with_columns,
    with_header,
    with_payload,
    with_raw,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.errors import BatchFormatError
from mcilib.format.batch import decode, encode, read_header, split_frames
from mcilib.format.seal import generate, key_id, seal

ROOT = Path(__file__).resolve().parents[2]
FRAME = encode(batch(*one_of_each(), backends={"pointer": "xrecord"}))
HEAD, PAYLOAD = parts(FRAME)
INSIDE = PREFIX_BYTES + len(HEAD)
"""Where its payload begins."""
COLUMNS = columns_of(FRAME)
IDENTITY, RECIPIENT = generate()


def _refusal(data: bytes, read: Callable[[bytes], object] = decode) -> BatchFormatError:
    with pytest.raises(BatchFormatError) as caught:
        read(data)
    assert caught.value.reason
    assert 0 <= caught.value.offset <= max(len(data), PREFIX_BYTES)
    return caught.value


# --- damage -------------------------------------------------------------------------------------------------

VECTORS = sorted(path.stem for path in hostile.VECTORS.glob("*.mcib"))
KEYS = hostile.vector_keys()
MENDED = {"bad_followed", "bad_checksum"}
"""Vectors whose one fault goes away when a certain bit is turned, or the last byte is cut off."""


def _damaged(frame: bytes) -> Iterator[bytes]:
    """Every truncation, and every flip of one bit."""
    for length in range(len(frame)):
        yield frame[:length]
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        yield bytes(flipped)


@pytest.mark.parametrize("name", VECTORS)
def test_every_truncation_and_every_flipped_bit_is_refused(name):
    frame = (hostile.VECTORS / f"{name}.mcib").read_bytes()
    read = [data for data in _damaged(frame) if hostile.refusal_of(data, KEYS) is None]
    assert len(read) == (name in MENDED)


def test_every_truncation_and_every_flipped_bit_is_refused_without_a_look_at_the_payload():
    for data in _damaged(FRAME):
        _refusal(data, read_header)
        if 0 < len(data) < len(FRAME):
            _refusal(data, lambda data: list(split_frames(data)))


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "ends after 0 bytes", 0),
        (b"MCIB\1\0\0\0", "ends after 8 bytes", 0),
        (b"PK\3\4" + bytes(30), "no batch of mcilib", 0),
        (FRAME[:4] + b"\2" + FRAME[5:], "format version 2; this mcilib reads up to 1: upgrade mcilib", 4),
        (FRAME[:-1], "ends after", len(FRAME) - 1),
        (FRAME + b"\0", "1 bytes follow its end", len(FRAME)),
        (FRAME[:-1] + bytes([FRAME[-1] ^ 1]), "checksum", len(FRAME) - 4),
        (frame_of(HEAD, PAYLOAD, flags=2), "flags 0x02 mean nothing", 5),
        (frame_of(HEAD, PAYLOAD, flags=0x81), "flags 0x81 mean nothing", 5),
        (frame_of(HEAD, PAYLOAD, flags=1), "header: the flag and the key ids disagree", 14),
        (frame_of(b"\x80", PAYLOAD, version=0, flags=1), "flags 0x01 mean nothing in version 0", 5),
        (struct.pack(">4sBBII", b"MCIB", 1, 0, 10, 2**32 - 1), "more than a batch may have", 6),
        (struct.pack(">4sBBII", b"MCIB", 1, 0, 65_537, 1), "more than a batch may have", 6),
        (struct.pack(">4sBBII", b"MCIB", 1, 0, 0, limits.FRAME_MAX_BYTES - 17), "more than a batch may have", 6),
        (struct.pack(">4sBBII", b"MCIB", 1, 0, 0, limits.FRAME_MAX_BYTES - 18), "ends after 14 of 4194304", 14),
        (frame_of(b"", PAYLOAD), "header: no msgpack", 14),
        (frame_of(HEAD + b"\0", PAYLOAD), "header: bytes follow it", 14),
        (frame_of(b"\1", PAYLOAD), "header: it is not an array", 14),
        (frame_of(b"\xa1\xff", PAYLOAD), "header: text that is not UTF-8", 14),
        (frame_of(b"\x81\xa1\xff\1", PAYLOAD, version=0), "header: text that is not UTF-8", 14),
        (frame_of(HEAD, b""), "payload: not a zstd frame", INSIDE),
        (frame_of(HEAD, PAYLOAD[:-1]), "payload: the zstd frame is damaged", INSIDE),
        (frame_of(HEAD, PAYLOAD + b"\0"), "payload: the zstd frame is damaged", INSIDE),
        (frame_of(HEAD, PAYLOAD + PAYLOAD), "payload: the zstd frame is damaged", INSIDE),
        (frame_of(HEAD, b"\x50\x2a\x4d\x18\4\0\0\0abcd"), "payload: not a zstd frame", INSIDE),
    ],
)  # fmt: skip
def test_the_reason_and_the_place_are_named(data, reason, offset):
    error = _refusal(data)
    assert reason in error.reason
    assert error.offset == offset


def test_split_names_the_place_in_the_body():
    with pytest.raises(BatchFormatError, match="ends after 10 bytes") as caught:
        list(split_frames(FRAME + FRAME[:10]))
    assert caught.value.offset == len(FRAME)
    with pytest.raises(BatchFormatError, match="no batch of mcilib") as caught:
        list(split_frames(FRAME + b"x" * 100))
    assert caught.value.offset == len(FRAME)
    huge = struct.pack(">4sBBII", b"MCIB", 7, 0, 0, limits.FRAME_MAX_BYTES)
    with pytest.raises(BatchFormatError, match="more than a batch may have"):
        next(split_frames(huge + bytes(100)))


# --- headers ------------------------------------------------------------------------------------------------

HEADER_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "batch id too short": ({"batch_id": bytes(15)}, "the batch id is not 16 bytes"),
    "batch id as text": ({"batch_id": "0" * 16}, "the batch id is not 16 bytes"),
    "participant too long": ({"participant": bytes(17)}, "the participant is not 16 bytes"),
    "device nil": ({"device": None}, "the device is not 16 bytes"),
    "device as a list": ({"device": [0] * 16}, "the device is not 16 bytes"),
    "grant of another length": ({"grant": bytes(20)}, "the grant is not 32 bytes"),
    "negative sequence": ({"sequence": -1}, "the sequence is not an integer in its range"),
    "sequence too large": ({"sequence": 10**16}, "the sequence is not an integer in its range"),
    "sequence of 64 bits": ({"sequence": 2**64 - 1}, "the sequence is not an integer in its range"),
    "sequence true": ({"sequence": True}, "the sequence is not an integer in its range"),
    "sequence as float": ({"sequence": 1.0}, "the sequence is not an integer in its range"),
    "key ids nil": ({"key_ids": None}, "the key ids are not a list"),
    "key ids as bytes": ({"key_ids": bytes(4)}, "the key ids are not a list"),
    "too many key ids": ({"key_ids": [bytes(4)] * 33}, "the key ids are not a list within its limit"),
    "a key id of 3 bytes": ({"key_ids": [bytes(3)]}, "a key id is not 4 bytes"),
    "a key id in a list": ({"key_ids": [[bytes(4)]]}, "a key id is not 4 bytes"),
    "key ids of nobody": ({"key_ids": [bytes(4)]}, "the flag and the key ids disagree"),
    "a map for later": ({"more": [{}]}, "an array or map where a value should be"),
    "a long text for later": ({"more": ["x" * 257]}, "exceeds max_str_len(256)"),
    "long bytes for later": ({"more": [bytes(257)]}, "exceeds max_bin_len(256)"),
    "a wide list for later": ({"more": [[0] * 65]}, "exceeds max_array_len(64)"),
    "an extension for later": ({"more": [msgpack.ExtType(5, b"x")]}, "exceeds max_ext_len(0)"),
    "no text for later": ({"more": [b"\xff"]}, "text that is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "reason"), HEADER_FAULTS.values(), ids=HEADER_FAULTS.keys())
def test_a_wrong_header_is_refused(fields, reason):
    frame = with_header(FRAME, **fields)
    if fields == {"more": [b"\xff"]}:  # the same byte as text
        frame = frame_of(parts(frame)[0].replace(b"\xc4\1\xff", b"\xa1\xff"), PAYLOAD)
    for read in (read_header, decode):
        error = _refusal(frame, read)
        assert error.reason.startswith("header: ")
        assert reason in error.reason
        assert error.offset == PREFIX_BYTES


# --- columns ------------------------------------------------------------------------------------------------

WRONG: dict[str, Any] = {
    "nil": None,
    "true": True,
    "a float": 1.5,
    "text": "\x01\x01\x01",
    "a map": {},
    "an extension": msgpack.ExtType(5, b""),
    "a list of lists": [[]],
    "a list of extensions": [msgpack.ExtType(5, b"")],
    "one entry more": lambda column: column + column[:1],
    "one entry fewer": lambda column: column[:-1],
    "bytes for a list, a list for bytes": lambda column: b"\1" if type(column) is list else [1],
    "NaN first": lambda column: [float("nan"), *column[1:]],
    "an integer of 64 bits first": lambda column: [2**64 - 1, *column[1:]],
}
"""Whatever the column, it is wrong with these instead. (Tables may have words that nobody uses, and M may be longer or shorter.)"""
RIGHT = {
    ("B", "one entry more"),
    ("E", "one entry more"),
    ("M", "one entry more"),
    ("M", "one entry fewer"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_another_type_or_length_is_refused(name):
    for what, wrong in WRONG.items():
        if (name, what) in RIGHT:
            continue
        column = wrong(COLUMNS[name]) if callable(wrong) else wrong
        error = _refusal(with_columns(FRAME, **{name: column}))
        assert error.reason.startswith("payload: "), what
        assert error.offset == INSIDE, what


@pytest.mark.parametrize("name", sorted(COLUMNS.keys() - {"d", "T", "W", "z", "by", "D", "c", "a", "p", "q"}))
def test_a_missing_column_is_refused(name):
    assert _refusal(with_columns(FRAME, **{name: ...})).reason.startswith("payload: ")


BIG = 2**64 - 1
COLUMN_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"Q": [1]}, "'Q' is not known"),
    "unknown and empty": ({"Q": b""}, "'Q' is not known"),
    "no letter": ({"\u00e9": 0}, "'\u00e9' is not known"),
    "too many": ({f"c{n}": [] for n in range(40)}, "69 columns, more than 64"),
    "weights": ({"w": 5}, "'w' holds a value out of range"),
    "weight of 64 bits": ({"w": BIG}, "'w' holds a value out of range"),
    "wide value negative": ({"v": [-1, 545, 745, 1034, 742]}, "'v' holds a value out of range"),
    "x far": ({"v": [BIG, 545, 745, 1034, 742]}, "'x' holds a value out of range"),
    "times overflow": ({"j": [0, BIG] + [7] * 12}, "'t' holds a value out of range"),
    "times overflow and come back": ({"j": [0, 2**62, -(2**62), *COLUMNS["j"][3:]]}, "'t' holds a value out of range"),
    "kind of the future": ({"k": COLUMNS["k"][:-1] + b"\x0a"}, "kind 10 is not known"),
    "kind 255": ({"k": b"\xff" + COLUMNS["k"][1:]}, "kind 255 is not known"),
    "a move among rare rows": ({"k": b"\0" + COLUMNS["k"][1:]}, "a move among the other rows"),
    "rare rows of others": ({"k": b"\1" + COLUMNS["k"][1:]}, "entries where"),
    "more moves than there are": ({"i": [4] + [0] * 13}, "'i' holds a value out of range"),
    "moves that overflow": ({"i": [2**63, -(2**63)] + [0] * 12}, "'i' holds a value out of range"),
    "rare rows go back": ({"i": [3, -1] + [0] * 12}, "'i' goes back"),
    "a clock without steps": ({"C": [0, 0]}, "'C' is not a step and a base"),
    "a clock of 64 bits": ({"C": [BIG, 0]}, "'C' holds a value out of range"),
    "steps that overflow": ({"C": [60_000_000_000, 0], "t": b"\xff" * 3, "u": [2**40] * 3}, "'t' holds a value out of range"),
    "correction of no row": ({"C": [1000000, 0], "h": [17], "r": [0]}, "'h' holds a value out of range"),
    "correction of row -1": ({"C": [1000000, 0], "h": [-1], "r": [0]}, "'h' holds a value out of range"),
    "correction too large": ({"C": [1000000, 0], "h": [1], "r": [BIG]}, "'t' holds a value out of range"),
    "place of no click": ({"a": [1, 1, 2]}, "'a' holds a value out of range"),
    "place of click -1": ({"a": [-1, 1, 1]}, "'a' holds a value out of range"),
    "places that fall": ({"a": [1, 1, -1]}, "'a' does not rise"),
    "place too far": ({"q": [2**31, 0, 0]}, "'q' holds a value out of range"),
    "button beyond the table": ({"b": [0, 2]}, "'b' holds a value out of range"),
    "button negative": ({"b": [0, -1]}, "'b' holds a value out of range"),
    "button true": ({"b": [0, True]}, "'b' holds something that is no integer"),
    "button nil": ({"B": [0, None]}, "a word that is not text"),
    "button of no number": ({"B": [0, 32]}, "a word that is not text"),
    "button bytes": ({"B": [0, b"left"]}, "a word that is not text"),
    "no buttons": ({"B": [], "b": []}, "'b' has 0 entries"),
    "key too long": ({"E": ["x" * 129, None]}, "a word that is not text within its limit"),
    "step is NaN, not first": ({"s": [-5, float("nan")]}, "'s' holds something that is no number"),
    "step infinite": ({"s": [float("-inf"), 0]}, "'s' holds something that is no number"),
    "step too large": ({"s": [1e300, 0]}, "'s' holds a value out of range"),
    "steps not whole, no count": ({"c": ...}, "'c' is missing"),
    "count zero": ({"c": [0, 1]}, "'c' holds a value out of range"),
    "gap negative": ({"l": [-1]}, "'l' holds a value out of range"),
    "display 256": ({"Y": [256, *COLUMNS["Y"][1:]]}, "'Y' holds a display out of range"),
    "display true": ({"Y": [True, *COLUMNS["Y"][1:]]}, "'Y' holds something that is no number"),
    "display of NaN": ({"Y": [*COLUMNS["Y"][:5], float("nan"), *COLUMNS["Y"][6:]]}, "'Y' holds a display out of range"),
    "window partly nil": ({"W": [20, None, *COLUMNS["W"][2:]]}, "'W' holds a place that is none"),
    "window of floats": ({"W": [20.0, *COLUMNS["W"][1:]]}, "'W' holds a place that is none"),
    "title as a number": ({"T": [0, None]}, "'T' holds a title that is no text"),
    "title of 513 bytes": ({"T": ["x" * 513, None]}, "exceeds max_str_len(512)"),
    "layout nil": ({"L": [None]}, "a word that is not text"),
    "marks back": ({"z": [5, True, -1, False]}, "'z' goes back"),
    "marks of no row": ({"z": [11, True]}, "'z' holds a value out of range"),
    "marks by 0": ({"z": [5, 0]}, "'z' holds something else"),
    "mark of a row that is true": ({"z": [True, True]}, "'z' is not pairs"),
    "another header, nil": ({"H": None}, "it belongs to another header"),
    "another header": ({"H": bytes(16)}, "it belongs to another header"),
    "tick of 0": ({"M": [*COLUMNS["M"][:3], 0, *COLUMNS["M"][4:]]}, "tick_ns is not an integer in its range"),
    "anchor true": ({"M": [True, *COLUMNS["M"][1:]]}, "monotonic_ns is not an integer in its range"),
    "lever NaN": ({"P": ["age_s", float("nan")]}, "a lever of 'P'"),
    "lever twice": ({"P": ["left", 1, 0, 2]}, "a name appears twice"),
    "backends of no source": ({"S": ...}, "'by' has 1 entries for 0 sources"),
    "backends of more sources": ({"by": [32, None]}, "'by' has 2 entries for 1 sources"),
    "backend of no number": ({"by": [34]}, "a word that is not text"),
    "33 reasons": ({"R": ["x"] * 33}, "reasons in words, or too many"),
    "an extension beyond M": ({"M": [*COLUMNS["M"], 0, 0, msgpack.ExtType(5, b"")]}, "an extension where a value should be"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "reason"), COLUMN_FAULTS.values(), ids=COLUMN_FAULTS.keys())
def test_wrong_columns_are_refused(columns, reason):
    frame = with_columns(FRAME, **columns)
    read_header(frame)
    error = _refusal(frame)
    assert error.reason.startswith("payload: ")
    assert reason in error.reason
    assert error.offset == INSIDE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x90", "Unexpected type header"),
        (b"\x80", "column 'M'"),
        (b"\xc0", "Unexpected type header"),
        (b"\x81", "no msgpack that can be read (OutOfData)"),
        (b"\x81\xa1t", "it ends early"),
        (b"\x81\xa1t\xc1", "no msgpack that can be read"),
        (b"\x81\xa1u\x93\1\2", "an array ends early"),
        (b"\x81\xa4long\x93\1\2", "no msgpack that can be read (OutOfData)"),
        (b"\x81\1\x90", "a column without a name"),
        (b"\x81\xc4\1x\x90", "a column without a name"),
        (b"\x81\xa0\x90", "a column without a name"),
        (b"\x82\xa1x\x90\xa1x\x90", "twice the same"),
        (b"\x82\xa4long\x90\xa4long\x90", "twice the same"),
        (b"\x81\xa1\xff\x90", "text that is not UTF-8"),
        (b"\x81\xa1R\x91\xa1\xff", "text that is not UTF-8"),
        (raw_of(FRAME) + b"\0", "bytes follow the columns"),
        (raw_of(FRAME)[:-1], "an array ends early"),
    ],
)  # fmt: skip
def test_what_is_no_map_of_columns_is_refused(content, reason):
    error = _refusal(with_raw(FRAME, content))
    assert reason in error.reason
    assert error.offset == INSIDE


@pytest.mark.parametrize(
    "software", ["", "/", "mcilib", "mcilib/", "mcilib/1", "mcilib/1/2", "mcilib/mcilib/1", "x" * 256]
)
def test_whatever_wrote_it_is_written_as_it_was_read(software):
    assert hostile.refusal_of(with_columns(FRAME, M=[*COLUMNS["M"][:4], software, 24])) is None


def test_errors_show_nothing_of_the_content():
    secret = "hunter2" * 30
    for columns in ({"E": [secret, None]}, {"P": [secret, 0]}, {"R": [secret * 3]}, {secret: [], "Q": 1}):
        assert "hunter2" not in str(_refusal(with_columns(FRAME, **columns)))
    assert "hunter2" not in str(_refusal(with_header(FRAME, device=b"hunter2"), read_header))


# --- version 0 ----------------------------------------------------------------------------------------------

OLD = (hostile.VECTORS / "v0_every_kind.mcib").read_bytes()
OLD_HEAD: dict[str, Any] = msgpack.unpackb(parts(OLD)[0])
OLD_COLUMNS: dict[str, Any] = msgpack.unpackb(zstandard.decompress(parts(OLD)[1]))
IGNORED = {"rows", "events", "first", "last"}
"""Fields of its header that say again what the rows say."""


def _old(fields: dict[str, Any], columns: dict[str, Any]) -> bytes:
    """Version 0, with other fields in its header and other columns; `...` removes one."""
    head, content = (
        msgpack.packb({name: value for name, value in (old | new).items() if value is not ...})
        for old, new in ((OLD_HEAD, fields), (OLD_COLUMNS, columns))
    )
    return frame_of(head, _zstd(content), version=0)


@pytest.mark.parametrize("wrong", [..., None, -1, 1.5, True, "x", b"x", [], {"x": None}, 2**64 - 1], ids=repr)
@pytest.mark.parametrize("name", sorted(OLD_HEAD.keys() - IGNORED))
def test_version_0_with_a_wrong_header_is_refused(name, wrong):
    if (name, repr(wrong)) in {("software", "'x'"), ("monotonic_ns", "-1"), ("wall_ns", "-1")}:
        return  # that is not wrong
    error = _refusal(_old({name: wrong}, {}))
    assert error.reason.startswith(("header: ", "payload: "))
    assert error.offset >= PREFIX_BYTES


@pytest.mark.parametrize(
    "wrong", [..., None, -1, "x", b"x", {}, [None], [[]], [2**64 - 1], [float("nan")]], ids=repr
)
@pytest.mark.parametrize("name", sorted(OLD_COLUMNS))
def test_version_0_with_a_wrong_column_is_refused(name, wrong):
    if (name, wrong) == ("source", ...):
        return  # there is one source only, so that nothing is open
    assert _refusal(_old({}, {name: wrong})).reason.startswith("payload: ")


# --- frames that are made to harm ---------------------------------------------------------------------------

ROWS = 65_536
ENTRIES = 262_144
CONTENT_BYTES = limits.PAYLOAD_MAX_BYTES
ABOUT: dict[str, Any] = {"M": COLUMNS["M"]}
NEST = b"\xdd\0\1\0\0"  # an array of 65,536
BACK = -100_000
"""A difference of times that puts the rows in the wrong order, and still fits 65,536 times."""


def _zstd(raw: bytes, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(raw)


def _of(**columns: Any) -> bytes:
    content = msgpack.packb(ABOUT | columns)
    assert len(content) <= CONTENT_BYTES
    return frame_of(HEAD, _zstd(content))


def _content(raw: bytes) -> bytes:
    return with_raw(FRAME, raw)


def _with_head(head: bytes) -> bytes:
    return frame_of(head, PAYLOAD)


def _v0(head: bytes) -> bytes:
    return frame_of(head, PAYLOAD, version=0)


def _sealed(payload: bytes) -> bytes:
    """A payload section inside a seal, under a header that agrees."""
    head = msgpack.packb([*msgpack.unpackb(HEAD)[:5], [bytes.fromhex(key_id(RECIPIENT))]])
    return frame_of(head, seal(payload, [RECIPIENT]), flags=1)


def _age(header_bytes: int) -> bytes:
    """An age file whose header is full of small lines, which libraries may read in quadratic time."""
    stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    return (
        b"age-encryption.org/v1\n"
        + stanza * (header_bytes // len(stanza))
        + b"--- "
        + b"A" * 43
        + b"\n"
        + bytes(64)
    )


def _dear(length: int) -> str:
    """Text of so many bytes that Python holds in four times as many."""
    return "\U0001f600" + "a" * (length - 4)


def _dear_and_dense(length: int, number: int) -> str:
    """The same, with so much noise in it that a frame full of them is about as large as a frame can be."""
    noise = "".join(chr(32 + (number * (n + 7919) * 2654435761 >> 13) % 95) for n in range(length // 4))
    return "\U0001f600" + noise.ljust(length - 4, "a")


BOMBS: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "1 GiB of zeros": (lambda: frame_of(HEAD, _zstd(bytes(2**30))), "states no size, or more"),
    "just above the cap": (lambda: frame_of(HEAD, _zstd(bytes(CONTENT_BYTES + 1))), "states no size, or more"),
    "states 1 TB in 13 bytes": (frame_of(HEAD, b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little")), "states no size, or more"),
    "states no size": (frame_of(HEAD, zstandard.ZstdCompressor(write_content_size=False).compress(raw_of(FRAME))), "states no size, or more"),
    "states nothing": (frame_of(HEAD, _zstd(b"")), "states no size, or more"),
    "states all that it may, holds none": (frame_of(HEAD, b"\x28\xb5\x2f\xfd\xa0" + CONTENT_BYTES.to_bytes(4, "little") + b"\1\0\0"), "the zstd frame is damaged"),
    "window of 128 MiB": (frame_of(HEAD, b"\x28\xb5\x2f\xfd\x80\x88" + (10**6).to_bytes(4, "little") + b"\3\0\0\0"), "needs a larger window"),
    "states less than it holds": (frame_of(HEAD, b"\x28\xb5\x2f\xfd\x20\x01" + ((2**17 << 3) | 3).to_bytes(3, "little") + b"\0"), "the zstd frame is damaged"),
    "a dictionary": (frame_of(HEAD, b"\x28\xb5\x2f\xfd\x21\x07\1\1\0\0"), "or a dictionary"),
    "a billion entries": (_content(b"\x81\xa1v\xdd\x3b\x9a\xca\0"), "more than 262144 entries"),
    "a billion columns": (_content(b"\xdf\x3b\x9a\xca\0\xa1x\x90"), "columns, more than 64"),
    "as many entries as may be, and none there": (_content(b"\x81\xa1v\xdd\0\4\0\0"), "an array ends early"),
    "many arrays of as many": (_content(b"\xde\0\x40" + b"".join(b"\xa1" + bytes([n]) + b"\xdd\0\1\0\0" + bytes(ROWS) for n in range(64))), "more than 262144 entries"),
    "a text of 4 GiB": (_content(b"\x81\xa1E\x91\xdb\xff\xff\xff\xff"), "an array ends early"),
    "a name of 4 GiB": (_content(b"\x81\xdb\xff\xff\xff\xff"), "OutOfData"),
    "bytes of 4 GiB": (_content(b"\x81\xa1x\xc6\xff\xff\xff\xff"), "OutOfData"),
    "an extension of 4 GiB": (_content(b"\x81\xa1x\xc9\xff\xff\xff\xff\5"), "exceeds max_ext_len(0)"),
    "nested": (lambda: _content(b"\x81\xa1v" + b"\x91" * (CONTENT_BYTES - 3)), "exceeds max_array_len(0)"),
    "nested and wide": (lambda: _content(b"\x81\xa1v" + NEST * 100_000), "exceeds max_array_len(0)"),
    "maps in maps": (lambda: _content(b"\x81\xa1v\x91" + b"\x81\xa1v" * 100_000), "exceeds max_map_len(0)"),
    "arrays by the million": (lambda: _content(b"\x81\xa1v" + NEST + b"\x90" * 2**22), "an array or map where a value should be"),
    "a name that nests": (lambda: _content(b"\x81" + b"\x91" * 100_000), "exceeds max_array_len(0)"),
    "nested where it is ignored": (lambda: _content(b"\x81\xa4long" + b"\x91" * (CONTENT_BYTES - 6)), "StackError"),
    "nested and wide where it is ignored": (lambda: _content(b"\x81\xa4long" + b"\xdd\xff\xff\xff\xff" * 1_500_000), "StackError"),
    "a billion entries where they are ignored": (lambda: _content(b"\x81\xa4long\xdd\x3b\x9a\xca\0" + bytes(CONTENT_BYTES - 16)), "OutOfData"),
    "a map of a billion where it is ignored": (lambda: _content(b"\x81\xa4long\xdf\x3b\x9a\xca\0" + bytes(CONTENT_BYTES - 16)), "OutOfData"),
    "a text of 4 GiB where it is ignored": (_content(b"\x81\xa4long\xdb\xff\xff\xff\xff"), "no msgpack"),
    "texts in a column that nobody knows": (lambda: _of(Q=[_dear(28)] * (ENTRIES - 9)), "'Q' is not known"),
    "the same in the largest frame": (lambda: _of(Q=[_dear_and_dense(28, n) for n in range(ENTRIES - 9)]), "'Q' is not known"),
    "nested header": (_with_head(b"\x91" * 65_536), "header: "),
    "nested and wide header": (_with_head(b"\xdc\0\x40" * 21_000), "header: "),
    "nested header of maps": (_with_head(b"\x81\xa1x" * 20_000), "header: "),
    "wide header": (_with_head(b"\xdd\xff\xff\xff\xff" + bytes(60_000)), "header: "),
    "header with a huge text": (_with_head(b"\x91\xdb\xff\xff\xff\xff"), "header: "),
    "version 0, nested header": (_v0(b"\x81\xa1x" * 20_000), "header: "),
    "version 0, nested and wide header": (_v0(b"\x81\xa1x" + b"\xdc\0\x40" * 20_000), "header: "),
    "version 0, wide header": (_v0(b"\xdf\xff\xff\xff\xff" + bytes(60_000)), "header: "),
    "sealed: 1 GiB of zeros": (lambda: _sealed(_zstd(bytes(2**30))), "states no size, or more"),
    "sealed: nested": (lambda: _sealed(_zstd(b"\x81\xa1v" + b"\x91" * (CONTENT_BYTES - 3))), "exceeds max_array_len(0)"),
    "sealed: a billion entries": (lambda: _sealed(_zstd(b"\x81\xa1v\xdd\x3b\x9a\xca\0")), "more than 262144 entries"),
    "sealed: texts": (lambda: _sealed(_zstd(msgpack.packb({"Q": [_dear_and_dense(28, n) for n in range(ENTRIES)]}))), "belongs to another header"),
    "sealed: a seal of 4 MB that is none": (frame_of(parts(_sealed(b""))[0], _age(limits.FRAME_MAX_BYTES - 1_000), flags=1), "its header does not end within"),
    "sealed: as long a header as may be": (frame_of(parts(_sealed(b""))[0], _age(4_000), flags=1), "is damaged"),
}  # fmt: skip
"""Frames that are refused, and why."""


def _rare(kind: int, rows: int = ROWS - 4, **columns: Any) -> bytes:
    """Rows of one kind, each before the one in front of it, so that all have to be put in order."""
    return _of(k=bytes([kind]) * rows, i=[0] * rows, j=[BACK] * rows, **columns)


def _moves(**columns: Any) -> bytes:
    noise = bytes(n * 167 % 255 for n in range(ROWS))
    return _of(x=noise, y=noise[::-1], **{"t": b"\xff" * ROWS, "u": [BACK] * ROWS} | columns)


def _zigzag(rows: int) -> list[int]:
    return [n if n % 2 else -n for n in range(rows)]


PRESSES = 37_000  # what has seven numbers a row, within 262,144
LARGEST: dict[str, Callable[[], bytes]] = {
    "applications and titles": lambda: _rare(9, A=[_dear_and_dense(58, n) for n in range(ROWS - 4)], T=[_dear_and_dense(58, ~n) for n in range(ROWS - 4)]),
    "titles": lambda: _rare(9, A=[None] * (ROWS - 4), T=[_dear(118)] * (ROWS - 4)),
    "windows": lambda: _rare(9, PRESSES, A=[None] * PRESSES, W=[2**31 - 1] * 4 * PRESSES),
    "layouts": lambda: _rare(8, L=[_dear(118)] * (ROWS - 4)),
    "keys": lambda: _rare(4, E=[_dear(116)] * (ROWS - 4), e=list(range(ROWS - 4))),
    "displays": lambda: _rare(7, 28_000, Y=[255, 2**31 - 1, -5, 2**30, 2**30, 1.1, 270] * 28_000),
    "scrolls": lambda: _rare(3, 43_000, s=[1.5] * 43_000, d=[1e9 + 0.1] * 43_000, c=[2**30] * 43_000),
    "presses elsewhere": lambda: _rare(1, 43_000, B=[0], a=[0] + [1] * 42_999, p=_zigzag(43_000), q=_zigzag(43_000), M=[*COLUMNS["M"][:6], 256]),
    "gaps": lambda: _rare(6, 43_000, l=[2**62] * 43_000, G=[16, 17], g=[n % 2 for n in range(43_000)]),
    "moves": _moves,
    "moves of a known maker": lambda: _moves(z=[0, True] + [1, False, 1, True] * ((ROWS - 1) // 2)),
    "moves of a coarse clock": lambda: _moves(C=[10**9 + 7, -(10**15)], u=[-(10**4)] * ROWS, h=[0] + [1] * (ROWS - 1), r=_zigzag(ROWS)),
    "moves and keys in turn": lambda: _of(
        **dict.fromkeys("xyt", bytes(ROWS // 2)), k=b"\4" * (ROWS // 2), i=[1] * (ROWS // 2), j=[BACK] * (ROWS // 2), E=[5],
        z=[0, True] + [1, None, 1, False] * (ROWS // 2 - 1),
    ),
    "keys after all moves": lambda: _of(
        **dict.fromkeys("xyt", bytes(ROWS // 2)), k=b"\4" * (ROWS // 2), i=[ROWS // 2] + [0] * (ROWS // 2 - 1), j=[BACK] * (ROWS // 2), E=[5],
    ),
}  # fmt: skip
"""Frames that are read, and take as much memory and time as any that we could think of."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of frames by name."""
    made = {name: frame for name, (frame, _) in BOMBS.items()} | LARGEST
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, frame) in enumerate(made.items()):
        paths[name] = folder / f"{number}.mcib"
        paths[name].write_bytes(frame() if callable(frame) else frame)
        assert paths[name].stat().st_size <= limits.FRAME_MAX_BYTES
    return paths


_UNDER_A_LIMIT = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import hostile
from mcilib.errors import BatchFormatError
from mcilib.format import batch
from mcilib.format.seal import unseal
hostile.refusal_of(open(sys.argv[3], "rb").read(), [sys.argv[2]])  # all that is imported late
hostile.limit_memory()
outcomes = []
for path in sys.argv[3:]:
    with open(path, "rb") as file:
        data = file.read()
    began = time.process_time()
    try:
        rows = len(batch.decode(data, [sys.argv[2]]).events)
        outcome = str(rows)
    except BatchFormatError as error:
        outcome = error.reason
    except MemoryError:
        outcome = "took more than the memory there is"
    outcomes.append((outcome, time.process_time() - began))
    del data
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def outcomes(written):
    """What became of each in a process with 128 MiB for it: the reason, or how many rows, and seconds of CPU."""
    run = subprocess.run(
        [sys.executable, "-P", "-c", _UNDER_A_LIMIT, ROOT / "tests" / "support", IDENTITY, *written.values()],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return dict(zip(written, json.loads(run.stdout), strict=True))


CPU_MAX_S = 5.0
"""For any one frame. The dearest takes 0.7 s; one that took time in square of its rows would take minutes."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_128_mib(name, outcomes):
    outcome, cpu_s = outcomes[name]
    assert BOMBS[name][1] in outcome
    assert cpu_s < CPU_MAX_S


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_batches_are_read_within_128_mib(name, outcomes):
    outcome, cpu_s = outcomes[name]
    assert outcome.isdecimal(), outcome
    assert int(outcome) >= 28_000
    assert cpu_s < CPU_MAX_S


def test_the_limit_is_one():
    """That of the two tests above: without it they could not fail."""
    code = "import hostile; hostile.limit_memory(); bytes(125 * 2**20); print('below'); bytes(129 * 2**20)"
    run = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, sys.argv[1]); {code}", ROOT / "tests" / "support"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.stdout == "below\n", run.stderr
    assert run.stderr.endswith("MemoryError\n")


# --- mutants below the checksum -----------------------------------------------------------------------------

SHARES = 4


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_mutants_of_each_vector_are_refused_or_read(share):
    """A thousand of each, in the memory that the document promises. CI makes twenty times as many."""
    names = VECTORS[share::SHARES]
    run = subprocess.run(
        [
            sys.executable,
            "-P",
            ROOT / "tests" / "fuzz" / "mutate.py",
            "--each",
            "1000",
            "--seed",
            "3",
            *names,
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = re.match(r"(\d+) mutants .* (\d+) damaged, (\d+) read", run.stdout)
    assert found, run.stdout
    mutants, damaged, read = map(int, found.groups())
    assert mutants == 1_000 * len(names)
    assert damaged > mutants * 0.5
    assert read > mutants * 0.01


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
_NAMES = st.sampled_from([*COLUMNS, *"uwChrgPRH"])


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(_NAMES | st.text(max_size=3), st.lists(_SCALARS, max_size=8) | _VALUES, max_size=6))
def test_random_columns_are_refused_or_read(columns):
    hostile.refusal_of(with_columns(FRAME, **columns))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_columns_with_one_other_entry_are_refused_or_read(data):
    name = data.draw(st.sampled_from([name for name, column in COLUMNS.items() if column]))
    column = COLUMNS[name]
    at = data.draw(st.integers(0, len(column) - 1))
    value = data.draw(st.integers(0, 255) if type(column) is bytes else _SCALARS)
    hostile.refusal_of(with_columns(FRAME, **{name: column[:at] + type(column)([value]) + column[at + 1 :]}))


_ENTRIES = ("batch_id", "participant", "device", "grant", "sequence", "key_ids", "more")


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(_ENTRIES), _VALUES, max_size=4))
def test_random_headers_are_refused_or_read(fields):
    more = fields.pop("more", ())
    hostile.refusal_of(with_header(FRAME, more=more if type(more) is list else [more], **fields))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_everywhere(data):
    for version in (0, 1):
        prefix = b"MCIB" + bytes([version])
        for whole in (data, prefix + b"\0" + data, frame_of(data, PAYLOAD, version=version)):
            _refusal(whole)
    _refusal(with_payload(FRAME, data))
    _refusal(with_raw(FRAME, data))
    _refusal(_sealed_under(data))


def _sealed_under(payload: bytes) -> bytes:
    return frame_of(_SEALED_HEAD, payload, flags=1)


_SEALED_HEAD = parts(_sealed(b"x"))[0]
