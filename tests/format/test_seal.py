"""Sealing with the real pyrage, and with the ordinary `age` tool at the other end."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import batches
import pyrage
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.errors import McilibError, SealError
from mcilib.format.batch import decode, encode, open_payload, read_header
from mcilib.format.seal import generate, key_id, parse_identities, parse_recipients, seal, unseal

KEYS = [generate() for _ in range(3)]
IDENTITIES, RECIPIENTS = [identity for identity, _ in KEYS], [recipient for _, recipient in KEYS]
STRANGER, _ = generate()
SEALED = seal(b"what a person did" * 20, RECIPIENTS[:2])
HEADER_BYTES = SEALED.index(b"\n--- ") + 5 + 43 + 1

#: Of another make: printed by age-keygen 1.1.1.
OTHERS_RECIPIENT = "age1xrp3vmy4dyuflr4cfznlzzrp8u2va6wf554gf7wvcfyjnvxh0a4q5faxxg"


def refused(data: bytes, *identities: str) -> SealError:
    with pytest.raises(SealError) as caught:
        unseal(data, identities)
    assert not any(secret in str(caught.value) for secret in [*IDENTITIES, STRANGER])
    return caught.value


# --- there and back -----------------------------------------------------------------------------------------


@given(st.binary(max_size=5_000), st.lists(st.sampled_from(range(3)), min_size=1, unique=True))
@settings(max_examples=50, deadline=None)
def test_each_recipient_opens_it_alone_and_nobody_else(data: bytes, who: list[int]) -> None:
    sealed = seal(data, [RECIPIENTS[n] for n in who])
    for n in range(3):
        if n in who:
            assert unseal(sealed, [IDENTITIES[n]]) == unseal(sealed, [STRANGER, IDENTITIES[n]]) == data
        else:
            assert not refused(sealed, IDENTITIES[n], STRANGER).damaged
    assert len(data) < len(sealed) <= len(data) + 300 + 98 * len(who)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, limits.FRAME_MAX_BYTES - 4096])
def test_sizes_around_the_chunks_of_age(size: int) -> None:
    data = bytes(size)
    assert unseal(seal(data, RECIPIENTS[:1]), IDENTITIES[:1]) == data


def test_as_many_recipients_as_are_allowed_fit_into_the_header_that_is_read() -> None:
    keys = [generate() for _ in range(limits.RECIPIENTS_MAX)]
    for _ in range(20):  # of random size
        sealed = seal(b"x", [recipient for _, recipient in keys])
        assert unseal(sealed, [keys[-1][0]]) == b"x"
    with pytest.raises(SealError, match="There are 33 keys to seal to"):
        seal(b"x", [*(recipient for _, recipient in keys), RECIPIENTS[0]])


def test_sealing_to_nobody_is_refused() -> None:
    with pytest.raises(SealError, match="There are no keys to seal to"):
        seal(b"x", [])


def test_the_smallest_of_several_tries_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [b"four", b"six...", b"2.", b"three"]
    monkeypatch.setattr(limits, "SEAL_TRIES", len(tries))
    monkeypatch.setattr(pyrage, "encrypt", lambda data, keys: tries.pop())
    assert seal(b"x", RECIPIENTS) == b"2."
    assert not tries


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_key_id_is_the_beginning_of_the_sha256_of_the_text() -> None:
    assert key_id(OTHERS_RECIPIENT) == "d7de24ef"
    assert len({key_id(recipient) for recipient in RECIPIENTS}) == 3


NO_RECIPIENTS = [
    "", "age1", RECIPIENTS[0][:-1], RECIPIENTS[0] + "q", RECIPIENTS[0].upper(), f" {RECIPIENTS[0]}", "age1é" + "q" * 57,
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB", "age1yubikey1" + "q" * 50, "{}",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_RECIPIENTS)
def test_what_is_no_recipient(text: str) -> None:
    for use in (key_id, lambda text: seal(b"x", [RECIPIENTS[0], text])):
        with pytest.raises(SealError, match="A recipient is no age public key"):
            use(text)


def test_a_typing_mistake_in_a_recipient_is_noticed() -> None:
    wrong = RECIPIENTS[0][:-1] + ("q" if RECIPIENTS[0][-1] != "q" else "p")
    with pytest.raises(SealError, match="A recipient is no age public key"):
        seal(b"x", [wrong])


@pytest.mark.parametrize(
    "text", ["", "AGE-SECRET-KEY-1", STRANGER[:-1], STRANGER[:-1] + "b", RECIPIENTS[0], "\0"]
)
def test_what_is_no_identity(text: str) -> None:
    error = refused(SEALED, IDENTITIES[0], text)
    assert (error.problem, error.damaged) == ("An identity is no age secret key (AGE-SECRET-KEY-1...)", False)


def test_a_file_of_recipients() -> None:
    a, b, _ = RECIPIENTS
    assert parse_recipients(f"# the operator\n{a}\n\n  {b} \r\n#{a}\n{a}") == (a, b)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "There are no keys to seal to"),
        ("# nobody\n\n", "There are no keys to seal to"),
        (f"{RECIPIENTS[0]}\n\nage1nonsense\n", "Line 3 is no age public key"),
        (f"{RECIPIENTS[0]} # mine\n", "Line 1 is no age public key"),
        (f"# mine\n{STRANGER}\n", "Line 2 is a secret key"),
        ("\n".join(generate()[1] for _ in range(33)), "There are 33 keys to seal to"),
    ],
)
def test_a_bad_file_of_recipients(text: str, problem: str) -> None:
    with pytest.raises(SealError, match=problem) as caught:
        parse_recipients(text)
    assert STRANGER not in str(caught.value)


def test_a_file_of_identities() -> None:
    a, b, _ = IDENTITIES
    assert parse_identities(f"# created: today\n# public key: {RECIPIENTS[0]}\n{a}\n\n{b}") == (a, b)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "There is no secret key in it"),
        ("#\n", "There is no secret key in it"),
        (f"{IDENTITIES[0]}\n{RECIPIENTS[0]}\n", "Line 2 is no age secret key"),
        (f"#\n{STRANGER[:-1]}\n", "Line 2 is no age secret key"),
        ("age-encryption.org/v1\n-> scrypt bm90IHJlYWwgYXQgYWxsLi4 18\n", "Line 1 is no age secret key"),
    ],
)
def test_a_bad_file_of_identities(text: str, problem: str) -> None:
    with pytest.raises(SealError, match=problem) as caught:
        parse_identities(text)
    assert STRANGER[:-1] not in str(caught.value)


def test_without_pyrage_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    for use in (
        lambda: seal(b"x", RECIPIENTS),
        lambda: unseal(SEALED, IDENTITIES),
        lambda: parse_recipients(RECIPIENTS[0]),
        lambda: parse_identities(IDENTITIES[0]),
        generate,
    ):
        with pytest.raises(
            SealError, match=r"Sealed batches need pyrage. pip install 'mcilib\[seal\]'"
        ) as caught:
            use()
        assert not caught.value.damaged


def test_the_error_is_a_value() -> None:
    error = SealError("It is shut", "Open it.", damaged=True)
    assert isinstance(error, McilibError)
    assert error.exit_code == 8
    assert pickle.loads(pickle.dumps(error)) == error != SealError("It is shut", "Open it.")


# --- damaged, foreign, hostile ------------------------------------------------------------------------------


def test_no_identity_is_said_plainly() -> None:
    error = refused(SEALED)
    assert (error.damaged, "no identity to open it with" in error.problem) == (False, True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"age-encryption.org/v1",
        b"age-encryption.org/v2" + SEALED[21:],
        b" " + SEALED,
        b"-----BEGIN AGE ENCRYPTED FILE-----\n"
        + base64.b64encode(SEALED)
        + b"\n-----END AGE ENCRYPTED FILE-----\n",
        zstandard.compress(b"in clear"),
    ],
)
def test_what_is_no_age_file(data: bytes) -> None:
    for identities in ([], IDENTITIES):  # whoever looks
        error = refused(data, *identities)
        assert (error.damaged, "no age file" in error.problem) == (True, True)


def test_every_truncation_is_refused() -> None:
    for size in range(len(SEALED)):
        assert refused(SEALED[:size], IDENTITIES[0]).damaged


def test_every_changed_bit_is_noticed() -> None:
    for place in range(len(SEALED) * 8):
        data = bytearray(SEALED)
        data[place // 8] ^= 1 << place % 8
        error = refused(bytes(data), *IDENTITIES[:2])
        # In the stanza of one key it is that key that no longer fits, and the other finds the header changed.
        assert error.damaged or place // 8 < HEADER_BYTES


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_nothing_else_is_raised(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, HEADER_BYTES))
    gone = data.draw(st.integers(0, 200))
    pieces = [
        b"",
        b"\n-> ",
        b"-> X25519 ",
        b"-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\n",
        b"\n--- ",
        b"\xff",
        b" ",
        b"==",
    ]
    new = data.draw(st.sampled_from(pieces) | st.binary(max_size=40))
    changed = SEALED[:at] + new + SEALED[at + gone :]
    if changed != SEALED:
        refused(changed, *IDENTITIES)


def stanzas(one: bytes, size: int) -> bytes:
    """An age file whose header has as many of these stanzas as go into `size` bytes."""
    mac = b"--- " + base64.b64encode(bytes(32)).rstrip(b"=") + b"\n"
    intro = b"age-encryption.org/v1\n"
    return intro + one * ((size - len(intro)) // len(one)) + mac + bytes(64)


def b64(size: int) -> bytes:
    return base64.b64encode(bytes(range(size))).rstrip(b"=")


HOSTILE = {
    "x25519": b"-> X25519 " + b64(32) + b"\n" + b64(32) + b"\n",
    "empty": b"-> a\n\n",
    "arguments": b"-> " + b"a " * 500 + b"a\n\n",
    "long": b"-> a\n" + (b"A" * 64 + b"\n") * 10 + b"\n",
    "scrypt": b"-> scrypt " + b64(16) + b" 40\n" + b64(32) + b"\n",
}


@pytest.mark.parametrize("one", HOSTILE.values(), ids=HOSTILE)
def test_the_largest_header_that_is_read_takes_no_time(one: bytes) -> None:
    data = stanzas(one, limits.SEAL_HEADER_MAX_BYTES - 10)
    started_s = time.process_time()
    refused(data, *IDENTITIES)
    assert time.process_time() - started_s < 2  # 0.1 s here; 8 s when it may be eight times as large


@pytest.mark.parametrize("one", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("size", [limits.SEAL_HEADER_MAX_BYTES + 1100, limits.FRAME_MAX_BYTES])
def test_a_larger_header_is_refused_before_pyrage_sees_it(
    one: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyrage, "decrypt", lambda *_: pytest.fail("pyrage was asked"))
    error = refused(stanzas(one, size), *IDENTITIES)
    assert (error.damaged, "does not end within 4096 bytes" in error.problem) == (True, True)


def test_a_mac_line_without_end_takes_no_time() -> None:
    started_s = time.process_time()
    assert refused(
        b"age-encryption.org/v1\n-> a\n\n--- " + b"A" * limits.FRAME_MAX_BYTES, IDENTITIES[0]
    ).damaged
    assert time.process_time() - started_s < 2


LITTLE_MEMORY = """
import resource, sys
import pyrage
from mcilib.errors import SealError
from mcilib.format.seal import unseal
data = open(sys.argv[1], "rb").read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 24 * 1024 * 1024,) * 2)
try:
    print(len(unseal(data, [sys.argv[2]])))
