"""Stores for tests of the reader: small batches, in files."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import zstandard
from batches import MS, WALL_NS, batch

from mcilib.clock import ClockAnchor
from mcilib.events import Event, Move
from mcilib.format.batch import Batch, encode


def moves(
    number: int, *times_ms: int, device: str = "d0", boot: str = "b0", start_ms: int = 0, **fields: Any
) -> Batch:
    """Batch `number` with a move at each time; `start_ms` shifts the wall clock of its anchor."""
    events = [Move(t * MS, number, t) for t in times_ms]
    return holding(number, events, device=device, boot=boot, start_ms=start_ms, **fields)


def holding(
    number: int,
    events: Sequence[Event],
    device: str = "d0",
    boot: str = "b0",
    start_ms: int = 0,
    **fields: Any,
) -> Batch:
    """Batch `number` with these events."""
    ids = {"batch_id": f"{number:030x}{device}", "device": device * 16, "boot": boot * 8}
    anchor = ClockAnchor(0, WALL_NS + start_ms * MS)
    return batch(*events, **{**ids, "anchor": anchor, "sequence": number, **fields})


def frame(number: int, *times_ms: int, recipients: Sequence[str] = (), **fields: Any) -> bytes:
    return encode(moves(number, *times_ms, **fields), recipients=recipients)


def store(folder: Path, *frames: bytes, names: str = "{}.mcib") -> Path:
    """A folder with a file for each frame, named by its place."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, data in enumerate(frames):
        (folder / names.format(place)).write_bytes(data)
    return folder


@functools.cache
def key_pair(number: int = 0) -> tuple[str, str]:
    """A secret and a public key of age; the same for the same number."""
    from pyrage import x25519

    key = x25519.Identity.generate()
    return str(key), str(key.to_public())


def frame_v0(number: int = 1, *, device: str = "d0") -> bytes:
    """What mcilib 0.1 wrote: two moves and a key, out of order."""
    head: bytes = msgpack.packb(
        {
            "batch": bytes.fromhex(f"{number:030x}f0"), "participant": b"\xaa" * 16,
            "device": bytes.fromhex(device * 16), "grant": b"\x9a" * 32, "sequence": number,
            "boot": b"\xb0" * 8, "monotonic_ns": 0, "wall_ns": WALL_NS, "tick_ns": MS,
            "software": "mcilib/0.1.0 linux", "sources": {"pointer": "x11"},
            "coverage": {"dropped": {"buffer_full": 2}, "excluded": 1},
            "rows": 3, "events": 3, "first": 0, "last": 5,
        }
    )  # fmt: skip
    columns = {
        "t": [0, 5, -3], "kind": [0, 0, 4], "x": [7, 1], "y": [8, -2],
        "button": [], "buttons": [], "dx": [], "dy": [], "count": [],
        "key": [0], "keys": ["letter"], "duration": [], "source": [], "sources": [],
    }  # fmt: skip
    payload: bytes = zstandard.ZstdCompressor().compress(msgpack.packb(columns))
    body = struct.pack(">4sBBII", b"MCIB", 0, 0, len(head), len(payload)) + head + payload
    return body + struct.pack(">I", zlib.crc32(body))
