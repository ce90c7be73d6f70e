"""Frames by hand: any columns, a Zstandard frame that every version of zstd writes alike, version 0."""

from __future__ import annotations

from typing import Any

import msgpack
import zstandard
from batches import MS, WALL_NS, frame_of, header

HEAD: bytes = msgpack.packb(header().to_wire())
ANCHOR_NS = 5_000 * MS
BOOT = bytes.fromhex("b0" * 8)
ABOUT: list[Any] = [ANCHOR_NS, WALL_NS, BOOT, MS, "0.1.0", 24]
"""Column M of most vectors: a tick of 1 ms, mcilib 0.1.0 on linux."""

# A magic number, one segment with a content size of 4 bytes, one last block that is not compressed.
_ZSTD_MAGIC, _FOUR_BYTE_SIZE = b"\x28\xb5\x2f\xfd", b"\xa0"


def stored(raw: bytes) -> bytes:
    """A Zstandard frame around these bytes (fewer than 128 KiB)."""
    block = (len(raw) << 3 | 1).to_bytes(3, "little")
    return _ZSTD_MAGIC + _FOUR_BYTE_SIZE + len(raw).to_bytes(4, "little") + block + raw


def packed(columns: dict[str, Any]) -> bytes:
    """The content of a payload; M is added where it is not given."""
    return bytes(msgpack.packb({**columns, "M": columns.get("M", ABOUT)}))


def of_columns(columns: dict[str, Any], head: bytes = HEAD) -> bytes:
    return frame_of(head, stored(packed(columns)))


def of_raw(raw: bytes) -> bytes:
    return frame_of(HEAD, stored(raw))


def of_payload(payload: bytes) -> bytes:
    return frame_of(HEAD, payload)


def compressed(raw: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(raw)


def version_0(columns: dict[str, list[Any]], **fields: Any) -> bytes:
    """As mcilib 0.1 wrote them."""
    head = {
        "batch": b"\x0b" * 16,
        "device": b"\xde" * 16,
        "participant": b"\xaa" * 16,
        "sequence": 1,
        "boot": BOOT,
        "monotonic_ns": ANCHOR_NS,
        "wall_ns": WALL_NS,
        "tick_ns": MS,
        "grant": b"\x9a" * 32,
        "software": "mcilib/0.1.0 linux",
        "sources": {"pointer": "trace"},
        "rows": 0,
        "events": 0,
        "first": 0,
        "last": 0,
        "coverage": {"dropped": {"buffer_full": 3}, "excluded": 4},
    }
    return frame_of(msgpack.packb({**head, **fields}), stored(msgpack.packb(columns)), version=0)
