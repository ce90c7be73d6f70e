"""Control records: messages to the operator that are no data. JSON, written once, resent byte for byte.

So far there is one kind, `delete`. A receiver that does not know a kind rejects it with a reason.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from mcilib import limits
from mcilib.protocols import ControlRecord

_ID = re.compile(r"[0-9a-f]{32}")


def delete_request(
    participant: str, device: str, batches: Iterable[str] | None = None
) -> Callable[[int], ControlRecord]:
    """Asks the operator to delete these batches, or all that came from this participant. For `commit_control`.

    All ids are 32 hex digits. Raises `ValueError` when one is not, when `batches` is empty, or when there are
    more than fit: about 450.
    """
    record = uuid.uuid4().hex
    content: dict[str, Any] = {
        "record": record,
        "kind": "delete",
        "participant": participant,
        "device": device,
    }
    if batches is not None:
        content["batches"] = list(batches)
    data = json.dumps(content, separators=(",", ":")).encode()
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
    if kind == "delete":
        for name in ("participant", "device"):
            _check_id(content, name)
        if "batches" in content:
            batches = content["batches"]
            if not isinstance(batches, list) or not batches:
                raise ValueError("batches is not a list of ids")
            for batch_id in batches:
                if not is_id(batch_id):
                    raise ValueError("one of the batches is not an id of 32 hex digits")
    return content


def is_id(value: object) -> bool:
    """Whether it is an id as batches, records and pseudonyms have them: 32 lower-case hex digits."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _check_id(content: dict[str, Any], name: str) -> None:
    if not is_id(content.get(name)):
        raise ValueError(f"{name} is not an id of 32 hex digits")
