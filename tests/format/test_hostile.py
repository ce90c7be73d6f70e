"""Whatever the bytes: `BatchFormatError` with a reason, bounded memory, nothing else."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable

import msgpack
import pytest
import zstandard
from batches import batch, frame_of, one_of_each, parts, raw_of, sample, with_columns, with_header, with_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.errors import BatchFormatError
from mcilib.format.batch import decode, encode, read_header, split_frames

FRAME = sample()
HEAD, PAYLOAD = parts(FRAME)


def _refusal(data: bytes, read: Callable[[bytes], object] = decode) -> BatchFormatError:
    with pytest.raises(BatchFormatError) as caught:
        read(data)
    assert caught.value.reason
    assert 0 <= caught.value.offset <= max(len(data), 14)
    return caught.value


def _survives(data: bytes) -> None:
    """Either a batch that can be written again, or the one error."""
    try:
        read = decode(data)
    except BatchFormatError:
        return
    encode(read)


# --- damage -------------------------------------------------------------------------------------------------


def test_every_truncation_is_refused():
    for length in range(len(FRAME)):
        _refusal(FRAME[:length])
        _refusal(FRAME[:length], read_header)
        if length:
            _refusal(FRAME[:length], lambda data: list(split_frames(data)))


def test_every_flipped_bit_is_refused():
    for bit in range(8 * len(FRAME)):
        damaged = bytearray(FRAME)
        damaged[bit // 8] ^= 1 << bit % 8
        _refusal(bytes(damaged))
        _refusal(bytes(damaged), read_header)


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "ends after 0 bytes", 0),
        (b"MCIB\0\0\0\0", "ends after 8 bytes", 0),
        (b"PK\3\4" + bytes(30), "no batch of mcilib", 0),
        (FRAME[:4] + b"\1" + FRAME[5:], "format version 1; this mcilib reads 0: upgrade mcilib", 4),
        (frame_of(HEAD, PAYLOAD, flags=1), "flags 0x01", 5),
        (FRAME[:-1], "ends after", len(FRAME) - 1),
        (FRAME + b"\0", "1 bytes follow its end", len(FRAME)),
        (FRAME[:-1] + bytes([FRAME[-1] ^ 1]), "checksum", len(FRAME) - 4),
        (struct.pack(">4sBBII", b"MCIB", 0, 0, 10, 2**32 - 1), "more than a batch may have", 6),
        (struct.pack(">4sBBII", b"MCIB", 0, 0, 65_537, 1), "more than a batch may have", 6),
        (frame_of(b"", PAYLOAD), "header: no msgpack", 14),
        (frame_of(HEAD + b"\0", PAYLOAD), "header: it is not one map", 14),
        (frame_of(b"\1", PAYLOAD), "header: it is not one map", 14),
        (frame_of(b"\x82\xa1a\1\xa1a\2", PAYLOAD), "header: a name appears twice", 14),
        (frame_of(b"\x81\xa1\xff\1", PAYLOAD), "header: text that is not UTF-8", 14),
        (frame_of(HEAD, b""), "payload: not a zstd frame", 14 + len(HEAD)),
        (frame_of(HEAD, PAYLOAD[:-1]), "payload: the zstd frame is damaged", 14 + len(HEAD)),
        (frame_of(HEAD, PAYLOAD + b"\0"), "payload: the zstd frame is damaged", 14 + len(HEAD)),
        (frame_of(HEAD, PAYLOAD + PAYLOAD), "payload: the zstd frame is damaged", 14 + len(HEAD)),
        (frame_of(HEAD, b"\x50\x2a\x4d\x18\4\0\0\0abcd"), "payload: not a zstd frame", 14 + len(HEAD)),
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

HEADER_FAULTS: dict[str, dict[str, object]] = {
    **{f"no {name}": {name: ...} for name in msgpack.unpackb(HEAD)},
    "batch too short": {"batch": bytes(15)},
    "batch as text": {"batch": "0" * 16},
    "grant of another length": {"grant": bytes(20)},
    "boot as text": {"boot": "b0" * 8},
    "negative sequence": {"sequence": -1},
    "sequence of 64 bits": {"sequence": 2**63},
    "sequence true": {"sequence": True},
    "anchor as float": {"monotonic_ns": 1.5},
    "anchor beyond": {"wall_ns": 2**63},
    "no tick": {"tick_ns": 0},
    "tick of an hour": {"tick_ns": 3600 * 10**9},
    "software as bytes": {"software": b"x"},
    "sources as text": {"sources": "pointer"},
    "sources of numbers": {"sources": {"pointer": 1}},
    "negative rows": {"rows": -1},
    "too many rows": {"rows": 65_537, "events": 70_000},
    "fewer events than rows": {"events": 7},
    "last before first": {"last": -1},
    "first beyond the clock": {"first": -(2**63), "last": 0},
    "last beyond the clock": {"last": 2**63},
    "coverage empty": {"coverage": {}},
    "coverage negative": {"coverage": {"dropped": {}, "excluded": -1}},
    "coverage of lists": {"coverage": {"dropped": [1], "excluded": 0}},
    "coverage of texts": {"coverage": {"dropped": {"spool": "1"}, "excluded": 0}},
}  # fmt: skip


@pytest.mark.parametrize("fields", HEADER_FAULTS.values(), ids=HEADER_FAULTS.keys())
def test_a_wrong_header_is_refused(fields):
    error = _refusal(with_header(FRAME, **fields), read_header)
    assert error.reason.startswith("header: ")
    assert error.offset == 14


def test_header_fields_of_the_future_are_ignored():
    assert decode(with_header(FRAME, plan=["thinned", {"tolerance_px": 2}])) == decode(FRAME)


@pytest.mark.parametrize(
    "fields",
    [{"rows": 7}, {"rows": 9}, {"events": 11}, {"events": 13}, {"first": 1}, {"last": 48}, {"last": 50}],
)
def test_a_header_that_disagrees_with_the_rows_is_refused(fields):
    read_header(with_header(FRAME, **fields))
    assert _refusal(with_header(FRAME, **fields)).reason.startswith("payload: ")


# --- columns ------------------------------------------------------------------------------------------------

COLUMN_FAULTS: dict[str, dict[str, object]] = {
    **{f"no {name}": {name: ...} for name in msgpack.unpackb(raw_of(FRAME))},
    "kind out of range": {"kind": [0, 1, 2, 3, 3, 4, 5, 7]},
    "kind negative": {"kind": [-1, 1, 2, 3, 3, 4, 5, 6]},
    "kind as text": {"kind": ["move", 1, 2, 3, 3, 4, 5, 6]},
    "kind as float": {"kind": [0.0, 1, 2, 3, 3, 4, 5, 6]},
    "kinds of other rows": {"kind": [0, 1, 2, 3, 3, 4, 4, 5]},
    "time as float": {"t": [0.0] + [7] * 7},
    "time true": {"t": [False] + [7] * 7},
    "time overflows": {"t": [2**62, 2**62, -(2**62), -(2**62), 0, 0, 0, 49]},
    "time overflows back": {"t": [-(2**63), 2**63 + 49] + [0] * 6},
    "more times": {"t": [7] * 9},
    "x too far": {"x": [2**31, 0, 0, 0, 0]},
    "x sums too far": {"x": [2**30, 2**30, 2**30, 0, 0]},
    "x is null": {"x": [None, 0, 0, 0, 0]},
    "y fewer": {"y": [1, 1, 1, 1]},
    "button beyond the table": {"button": [0, 2]},
    "button negative": {"button": [0, -1]},
    "button table of bytes": {"buttons": [b"left", b"right"]},
    "button null": {"buttons": ["left", None]},
    "dx is NaN": {"dx": [float("nan"), 0]},
    "dy is NaN, not first": {"dy": [0, float("nan")]},
    "dy infinite": {"dy": [float("inf"), 0]},
    "dy too large": {"dy": [1e300, 0]},
    "dy as text": {"dy": ["1", 0]},
    "count zero": {"count": [0, 6]},
    "count negative": {"count": [-5, 11]},
    "count too large": {"count": [2**31, 1]},
    "key beyond the table": {"key": [0, 9]},
    "keys of numbers": {"keys": [1, 2]},
    "name too long": {"keys": ["x" * 129, None]},
    "duration negative": {"duration": [-1]},
    "duration beyond": {"duration": [2**63]},
    "source null": {"sources": [None]},
    "a list in a list": {"x": [[], 0, 0, 0, 0]},
    "a map in a list": {"x": [{}, 0, 0, 0, 0]},
    "a column of bytes": {"x": b"12345"},
    "a column that is a number": {"count": 5},
    "a column that is a map": {"source": {}},
    "an unknown column": {"colour": [1]},
    "an empty unknown column": {"colour": []},
    "too many columns": {f"c{n}": [] for n in range(20)},
    "extension type": {"x": [msgpack.ExtType(5, b""), 0, 0, 0, 0]},
    "timestamp": {"x": [msgpack.Timestamp(1), 0, 0, 0, 0]},
}


@pytest.mark.parametrize("columns", COLUMN_FAULTS.values(), ids=COLUMN_FAULTS.keys())
def test_wrong_columns_are_refused(columns):
    frame = with_columns(FRAME, **columns)
    read_header(frame)
    error = _refusal(frame)
    assert error.reason.startswith("payload: ")
    assert error.offset == 14 + len(HEAD)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x90",
        b"\x80",
        b"\xc0",
        b"\x81\xa1t",
        b"\x81\xa1t\x93\1\2",
        b"\x81\1\x90",
        b"\x82\xa1x\x90\xa1x\x90",
        raw_of(FRAME) + b"\0",
        raw_of(FRAME)[:-1],
        raw_of(FRAME).removesuffix(b"\x91\0") + b"\x92\0",  # the last column lacks an entry
        b"\x8f" + raw_of(FRAME).removeprefix(b"\x8e") + b"\xa6source\x91\0",  # twice the same
    ],
)
def test_payloads_that_are_no_map_of_columns_are_refused(raw):
    _refusal(with_raw(FRAME, raw))


# --- bombs --------------------------------------------------------------------------------------------------

FULL = with_header(FRAME, rows=65_536, events=10**9)  # room for as much as a header can ask
NEST = b"\xdd\0\1\0\0"  # an array of 65,536


def _column(name: str, entries: int) -> bytes:
    return bytes(msgpack.packb(name)) + b"\xdd" + entries.to_bytes(4, "big") + bytes(entries)


def _bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(bytes(size))


BOMBS: dict[str, bytes] = {
    "1 GiB of zeros": frame_of(parts(FULL)[0], _bomb(2**30)),
    "just above the cap": frame_of(parts(FULL)[0], _bomb(limits.PAYLOAD_MAX_BYTES + 1)),
    "states 1 TB in 13 bytes": frame_of(HEAD, b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little")),
    "states no size": frame_of(
        HEAD, zstandard.ZstdCompressor(write_content_size=False).compress(raw_of(FRAME))
    ),
    "states nothing": frame_of(HEAD, zstandard.ZstdCompressor().compress(b"")),
    "window of 128 MiB": frame_of(
        HEAD, b"\x28\xb5\x2f\xfd\x80\x88" + (10**6).to_bytes(4, "little") + b"\3\0\0\0"
    ),
    "states less than it holds": frame_of(
        HEAD, b"\x28\xb5\x2f\xfd\x20\x01" + ((2**17 << 3) | 3).to_bytes(3, "little") + b"\0"
    ),
    "a billion entries": with_raw(FULL, b"\x81\xa1x\xdd\x3b\x9a\xca\0"),
    "a billion columns": with_raw(FULL, b"\xdf\x3b\x9a\xca\0\xa1x\x90"),
    "a string of 4 GiB": with_raw(FULL, b"\x81\xa4keys\x91\xdb\xff\xff\xff\xff"),
    "deep nesting": with_raw(FULL, b"\x81\xa1x" + b"\x91" * 2**24),
    "wide and deep nesting": with_raw(FULL, b"\x81\xa1x" + (NEST * 100_000)),
    "maps in maps": with_raw(FULL, b"\x81\xa1x\x91" + b"\x81\xa1x" * 100_000),
    "lists by the million": with_raw(FULL, b"\x81\xa1x" + NEST + b"\x90" * 2**23),
    "many columns": with_raw(FULL, b"\xde\0\xfe" + b"".join(_column(str(n), 65_536) for n in range(254))),
    "a column of the whole payload": with_raw(FULL, b"\x81" + _column("x", 2**24 - 16)),
    "deep header": frame_of(b"\x81\xa1x" * 20_000, PAYLOAD),
    "deep header of lists": frame_of(b"\x81\xa1x" + b"\xdc\0\x40" * 20_000, PAYLOAD),
    "wide header": frame_of(b"\xdf\xff\xff\xff\xff" + bytes(60_000), PAYLOAD),
    "header with a huge text": frame_of(b"\x81\xa1x\xdb\xff\xff\xff\xff", PAYLOAD),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_are_refused(data):
    assert len(data) <= limits.FRAME_MAX_BYTES
    _refusal(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BOMBS["window of 128 MiB"], "needs a larger window"),
        (BOMBS["states 1 TB in 13 bytes"], "states no size, or more"),
        (BOMBS["many columns"], "254 columns"),
        (BOMBS["a column of the whole payload"], "entries in a batch of 65536 rows"),
        (with_columns(FRAME, x=[[], 0, 0, 0, 0]), "a list or map where a value should be"),
        (with_columns(FRAME, x=[{}, 0, 0, 0, 0]), "a list or map where a value should be"),
        (with_columns(FRAME, dy=[0, float("nan")]), "column 'dy' holds a value that is not a number"),
    ],
)
def test_the_first_line_of_defence_is_the_one_that_holds(data, reason):
    assert reason in _refusal(data).reason


def _largest() -> bytes:
    """As much as columns can be made to hold: wrong only at the very end."""
    floats = [float(n) for n in range(65_536)]
    columns = dict.fromkeys("abcdefghijklmno", floats) | {"z": ["\u0101" * n for n in range(65)] * 1008}
    return with_raw(FULL, msgpack.packb(columns))


_UNDER_A_LIMIT = """
import resource, sys
from mcilib.errors import BatchFormatError
from mcilib.format.batch import decode
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 128 * 2**20,) * 2)
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        data = file.read()
    try:
        decode(data)
    except BatchFormatError:
        continue
    sys.exit(f"{path} was read")
