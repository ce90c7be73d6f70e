"""The batch journal: it finds batches again by time and scope; what it does not know counts as touched."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace

import pytest

from mcilib.consent.journal import BatchJournal
from mcilib.consent.pause import Now
from mcilib.errors import SpoolError
from mcilib.testing.fakes import example_grant

S = 1_000_000_000
NOW = Now(10_000 * S, 0, 1_750_000_000 * S, "b0")


def at(ago_s: float, boot: str = "b0") -> Now:
    ago_ns = int(ago_s * S)
    return Now(NOW.monotonic_ns - ago_ns, 0, NOW.wall_ns - ago_ns, boot)


GRANT = example_grant()


@pytest.fixture
def journal(tmp_path):
    made = BatchJournal(tmp_path / "batches.jsonl")
    made.open(NOW)
    return made


def record(journal, batch_id, began_s, ended_s, *scopes, boot="b0"):
    journal.record(batch_id, 1, at(began_s, boot), at(ended_s, boot), scopes or ("pointer",), GRANT)


def test_by_time(journal):
    record(journal, "a", 300, 200)
    record(journal, "b", 200, 100)
    record(journal, "c", 100, 0)
    assert journal.touched(at(150), NOW, []) == ["b", "c"]
    assert journal.touched(at(100), NOW, []) == ["b", "c"]  # its last event may be of that moment
    assert journal.touched(at(99), NOW, []) == ["c"]
    assert journal.touched(at(1_000), NOW, []) == ["a", "b", "c"]


def test_a_millisecond_is_not_lost_by_rounding(journal):
    journal.record("a", 1, NOW, replace(NOW, monotonic_ns=NOW.monotonic_ns + 1), (), GRANT)
    assert journal.touched(replace(NOW, monotonic_ns=NOW.monotonic_ns + 1), NOW, []) == ["a"]


def test_by_scope(journal):
    record(journal, "a", 3, 2, "pointer")
    record(journal, "b", 2, 1, "pointer", "keys")
    journal.record("c", 3, at(1), at(0), (), GRANT)
    assert journal.outside(["pointer"], []) == ["b"]
    assert journal.outside(["keys", "pointer", "apps"], []) == []
    assert journal.outside([], []) == ["a", "b"]


def test_what_it_does_not_know_is_touched(journal):
    record(journal, "a", 3_000, 2_000)
    assert journal.touched(at(1), NOW, ["a", "x"]) == ["x"]
    assert journal.outside(["pointer"], ["a", "x"]) == ["x"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda line: line[:40],
        lambda line: b"\x00" * len(line),
        lambda line: line.replace(b"pointer", b"point\xff"),
        lambda line: b'["a",1,2]',
        lambda line: b'["a",1,null,3,4,5,"b0","pointer","9a"]',
        lambda line: b"[" * 100_000,
    ],
)
def test_a_line_that_is_damaged_is_a_batch_that_is_not_known(journal, harm):
    record(journal, "a", 3_000, 2_000)
    record(journal, "b", 3_000, 2_000)
    first, second = journal.path.read_bytes().splitlines()
    journal.path.write_bytes(harm(first) + b"\n" + second + b"\n")
    assert journal.touched(at(1), NOW, ["a", "b"]) == ["a"]


def test_a_line_that_a_crash_cut_off_spoils_no_other(journal):
    record(journal, "a", 3_000, 2_000)
    record(journal, "b", 3_000, 2_000)
    journal.path.write_bytes(journal.path.read_bytes()[:-20])
    again = BatchJournal(journal.path)
    again.open(NOW)
    record(again, "c", 3_000, 2_000)
    assert again.touched(at(1), NOW, ["a", "b", "c"]) == ["b"]


def test_what_is_to_be_deleted_is_unfinished_until_it_is_asked_for(journal):
    for name in "abc":
        record(journal, name, 10, 0)
    journal.intend(["a"], participant="p")
    journal.intend(["b"])
    again = BatchJournal(journal.path)
    again.open(NOW)
    assert again.unfinished() == [(["a"], {"participant": "p"}), (["b"], {})]
    again.asked(["a"], "r")
    assert again.unfinished() == [(["b"], {})]
    assert again.touched(at(60), NOW, []) == ["c"]
    assert again.touched(at(60), NOW, ["b"]) == ["b", "c"]  # it did not go


def test_files_are_private_and_flushed_before_a_batch_leaves(journal, monkeypatch):
    record(journal, "first", 20, 10)  # which makes the file
    journal.sync()
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", flushed.append)
    record(journal, "b", 10, 0)
    assert not flushed
    journal.sync()
    assert len(flushed) == 1
    journal.sync()
    assert len(flushed) == 1, "there is nothing new"
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_what_the_disk_refuses_is_known_and_written_later(journal):
    path = journal.path
    path.unlink(missing_ok=True)
    path.mkdir()
    record(journal, "a", 10, 0)
    with pytest.raises(SpoolError, match="journal"):
        journal.sync()
    path.rmdir()
    record(journal, "b", 10, 0)
    journal.sync()
    again = BatchJournal(path)
    assert again.touched(at(60), NOW, []) == ["a", "b"]


def test_it_is_not_written_through_a_link(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"")
    (tmp_path / "batches.jsonl").symlink_to(other)
    journal = BatchJournal(tmp_path / "batches.jsonl")
    with pytest.raises(SpoolError, match="journal"):
        journal.open(NOW)
    record(journal, "a", 10, 0)
    with pytest.raises(SpoolError, match="journal"):
        journal.intend(["a"])
    assert not other.read_bytes()


def test_it_is_bounded_and_keeps_the_newer_ones_and_what_is_unfinished(tmp_path):
    journal = BatchJournal(tmp_path / "batches.jsonl", max_bytes=4_000)
    journal.open(NOW)
    journal.intend(["x"], participant="p")
    record(journal, "gone", 10, 0)
    journal.intend(["gone"])
    journal.asked(["gone"], "r")
    journal.confirmed("r")
    for n in range(200):
        record(journal, f"{n:032x}", 10, 0)
        assert journal.path.stat().st_size <= 4_200
    known = [int(batch_id, 16) for batch_id in journal.touched(at(60), NOW, [])]
    assert known == list(range(known[0], 200))
    assert len(known) > 5
    assert journal.unfinished() == [(["x"], {"participant": "p"})]


def test_what_the_receiver_does_not_keep_any_more_goes_at_open(tmp_path):
    day_s = 86_400.0
    journal = BatchJournal(tmp_path / "batches.jsonl", keep_s=30 * day_s)
    record(journal, "old", 31 * day_s, 31 * day_s - 60)
    record(journal, "new", 29 * day_s, 29 * day_s - 60)
    journal.open(NOW)
    assert journal.touched(at(40 * day_s), NOW, []) == ["new"]


def test_it_holds_no_content_and_goes_on_withdrawal(journal):
    record(journal, "ab" * 16, 10, 0, "keys", "pointer")
    (line,) = journal.path.read_bytes().splitlines()
    assert json.loads(line) == [
        "ab" * 16, 1, 9_990_000, 10_000_000, 1_749_999_990_000, 1_750_000_000_000, "b0", "keys,pointer",
        GRANT.digest, GRANT.participant, GRANT.device,
    ]  # fmt: skip
    journal.clear(GRANT.participant)
    assert not journal.path.exists()
    record(journal, "b", 10, 0)
    assert journal.touched(at(60), NOW, []) == ["b"]


def test_many_threads(journal):
    threads = [
        threading.Thread(target=lambda n=n: [record(journal, f"{n}-{m}", 10, 0) for m in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.touched(at(60), NOW, [])) == 200
