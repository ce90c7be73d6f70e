"""Batches for tests: random ones, plain ones, and frames built by hand with a right checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import zstandard
from hypothesis import strategies as st

from mcilib.clock import ClockAnchor
from mcilib.events import Event, Gap, KeyPress, KeyRelease, Move, Press, Release, Scroll
from mcilib.format.batch import Batch, Header, encode

WALL_NS = 1_750_000_000_000_000_000
MS = 1_000_000


def header(**fields: Any) -> Header:
    """A header of nothing yet: `encode` fills in what it says about rows."""
    plain = Header(
        batch_id="0b" * 16,
        device="de" * 16,
        participant="aa" * 16,
        sequence=1,
        boot="b0" * 8,
        anchor=ClockAnchor(5_000 * MS, WALL_NS),
        tick_ns=MS,
        grant="9a" * 32,
        software="mcilib/0.1.0 linux",
        sources={"pointer": "trace"},
        rows=0,
        events=0,
        first_ns=0,
        last_ns=0,
        coverage={"dropped": {"buffer_full": 3}, "excluded": 4},
    )
    return replace(plain, **fields)


def batch(*events: Event, **fields: Any) -> Batch:
    return Batch(header(**fields), events)


def one_of_each(start_ns: int = 5_000 * MS) -> tuple[Event, ...]:
    """Every kind of event once, a key at TIMING too, 7 ms apart."""
    make: tuple[Callable[[int], Event], ...] = (
        lambda t: Move(t, 640, 400),
        lambda t: Press(t, 640, 400, "left"),
        lambda t: Release(t, -3, 401, "button9"),
        lambda t: Scroll(t, -3, 401, 0, -5, 5),
        lambda t: Scroll(t, -3, 401, 0.25, 0, 1),
        lambda t: KeyPress(t, "ctrl+c"),
        lambda t: KeyRelease(t, None),
        lambda t: Gap(t, 600 * 10**9, "pointer"),
    )
    return tuple(one(start_ns + 7 * MS * n) for n, one in enumerate(make))


def frame_of(
    head: bytes, payload: bytes, *, version: int = 0, flags: int = 0, magic: bytes = b"MCIB"
) -> bytes:
    """A frame around any header and payload, its checksum right."""
    frame = struct.pack(">4sBBII", magic, version, flags, len(head), len(payload)) + head + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def parts(frame: bytes) -> tuple[bytes, bytes]:
    """Header and compressed payload of a frame, as bytes."""
    head_bytes, payload_bytes = struct.unpack_from(">II", frame, 6)
    return frame[14 : 14 + head_bytes], frame[14 + head_bytes : 14 + head_bytes + payload_bytes]


def with_header(frame: bytes, **fields: Any) -> bytes:
    """The frame with other header fields, as they are on the wire; `...` removes one."""
    head, payload = parts(frame)
    wire = {name: value for name, value in {**msgpack.unpackb(head), **fields}.items() if value is not ...}
    return frame_of(msgpack.packb(wire), payload)


def with_raw(frame: bytes, raw: bytes) -> bytes:
    """The frame with another payload, given before compression."""
    return frame_of(parts(frame)[0], zstandard.ZstdCompressor().compress(raw))


def raw_of(frame: bytes) -> bytes:
    return zstandard.decompress(parts(frame)[1])


def with_columns(frame: bytes, **columns: Any) -> bytes:
    """The frame with other columns; `...` removes one."""
    merged = {**msgpack.unpackb(raw_of(frame)), **columns}
    return with_raw(
        frame, msgpack.packb({name: values for name, values in merged.items() if values is not ...})
    )


def sample() -> bytes:
    """The frame of `one_of_each`."""
    return encode(batch(*one_of_each()))


# --- random ones --------------------------------------------------------------------------------------------

_TIMES = st.integers(-(10**15), 10**15)
_PIXELS = st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-5000, 5000)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_STEPS = st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9)

EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Move, _TIMES, _PIXELS, _PIXELS),
    st.builds(Press, _TIMES, _PIXELS, _PIXELS, _TEXTS),
    st.builds(Release, _TIMES, _PIXELS, _PIXELS, _TEXTS),
    st.builds(Scroll, _TIMES, _PIXELS, _PIXELS, _STEPS, _STEPS, st.integers(1, 2**31 - 1)),
    st.builds(KeyPress, _TIMES, st.none() | _TEXTS),
    st.builds(KeyRelease, _TIMES, st.none() | _TEXTS),
    st.builds(Gap, _TIMES, st.integers(0, 2**63 - 1), _TEXTS),
)
"""Every event that can be written around an anchor of today."""


def _hex(digits: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=digits // 2, max_size=digits // 2).map(bytes.hex)


_COUNTS = st.integers(0, 2**63 - 1)
HEADERS = st.builds(
    header,
    batch_id=_hex(32),
    device=_hex(32),
    participant=_hex(32),
    sequence=_COUNTS,
    boot=_hex(16),
    anchor=st.builds(ClockAnchor, st.integers(0, 10**16), st.integers(0, 4 * 10**18)),
    tick_ns=st.integers(1, 10**10),
    grant=_hex(64),
    software=_TEXTS,
    sources=st.dictionaries(_TEXTS, _TEXTS, max_size=5),
    coverage=st.fixed_dictionaries(
        {"dropped": st.dictionaries(_TEXTS, _COUNTS, max_size=5), "excluded": _COUNTS},
        optional={"thinned": _COUNTS},
    ),
)
