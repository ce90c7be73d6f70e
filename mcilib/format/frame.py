"""Frames: a header that anybody can read and check, and a payload of columns. See `docs/spec/`.

The bytes may come from anywhere. Whatever they claim, reading them takes less than 128 MiB of memory and
raises `BatchFormatError` and nothing else. All functions may be called from any
thread.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

import msgpack
import zstandard

from mcilib import limits
from mcilib.errors import BatchFormatError
from mcilib.format.columns import TEXT_MAX_BYTES, Columns
from mcilib.format.header import Header

MAGIC = b"MCIB"
VERSION = 0
ROWS_MAX = 65_536
"""Rows of one batch: thirteen times the default, and what keeps hostile columns below 100 MiB of memory."""

_PREFIX = struct.Struct(">4sBBII")  # magic, version, flags, header length, payload length: for ever
PREFIX_BYTES = _PREFIX.size
_CRC = struct.Struct(">I")
_WINDOW_MAX_BYTES = 8 * 1024 * 1024
_COLUMNS_MAX = 16
_HEADER_ENTRIES_MAX = 64  # of one map or list in a header
_HEADER_TEXT_MAX_BYTES = 256
_BROKEN = (ValueError, TypeError, OverflowError, msgpack.UnpackException)


def pack_frame(header: Header, columns: Columns, level: int) -> bytes:
    """One frame. `ValueError` when header or columns are beyond what the format can hold."""
    if header.rows > ROWS_MAX:
        raise ValueError(f"a batch holds at most {ROWS_MAX} rows, not {header.rows}")
    head = msgpack.packb(header.to_wire())
    payload = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True).compress(
        msgpack.packb(columns)
    )
    frame = b"".join((_PREFIX.pack(MAGIC, VERSION, 0, len(head), len(payload)), head, payload))
    if len(head) > limits.HEADER_MAX_BYTES or len(frame) + _CRC.size > limits.FRAME_MAX_BYTES:
        raise ValueError(f"the frame would be too large ({len(head)} + {len(payload)} bytes)")
    return frame + _CRC.pack(zlib.crc32(frame))


def unpack_frame(data: bytes) -> tuple[Header, Columns, int]:
    """Header, columns and where in `data` the payload begins. The columns are unchecked lists of scalars."""
    header, start = _open(data)
    raw = _decompress(data[start : -_CRC.size], start)
    return header, _unpack_columns(raw, header.rows, start), start


def read_header(data: bytes) -> Header:
    """The header of exactly one frame, its checksum verified, its payload not looked into."""
    return _open(data)[0]


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


def _open(data: bytes) -> tuple[Header, int]:
    size = frame_size(data)
    _, version, flags, header_bytes, _ = _PREFIX.unpack_from(data)
    if version != VERSION:
        hint = "upgrade mcilib to read it"
        raise BatchFormatError(f"format version {version}; this mcilib reads {VERSION}: {hint}", 4)
    if len(data) < size:
        raise BatchFormatError(f"it ends after {len(data)} of {size} bytes", len(data))
    if len(data) > size:
        raise BatchFormatError(f"{len(data) - size} bytes follow its end", size)
    if _CRC.unpack_from(data, size - _CRC.size)[0] != zlib.crc32(memoryview(data)[: -_CRC.size]):
        raise BatchFormatError("the checksum does not match: damaged on disk or on the way", size - _CRC.size)
    if flags:
        raise BatchFormatError(f"flags {flags:#04x} mean nothing in version {VERSION}", 5)
    end = PREFIX_BYTES + header_bytes
    try:
        header = Header.from_wire(_unpack_header(data[PREFIX_BYTES:end]))
        if header.rows > ROWS_MAX:
            raise ValueError(f"it states {header.rows} rows, more than {ROWS_MAX}")
    except _BROKEN as error:
        raise BatchFormatError(f"header: {_words(error)}", PREFIX_BYTES) from None
    return header, end


def _unpack_header(data: bytes) -> Mapping[str, Any]:
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(len(data), 1),
        max_map_len=_HEADER_ENTRIES_MAX,
        max_array_len=_HEADER_ENTRIES_MAX,  # v0 has none; a field that is not known may be one
        max_str_len=_HEADER_TEXT_MAX_BYTES,
        max_bin_len=_HEADER_TEXT_MAX_BYTES,
        max_ext_len=0,
        object_pairs_hook=_distinct,
    )
    unpacker.feed(data)
    fields = unpacker.unpack()
    if not isinstance(fields, dict) or unpacker.tell() != len(data):
        raise ValueError("it is not one map")
    return fields


def _decompress(payload: bytes, start: int) -> bytes:
    """The size and window that the zstd frame states are looked at before anything is allocated."""
    try:
        if payload[:4] != zstandard.FRAME_HEADER:  # zstd also knows frames to skip
            raise BatchFormatError("payload: not a zstd frame", start)
        stated = zstandard.get_frame_parameters(payload)
        if not 0 < stated.content_size <= limits.PAYLOAD_MAX_BYTES:  # unknown is 2**64 - 1
            raise BatchFormatError("payload: states no size, or more than it may decompress to", start)
        if stated.window_size > _WINDOW_MAX_BYTES or stated.dict_id:
            raise BatchFormatError("payload: needs a larger window than allowed, or a dictionary", start)
        return zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX_BYTES).decompress(
            payload, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise BatchFormatError("payload: the zstd frame is damaged", start) from None


def _unpack_columns(raw: bytes, rows: int, start: int) -> Columns:
    """A map of lists of scalars, the lists no longer than `rows`.

    Lists are walked as a stream of scalars: a list or map inside one is refused at its first byte, before
    anything is allocated for it.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(raw),
        max_map_len=0,
        max_array_len=0,
        max_str_len=TEXT_MAX_BYTES,
        max_bin_len=0,
        max_ext_len=0,
        list_hook=_nested,
        object_hook=_nested,
    )
    unpacker.feed(raw)
    columns: Columns = {}
    try:
        count = unpacker.read_map_header()
        if count > _COLUMNS_MAX:
            raise ValueError(f"{count} columns, more than {_COLUMNS_MAX}")
        for _ in range(count):
            name = unpacker.unpack()
            if not isinstance(name, str) or name in columns:
                raise ValueError("a column without a name, or twice the same")
            length = unpacker.read_array_header()
            if length > rows:
                raise ValueError(f"a column of {length} entries in a batch of {rows} rows")
            columns[name] = list(islice(unpacker, length))
            if len(columns[name]) != length:
                raise ValueError("a column ends early")
        if unpacker.tell() != len(raw):
            raise ValueError("bytes follow the columns")
    except _BROKEN as error:
        raise BatchFormatError(f"payload: {_words(error)}", start) from None
    return columns


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name appears twice")
    return fields


def _nested(_: Any) -> NoReturn:
    raise ValueError("a list or map where a value should be")


def _words(error: Exception) -> str:
    if isinstance(error, msgpack.UnpackException):  # they carry no words
        return f"no msgpack that can be read ({type(error).__name__})"
    if isinstance(error, UnicodeDecodeError):  # its words show the bytes
        return "text that is not UTF-8"
    return str(error)
