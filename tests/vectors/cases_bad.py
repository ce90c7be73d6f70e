"""Vectors that are refused, for one fault each. The first rule of each is the one it breaks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
from batches import batch, frame_of, one_of_each
from cases_good import identities
from frames import ABOUT, HEAD, compressed, of_columns, of_payload, of_raw, packed, stored, version_0
from generate import Case

from mcilib.format.batch import encode
from mcilib.format.seal import seal

ONE: dict[str, Any] = {"x": b"\2", "y": b"\2", "t": b"\3"}
"""A move, and nothing else."""
RARE: dict[str, Any] = {"i": [0], "j": [0]}
"""One row that is no move."""
HEADER: list[Any] = msgpack.unpackb(HEAD)
M64 = 2**63


def bad(rule: str, about: str, frame: Callable[[], bytes] | bytes, *keys: str) -> Case:
    make = frame if callable(frame) else lambda: frame
    return Case(about, (rule,), make, canonical=False, identities=keys)


def columns(rule: str, about: str, **faulty: Any) -> Case:
    return bad(rule, about, of_columns(faulty))


def header(rule: str, about: str, *changes: tuple[int, Any], flags: int = 0) -> Case:
    wire = list(HEADER)
    for place, value in changes:
        wire[place] = value
    return bad(rule, about, frame_of(msgpack.packb(wire), stored(packed(ONE)), flags=flags))


def cases() -> dict[str, Case]:
    found = {
        **_frames(),
        **_headers(),
        **_zstd(),
        **_content(),
        **_about(),
        **_rows(),
        **_fields(),
        **_sealed(),
    }
    return {f"bad_{name}": case for name, case in found.items()}


def _frames() -> dict[str, Case]:
    good = of_columns(ONE)
    return {
        "v0_rows": bad("F2", "version 0: fewer rows than its header says", version_0({}, rows=1, events=1)),
        "magic": bad("F1", "no batch", b"MCIA" + good[4:]),
        "version_2": bad("F2", "a version of the future", frame_of(HEAD, stored(packed(ONE)), version=2)),
        "short": bad("F3", "the last byte is missing", good[:-1]),
        "short_prefix": bad("F3", "ends within its first 14 bytes", good[:13]),
        "nothing": bad("F3", "no byte at all", b""),
        "followed": bad("F4", "a byte follows", good + b"\0"),
        "checksum": bad("F5", "one bit of the payload is turned", good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]),
        "flags": bad("F6", "a flag that means nothing", frame_of(HEAD, stored(packed(ONE)), flags=2)),
        "header_length": bad("F7", "a header of 65,537 bytes is announced", struct.pack(">4sBBII", b"MCIB", 1, 0, 65_537, 0)),
        "frame_length": bad("F7", "a payload of 4 GiB is announced", struct.pack(">4sBBII", b"MCIB", 1, 0, 9, 2**32 - 1)),
    }  # fmt: skip


def _headers() -> dict[str, Case]:
    payload = stored(packed(ONE))
    return {
        "header_map": bad("H1", "a map, as in version 0", frame_of(b"\x80", payload)),
        "header_five": bad("H1", "five entries", frame_of(msgpack.packb(HEADER[:5]), payload)),
        "header_followed": bad("H1", "a byte follows the array", frame_of(HEAD + b"\0", payload)),
        "header_short": bad("H1", "the array ends early", frame_of(HEAD[:-1], payload)),
        "header_empty": bad("H1", "no header", frame_of(b"", payload)),
        "batch_id_short": header("H2", "a batch id of 15 bytes", (0, bytes(15))),
        "participant_text": header("H2", "a participant as text", (1, "a" * 16)),
        "device_nil": header("H2", "no device", (2, None)),
        "grant_long": header("H2", "a grant of 33 bytes", (3, bytes(33))),
        "sequence_negative": header("H3", "a sequence of -1", (4, -1)),
        "sequence_large": header("H3", "a sequence of 10^16", (4, 10**16)),
        "sequence_true": header("H3", "a sequence of true", (4, True)),
        "key_ids_nil": header("H4", "key ids of nil", (5, None)),
        "key_ids_long": header("H4", "a key id of 5 bytes", (5, [bytes(5)]), flags=1),
        "key_ids_many": header("H4", "33 key ids", (5, [bytes(4)] * 33), flags=1),
        "sealed_by_flag": header("H5", "the flag of a seal without key ids", flags=1),
        "sealed_by_keys": header("H5", "key ids without the flag of a seal", (5, [bytes(4)])),
        "header_wide": bad("H6", "an entry that is an array of 65", frame_of(msgpack.packb([*HEADER, [0] * 65]), payload)),
        "header_text": bad("H6", "an entry of 257 bytes", frame_of(msgpack.packb([*HEADER, "x" * 257]), payload)),
        "header_extension": bad("H6", "an entry that is a timestamp", frame_of(msgpack.packb([*HEADER, msgpack.Timestamp(1)]), payload)),
        "header_not_utf8": bad("H6", "an entry that is text and not UTF-8", frame_of(b"\x97" + HEAD[1:] + b"\xa1\xff", payload)),
        "header_with_map": bad("H6", "an entry that is a map", frame_of(msgpack.packb([*HEADER, {}]), payload)),
    }  # fmt: skip


def _zstd() -> dict[str, Case]:
    raw, frame = packed(ONE), stored(packed(ONE))
    body = frame[9:]
    checked = compressed(raw, write_checksum=True)
    return {
        "zstd_no_size": bad("Z1", "the content size is not stated", of_payload(b"\x28\xb5\x2f\xfd\0\0" + body)),
        "zstd_size_0": bad("Z1", "an empty content", of_payload(compressed(b""))),
        "zstd_size_large": bad("Z1", "8 MiB and a byte of zeros", lambda: of_payload(compressed(bytes(2**23 + 1)))),
        "zstd_size_terabyte": bad("Z1", "13 bytes that state a terabyte", of_payload(b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little"))),
        "zstd_window": bad("Z2", "a window of 9 MiB", of_payload(frame[:4] + b"\x80\x69" + frame[5:])),
        "zstd_dictionary": bad("Z3", "a dictionary is needed", of_payload(frame[:4] + b"\xa1\x07" + frame[5:])),
        "zstd_magic": bad("Z4", "no Zstandard frame", of_payload(b"\x28\xb5\x2f\xfc" + frame[4:])),
        "zstd_empty": bad("Z4", "no payload", of_payload(b"")),
        "zstd_short": bad("Z4", "the block ends early", of_payload(frame[:-1])),
        "zstd_followed": bad("Z4", "a byte follows the Zstandard frame", of_payload(frame + b"\0")),
        "zstd_twice": bad("Z4", "two Zstandard frames", of_payload(frame + frame)),
        "zstd_skippable": bad("Z4", "a skippable frame before it", of_payload(b"\x50\x2a\x4d\x18\1\0\0\0x" + frame)),
        "zstd_less": bad("Z4", "more content than is stated", of_payload(frame[:5] + (len(raw) - 1).to_bytes(4, "little") + body)),
        "zstd_checksum": bad("Z5", "the content checksum is wrong", of_payload(checked[:-1] + bytes([checked[-1] ^ 1]))),
    }  # fmt: skip


def _content() -> dict[str, Case]:
    raw = packed(ONE)
    return {
        "content_followed": bad("C1", "a byte follows the map", of_raw(raw + b"\0")),
        "content_array": bad("C1", "an array", of_raw(b"\x91\0")),
        "content_short": bad("C1", "the map ends early", of_raw(raw[:-1])),
        "content_no_value": bad("C1", "the map ends after a name", of_raw(b"\x85" + raw[1:] + b"\xa1w")),
        "columns_65": bad("C2", "65 columns", of_columns({**ONE, **{f"x{n}": 0 for n in range(61)}})),
        "columns_billion": bad("C2", "a billion columns", of_raw(b"\xdf\x3b\x9a\xca\0\xa1x\x90")),
        "name_bytes": bad("C3", "a column whose name is bytes", of_raw(b"\x85\xc4\1x\0" + raw[1:])),
        "name_empty": columns("C3", "a column without a name", **ONE, **{"": 0}),
        "name_twice": bad("C3", "two columns of the same name", of_raw(b"\x85" + raw[1:] + b"\xa1x\xc4\1\2")),
        "column_unknown": columns("C4", "a column that is not known", **ONE, Q=[]),
        "array_in_array": columns("C5", "an array in an array", **ONE, R=[[]]),
        "map_in_array": columns("C5", "a map in an array", **ONE, R=[{}]),
        "map_as_value": columns("C5", "a map as a column", **ONE, R={}),
        "extension": columns("C5", "a timestamp", **ONE, R=[msgpack.Timestamp(1)]),
        "extension_empty": bad("C5", "an empty extension in an array", of_raw(packed({**ONE, "R": ["xy"]}).replace(b"\xa2xy", b"\xc7\0\5"))),
        "nested_deep": bad("C5", "arrays in arrays, 5,000 deep", of_raw(b"\x81\xa1R" + b"\x91" * 5_000)),
        "entries_many": bad("C6", "262,145 entries in two arrays", lambda: of_payload(compressed(packed({**ONE, "v": [0] * 131_072, "u": [0] * 131_073})))),
        "entries_billion": bad("C6", "an array that states a billion entries", of_raw(b"\x81\xa1v\xdd\x3b\x9a\xca\0")),
        "entries_missing": bad("C6", "an array that ends early", of_raw(b"\x81\xa1v\x93\0\0")),
        "text_long": columns("C7", "text of 513 bytes", **ONE, R=["x" * 513]),
        "text_gigabytes": bad("C7", "a text that states 4 GiB", of_raw(b"\x81\xa1R\x91\xdb\xff\xff\xff\xff")),
        "text_not_utf8": bad("C7", "text that is not UTF-8", of_raw(packed({**ONE, "R": ["xy"]}).replace(b"\xa2xy", b"\xa2\xff\xfe"))),
        "bytes_many": bad("C7", "65,537 bytes", lambda: of_payload(compressed(packed({"x": bytes(65_537), "y": b"", "t": b""})))),
        "x_array": columns("C8", "x as an array", **{**ONE, "x": [2]}),
        "t_text": columns("C8", "t as text", **{**ONE, "t": "3"}),
        "y_missing": columns("C8", "moves without y", x=b"\2", t=b"\3"),
        "x_longer": columns("C8", "more x than moves", **{**ONE, "x": b"\2\2"}),
        "v_missing": columns("C8", "an escape without its value", **{**ONE, "x": b"\xff"}),
        "v_left_over": columns("C8", "a value without an escape", **ONE, v=[0]),
        "u_missing": columns("C8", "an escape in t without its value", **{**ONE, "t": b"\xff"}),
        "u_left_over": columns("C8", "a long time without an escape", **ONE, u=[0]),
        "u_float": columns("C8", "a time that is a float", **{**ONE, "t": b"\xff"}, u=[0.0]),
        "j_missing": columns("C8", "a rare row without a time", k=b"\4", i=[0], E=[5]),
        "j_float": columns("C8", "a whole float where an integer belongs", k=b"\4", i=[0], j=[1.0], E=[5]),
        "name_long": columns("C7", "a name of 513 bytes", **ONE, **{"x" * 513: 0}),
        "u_nil": columns("C8", "nil instead of long times", **ONE, u=None),
        "w_nil": columns("C8", "a weight of nil", **ONE, w=None),
        "Y_nil": columns("C8", "nil instead of displays", **ONE, Y=None),
        "w_array": columns("C8", "a weight in an array", **ONE, w=[1]),
        "w_5": columns("C8", "a weight of 5", **ONE, w=5),
        "s_missing": columns("C8", "a scroll without steps", k=b"\3", **RARE),
        "l_missing": columns("C8", "a gap that does not say how long", k=b"\6", **RARE, G=[16]),
        "Y_six": columns("C8", "six numbers for a display", k=b"\7", **RARE, Y=[0, 0, 0, 9, 9, 1]),
        "L_missing": columns("C8", "a layout without a name", k=b"\x08", **RARE),
        "A_two": columns("C8", "two applications for one focus row", k=b"\x09", **RARE, A=["a", "b"]),
        "T_number": columns("C8", "a title by the number of a word", k=b"\x09", **RARE, A=["a"], T=[0]),
        "T_missing_one": columns("C8", "no title for one of two focus rows", k=b"\x09\x09", i=[0, 0], j=[0, 0], A=["a", "b"], T=["x"]),
        "W_three": columns("C8", "three numbers for a window", k=b"\x09", **RARE, A=["a"], W=[0, 0, 9]),
        "c_missing_one": columns("C8", "one count for two scrolls", k=b"\3\3", i=[0, 0], j=[0, 0], s=[1, 1], c=[1]),
    }  # fmt: skip


def _about() -> dict[str, Case]:
    def about(rule: str, words: str, place: int, value: Any) -> Case:
        entries = [*ABOUT, 1, 0, 0, 0, 0]
        entries[place] = value
        return columns(rule, words, **ONE, M=entries)

    return {
        "word_number": columns("W1", "the number of no word", k=b"\x08", **RARE, L=[32]),
        "word_negative": columns("W1", "a negative number of a word", k=b"\x08", **RARE, L=[-1]),
        "M_missing": bad("M1", "no M", of_raw(msgpack.packb(ONE))),
        "M_five": columns("M1", "M with five entries", **ONE, M=ABOUT[:5]),
        "anchor_early": about("M1", "an anchor of -2^63", 0, -M64),
        "anchor_float": about("M1", "Unix time as a float", 1, 1.5),
        "boot_short": about("M1", "a boot of 7 bytes", 2, bytes(7)),
        "boot_text": about("M1", "a boot as text of 8 bytes", 2, "b0b0b0b0"),
        "tick_0": about("M1", "a tick of 0", 3, 0),
        "tick_long": about("M1", "a tick of more than a minute", 3, 60 * 10**9 + 1),
        "software_number": about("M1", "the software as a number", 4, 24),
        "software_long": about("M1", "257 bytes of software", 4, "x" * 257),
        "platform_long": about("M1", "129 bytes of platform", 5, "x" * 129),
        "quanta_0": about("M1", "no quanta in a pixel", 6, 0),
        "quanta_257": about("M1", "257 quanta in a pixel", 6, 257),
        "coalesced_negative": about("M1", "a negative count", 7, -1),
        "not_collected_large": about("M1", "2^63 ns not collected", 10, M64),
        "S_half": columns("M3", "a source without a clock", **ONE, S=[16]),
        "S_twice": columns("M3", "a source twice, once as a number", **ONE, S=[16, 21, "pointer", 22]),
        "S_many": columns("M3", "33 sources", **ONE, S=[word for n in range(33) for word in (f"s{n}", 21)]),
        "audit_short": columns("M5", "a head of the audit log of 31 bytes", **ONE, audit=b"a" * 31),
        "audit_long": columns("M5", "one of 33 bytes", **ONE, audit=b"a" * 33),
        "audit_empty": columns("M5", "one of no bytes", **ONE, audit=b""),
        "audit_nil": columns("M5", "nil instead of it", **ONE, audit=None),
        "audit_text": columns("M5", "text instead of it", **ONE, audit="a" * 32),
        "audit_list": columns("M5", "an array instead of it", **ONE, audit=[1] * 32),
        "by_nil": columns("M4", "nil instead of backends", **ONE, S=[16, 21], by=None),
        "by_text": columns("M4", "a backend that is in no array", **ONE, S=[16, 21], by="xrecord"),
        "by_few": columns("M4", "one backend for two sources", **ONE, S=[16, 21, 17, 21], by=[32]),
        "by_many": columns("M4", "two backends for one source", **ONE, S=[16, 21], by=[32, None]),
        "by_alone": columns("M4", "a backend of no source", **ONE, by=[32]),
        "by_true": columns("M4", "a backend of true", **ONE, S=[16, 21], by=[True]),
        "by_float": columns("M4", "the number of a backend as a float", **ONE, S=[16, 21], by=[32.0]),
        "by_long": columns("M4", "a backend of 129 bytes", **ONE, S=[16, 21], by=["x" * 129]),
        "by_number": columns(
            "W1", "the number of no word, not even of a backend", **ONE, S=[16, 21], by=[34]
        ),
        "by_negative": columns("W1", "a negative number of a backend", **ONE, S=[16, 21], by=[-1]),
        "by_array": columns("C5", "an array among backends", **ONE, S=[16, 21], by=[[]]),
        "by_entries": bad(
            "C6", "backends that state a billion entries", of_raw(b"\x81\xa2by\xdd\x3b\x9a\xca\0")
        ),
        "by_text_long": columns("C7", "a backend of 513 bytes", **ONE, S=[16, 21], by=["x" * 513]),
        "backend_as_clock": columns("W1", "the number of a backend where a clock belongs", **ONE, S=[16, 32]),
        "backend_as_platform": about("W1", "the number of a backend where a platform belongs", 5, 33),
        "backend_as_key": columns(
            "W1", "the number of a backend where a key belongs", k=b"\4", **RARE, E=[33]
        ),
        "D_negative": columns("M3", "-1 events lost", **ONE, D=[27, -1]),
        "P_infinite": columns("M3", "a lever at infinity", **ONE, P=["age_s", float("inf")]),
        "P_bytes": columns("M3", "a lever of bytes", **ONE, P=["age_s", b"1"]),
        "R_number": columns("M3", "a reason that is a number", **ONE, R=[1]),
        "R_long": columns("M3", "a reason of 257 bytes", **ONE, R=["x" * 257]),
        "R_many": columns("M3", "33 reasons", **ONE, R=["x"] * 33),
        "H_nil": columns("C8", "a digest of nil, in clear", **ONE, H=None),
        "H_other": columns("H8", "the digest of another header, in clear", **ONE, H=bytes(16)),
    }


def _rows() -> dict[str, Case]:
    step = {**ONE, "C": [15_600_100, 0]}
    most = {name: bytes(65_536) for name in "xyt"}
    return {
        "rows_many": bad("R1", "65,537 rows", lambda: of_payload(compressed(packed({**most, "k": b"\4", **RARE, "E": [5]})))),
        "kind_0": columns("R2", "a move among the rare rows", k=b"\0", **RARE),
        "kind_10": columns("R2", "a kind that is not known", k=b"\x0a", **RARE),
        "i_negative": columns("R3", "rare rows that go back", **ONE, k=b"\4\4", i=[1, -1], j=[0, 0], E=[5]),
        "i_beyond": columns("R3", "more moves before a rare row than there are", **ONE, k=b"\4", i=[2], j=[0], E=[5]),
        "time_late": columns("T1", "Unix time beyond 64 bits", **{**ONE, "t": b"\xff"}, u=[M64 // 10**6]),
        "time_early": columns("T1", "monotonic time before -(2^63 - 1)", **{**ONE, "t": b"\xff"}, u=[-M64 // 10**6 - 6_000]),
        "C_three": columns("T3", "a clock step of three numbers", **{**step, "C": [1, 0, 0]}),
        "C_empty": columns("T3", "a clock step of nothing", **{**step, "C": []}),
        "h_empty_alone": columns("T3", "no corrections without a clock step", **ONE, h=[]),
        "C_0": columns("T3", "a clock step of 0", **{**step, "C": [0, 0]}),
        "C_long": columns("T3", "a clock step of more than a minute", **{**step, "C": [60 * 10**9 + 1, 0]}),
        "C_base": columns("T3", "a base of 2^63", **{**step, "C": [1, M64]}),
        "h_beyond": columns("T3", "the correction of a row that is not there", **step, h=[1], r=[1]),
        "h_twice": columns("T3", "two corrections of the same row", **step, h=[0, 0], r=[1, 1]),
        "h_alone": columns("T3", "a correction without a clock step", **ONE, h=[0], r=[1]),
        "position_far": columns("R4", "a position of 2^31", **{**ONE, "x": b"\xff"}, v=[2**32 - 255]),
        "position_sum": columns("R4", "positions that add up to too much", x=b"\xff\xff", y=b"\0\0", t=b"\0\0", v=[2**32 - 257] * 2),
        "a_beyond": columns("R5", "the place of a click that is not there", k=b"\1", **RARE, B=[0], a=[1], p=[0], q=[0]),
        "a_twice": columns("R5", "two places for the same click", k=b"\1", **RARE, B=[0], a=[0, 0], p=[0, 1], q=[0, 1]),
        "p_far": columns("R5", "a click at 2^31", k=b"\1", **RARE, B=[0], a=[0], p=[2**31], q=[0]),
    }  # fmt: skip


def _fields() -> dict[str, Case]:
    def scroll(rule: str, about: str, **steps: Any) -> Case:
        return columns(rule, about, k=b"\3", **RARE, **steps)

    def display(about: str, *values: Any) -> Case:
        return columns("R9", about, k=b"\7", **RARE, Y=list(values))

    def window(about: str, *values: Any) -> Case:
        return columns("R9", about, k=b"\x09", **RARE, A=["a"], W=list(values))

    return {
        "button_missing": columns("R6", "a press without a table of buttons", k=b"\1", **RARE),
        "index_missing": columns("R6", "two buttons and no index", k=b"\1", **RARE, B=[0, 1]),
        "index_beyond": columns("R6", "an index beyond its table", k=b"\1", **RARE, B=[0, 1], b=[2]),
        "index_negative": columns("R6", "a negative index", k=b"\4", **RARE, E=[5, 6], e=[-1]),
        "button_nil": columns("R6", "a button that is not said", k=b"\1", **RARE, B=[None]),
        "button_long": columns("R6", "a button of 129 bytes", k=b"\1", **RARE, B=["x" * 129]),
        "scroll_far": scroll("R7", "a scroll of more than 2^53", s=[2**53 + 1], c=[1]),
        "scroll_nan": scroll("R7", "a scroll that is not a number", s=[0], d=[float("nan")], c=[1]),
        "scroll_text": scroll("R7", "a scroll that is text", s=["1"], c=[1]),
        "count_missing": scroll("R7", "half a step without a count", s=[0.5]),
        "count_missing_0": scroll("R7", "no step and no count", s=[0]),
        "count_0": scroll("R8", "a count of 0", s=[1], c=[0]),
        "count_large": scroll("R8", "a count of 2^31", s=[1], c=[2**31]),
        "gap_negative": columns("R8", "a gap of -1 ns", k=b"\6", **RARE, l=[-1], G=[16]),
        "gap_long": columns("R8", "a gap of 2^63 ns", k=b"\6", **RARE, l=[M64], G=[16]),
        "display_256": display("display 256", 256, 0, 0, 9, 9, 1, 0),
        "display_float": display("a width of 9.5", 0, 0, 0, 9.5, 9, 1, 0),
        "display_negative": display("a height of -9", 0, 0, 0, 9, -9, 1, 0),
        "scale_0": display("a scale of 0", 0, 0, 0, 9, 9, 0, 0),
        "scale_65": display("a scale of 65", 0, 0, 0, 9, 9, 65, 0),
        "scale_nan": display("a scale that is not a number", 0, 0, 0, 9, 9, float("nan"), 0),
        "scale_text": display("a scale as text", 0, 0, 0, 9, 9, "1", 0),
        "rotation_45": display("turned by 45 degrees", 0, 0, 0, 9, 9, 1, 45),
        "window_far": window("a window at 2^31", 2**31, 0, 9, 9),
        "window_partly": window("a window with no width said", 0, 0, None, 9),
        "window_float": window("a window at 0.5", 0.5, 0, 9, 9),
        "z_half": columns("R10", "a run that does not say by whom", **ONE, z=[0]),
        "z_number": columns("R10", "a run by 1", **ONE, z=[0, 1]),
        "z_beyond": columns("R10", "a run of rows that are not there", **ONE, z=[1, True]),
        "z_same": columns("R10", "two runs from the same row", **ONE, z=[0, True, 0, False]),
        "z_negative": columns("R10", "a run from row -1", **ONE, z=[-1, True]),
        "z_gap": columns(
            "R10", "a gap does not count as an input row", k=b"\6", **RARE, l=[1], G=[16], z=[0, True]
        ),
    }


def _sealed() -> dict[str, Case]:
    first, second, third = identities()

    def public(identity: str) -> str:
        import pyrage

        return str(pyrage.x25519.Identity.from_str(identity).to_public())

    def sealed() -> bytes:
        return encode(batch(*one_of_each()), recipients=[public(first), public(second)])

    def resealed(content: dict[str, Any]) -> bytes:
        head = msgpack.packb([*HEADER[:5], [bytes(4)]])
        return frame_of(head, seal(stored(packed(content)), [public(first)]), flags=1)

    def cut() -> bytes:
        frame = sealed()
        head_bytes, payload_bytes = struct.unpack_from(">II", frame, 6)
        start = 14 + head_bytes
        return frame_of(frame[14:start], frame[start : start + payload_bytes - 1], flags=1)

    def long_header() -> bytes:
        stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
        age = b"age-encryption.org/v1\n" + stanza * 50 + b"--- " + b"A" * 43 + b"\n" + bytes(64)
        return frame_of(msgpack.packb([*HEADER[:5], [bytes(4)]]), age, flags=1)

    return {
        "sealed_to_others": bad("S1", "sealed to two other keys", sealed, third),
        "sealed_cut": bad("S1", "the last byte of the age file is missing", cut, first),
        "sealed_clear": bad("S1", "not an age file", frame_of(msgpack.packb([*HEADER[:5], [bytes(4)]]), stored(packed(ONE)), flags=1), first),
        "sealed_long_header": bad("S2", "an age header of 5 KB", long_header, first),
        "sealed_unbound": bad("H8", "sealed, without the digest of the header", lambda: resealed(ONE), first),
        "sealed_header_changed": bad("H8", "sealed with the digest of another header", lambda: resealed({**ONE, "H": bytes(16)}), first),
    }  # fmt: skip
