"""The test vectors: read or refused as they say, and every rule of the document is shown by one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mcilib.errors import BatchFormatError, SealError
from mcilib.format.batch import Batch, decode, encode, open_payload

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
DOCUMENT = (ROOT / "docs" / "spec" / "batch-format.md").read_text("utf-8")
TOLD: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("ascii")) for path in sorted(VECTORS.glob("*.json"))
}
GOOD = [name for name, told in TOLD.items() if "rows" in told]
BAD = [name for name, told in TOLD.items() if "refused" in told]


def _frame(name: str) -> bytes:
    return (VECTORS / f"{name}.mcib").read_bytes()


def _read(name: str) -> Batch:
    return decode(_frame(name), TOLD[name].get("identities", ()))


@pytest.fixture(scope="module")
def generate():
    sys.path.insert(0, str(VECTORS))
    try:
        import generate

        yield generate
    finally:
        sys.path.remove(str(VECTORS))
        for module in ("generate", "frames", "cases_good", "cases_bad"):
            sys.modules.pop(module, None)


def test_files_are_what_the_cases_say(generate):
    assert list(generate.differences()) == []
    assert set(generate.all_cases()) == set(TOLD)
    assert len(GOOD) + len(BAD) == len(TOLD)


def test_a_changed_file_is_noticed(generate, tmp_path, monkeypatch):
    for name in TOLD:
        for ending in (".mcib", ".json"):
            (tmp_path / f"{name}{ending}").write_bytes((VECTORS / f"{name}{ending}").read_bytes())
    (tmp_path / "identities.txt").write_bytes((VECTORS / "identities.txt").read_bytes())
    (tmp_path / "moves.mcib").write_bytes(_frame("weight_0"))
    (tmp_path / "gaps.json").write_text((tmp_path / "gaps.json").read_text().replace("suspend", "suspended"))
    (tmp_path / "stray.mcib").write_bytes(b"")
    monkeypatch.setattr(generate, "HERE", tmp_path)
    assert list(generate.differences()) == [
        "moves.mcib is not what its case makes",
        "gaps.json is not what its case expects",
        "stray.mcib has no case",
    ]


@pytest.mark.parametrize("name", GOOD)
def test_it_is_read_as_expected(name, generate):
    batch = _read(name)
    case = generate.all_cases()[name]
    assert batch == case.batch
    assert [event.kind for event in batch.events] == [row["kind"] for row in TOLD[name]["rows"]]


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_reason_and_place(name):
    told = TOLD[name]
    with pytest.raises((BatchFormatError, SealError)) as caught:
        _read(name)
    error = caught.value
    if isinstance(error, BatchFormatError):
        assert (error.reason, error.offset) == (told["reason"], told["offset"])
    else:
        assert told["refused"] == "S1"


@pytest.mark.parametrize("name", [name for name in GOOD if TOLD[name]["version"] == 1])
def test_writing_what_was_read_gives_the_canonical_form(name):
    identities = TOLD[name].get("identities", ())
    batch, content = _read(name), open_payload(_frame(name), identities)
    again = encode(batch)
    assert decode(again).events == batch.events
    if identities:  # the digest of the other header, which names the keys, is all that differs
        assert open_payload(again)[3:] == content[3:].removesuffix(b"\xa1H\xc4\x10" + content[-16:])
    else:
        assert (open_payload(again) == content) is TOLD[name]["canonical"]
    assert open_payload(encode(decode(again))) == open_payload(again)


def test_another_form_of_the_same_rows_is_the_same():
    assert _read("other_forms") == _read("canonical_order")
    assert open_payload(encode(_read("other_forms"))) == open_payload(_frame("canonical_order"))


TAGS = set(re.findall(r"\*\*\[([A-Z]\d+)\]\*\*", DOCUMENT))


def test_every_rule_of_the_document_is_shown():
    shown = {rule for told in TOLD.values() for rule in told["rules"]}
    assert shown == TAGS


def test_every_refusal_is_shown_by_a_vector_that_is_refused():
    """Rules that say "refuse"; the others are about what is to be accepted."""
    accepting = {"C9", "H7", "M2", "N1", "T2"}
    assert {TOLD[name]["refused"] for name in BAD} == TAGS - accepting


def test_every_must_has_a_tag():
    """In each sentence or list that says MUST."""
    text = re.sub(r"```.*?```", "", DOCUMENT, flags=re.S)
    blocks = [block for block in text.split("\n\n") if "MUST" in block and "RFC 2119" not in block]
    assert len(blocks) >= 15
    for block in blocks:
        following = text[text.index(block) : text.index(block) + len(block) + 1500].split("\n\n")
        listed = following[1] if len(following) > 1 and following[1].startswith("-") else ""
        sentences = re.split(r"(?<=[.:])\s+(?=[A-Z`*])", block + "\n" + listed)
        for sentence in sentences:
            if "MUST" in sentence:
                tagged = re.search(r"\[[A-Z]\d+\]", sentence) or (sentence.endswith("a frame") or listed)
                assert tagged, sentence