except SealError as error:
    print(error.damaged)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["whole", "cut", *HOSTILE])
def test_the_largest_frame_takes_little_memory(name: str, tmp_path: Path) -> None:
    whole = seal(bytes(limits.FRAME_MAX_BYTES), RECIPIENTS[:1])
    data = {"whole": whole, "cut": whole[:-1]}.get(name) or stanzas(HOSTILE[name], limits.FRAME_MAX_BYTES)
    (tmp_path / "file").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, tmp_path / "file", IDENTITIES[0]],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == (str(limits.FRAME_MAX_BYTES) if name == "whole" else "True"), done.stderr


# --- batches ------------------------------------------------------------------------------------------------


def test_a_sealed_batch_tells_strangers_no_more_than_its_header() -> None:
    batch = batches.batch(*batches.one_of_each())
    frame = encode(batch, recipients=RECIPIENTS[:2])
    payload = batches.parts(frame)[1]
    assert read_header(frame).key_ids == (key_id(RECIPIENTS[0]), key_id(RECIPIENTS[1]))
    assert payload.startswith(b"age-encryption.org/v1\n")
    assert bytes.fromhex(batch.metadata.boot) not in frame
    for identity in IDENTITIES[:2]:
        opened = decode(frame, [identity])
        assert (opened.events, opened.metadata) == (batch.events, batch.metadata)
    for identities in ([], [STRANGER], [IDENTITIES[2]]):
        for read in (decode, open_payload):
            with pytest.raises(SealError):
                read(frame, identities)


