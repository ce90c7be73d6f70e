"""Batches for tests: random ones, plain ones, and frames built by hand with a right checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgpack
import zstandard
from hypothesis import strategies as st

from mcilib.clock import ClockAnchor
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
from mcilib.format.batch import Batch, Coverage, Header, Metadata, encode

WALL_NS = 1_750_000_000_000_000_000
MS = 1_000_000
PREFIX_BYTES = 14


def header(**fields: Any) -> Header:
    plain = Header(
        batch_id="0b" * 16, participant="aa" * 16, device="de" * 16, grant="9a" * 32, sequence=1
    )  # fmt: skip
    return replace(plain, **fields)


def metadata(**fields: Any) -> Metadata:
    plain = Metadata(
        anchor=ClockAnchor(5_000 * MS, WALL_NS),
        boot="b0" * 8,
        tick_ns=MS,
        software="mcilib/0.1.0",
        platform="linux",
        clocks={"pointer": "trace"},
        coverage=Coverage(excluded=4, dropped={"buffer_full": 3}),
    )
    return replace(plain, **fields)


def batch(*events: Event, **fields: Any) -> Batch:
    """`fields` of the header and of the metadata by name."""
    of_header = {name: fields.pop(name) for name in Header.__dataclass_fields__ if name in fields}
    return Batch(header(**of_header), metadata(**fields), events)


def one_of_each(start_ns: int = 5_000 * MS) -> tuple[Event, ...]:
    """Every kind of event, made by a hand, a program and nobody knows whom, 7 ms apart."""
    make: tuple[Callable[[int], Event], ...] = (
        lambda t: Display(t, 0, 0, 0, 1280, 800),
        lambda t: Display(t, 1, -1920, -180, 1920, 1080, 1.25, 90),
        lambda t: Layout(t, "de(nodeadkeys)"),
        lambda t: Focus(t, "editor", "notes — draft", 20, 30, 640, 480),
        lambda t: Move(t, 640, 400),
        lambda t: Move(t, 641, 900),
        lambda t: Press(t, 641, 900, "left"),
        lambda t: Release(t, -3, 401, "button9"),
        lambda t: Scroll(t, -3, 401, 0, -5, 5),
        lambda t: Scroll(t, -3, 401, 0.25, 0, 1, True),
        lambda t: Move(t, -4, 401, True),
        lambda t: KeyPress(t, "ctrl+c", False),
        lambda t: KeyRelease(t, "ctrl+c", False),
        lambda t: KeyPress(t, None),
        lambda t: Gap(t, 600 * 10**9, "pointer"),
        lambda t: Display(t, 1, 0, 0, 0, 0),
        lambda t: Focus(t, None),
    )
    return tuple(one(start_ns + 7 * MS * n) for n, one in enumerate(make))


def sample() -> bytes:
    """The frame of `one_of_each`."""
    return encode(batch(*one_of_each()))


# --- frames by hand -----------------------------------------------------------------------------------------


def frame_of(
    head: bytes, payload: bytes, *, version: int = 1, flags: int = 0, magic: bytes = b"MCIB"
) -> bytes:
    """A frame around any header and payload section, its checksum right."""
    frame = struct.pack(">4sBBII", magic, version, flags, len(head), len(payload)) + head + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def with_crc(frame: bytes) -> bytes:
    """The same bytes with the last four made the checksum of the others."""
    return frame[:-4] + struct.pack(">I", zlib.crc32(frame[:-4]))


def parts(frame: bytes) -> tuple[bytes, bytes]:
    """Header and payload section (compressed, perhaps sealed) of a frame, as bytes."""
    head_bytes, payload_bytes = struct.unpack_from(">II", frame, 6)
    start = PREFIX_BYTES + head_bytes
    return frame[PREFIX_BYTES:start], frame[start : start + payload_bytes]


def with_head(frame: bytes, head: bytes) -> bytes:
    """The frame with other header bytes."""
    return frame_of(head, parts(frame)[1], version=frame[4], flags=frame[5])


def with_header(frame: bytes, **fields: Any) -> bytes:
    """The frame with other header fields, as they are on the wire; `more` is appended as further entries."""
    names = ("batch_id", "participant", "device", "grant", "sequence", "key_ids")
    more = fields.pop("more", ())
    wire = list(msgpack.unpackb(parts(frame)[0]))
    for name, value in fields.items():
        wire[names.index(name)] = value
    return with_head(frame, msgpack.packb([*wire, *more]))


def with_payload(frame: bytes, payload: bytes) -> bytes:
    """The frame with another payload section, as it lies in the frame."""
    return frame_of(parts(frame)[0], payload, version=frame[4], flags=frame[5])


def with_raw(frame: bytes, raw: bytes) -> bytes:
    """The frame (in clear) with another payload, given before compression."""
    return with_payload(frame, zstandard.ZstdCompressor().compress(raw))


def raw_of(frame: bytes) -> bytes:
    """The payload of a frame in clear, before compression."""
    return zstandard.decompress(parts(frame)[1])


def columns_of(frame: bytes) -> dict[str, Any]:
    """The columns of a frame in clear, as they are on the wire."""
    columns: dict[str, Any] = msgpack.unpackb(raw_of(frame))
    return columns


def with_columns(frame: bytes, **columns: Any) -> bytes:
    """The frame (in clear) with other columns; `...` removes one."""
    merged = {**columns_of(frame), **columns}
    return with_raw(
        frame, msgpack.packb({name: values for name, values in merged.items() if values is not ...})
    )


# --- random ones --------------------------------------------------------------------------------------------

_TIMES = st.integers(-(10**15), 10**15)
_WIDE = st.integers(-(2**31) + 1, 2**31 - 1)
_PIXELS = _WIDE | st.integers(-5000, 5000)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_NAMES = st.sampled_from(["left", "right", "letter", "digit", "ctrl+c", "pointer", "suspend"]) | _TEXTS
_STEPS = st.integers(-5, 5) | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9)
_COUNTS = st.integers(1, 3) | st.integers(1, 2**31 - 1)
_SAID = st.sampled_from([None, None, None, True, False])
_SIZES = st.integers(0, 2**31 - 1)


def events_at(
    times: st.SearchStrategy[int] = _TIMES, pixels: st.SearchStrategy[float] = _PIXELS
) -> st.SearchStrategy[Event]:
    """Every kind of event that can be written around an anchor of today, at these times and places."""
    places = st.none() | st.tuples(_WIDE, _WIDE, _WIDE, _WIDE)
    return st.one_of(
        st.builds(Move, times, pixels, pixels, _SAID),
        st.builds(Press, times, pixels, pixels, _NAMES, _SAID),
        st.builds(Release, times, pixels, pixels, _NAMES, _SAID),
        st.builds(Scroll, times, pixels, pixels, _STEPS, _STEPS, _COUNTS, _SAID),
        st.builds(KeyPress, times, st.none() | _NAMES, _SAID),
        st.builds(KeyRelease, times, st.none() | _NAMES, _SAID),
        st.builds(Gap, times, st.integers(0, 2**63 - 1), _NAMES),
        st.builds(
            Display, times, st.integers(0, 255), _WIDE, _WIDE, _SIZES, _SIZES,
            st.sampled_from([1.0, 1.25, 2.0]) | st.floats(0.01, 64), st.sampled_from([0, 90, 180, 270]),
        ),
        st.builds(Layout, times, _NAMES),
        st.builds(
            lambda t, app, title, at: Focus(t, app, title, *(at or (None,) * 4)),
            times, st.none() | _NAMES, st.none() | _TEXTS, places,
        ),
    )  # fmt: skip


EVENTS: st.SearchStrategy[Event] = events_at()


def _hex(digits: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=digits // 2, max_size=digits // 2).map(bytes.hex)


_BIG = st.integers(0, 2**63 - 1)
_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_LEVERS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e9, 1e9) | _WORDS

HEADERS: st.SearchStrategy[Header] = st.builds(
    Header, _hex(32), _hex(32), _hex(32), _hex(64), st.integers(0, 10**16 - 1)
)
"""Of batches in clear: the key ids follow from the recipients."""

COVERAGES: st.SearchStrategy[Coverage] = st.builds(
    Coverage, _BIG, _BIG, _BIG, _BIG, st.dictionaries(_NAMES, _BIG, max_size=4)
)


def _heard(about: Metadata) -> st.SearchStrategy[Metadata]:
    """The same, with backends of some of its sources."""
    words = st.sampled_from(["xrecord", "pynput", "x11"]) | _NAMES
    some = st.fixed_dictionaries({}, optional=dict.fromkeys(about.clocks, words))
    return some.map(lambda backends: replace(about, backends=backends))


METADATA: st.SearchStrategy[Metadata] = st.builds(
    Metadata,
    anchor=st.builds(ClockAnchor, st.integers(0, 10**16), st.integers(0, 4 * 10**18)),
    boot=_hex(16),
    tick_ns=st.sampled_from([MS, 1, 1_000, 15_625_000]) | st.integers(1, 10**10),
    quanta_per_px=st.sampled_from([1, 1, 256]) | st.integers(1, 256),
    software=st.sampled_from(["mcilib/0.1.0", "other/2"]),
    platform=_NAMES,
    clocks=st.dictionaries(_NAMES, _NAMES, max_size=4),
    coverage=COVERAGES,
    levers=st.dictionaries(_NAMES, _LEVERS, max_size=4),
    reasons=st.lists(_TEXTS, max_size=3).map(tuple),
    audit=st.just("") | _hex(64),
).flatmap(_heard)


def batches_of(events: st.SearchStrategy[Event] = EVENTS, max_size: int = 40) -> st.SearchStrategy[Batch]:
    """Any batch that can be written: rows in no order, places within the range of its quantum."""
    return st.builds(_fitting, HEADERS, METADATA, st.lists(events, max_size=max_size))


def _fitting(head: Header, about: Metadata, events: Sequence[Event]) -> Batch:
    limit = (2**31 - 1) // about.quanta_per_px
    return Batch(head, about, tuple(_within(event, limit) for event in events))


def _within(event: Event, limit: int) -> Event:
    if isinstance(event, Move | Press | Release | Scroll):
        return replace(event, x=max(-limit, min(limit, event.x)), y=max(-limit, min(limit, event.y)))
    return event


BATCHES: st.SearchStrategy[Batch] = batches_of()
