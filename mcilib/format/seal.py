"""Sealing: bytes as one age file (binary, `age-encryption.org/v1`), which any one of several keys opens.

The ordinary `age` tool opens it too. Of its kinds of keys only the native one is taken (X25519: `age1...`,
`AGE-SECRET-KEY-1...`). Needs pyrage, which is imported when first used. Whatever is wrong, `SealError` is
raised; its words never show a key. All functions may be called from any thread; pyrage lets no other one run
meanwhile (0.15 ms for each try at a batch).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mcilib import limits
from mcilib.digest import sha256
from mcilib.errors import SealError

_INTRO = b"age-encryption.org/v1\n"
_MAC_LINE = b"\n--- "  # the last of the header; nothing before it can hold these bytes
_NO_KEY_FITS = "No matching keys found"  # pyrage has one class for all errors
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_WHOSE = "Give an identity file of one of its recipients (--identity FILE)."


def seal(data: bytes, recipients: Sequence[str]) -> bytes:
    """`data` as an age file for `recipients` (public keys); for two of them 311 to 486 bytes larger.

    `SealError` when there is none, when there are too many, or when one of them is no such key.
    """
    _check_count(len(recipients))
    pyrage = _pyrage()
    keys = [_recipient(pyrage, recipient, "A recipient") for recipient in recipients]
    return min((bytes(pyrage.encrypt(data, keys)) for _ in range(limits.SEAL_TRIES)), key=len)


def unseal(data: bytes, identities: Sequence[str]) -> bytes:
    """What was sealed, never more bytes than `data` has. `identities` are secret keys, any one may fit.

    `SealError` when none fits, or (`damaged`) when `data` is no age file that mcilib reads.
    """
    _check_header(data)
    if not identities:
        raise SealError("It is sealed, and there is no identity to open it with", _WHOSE)
    pyrage = _pyrage()
    keys = [_identity(pyrage, identity, "An identity") for identity in identities]
    try:
        return bytes(pyrage.decrypt(data, keys))
    except pyrage.DecryptError as error:
        if str(error) == _NO_KEY_FITS:
            raise SealError("It is sealed to other keys than those of the identities", _WHOSE) from None
        raise _damaged(" ".join(str(error).split())) from None


def key_ids(recipients: Sequence[str]) -> tuple[str, ...]:
    """Of those that a batch is to be sealed to; none: it stays in clear. `SealError` as `seal`."""
    if recipients:
        _check_count(len(recipients))
    return tuple(map(key_id, recipients))


def key_id(recipient: str) -> str:
    """The 8 hex digits that name a public key in a batch's clear header.

    `SealError` when it does not look like one; its checksum is not looked at.
    """
    if not isinstance(recipient, str) or not _RECIPIENT.fullmatch(recipient):  # type: ignore[redundant-expr]
        raise _wrong_recipient("A recipient")
    return sha256(recipient.encode("ascii"))[:4].hex()


def generate() -> tuple[str, str]:
    """A new key: the identity, which is secret, and its recipient, which is public."""
    identity = _pyrage().x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def parse_recipients(text: str) -> tuple[str, ...]:
    """The public keys of an age recipients file, each once: one a line, `#` begins a line that is a remark.

    `SealError` names the line that is wrong, or says that there is no key or too many.
    """
    pyrage = _pyrage()
    found: dict[str, None] = {}
    for number, line in _lines(text):
        _recipient(pyrage, line, f"Line {number}")
        found[line] = None
    _check_count(len(found))
    return tuple(found)


def parse_identities(text: str) -> tuple[str, ...]:
    """The secret keys of an age identity file. `SealError` as `parse_recipients`."""
    pyrage = _pyrage()
    found = []
    for number, line in _lines(text):
        _identity(pyrage, line, f"Line {number}")
        found.append(line)
    if not found:
        raise SealError("There is no secret key in it", "Make one with `mcilib keygen`.")
    return tuple(found)


def _check_header(data: bytes) -> None:
    """Before pyrage, whose time grows with the square of the header, which a stranger may have written."""
    if not data.startswith(_INTRO):
        raise _damaged("it is no age file, or of another version")
    end = data.find(_MAC_LINE, 0, limits.SEAL_HEADER_MAX_BYTES)
    if end < 0:
        raise _damaged(f"its header does not end within {limits.SEAL_HEADER_MAX_BYTES} bytes")


def _check_count(number: int) -> None:
    if not 1 <= number <= limits.RECIPIENTS_MAX:
        raise SealError(
            f"There are {number or 'no'} keys to seal to",
            f"Name 1 to {limits.RECIPIENTS_MAX}, one `age1...` a line.",
        )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, counted from 1."""
    for number, line in enumerate(text.splitlines(), start=1):
        if (line := line.strip()) and not line.startswith("#"):
            yield number, line


def _recipient(pyrage: Any, text: str, what: str) -> Any:
    if text.startswith("AGE-SECRET-KEY-"):
        raise SealError(f"{what} is a secret key", "Name its public key, and keep the secret one elsewhere.")
    try:
        if _RECIPIENT.fullmatch(text):  # pyrage takes capitals too, which would be another key id
            return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        pass
    raise _wrong_recipient(what)


def _identity(pyrage: Any, text: str, what: str) -> Any:
    try:
        return pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError:
        raise SealError(
            f"{what} is no age secret key (AGE-SECRET-KEY-1...)",
            "Give an identity file as `mcilib keygen` writes it; one with a passphrase must be opened first.",
        ) from None


def _wrong_recipient(what: str) -> SealError:
    return SealError(
        f"{what} is no age public key (age1... and 58 more)", "Copy the whole line of `mcilib keygen`."
    )


def _damaged(words: str) -> SealError:
    return SealError(
        f"What is sealed is damaged: {words}", "Keep the file if you want to report it.", damaged=True
    )


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise SealError("Sealed batches need pyrage", "pip install 'mcilib[seal]'") from None
    return pyrage
