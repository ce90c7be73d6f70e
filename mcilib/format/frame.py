"""Frames: a header that anybody can read and check, and a payload that may be sealed. See `docs/spec/`.

Whatever the bytes, `BatchFormatError` is raised and nothing else. All functions may be called from any thread.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgpack

from mcilib import limits
from mcilib.digest import sha256
from mcilib.errors import BatchFormatError
from mcilib.format import _v0
from mcilib.format.header import Header
from mcilib.format.payload import unpack_header

MAGIC = b"MCIB"
VERSION = 1
SEALED = 0x01
"""The flag: the payload is an age file."""

_PREFIX = struct.Struct(">4sBBII")  # magic, version, flags, header length, payload length: for ever
PREFIX_BYTES = _PREFIX.size
_CRC = struct.Struct(">I")
BINDING_BYTES = 16
"""Of the header's SHA-256 that a sealed payload repeats."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame with its checksum verified, its payload not looked into."""

    version: int
    header: Header
    head: bytes
    """The header as bytes."""
    payload: bytes
    start: int
    """Where the payload begins."""

    @property
    def binding(self) -> bytes:
        return binding_of(self.head)


def binding_of(head: bytes) -> bytes:
    """What a sealed payload says about the header that it belongs to."""
    return sha256(head)[:BINDING_BYTES]


def pack_header(header: Header) -> bytes:
    """`ValueError` when a field is beyond what the format can hold."""
    return bytes(msgpack.packb(header.to_wire()))


def pack_frame(head: bytes, payload: bytes, *, sealed: bool = False) -> bytes:
    """One frame. `ValueError` when it would be larger than a reader takes."""
    flags = SEALED if sealed else 0
    frame = b"".join((_PREFIX.pack(MAGIC, VERSION, flags, len(head), len(payload)), head, payload))
    if len(head) > limits.HEADER_MAX_BYTES or len(frame) + _CRC.size > limits.FRAME_MAX_BYTES:
        raise ValueError(f"the frame would be too large ({len(head)} + {len(payload)} bytes)")
    return frame + _CRC.pack(zlib.crc32(frame))


def unpack_frame(data: bytes) -> Frame:
    """Exactly one frame, of this version or of version 0."""
    size = frame_size(data)
    _, version, flags, header_bytes, _ = _PREFIX.unpack_from(data)
    if version > VERSION:
        hint = "upgrade mcilib to read it"
        raise BatchFormatError(f"format version {version}; this mcilib reads up to {VERSION}: {hint}", 4)
    if len(data) < size:
        raise BatchFormatError(f"it ends after {len(data)} of {size} bytes", len(data))
    if len(data) > size:
        raise BatchFormatError(f"{len(data) - size} bytes follow its end", size)
    if _CRC.unpack_from(data, size - _CRC.size)[0] != zlib.crc32(memoryview(data)[: -_CRC.size]):
        raise BatchFormatError("the checksum does not match: damaged on disk or on the way", size - _CRC.size)
    if flags & ~(SEALED if version == VERSION else 0):
        raise BatchFormatError(f"flags {flags:#04x} mean nothing in version {version}", 5)
    start = PREFIX_BYTES + header_bytes
    head = data[PREFIX_BYTES:start]
    try:
        if version == 0:
            header = _v0.read_header(head)
        else:
            header = Header.from_wire(unpack_header(head, 0))
            if header.sealed != bool(flags & SEALED):
                raise ValueError("the flag and the key ids disagree on whether it is sealed")
    except ValueError as error:
        raise BatchFormatError(f"header: {error}", PREFIX_BYTES) from None
    return Frame(version, header, head, data[start : -_CRC.size], start)


def read_header(data: bytes) -> Header:
    """The header of exactly one frame, its checksum verified, its payload not looked into."""
    return unpack_frame(data).header


def frame_size(prefix: bytes, at: int = 0) -> int:
    """The length in bytes of a frame that begins with `prefix`, of any format version.

    Reads `PREFIX_BYTES` bytes; `at` is where they lie in whatever is being read, for the error.
    """
    if len(prefix) < PREFIX_BYTES:
        raise BatchFormatError(f"it ends after {len(prefix)} bytes, within the first {PREFIX_BYTES}", at)
    magic, _, _, header_bytes, payload_bytes = _PREFIX.unpack_from(prefix)
    if magic != MAGIC:
        raise BatchFormatError("it does not begin with MCIB: no batch of mcilib", at)
    size: int = PREFIX_BYTES + header_bytes + payload_bytes + _CRC.size
    if header_bytes > limits.HEADER_MAX_BYTES or size > limits.FRAME_MAX_BYTES:
        raise BatchFormatError(f"it states {size} bytes, more than a batch may have", at + 6)
    return size


def split_frames(body: bytes) -> Iterator[bytes]:
    """The frames of a request body, unchecked but for their lengths and of any format version.

    Offsets in the errors count from the start of `body`.
    """
    at = 0
    while at < len(body):
        size = frame_size(body[at : at + PREFIX_BYTES], at)
        if at + size > len(body):
            raise BatchFormatError(f"it ends after {len(body) - at} of {size} bytes", len(body))
        yield body[at : at + size]
        at += size
