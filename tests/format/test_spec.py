"""The document says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack
from batches import WALL_NS, header, one_of_each, raw_of, sample

from mcilib import limits
from mcilib.events import EVENT_TYPES
from mcilib.format.columns import TEXT_MAX_BYTES
from mcilib.format.frame import ROWS_MAX

SPEC = (Path(__file__).resolve().parents[2] / "docs/spec/batch-format-v0.md").read_text(encoding="utf-8")


def _names(section: str) -> set[str]:
    """What stands in backticks in the first column of the table in a section."""
    body = SPEC.split(f"## {section}\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", body, re.M) for name in re.findall(r"`(\w+)`", row)}


def test_every_header_field_is_in_the_document_and_the_other_way_round():
    assert _names("Header") == set(header().to_wire())


def test_every_column_is_in_the_document_and_the_other_way_round():
    assert _names("Payload") == set(msgpack.unpackb(raw_of(sample())))


def test_kind_codes_are_in_the_document():
    assert ", ".join(f"{code} `{kind}`" for code, kind in enumerate(EVENT_TYPES)) in SPEC


def test_limits_are_in_the_document():
    for number in (limits.HEADER_MAX_BYTES, limits.FRAME_MAX_BYTES, ROWS_MAX):
        assert f"at most {number:,}" in SPEC
    assert f"at most {limits.PAYLOAD_MAX_BYTES >> 20} MiB" in SPEC
    assert f"at most {TEXT_MAX_BYTES} bytes of UTF-8" in SPEC
    assert f"at most {limits.SCROLL_MERGE_NS // 10**6} ms after the first" in SPEC


def test_the_decoder_in_the_document_works():
    (code,) = re.findall(r"```python\n(.*?)```", SPEC, re.S)
    names: dict = {}
    exec(code, names)
    head, rows = names["decode"](sample())
    codes = {kind: code for code, kind in enumerate(EVENT_TYPES)}
    assert head["rows"] == len(rows)
    assert rows == [(codes[e.kind], WALL_NS + e.t_ns - 5_000 * 10**6) for e in one_of_each()]