# --- the ordinary tool --------------------------------------------------------------------------------------


def age(*args: Any, data: bytes = b"", ok: bool = True) -> bytes:
    done = subprocess.run(["age", *map(str, args)], input=data, capture_output=True, timeout=20)
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout


@pytest.mark.needs("age")
def test_the_age_tool_opens_what_we_seal_and_we_what_it_seals(tmp_path: Path) -> None:
    for n, identity in enumerate(IDENTITIES):
        (tmp_path / f"key{n}").write_text(f"# a remark\n{identity}\n")
    (tmp_path / "recipients").write_text("\n".join(["# two", *RECIPIENTS[:2]]))
    for data in (b"", b"what a person did" * 5_000):
        sealed = seal(data, RECIPIENTS[:2])
        assert age("-d", "-i", tmp_path / "key0", data=sealed) == data
        assert age("-d", "-i", tmp_path / "key1", data=sealed) == data
        age("-d", "-i", tmp_path / "key2", data=sealed, ok=False)
        theirs = age("-R", tmp_path / "recipients", data=data)
        assert unseal(theirs, IDENTITIES[:1]) == unseal(theirs, IDENTITIES[1:2]) == data
        assert "no age file" in refused(age("-a", "-r", RECIPIENTS[0], data=data), IDENTITIES[0]).problem


