"""Sealed batches from the command line: keys made, batches sealed while keys change, read back by who may."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Background, Done, Run, input_on, record, refused, summary
from waiting import until

from mcilib.format.batch import decode, read_header
from mcilib.format.seal import generate, key_id, parse_identities, seal, unseal
from mcilib.testing.xvfb import VirtualDisplay

Start = Callable[..., Background]

KEYS = [generate() for _ in range(3)]
(OPERATOR, OPERATORS), (PARTICIPANT, PARTICIPANTS), (STRANGER, _) = KEYS


@pytest.fixture
def keys(here: Path) -> Path:
    """A file of recipients, and each of its keys in a file, and one more."""
    for name, identity in (("operator", OPERATOR), ("participant", PARTICIPANT), ("stranger", STRANGER)):
        (here / f"{name}.key").write_text(f"# {name}\n{identity}\n")
    (here / "keys.txt").write_text(f"# both\n{OPERATORS}\n{PARTICIPANTS}\n")
    return here / "keys.txt"


def batches(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.mcib"))


# --- keys ---------------------------------------------------------------------------------------------------


def test_keygen_makes_a_key_for_its_owner_only(mcilib: Run, here: Path) -> None:
    done = mcilib("keygen", "-o", "my.key", umask=0)
    recipient = done.stdout.strip()
    assert done.stdout == f"{recipient}\n"
    assert done.stderr == f"The secret key is in my.key; key id {key_id(recipient)}.\n"
    assert (here / "my.key").stat().st_mode & 0o777 == 0o600
    text = (here / "my.key").read_text()
    assert f"# public key: {recipient}\n" in text
    (identity,) = parse_identities(text)
    assert unseal(seal(b"x", [recipient]), [identity]) == b"x"
    assert identity not in done.stdout + done.stderr


def test_keygen_as_json(mcilib: Run, here: Path) -> None:
    done = mcilib("keygen", "-o", "my.key", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"# public key: {found['recipient']}\n" in (here / "my.key").read_text()
    assert found == {"recipient": found["recipient"], "key_id": key_id(found["recipient"]), "file": "my.key"}


def test_keygen_never_replaces_a_key(mcilib: Run, here: Path) -> None:
    (here / "my.key").write_text("the only one")
    (here / "link.key").symlink_to("not-there")
    for name in ("my.key", "link.key"):
        assert mcilib("keygen", "-o", name).stdout == ""
        refused(mcilib("keygen", "-o", name), 6, f"{name} cannot be written (File exists)", "another file")
    assert (here / "my.key").read_text() == "the only one"
    assert not (here / "not-there").exists()
    refused(mcilib("keygen", "-o", "none/my.key"), 6, "none/my.key cannot be written (No such file")


@pytest.mark.needs("prlimit")
def test_a_key_that_cannot_be_written_leaves_nothing_behind(mcilib: Run, here: Path) -> None:
    from commands import COMMAND

    limited = ["sh", "-c", 'trap "" XFSZ; exec prlimit --fsize=100 "$@"', "sh", *COMMAND]
    done = subprocess.run([*limited, "keygen", "-o", "my.key"], capture_output=True, text=True)
    refused(done, 6, "my.key cannot be written (File too large)")
    assert not (here / "my.key").exists()


@pytest.mark.needs("age-keygen")
def test_age_keygen_reads_our_file(mcilib: Run, here: Path) -> None:
    recipient = mcilib("keygen", "-o", "my.key").stdout
    done = subprocess.run(["age-keygen", "-y", "my.key"], capture_output=True, text=True)
    assert done.stdout == recipient


# --- run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "The recipients file keys.txt cannot be read (No such file or directory)"),
        ("", "The recipients file keys.txt cannot be used. There are no keys to seal to"),
        ("# nobody\n", "The recipients file keys.txt cannot be used. There are no keys to seal to"),
        (
            f"{OPERATORS}\nage1nonsense\n",
            "The recipients file keys.txt cannot be used. Line 2 is no age public key",
        ),
        (OPERATOR, "The recipients file keys.txt cannot be used. Line 1 is a secret key"),
        ("\udcff", "The recipients file keys.txt is no text"),
    ],
)
def test_run_refuses_to_start_without_keys(
    text: str | None, words: str, here: Path, granted: Path, mcilib: Run
) -> None:
    if text is not None:
        (here / "keys.txt").write_text(text, errors="surrogateescape")
    args = ["run", "--state", granted, "--endpoint", "http://127.0.0.1:9", "--recipients", "keys.txt"]
    done = mcilib(*args)
    line = refused(done, 8, words)
    assert OPERATOR not in line
    assert done.stdout == ""
    assert not (granted / "spool").exists()


@pytest.mark.x11
def test_run_says_whether_batches_are_sealed_and_to_whom(
    xserver: VirtualDisplay, granted: Path, keys: Path, background: Start, endpoint: str
) -> None:
    for flags, words in (
        (["--recipients", "keys.txt"], f"to 2 keys, {key_id(OPERATORS)} {key_id(PARTICIPANTS)} (keys.txt)"),
        ([], "no: who gets hold of a batch can read it. --recipients seals them."),
    ):
        agent = background("run", "--state", granted, "--endpoint", endpoint, *flags)
        agent.line("Collecting.")
        assert summary(agent.seen)["Sealed"] == words
        assert agent.end().returncode == 0


@pytest.mark.x11
def test_keys_change_while_it_runs_and_nothing_is_ever_in_clear(
    xserver: VirtualDisplay, here: Path, granted: Path, keys: Path, background: Start
) -> None:
    agent = start(background, granted)
    captured(xserver, granted, 1)
    keys.write_text(f"{PARTICIPANTS}\n")
    captured(xserver, granted, 2)

    keys.unlink()
    input_on(xserver)
    agent.error_line("keys.txt cannot be read")  # a batch was due
    assert len(pressed(granted)) == 2
    keys.write_text(f"{OPERATORS}\n")
    done = agent.end()
    assert done.returncode == 0
    assert done.stderr.count("The recipients file keys.txt cannot be read (No such file or directory)") == 1

    first, second, *rest = pressed(granted)
    assert rest
    for path, identities, ids in (
        (first, [OPERATOR], [OPERATORS, PARTICIPANTS]),
        (second, [PARTICIPANT], [PARTICIPANTS]),
        (rest[0], [OPERATOR], [OPERATORS]),
    ):
        assert read_header(path.read_bytes()).key_ids == tuple(map(key_id, ids))
        assert any(event.kind == "press" for event in decode(path.read_bytes(), identities).events)


@pytest.mark.x11
def test_what_could_not_be_sealed_until_the_end_is_lost_and_said(
    xserver: VirtualDisplay, granted: Path, keys: Path, background: Start
) -> None:
    agent = start(background, granted, commit_every="1h")
    keys.write_text("age1nonsense\n")
    input_on(xserver)
    done = agent.end()
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 8, done.stderr
    assert re.match(
        r"mcilib: \d+ events could not be sealed and are lost\. The recipients file keys.txt", last
    )
    assert not batches(granted)


def start(background: Start, granted: Path, commit_every: str = "1s") -> Background:
    agent = background(
        *("run", "--state", granted, "--endpoint", "http://127.0.0.1:9", "--recipients", "keys.txt"),
        *("--commit-every", commit_every),
    )
    agent.line("Collecting.")
    return agent


def captured(display: VirtualDisplay, state: Path, number: int) -> None:
    input_on(display)
    until(lambda: len(pressed(state)) == number, 20)


def pressed(state: Path) -> list[Path]:
    """The batches that hold a click: input may come out as two."""
    identities = [OPERATOR, PARTICIPANT]
    return [
        path
        for path in batches(state)
        if any(event.kind == "press" for event in decode(path.read_bytes(), identities).events)
    ]


# --- export -------------------------------------------------------------------------------------------------


@pytest.fixture
def spool(granted: Path, keys: Path) -> Path:
    """Five batches: one in clear, three for both, one for the participant alone."""
    record(granted, 1)
    record(granted, 3, recipients=[OPERATORS, PARTICIPANTS])
    record(granted, 1, recipients=[PARTICIPANTS])
    return granted / "spool"


def rows(done: Done) -> set[int]:
    return {json.loads(line)["seq"] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("flags", "code", "sequences"),
    [
        ([], 8, {1}),
        (["--identity", "stranger.key"], 8, {1}),
        (["--identity", "operator.key"], 8, {1, 2, 3, 4}),
        (["--identity", "participant.key"], 0, {1, 2, 3, 4, 5}),
        (["--identity", "stranger.key", "--identity", "participant.key"], 0, {1, 2, 3, 4, 5}),
    ],
)
def test_export_opens_what_the_identities_open(
    flags: list[str], code: int, sequences: set[int], spool: Path, mcilib: Run
) -> None:
    done = mcilib("export", spool, *flags)
    assert (done.returncode, rows(done)) == (code, sequences)
    closed = [path for n, path in enumerate(batches(spool), start=1) if n not in sequences]
    first, *left = done.stderr.splitlines()
    assert first.startswith(f"Exported {3 * len(sequences)} rows from {len(sequences)} batch")
    if not closed:
        assert left == []
        return
    (line,) = left
    named = ", ".join(map(str, closed[:3])) + (" and 1 more" if len(closed) > 3 else "")
    number = "1 batch" if len(closed) == 1 else f"{len(closed)} batches"
    assert line.startswith(f"mcilib: {number} left out ({named}). It is sealed")
    assert "--identity FILE" in line
    answer = json.loads(mcilib("export", spool, *flags, "--json").stderr.splitlines()[0])
    assert [entry["file"] for entry in answer["sealed"]] == [str(path) for path in closed]
    assert all(entry["reason"].startswith("It is sealed") for entry in answer["sealed"])


def test_damage_comes_before_what_is_sealed(spool: Path, mcilib: Run) -> None:
    broken = batches(spool)[1]
    broken.write_bytes(broken.read_bytes()[:-1])
    done = mcilib("export", spool, "--identity", "operator.key")
    assert (done.returncode, rows(done)) == (7, {1, 3, 4})
    assert "1 batch left out" in done.stderr
    assert "1 damaged file left out" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.key", "The identity file none.key cannot be read (No such file or directory)"),
        ("keys.txt", "The identity file keys.txt cannot be used. Line 2 is no age secret key"),
    ],
)
def test_a_bad_identity_file_ends_it_at_once(name: str, words: str, spool: Path, mcilib: Run) -> None:
    done = mcilib("export", spool, "--identity", "participant.key", "--identity", name, "-o", "out")
    refused(done, 8, words)
    assert not Path("out").exists()
