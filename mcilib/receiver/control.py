"""Control records as they come: what they ask for, or why that cannot be done."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mcilib.receiver.store import Deletion

RECORDS_PER_REQUEST = 64
"""A record may be 16 KiB; a device rarely has more than one."""

BATCHES_PER_RECORD = 1_000
"""More than fit into a record that a sender may make."""

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a request. `deletion` is None when it is refused, for `reason`."""

    record_id: str
    """Empty where it is not 32 hex digits: its place in the request tells which is meant."""
    device: str = ""
    deletion: Deletion | None = None
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
    if not isinstance(record, dict) or not _is_id(record.get("record")):
        return Record("", reason="the record id is not 32 hex digits")
    record_id = record["record"]
    if record.get("kind") != "delete":
        return Record(record_id, reason="this receiver does not know records of that kind")
    for what in ("participant", "device"):
        if not _is_id(record.get(what)):
            return Record(record_id, reason=f"the {what} is not 32 hex digits")
    participant, device = record["participant"], record["device"]
    if "batches" not in record:
        return Record(record_id, device, Deletion(participant, device))
    batches = record["batches"]
    if not isinstance(batches, list) or not all(map(_is_id, batches)):
        return Record(record_id, device, reason="the batches are not a list of ids")
    if len(batches) > BATCHES_PER_RECORD:
        return Record(record_id, device, reason=f"more than {BATCHES_PER_RECORD} batches in one record")
    return Record(record_id, device, Deletion(participant, device, tuple(batches)))


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