print(len(sys.argv) - 1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space of a process")
def test_bombs_fit_into_128_mib(tmp_path):
    bombs = [*BOMBS.values(), _largest()]
    paths = [tmp_path / f"{n}.mcib" for n in range(len(bombs))]
    for path, data in zip(paths, bombs, strict=True):
        path.write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-P", "-c", _UNDER_A_LIMIT, *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout.strip()) == (0, str(len(bombs))), run.stderr


# --- mutations below the checksum ---------------------------------------------------------------------------


def _mutated(rng: random.Random, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutant))
        match rng.randrange(5):
            case 0:
                mutant[at] ^= 1 << rng.randrange(8)
            case 1:
                mutant[at] = rng.choice(
                    b"\x00\x7f\x80\x90\x9f\xa0\xc0\xc1\xc4\xc7\xca\xcb\xcf\xd3\xd6\xdc\xdd\xdf\xff"
                )
            case 2:
                del mutant[at : at + rng.randint(1, 8)]
            case 3:
                mutant[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                mutant[at:at] = mutant[at : at + rng.randint(1, 30)]
        if not mutant:
            mutant = bytearray(b"\0")
    return bytes(mutant)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_columns_give_the_one_error_or_a_batch(seed):
    rng, raw = random.Random(seed), raw_of(FRAME)
    for _ in range(5_000):
        _survives(with_raw(FRAME, _mutated(rng, raw)))


def test_mutated_headers_and_payloads_give_the_one_error_or_a_batch():
    rng = random.Random(99)
    for _ in range(5_000):
        _survives(frame_of(_mutated(rng, HEAD), PAYLOAD))
        _survives(frame_of(HEAD, _mutated(rng, PAYLOAD)))


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
_NAMES = st.sampled_from(sorted(msgpack.unpackb(raw_of(FRAME)))) | st.text(max_size=3)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(_NAMES, st.lists(_SCALARS, max_size=8) | _VALUES, max_size=6))
def test_random_columns_give_the_one_error_or_a_batch(columns):
    _survives(with_columns(FRAME, **columns))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(msgpack.unpackb(HEAD))), _VALUES, max_size=4))
def test_random_headers_give_the_one_error_or_a_batch(fields):
    _survives(with_header(FRAME, **fields))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_everywhere(data):
    for whole in (
        data,
        b"MCIB\0\0" + data,
        frame_of(data, PAYLOAD),
        frame_of(HEAD, data),
        with_raw(FRAME, data),
    ):
        _refusal(whole)


def test_errors_show_nothing_of_the_content():
    secret = with_columns(encode(batch(*one_of_each())), keys=["hunter2" * 30, None])
    assert "hunter2" not in str(_refusal(secret))
    assert "hunter2" not in str(_refusal(with_header(FRAME, software=b"hunter2"), read_header))
