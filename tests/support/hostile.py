"""What must hold for any bytes, below the checksum too: for the tests, the mutation loop and the fuzzer."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyrage
import zstandard
from batches import PREFIX_BYTES, frame_of, header, parts, with_crc

from mcilib.errors import BatchFormatError, SealError
from mcilib.format.batch import Batch, decode, encode, open_payload, read_header
from mcilib.format.frame import MAGIC, pack_header
from mcilib.format.seal import parse_identities

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
MEMORY_BYTES = 128 * 2**20
"""What the document promises: the most that reading any input takes."""
HEAD = pack_header(header())
_FAST = zstandard.ZstdCompressor(level=1)


def limit_memory(more_bytes: int = MEMORY_BYTES) -> None:
    """From here on this process gets no more than this much more memory (Linux only; elsewhere nothing happens)."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more_bytes,) * 2)


def vector_keys() -> tuple[str, ...]:
    """The identities of the vectors: public, good for nothing else."""
    return parse_identities((VECTORS / "identities.txt").read_text("ascii"))


# --- what must hold -----------------------------------------------------------------------------------------


def refusal_of(data: bytes, identities: Sequence[str] = ()) -> BatchFormatError | SealError | None:
    """Why this frame is refused, with the promises about it checked; None when it is read.

    What is read can be written, and reads the same again. Every error but the two is let through.
    """
    try:
        batch = decode(data, identities)
    except BatchFormatError as error:
        assert error.reason, "no reason"  # noqa: PT017
        assert 0 <= error.offset <= max(len(data), PREFIX_BYTES), f"offset {error.offset}"  # noqa: PT017
        return error
    except SealError as error:
        assert error.problem, "no reason"  # noqa: PT017
        assert read_header(data).sealed, "a seal error for a batch in clear"
        return error
    assert read_header(data) == batch.header
    if data[len(MAGIC)] > 0:  # version 0 could say what version 1 cannot
        _assert_writable(batch)
    return None


def _assert_writable(batch: Batch) -> None:
    clear = replace(batch, header=replace(batch.header, key_ids=()))
    frame = encode(clear, level=1)
    again = decode(frame)
    assert again == clear, "it reads otherwise when it is written again"
    assert open_payload(encode(again, level=1)) == open_payload(frame), "no canonical form"


def check(data: bytes, identities: Sequence[str] = ()) -> None:
    """Any bytes: what begins as a frame is one, its lengths and checksum mended; all else is the content of a payload."""
    if data.startswith(MAGIC):
        refusal_of(mended(data), identities)
    else:
        refusal_of(frame_of(HEAD, _FAST.compress(data)))


def mended(frame: bytes) -> bytes:
    """The frame with its payload length and its checksum made right, as far as it is long enough."""
    payload = len(frame) - PREFIX_BYTES - int.from_bytes(frame[6:10], "big") - 4
    if payload >= 0:
        frame = frame[:10] + payload.to_bytes(4, "big") + frame[PREFIX_BYTES:]
    return with_crc(frame)


# --- mutations ----------------------------------------------------------------------------------------------

_MARKS = b"\x00\x7f\x80\x90\x9f\xa0\xc0\xc1\xc2\xc3\xc4\xc7\xca\xcb\xcf\xd3\xd6\xdc\xdd\xdf\xff"
"""Bytes that mean something in MessagePack."""


def mutated(rng: random.Random, data: bytes) -> bytes:
    """One to four small changes: bits, MessagePack's own bytes, cuts, insertions, repetitions, exchanges."""
    mutant = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randrange(len(mutant))
        match rng.randrange(6):
            case 0:
                mutant[at] ^= 1 << rng.randrange(8)
            case 1:
                mutant[at] = rng.choice(_MARKS)
            case 2:
                del mutant[at : at + rng.randint(1, 8)]
            case 3:
                mutant[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                mutant[at:at] = mutant[at : at + rng.randint(1, 30)]
            case _:
                mutant[at] = (mutant[at] + rng.choice((-1, 1))) % 256
        if not mutant:
            mutant = bytearray(b"\0")
    return bytes(mutant)


class Mutants:
    """Mutants of one frame, each with its lengths and checksum right: of its content (inside the seal too), of its
    compressed or sealed bytes, of its header."""

    def __init__(self, frame: bytes, identities: Sequence[str] = (), recipients: Sequence[str] = ()) -> None:
        prefix = frame[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0")
        self._version, self._flags = prefix[4], prefix[5]
        self._head, self._payload = parts(prefix + frame[PREFIX_BYTES:])
        self._recipients = [pyrage.x25519.Recipient.from_str(one) for one in recipients if self._flags & 1]
        try:
            self._content = open_payload(frame, identities)
        except (BatchFormatError, SealError):  # what nobody can open has only its bytes
            self._content = b""

    def one(self, rng: random.Random) -> bytes:
        where = rng.randrange(10)
        if where < 8 and self._content:
            payload = _FAST.compress(mutated(rng, self._content))
            if self._recipients:
                payload = pyrage.encrypt(
                    payload, self._recipients
                )  # `seal` tries 24 times for the shortest padding
            return self._frame(self._head, payload)
        if where < 9:
            return self._frame(self._head, mutated(rng, self._payload))
        return self._frame(mutated(rng, self._head), self._payload)

    def _frame(self, head: bytes, payload: bytes) -> bytes:
        return frame_of(head, payload, version=self._version, flags=self._flags)
