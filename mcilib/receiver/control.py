"""Control records as they come: what they ask for, or why that cannot be done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mcilib.consent.exemption import Exemption
from mcilib.delivery.control import DELETE, EXEMPTION, WITHDRAWN, exemption_of, is_id
from mcilib.receiver.store import Deletion

RECORDS_PER_REQUEST = 64
"""A record may be 16 KiB; a device rarely has more than one."""

BATCHES_PER_RECORD = 1_000
"""More than fit into a record that a sender may make."""

UNKNOWN = "this receiver does not know records of that kind"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a request: a deletion, an exemption that is asked for, or the id of one that is taken back. It is
    none of them when it is refused, for `reason`."""

    record_id: str
    """Empty where it is not 32 hex digits: its place in the request tells which is meant."""
    device: str = ""
    participant: str = ""
    deletion: Deletion | None = None
    exemption: Exemption | None = None
    taken_back: str = ""
    reason: str = ""


def records_of(body: bytes) -> list[Record]:
    """The records of a request's body. `ValueError` says in words why it is none."""
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it is not JSON in UTF-8") from None
    records = document.get("records") if isinstance(document, dict) else None
    if not isinstance(records, list) or not records:
        raise ValueError('it has no list of "records" with one or more')
    return [_record(record) for record in records]


def _record(record: Any) -> Record:
    if not isinstance(record, dict) or not is_id(record.get("record")):
        return Record("", reason="the record id is not 32 hex digits")
    record_id, kind = record["record"], record.get("kind")
    if kind not in (DELETE, EXEMPTION, WITHDRAWN):
        return Record(record_id, reason=UNKNOWN)
    for what in ("participant", "device"):
        if not is_id(record.get(what)):
            return Record(record_id, reason=f"the {what} is not 32 hex digits")
    who = {"record_id": record_id, "participant": record["participant"], "device": record["device"]}
    try:
        if kind == DELETE:
            return Record(**who, deletion=_deletion(record))
        if kind == EXEMPTION:
            return Record(**who, exemption=exemption_of(record))
    except ValueError as error:
        return Record(**who, reason=str(error))
    if not is_id(record.get("exemption")):
        return Record(**who, reason="the exemption is not 32 hex digits")
    return Record(**who, taken_back=record["exemption"])


def _deletion(record: dict[str, Any]) -> Deletion:
    participant, device = record["participant"], record["device"]
    if "batches" not in record:
        return Deletion(participant, device)
    batches = record["batches"]
    if not isinstance(batches, list) or not all(map(is_id, batches)):
        raise ValueError("the batches are not a list of ids")
    if len(batches) > BATCHES_PER_RECORD:
        raise ValueError(f"more than {BATCHES_PER_RECORD} batches in one record")
    return Deletion(participant, device, tuple(batches))