@pytest.mark.needs("age", "age-keygen")
def test_a_key_of_age_keygen_is_one_of_ours() -> None:
    text = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    (identity,) = parse_identities(text)
    (recipient,) = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("# public key:"))
    assert unseal(seal(b"x", [recipient]), [identity]) == b"x"
    ours = subprocess.run(
        ["age-keygen", "-y"], input=IDENTITIES[0], capture_output=True, text=True, check=True
    )
    assert ours.stdout.strip() == RECIPIENTS[0]


@pytest.mark.needs("age")
def test_the_payload_of_a_frame_is_an_age_file_around_a_zstd_frame(tmp_path: Path) -> None:
    batch = batches.batch(*batches.one_of_each())
    frame = encode(batch, recipients=RECIPIENTS[:2])
    (tmp_path / "key").write_text(IDENTITIES[1])
    inner = age("-d", "-i", tmp_path / "key", data=batches.parts(frame)[1])
    assert zstandard.decompress(inner) == open_payload(frame, IDENTITIES[:1])


@pytest.mark.parametrize(
    "recipients", [["age1"], [None], RECIPIENTS[:1] * 33], ids=["wrong", "no text", "too many"]
)
def test_encode_refuses_recipients_that_are_none(recipients):
    with pytest.raises(SealError):
        encode(batches.batch(), recipients=recipients)
