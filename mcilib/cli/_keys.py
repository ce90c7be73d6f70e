"""The files of keys: public ones to seal to, secret ones to open with. Never shows a key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mcilib.cli._output import count
from mcilib.errors import SealError
from mcilib.files import read_file

KEY_FILE_MAX_BYTES = 64 * 1024
"""Ten times what as many keys take as a batch may be sealed to, remarks included."""


def read_recipients(path: Path) -> tuple[str, ...]:
    """The public keys in an age recipients file. Raises `SealError`."""
    from mcilib.format.seal import parse_recipients

    return _read(path, "recipients", parse_recipients)


def read_identities(paths: Iterable[Path]) -> list[str]:
    """The secret keys in age identity files. Raises `SealError`."""
    from mcilib.format.seal import parse_identities

    return [identity for path in paths for identity in _read(path, "identity", parse_identities)]


def key_words(recipients: Sequence[str]) -> str:
    """`2 keys, 1a2b3c4d 5e6f7a8b`, as the header of a batch names them."""
    from mcilib.format.seal import key_id

    return f"{count(len(recipients), 'key')}, {' '.join(map(key_id, recipients))}"


def _read(path: Path, kind: str, parse: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    what = f"The {kind} file {path}"
    try:
        text = read_file(path, KEY_FILE_MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise SealError(
            f"{what} cannot be read ({error.strerror})", "Name a file that can be read."
        ) from None
    except UnicodeDecodeError:
        raise SealError(
            f"{what} is no text", "Give one as `mcilib keygen` or `age-keygen` writes it."
        ) from None
    try:
        return parse(text)
    except SealError as error:
        raise SealError(f"{what} cannot be used. {error.problem}", error.next_step) from None
