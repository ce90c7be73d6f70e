"""Requests for exemptions as control records, and what the receiver's answers say of them. Nothing is trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcilib import limits
from mcilib.consent import Exemption, ExemptScope
from mcilib.consent.exemption import REASON_CLASSES
from mcilib.consent.grant import SCOPES
from mcilib.delivery._answers import receipts_of
from mcilib.delivery.control import (
    delete_request,
    exemption_of,
    exemption_request,
    exemption_withdrawal,
    kind_of,
    parse,
)
from mcilib.protocols import ControlRecord, Receipt, ReceiptStatus

P, D, E = "1" * 32, "d" * 32, "e" * 32


def exemption(**fields: Any) -> Exemption:
    given = {"scope": ExemptScope(apps=("keepassxc",)), "reason_class": "personal", "note": "mine", **fields}
    return Exemption(exemption_id=E, requested_ns=1_750_000_000_000_000_000, **given)


def content(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(exemption_request(P, D, exemption())(1).data)
    return {**made, **fields}


def test_a_request_has_the_id_of_its_exemption_and_comes_back_as_it_was() -> None:
    asked = exemption(note="Zeile eins\nund “zwei”", until_ns=1_760_000_000_000_000_000)
    record = exemption_request(P, D, asked)(7)
    assert (record.record_id, record.sequence, kind_of(record)) == (E, 7, "exemption")
    told = parse(record.data)
    assert (told["participant"], told["device"]) == (P, D)
    assert exemption_of(told) == asked


def test_what_is_decided_on_the_device_does_not_travel() -> None:
    told = content()["exemption"]
    assert set(told) == {"scope", "reason_class", "note", "requested_ns", "until_ns"}


def test_a_withdrawal_names_the_exemption_and_has_an_id_of_its_own() -> None:
    record = exemption_withdrawal(P, D, E)(2)
    told = parse(record.data)
    assert (told["kind"], told["exemption"], kind_of(record)) == (
        "exemption_withdrawn",
        E,
        "exemption_withdrawn",
    )
    assert told["record"] == record.record_id != E


WORST = ('"' * 128, "\\" * 128, "ß" * 64, "語" * 42, "\U0001f600" * 32)


@pytest.mark.parametrize("part", WORST)
def test_the_largest_request_fits_into_a_record(part: str) -> None:
    note = (part * limits.EXEMPTION_NOTE_MAX_BYTES).encode()[: limits.EXEMPTION_NOTE_MAX_BYTES]
    reason = max(REASON_CLASSES, key=len)
    for scope in (
        ExemptScope(apps=(part,) * limits.EXEMPT_PARTS_MAX),
        ExemptScope(hours=(("mon," * 40)[: 128 - 16] + "mon 22:00-07:00",) * limits.EXEMPT_PARTS_MAX),
        ExemptScope(scopes=tuple(SCOPES)),
    ):
        for text in (note.decode(errors="ignore"), "\n" * limits.EXEMPTION_NOTE_MAX_BYTES):
            asked = Exemption(E, scope, reason, text, 2**63 - 1, 2**63 - 1)
            assert len(exemption_request(P, D, asked)(1).data) <= limits.CONTROL_MAX_BYTES


@pytest.mark.parametrize(
    "hours", [("mon " + " " * 200 + "12:00-13:00",), ("mon\n12:00-13:00",), ("12:00-13:00",) * 33]
)
def test_hours_have_limits_too(hours: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match=r"weekly hours|too many"):
        ExemptScope(hours=hours)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (content(participant="x"), "participant"),
        (content(device=None), "device"),
        (content(record="A" * 32), "record"),
        (content(exemption=None), "nothing of the exemption"),
        (content(exemption={}), "has no"),
        (content(exemption={**content()["exemption"], "scope": {}}), "of nothing"),
        (content(exemption={**content()["exemption"], "scope": {"screen": []}}), "none that this version"),
        (content(exemption={**content()["exemption"], "scope": {"apps": "all"}}), "not a list"),
        (content(exemption={**content()["exemption"], "scope": {"apps": ["a\x1b[2J"]}}), "no program"),
        (content(exemption={**content()["exemption"], "reason_class": "fun"}), "no class of reasons"),
        (content(exemption={**content()["exemption"], "note": "x" * 2001}), "too long"),
        (content(exemption={**content()["exemption"], "note": "\x1b[31m"}), "cannot be shown"),
        (content(exemption={**content()["exemption"], "note": 7}), "word that is none"),
        (content(exemption={**content()["exemption"], "requested_ns": -1}), "time that is none"),
        (content(exemption={**content()["exemption"], "until_ns": 2**63}), "time that is none"),
        (content(exemption={**content()["exemption"], "until_ns": True}), "no time"),
        ({**content(), "kind": "exemption_withdrawn", "exemption": "x"}, "exemption is not an id"),
    ],
)
def test_what_is_no_request_is_said_in_words(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(json.dumps(wrong).encode())


def test_members_of_a_later_version_are_ignored() -> None:
    told = content(exemption={**content()["exemption"], "urgent": True}, more=1)
    assert exemption_of(parse(json.dumps(told).encode())) == exemption()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"kind": 7}', b"\xff", b"[" * 100_000])
def test_the_kind_of_what_is_damaged_is_none(data: bytes) -> None:
    assert kind_of(ControlRecord(E, 1, data)) == ""
    assert kind_of(delete_request(P, D)(1)) == "delete"


# --- receipts -----------------------------------------------------------------------------------------------


def told(*entries: dict[str, Any], member: str = "record") -> dict[str, Receipt]:
    full = [{member: E, "status": "duplicate", "reason": "", **entry} for entry in entries]
    found = receipts_of(json.dumps({"receipts": full}).encode(), [E], member)
    assert found is not None
    return found


def test_a_decision_comes_with_its_time_and_words() -> None:
    entry = {"decision": "approved", "decided_ns": 5, "answer": "Well.\nDo."}
    assert told(entry) == {E: Receipt(E, ReceiptStatus.DUPLICATE, "", "approved", 5, "Well.\nDo.")}
    assert told({"decision": "denied"})[E].decision == "denied"


@pytest.mark.parametrize("decision", ["yes", "APPROVED", "", 1, None, ["approved"], {"approved": 1}, True])
def test_a_decision_that_is_none_decides_nothing(decision: object) -> None:
    receipt = told({"decision": decision, "decided_ns": 5, "answer": "x"})[E]
    assert (receipt.decision, receipt.decided_ns, receipt.answer) == ("pending", None, "")


@pytest.mark.parametrize("decision", ["pending", "withdrawn", "expired"])
def test_words_come_with_a_decision_only(decision: str) -> None:
    receipt = told({"decision": decision, "decided_ns": 5, "answer": "x"})[E]
    assert (receipt.decision, receipt.decided_ns, receipt.answer) == (decision, None, "")


@pytest.mark.parametrize("decided_ns", [-1, 2**63, 1.5, "5", True, None, [5]])
def test_a_time_that_is_none_is_left_out(decided_ns: object) -> None:
    assert told({"decision": "denied", "decided_ns": decided_ns})[E].decided_ns is None


@pytest.mark.parametrize("answer", ["x" * 100_000, "ß" * 100_000, "\x1b[2Jevil‮\x00\ud800ok", 7, None, {}])
def test_an_answer_is_capped_and_can_be_shown(answer: object) -> None:
    found = told({"decision": "denied", "answer": answer})[E].answer
    assert len(found.encode()) <= limits.EXEMPTION_NOTE_MAX_BYTES
    assert found.isprintable()
    assert (found == "") is (not isinstance(answer, str))
    assert exemption(answer=found).answer == found  # as the device keeps it


def test_receipts_that_contradict_each_other_decide_nothing() -> None:
    assert told({"decision": "approved"}, {"decision": "denied"}) == {}
    assert told({"decision": "approved"}, {"decision": "approved"})[E].decision == "approved"


def test_a_batch_is_never_decided() -> None:
    assert told({"decision": "denied"}, member="batch")[E].decision == ""
