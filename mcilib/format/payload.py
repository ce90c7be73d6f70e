"""A payload: one MessagePack map of columns in one Zstandard frame. See `docs/spec/batch-format.md`.

The bytes may come from anywhere. Whatever they claim, reading them takes less than 128 MiB of memory and
raises `ValueError` in words and nothing else. All functions may be called from any thread.
"""

from __future__ import annotations

from io import BytesIO
from itertools import islice
from typing import Any, NoReturn

import msgpack
import zstandard

from mcilib import limits
from mcilib.format.columns import Columns
from mcilib.format.rows import ROWS_MAX, TITLE_MAX_BYTES

ENTRIES_MAX = 4 * ROWS_MAX
"""Of all arrays of a payload together: the widest rows there can be take less."""
COLUMNS_MAX = 64
_LONGER_NAMES = frozenset({"by", "audit"})
"""Columns with names of several letters that this version knows."""
HEADER_ENTRIES_MAX, _HEADER_TEXT_MAX_BYTES = 64, 256
WINDOW_MAX_BYTES = 8 * 1024 * 1024
_BROKEN = (ValueError, TypeError, OverflowError, msgpack.UnpackException)
_ARRAYS = frozenset(range(0x90, 0xA0)) | {0xDC, 0xDD}


def pack(columns: Columns) -> bytes:
    """The map as it is compressed. `ValueError` when it would be larger than a reader takes."""
    raw = bytes(msgpack.packb(columns))
    if len(raw) > limits.PAYLOAD_MAX_BYTES:
        raise ValueError(f"the payload would be too large ({len(raw)} bytes)")
    return raw


def compress(raw: bytes, level: int) -> bytes:
    """The Zstandard frame. It has no checksum of its own: the frame around it, or the seal, has one."""
    return zstandard.ZstdCompressor(level=level, write_checksum=False).compress(raw)


def decompress(data: bytes) -> bytes:
    """What `compress` was given. Size and window are looked at before anything is allocated."""
    try:
        if data[:4] != zstandard.FRAME_HEADER:  # zstd also knows frames to skip
            raise ValueError("not a zstd frame")
        stated = zstandard.get_frame_parameters(data)
        if not 0 < stated.content_size <= limits.PAYLOAD_MAX_BYTES:  # unknown is 2**64 - 1
            raise ValueError("states no size, or more than it may decompress to")
        if stated.window_size > WINDOW_MAX_BYTES or stated.dict_id:
            raise ValueError("needs a larger window than allowed, or a dictionary")
        return zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).decompress(
            data, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise ValueError("the zstd frame is damaged") from None


def unpack(raw: bytes, longer_names: bool = False) -> Columns:
    """Columns by name: bytes, an integer, or a list of scalars.

    Names longer than one letter that are not known here are left out, unless they are asked for.

    Arrays are walked as a stream of scalars: an array or map inside one is refused at its first byte, before
    anything is allocated for it.
    """
    unpacker = msgpack.Unpacker(
        BytesIO(raw),  # read piece by piece: `feed` would copy all of it
        max_buffer_size=max(len(raw), 1),
        max_map_len=0,
        max_array_len=0,
        max_str_len=TITLE_MAX_BYTES,
        max_bin_len=ROWS_MAX,
        max_ext_len=0,
        list_hook=_refuse_nested,
        object_hook=_refuse_nested,
        ext_hook=_refuse_extension,
    )
    columns: Columns = {}
    seen: set[str] = set()
    room = ENTRIES_MAX
    try:
        count = unpacker.read_map_header()
        if count > COLUMNS_MAX:
            raise ValueError(f"{count} columns, more than {COLUMNS_MAX}")
        for _ in range(count):
            name = unpacker.unpack()
            if not isinstance(name, str) or name in seen or not name:
                raise ValueError("a column without a name, or twice the same")
            seen.add(name)
            if len(name) > 1 and name not in _LONGER_NAMES and not longer_names:
                unpacker.skip()
                continue
            value: Any
            if raw[unpacker.tell() : unpacker.tell() + 1][0] in _ARRAYS:
                length = unpacker.read_array_header()
                if length > room:
                    raise ValueError(f"more than {ENTRIES_MAX} entries")
                room -= length
                value = list(islice(unpacker, length))
                if len(value) != length:
                    raise ValueError("an array ends early")
            else:
                value = unpacker.unpack()
            columns[name] = value
        if unpacker.tell() != len(raw):
            raise ValueError("bytes follow the columns")
    except IndexError:
        raise ValueError("it ends early") from None
    except UnicodeDecodeError:  # its words show the bytes
        raise ValueError("text that is not UTF-8") from None
    except _BROKEN as error:
        raise ValueError(_words(error)) from None
    return columns


def unpack_header(head: bytes, maps_max: int) -> object:
    """The one value that a header is: arrays of at most 64 entries, maps of `maps_max` (0: none), text and bytes
    of at most 256 bytes."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(len(head), 1),
        max_map_len=maps_max,
        max_array_len=HEADER_ENTRIES_MAX,
        max_str_len=_HEADER_TEXT_MAX_BYTES,
        max_bin_len=_HEADER_TEXT_MAX_BYTES,
        max_ext_len=0,
        object_hook=None if maps_max else _refuse_nested,
        ext_hook=_refuse_extension,
    )
    unpacker.feed(head)
    try:
        value: object = unpacker.unpack()
    except UnicodeDecodeError:  # its words show the bytes
        raise ValueError("text that is not UTF-8") from None
    except _BROKEN as error:
        raise ValueError(_words(error)) from None
    if unpacker.tell() != len(head):
        raise ValueError("bytes follow it")
    return value


def _refuse_nested(_: object) -> NoReturn:
    """Also an empty one."""
    raise ValueError("an array or map where a value should be")


def _refuse_extension(_: int, __: bytes) -> NoReturn:
    """Also one without content, which `max_ext_len` lets pass."""
    raise ValueError("an extension where a value should be")


def _words(error: Exception) -> str:
    if isinstance(error, msgpack.UnpackException):  # they carry no words
        return f"no msgpack that can be read ({type(error).__name__})"
    return str(error)
