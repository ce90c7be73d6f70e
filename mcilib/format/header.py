"""The header of a batch: what a receiver needs, and all that anybody can read without a key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mcilib import limits

SEQUENCE_MAX = 10**16 - 1
"""File names of spools and stores have sixteen digits."""
KEY_IDS_MAX = limits.RECIPIENTS_MAX
_HEX = re.compile(r"(?:[0-9a-f]{2})*")


@dataclass(frozen=True, slots=True)
class Header:
    """Whose batch it is, which one, under which grant, for whom. Ids and digests are lower-case hex digits."""

    batch_id: str
    """32 digits, a random UUID: two frames with the same one are the same batch."""
    participant: str
    """32 digits, the pseudonym of the grant."""
    device: str
    """32 digits, as in the grant."""
    grant: str
    """64 digits, the SHA-256 of the grant under which all of this was captured."""
    sequence: int
    """Of the batch in its spool: 1, 2, 3 ..."""
    key_ids: tuple[str, ...] = ()
    """Of the recipients to whom it is sealed, 8 digits each (`mcilib.format.seal.key_id`); none: in clear."""

    @property
    def sealed(self) -> bool:
        return bool(self.key_ids)

    def to_wire(self) -> list[Any]:
        """The array that is written. `ValueError` when a field is beyond what the format can hold."""
        wire = [
            _bytes(self.batch_id),
            _bytes(self.participant),
            _bytes(self.device),
            _bytes(self.grant),
            self.sequence,
            [_bytes(key_id) for key_id in self.key_ids],
        ]
        Header.from_wire(wire)  # what is written can be read
        return wire

    @classmethod
    def from_wire(cls, wire: object) -> Header:
        """`ValueError` names the entry that is missing or wrong. Entries beyond the sixth are ignored."""
        if type(wire) is not list or len(wire) < 6:
            raise ValueError("it is not an array of six entries or more")
        batch_id, participant, device, grant, sequence, key_ids = wire[:6]
        if type(sequence) is not int or not 0 <= sequence <= SEQUENCE_MAX:
            raise ValueError("the sequence is not an integer in its range")
        if type(key_ids) is not list or len(key_ids) > KEY_IDS_MAX:
            raise ValueError("the key ids are not a list within its limit")
        return cls(
            batch_id=_hex("the batch id", batch_id, 16),
            participant=_hex("the participant", participant, 16),
            device=_hex("the device", device, 16),
            grant=_hex("the grant", grant, 32),
            sequence=sequence,
            key_ids=tuple(_hex("a key id", key_id, 4) for key_id in key_ids),
        )


def _hex(what: str, value: object, length: int) -> str:
    if type(value) is not bytes or len(value) != length:
        raise ValueError(f"{what} is not {length} bytes ({2 * length} hex digits)")
    return value.hex()


def _bytes(digits: str) -> bytes:
    if not _HEX.fullmatch(digits):
        raise ValueError("an id or digest is not lower-case hex digits")
    return bytes.fromhex(digits)
