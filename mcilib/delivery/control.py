"""Control records: messages to the operator that are no data. JSON, written once, resent byte for byte.

    delete                 delete these batches, or all of this participant
    exemption              a part that is not to be captured: the operator decides (`mcilib.consent.Exemption`)
    exemption_withdrawn    the participant takes that back

A receiver that does not know a kind rejects it with a reason.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mcilib import limits
from mcilib.errors import ConfigError
from mcilib.protocols import ControlRecord

if TYPE_CHECKING:
    from mcilib.consent.exemption import Exemption

DELETE, EXEMPTION, WITHDRAWN = "delete", "exemption", "exemption_withdrawn"
"""The kinds."""

APPROVED, DENIED = "approved", "denied"
"""What an operator can decide."""

UNDECIDABLE = ("withdrawn", "expired")
"""What a receipt says in place of a decision when there is nothing left to decide."""

PENDING = "pending"

_ID = re.compile(r"[0-9a-f]{32}")


def delete_request(
    participant: str, device: str, batches: Iterable[str] | None = None
) -> Callable[[int], ControlRecord]:
    """Asks the operator to delete these batches, or all that came from this participant. For `commit_control`.

    All ids are 32 hex digits. Raises `ValueError` when one is not, when `batches` is empty, or when there are
    more than fit: about 450.
    """
    more = {} if batches is None else {"batches": list(batches)}
    return _maker(uuid.uuid4().hex, DELETE, participant, device, **more)


def exemption_request(participant: str, device: str, exemption: Exemption) -> Callable[[int], ControlRecord]:
    """Asks the operator for this exemption. The record has its id, so that it cannot be asked for twice. For
    `commit_control`; the largest that there can be fits.

    The ids of participant and device are 32 hex digits. Raises `ValueError`.
    """
    asked = exemption.to_json()
    content = {name: asked[name] for name in ("scope", "reason_class", "note", "requested_ns", "until_ns")}
    return _maker(exemption.exemption_id, EXEMPTION, participant, device, exemption=content)


def exemption_withdrawal(participant: str, device: str, exemption_id: str) -> Callable[[int], ControlRecord]:
    """Tells the operator that this exemption is taken back, decided or not. For `commit_control`. All ids are 32
    hex digits. Raises `ValueError`."""
    return _maker(uuid.uuid4().hex, WITHDRAWN, participant, device, exemption=exemption_id)


def _maker(
    record: str, kind: str, participant: str, device: str, **more: Any
) -> Callable[[int], ControlRecord]:
    content = {"record": record, "kind": kind, "participant": participant, "device": device, **more}
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    parse(data)
    return lambda sequence: ControlRecord(record, sequence, data)


def parse(data: bytes) -> dict[str, Any]:
    """The content of a record. Raises `ValueError`, in words, when it is none; kinds not known here are."""
    if len(data) > limits.CONTROL_MAX_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than {limits.CONTROL_MAX_BYTES}")
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise ValueError("it is not an object")
    _check_id(content, "record")
    kind = content.get("kind")
    if not isinstance(kind, str) or not kind:
        raise ValueError("it has no kind")
    if kind in (DELETE, EXEMPTION, WITHDRAWN):
        for name in ("participant", "device"):
            _check_id(content, name)
    if kind == DELETE and "batches" in content:
        batches = content["batches"]
        if not isinstance(batches, list) or not batches:
            raise ValueError("batches is not a list of ids")
        for batch_id in batches:
            if not is_id(batch_id):
                raise ValueError("one of the batches is not an id of 32 hex digits")
    elif kind == EXEMPTION:
        exemption_of(content)
    elif kind == WITHDRAWN:
        _check_id(content, "exemption")
    return content


def exemption_of(content: dict[str, Any]) -> Exemption:
    """What a record of that kind asks for, as pending. Raises `ValueError`, in words."""
    from mcilib.consent.exemption import Exemption

    asked = content.get("exemption")
    if not isinstance(asked, dict):
        raise ValueError("it says nothing of the exemption")
    decided = {"exemption": content["record"], "state": PENDING, "decided_ns": None, "answer": ""}
    try:
        return Exemption.from_json({**asked, **decided})
    except KeyError as error:
        raise ValueError(f"the exemption has no {error.args[0]}") from None
    except ConfigError as error:
        raise ValueError(error.problem) from None
    except TypeError:
        raise ValueError("the exemption has a part of the wrong kind") from None


def kind_of(record: ControlRecord) -> str:
    """Empty when it cannot be told."""
    try:
        kind = json.loads(record.data)["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return kind if isinstance(kind, str) else ""


def is_id(value: object) -> bool:
    """Whether it is an id as batches, records and pseudonyms have them: 32 lower-case hex digits."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _check_id(content: dict[str, Any], name: str) -> None:
    if not is_id(content.get(name)):
        raise ValueError(f"{name} is not an id of 32 hex digits")
