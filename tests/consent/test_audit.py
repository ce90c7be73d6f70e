"""The audit log: what was changed, taken out or put in another order shows, and it holds no content."""

from __future__ import annotations

import contextlib
import json
import os
import stat

import pytest

from mcilib.consent.audit import AuditLog
from mcilib.errors import SpoolError
from mcilib.testing.fakes import ManualClock


@pytest.fixture
def log(tmp_path):
    made = AuditLog(tmp_path / "audit.jsonl", clock=ManualClock())
    made.open()
    return made


def filled(log, count=5):
    for n in range(count):
        log.append("pause", "participant", duration_s=n)
    return log


def lines(log):
    return log.path.read_bytes().splitlines(keepends=True)


def test_what_is_appended_is_read_again(log):
    log.append("exempt", "participant", exemption="ab" * 16, of="apps", reason="medical")
    log.append("forget", "participant", batches=3, last_s=0.5)
    first, second = log.entries()
    assert (first.n, first.what, first.by) == (1, "exempt", "participant")
    assert dict(first.facts) == {"exemption": "ab" * 16, "of": "apps", "reason": "medical"}
    assert first.at == "2025-06-15T15:06:40+00:00"
    assert dict(second.facts) == {"batches": 3, "last_s": 0.5}
    assert log.verify() == ()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_the_head_goes_with_each_line_and_is_found_by_the_next_process(log):
    assert log.head == ""
    heads = []
    for n in range(3):
        log.append("hold", "participant", hold_s=n)
        heads.append(log.head)
    assert len(set(heads)) == 3
    assert all(len(head) == 64 for head in heads)
    again = AuditLog(log.path)
    assert again.head == ""
    again.open()
    assert again.head == heads[-1]
    again.append("resume", "participant")
    assert again.verify(["", *heads, again.head]) == ()
    assert [entry.n for entry in again.entries()] == [1, 2, 3, 4]


HARM = {
    "changed": lambda found: [*found[:2], found[2].replace(b'"duration_s":2', b'"duration_s":9'), *found[3:]],
    "removed": lambda found: [*found[:2], *found[3:]],
    "the first removed": lambda found: found[1:],
    "reordered": lambda found: [found[0], found[2], found[1], *found[3:]],
    "inserted": lambda found: [*found[:2], found[1], *found[2:]],
    "blanked": lambda found: [*found[:2], b"\n", *found[3:]],
    "other bytes": lambda found: [*found[:2], b"\xff\n", *found[3:]],
    "another kind": lambda found: [*found[:2], b'["n"]\n', *found[3:]],
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_shows(log, harm):
    filled(log)
    head = log.head
    log.path.write_bytes(b"".join(HARM[harm](lines(log))))
    assert log.verify(), harm
    again = AuditLog(log.path)
    again.open()  # and it goes on
    again.append("resume", "participant")
    assert again.verify([head]) != ()
    assert list(again.entries())[-1].what == "resume"


def test_the_last_line_changed_or_taken_off_shows_by_a_head_that_a_batch_carries(log):
    filled(log)
    head, found = log.head, lines(log)
    log.path.write_bytes(b"".join(found[:-1]))
    assert log.verify() == ()
    assert log.verify([head]) == (f"no line has the digest {head}, which a batch carries",)
    log.path.write_bytes(b"".join([*found[:-1], found[-1].replace(b"participant", b"operator")]))
    assert log.verify([head])


def test_every_line_is_sealed_by_those_after_it(log):
    """One byte of it changed, whichever it is."""
    filled(log, 3)
    whole = log.path.read_bytes()
    heads = [log.head]
    for at in range(len(whole) - 1):
        log.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert log.verify(heads), f"byte {at}"


@pytest.mark.parametrize("cut_bytes", [1, 2, 50])
def test_a_line_that_a_crash_cut_off_is_repaired_and_that_is_said(log, cut_bytes):
    filled(log)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-cut_bytes])
    again = AuditLog(log.path)
    again.open()
    *before, last = again.entries()
    assert (last.what, last.by) == ("repaired", "agent")
    assert int(last.facts["cut_bytes"]) > 0
    assert len(before) == 4
    assert again.verify() == ()
    again.open()
    assert len(list(again.entries())) == 5, "once"


@pytest.mark.parametrize(
    ("what", "by", "facts"),
    [
        ("pause", "somebody", {}),
        ("Pause!", "participant", {}),
        ("exempt", "participant", {"app": "KeePassXC 2.7"}),
        ("exempt", "participant", {"note": "my passwords"}),
        ("exempt", "participant", {"note": ""}),
    ],
)
def test_content_is_refused(log, what, by, facts):
    with pytest.raises(ValueError, match=r"audit log"):
        log.append(what, by, **facts)
    assert not log.path.read_bytes()


def test_it_is_not_written_through_a_link_or_into_a_pipe(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"")
    (tmp_path / "audit.jsonl").symlink_to(other)
    os.mkfifo(tmp_path / "pipe")
    for name in ("audit.jsonl", "pipe"):
        log = AuditLog(tmp_path / name)
        with pytest.raises(SpoolError, match="audit log"):
            log.open()
        with pytest.raises(SpoolError, match="audit log"):
            log.append("pause", "participant")
    assert not other.read_bytes()


def test_on_a_full_disk_no_half_line_is_left(small_disk):
    place = small_disk()
    log = filled(AuditLog(place / "audit.jsonl"))
    with (place / "filler").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(place).f_bavail * os.statvfs(place).f_frsize)
    with contextlib.suppress(SpoolError):
        for _ in range(100):  # what is left of its page
            log.append("pause", "participant", duration_s=1)
    with pytest.raises(SpoolError, match="audit log"):
        log.append("pause", "participant", duration_s=1)
    count = len(list(log.entries()))
    assert log.path.read_bytes().endswith(b"\n")
    assert log.verify([log.head]) == ()
    (place / "filler").unlink()
    log.append("resume", "participant")
    assert log.verify([log.head]) == ()
    assert len(list(log.entries())) == count + 1


def test_there_is_none_yet(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    assert list(log.entries()) == []
    assert log.verify() == ()
    assert log.verify(["a" * 64])


def test_lines_are_json(log):
    filled(log, 1)
    assert set(json.loads(lines(log)[0])) == {"n", "at", "what", "by", "facts", "prev"}
