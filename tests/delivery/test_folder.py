"""The folder transport on real disks: full, read-only, gone, without hard links, pulled out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import powercut
import pytest
from powercut import Cut
from waiting import until

from mcilib import Reader
from mcilib.delivery.folder import FolderTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import ControlRecord, Outcome, ReceiptStatus, SealedBatch
from mcilib.testing.conformance import check_transport
from mcilib.testing.fakes import example_batch


def batch(size_bytes: int = 100, fill: bytes = b"x") -> SealedBatch:
    return SealedBatch(uuid.uuid4().hex, 1, fill * size_bytes)


def record(data: bytes = b'{"kind":"delete"}') -> ControlRecord:
    return ControlRecord(uuid.uuid4().hex, 1, data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "carried").mkdir()
    return tmp_path / "carried"


def files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # being written
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


# --- what it promises ---------------------------------------------------------------------------------------


def test_it_keeps_the_promise_of_a_transport(folder):
    check_transport(lambda: FolderTransport(folder))


def test_the_bytes_lie_under_their_id_and_nothing_else_does(folder):
    one, two = batch(), batch(70_000)
    reply = FolderTransport(folder).send([one, two])
    assert {r.status for r in reply.receipts.values()} == {ReceiptStatus.STORED}
    assert reply.bytes_sent == 70_100
    assert files(folder) == {f"batches/{b.batch_id[:2]}/{b.batch_id}.mcib": b.data for b in (one, two)}


def test_a_resend_is_a_duplicate_and_writes_nothing(folder):
    sent = batch()
    FolderTransport(folder).send([sent])
    before = (folder / f"batches/{sent.batch_id[:2]}/{sent.batch_id}.mcib").stat()
    again = FolderTransport(folder).send([replace(sent, sequence=7)])
    assert again.receipts[sent.batch_id].status is ReceiptStatus.DUPLICATE
    assert again.bytes_sent == 0
    after = (folder / f"batches/{sent.batch_id[:2]}/{sent.batch_id}.mcib").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_same_id_with_other_bytes_is_rejected_and_the_first_stays(folder):
    sent = batch()
    FolderTransport(folder).send([sent])
    other = FolderTransport(folder).send([replace(sent, data=b"other", sequence=2)])
    assert other.outcome is Outcome.DELIVERED
    receipt = other.receipts[sent.batch_id]
    assert (receipt.status, receipt.reason) == (
        ReceiptStatus.REJECTED,
        "this id lies there already with other bytes",
    )
    assert list(files(folder).values()) == [sent.data]


@pytest.mark.parametrize("kept", [0, 1, 99])
def test_a_file_that_a_pulled_disk_cut_short_is_written_anew(folder, kept):
    sent = batch()
    FolderTransport(folder).send([sent])
    place = folder / f"batches/{sent.batch_id[:2]}/{sent.batch_id}.mcib"
    os.truncate(place, kept)
    assert FolderTransport(folder).send([sent]).receipts[sent.batch_id].status is ReceiptStatus.STORED
    assert files(folder) == {str(place.relative_to(folder)): sent.data}


def test_control_records_lie_in_a_folder_of_their_own(folder):
    transport, asked = FolderTransport(folder), record()
    assert transport.send_control([asked]).receipts[asked.record_id].status is ReceiptStatus.STORED
    assert transport.send_control([asked]).receipts[asked.record_id].status is ReceiptStatus.DUPLICATE
    assert files(folder) == {f"control/{asked.record_id[:2]}/{asked.record_id}.json": asked.data}


@pytest.mark.parametrize("bad", ["../../etc/passwd", "", "A" * 32, "0" * 31, "0" * 32 + "\n"])
def test_an_id_that_is_none_becomes_no_name(folder, bad):
    good = batch()
    reply = FolderTransport(folder).send([SealedBatch(bad, 1, b"x"), good])
    assert reply.receipts[bad].status is ReceiptStatus.REJECTED
    assert reply.receipts[good.batch_id].status is ReceiptStatus.STORED
    assert len(files(folder)) == 1


def test_many_devices_and_threads_may_share_a_folder(folder):
    batches = [batch() for _ in range(20)]
    replies = []
    threads = [
        threading.Thread(target=lambda: replies.append(FolderTransport(folder).send(batches)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in batches:
        statuses = sorted(reply.receipts[each.batch_id].status.value for reply in replies)
        assert statuses == ["duplicate"] * 3 + ["stored"]
    assert len(files(folder)) == 20


def test_what_it_says_of_itself(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    transport = FolderTransport("carried")
    monkeypatch.chdir("/")  # a host may go elsewhere
    assert transport.endpoint == folder.as_uri()
    assert str(folder) in repr(transport)
    assert transport.send([]).detail == f"written to {folder}"


# --- durable ------------------------------------------------------------------------------------------------

SEND = """
import sys
from mcilib.delivery.folder import FolderTransport
from mcilib.protocols import SealedBatch
reply = FolderTransport(sys.argv[1]).send([SealedBatch("ab" * 16, 1, b"payload"), SealedBatch("cd" * 16, 2, b"other")])
print("RECEIPTS", reply.outcome.value, sorted(r.status.value for r in reply.receipts.values()), reply.detail, flush=True)
"""


def traced(folder: Path, *options: str) -> tuple[str, list[str]]:
    """What a process that sends two batches says, and its calls to the system."""
    log = folder.parent / "trace"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", log, *options, sys.executable, "-c", SEND, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split(" ", 1)[1].strip() for line in log.read_text().splitlines()]
    return done.stdout.strip(), [c for c in calls if str(folder) in c or "RECEIPTS" in c]


@pytest.mark.needs("strace")
def test_bytes_then_name_then_folder_then_receipt(folder):
    said, calls = traced(folder, "-e", "trace=fsync,link,linkat,rename,write")
    assert "['stored', 'stored'] written to" in said
    for batch_id in ("ab" * 16, "cd" * 16):
        written = next(i for i, c in enumerate(calls) if c.startswith("write") and f"tmp/{batch_id}" in c)
        flushed = next(i for i, c in enumerate(calls) if c.startswith("fsync") and f"tmp/{batch_id}" in c)
        named = next(i for i, c in enumerate(calls) if c.startswith("link") and f"/{batch_id}.mcib" in c)
        parents = (f"batches/{batch_id[:2]}>", "batches>", f"{folder.name}>")
        synced = [
            max(i for i, c in enumerate(calls) if c.startswith("fsync") and parent in c) for parent in parents
        ]
        told = next(i for i, c in enumerate(calls) if "RECEIPTS" in c)
        assert written < flushed < named < min(synced)
        assert max(synced) < told


@pytest.mark.parametrize("kind", list(Cut), ids=lambda kind: kind.name.lower())
def test_what_has_a_receipt_survives_a_power_cut(tmp_path, kind):
    with powercut.disk(tmp_path) as disk:
        place = disk.path / "mcilib"
        place.mkdir()
        disk.sync()
        batches, asked, transport = [batch(5000) for _ in range(5)], record(), FolderTransport(place)
        receipts = {**transport.send(batches).receipts, **transport.send_control([asked]).receipts}
        disk.cut(kind)
        assert {receipt.status for receipt in receipts.values()} == {ReceiptStatus.STORED}
        failed = transport.send([batch()])
        assert (failed.outcome, failed.receipts) == (Outcome.RETRY, {})
        disk.restore()
        wanted = {f"batches/{b.batch_id[:2]}/{b.batch_id}.mcib": b.data for b in batches}
        wanted[f"control/{asked.record_id[:2]}/{asked.record_id}.json"] = asked.data
        found = files(place)
        assert {name: data for name, data in found.items() if not name.startswith("tmp/")} == wanted
        again = transport.send(batches)
        assert {receipt.status for receipt in again.receipts.values()} == {ReceiptStatus.DUPLICATE}


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP"])
def test_a_disk_without_hard_links_will_do(folder, error):
    """FAT and exFAT, which most sticks have."""
    fails = ("-e", "trace=link,linkat,rename", "-e", f"inject=link,linkat:error={error}")
    said, calls = traced(folder, *fails)
    assert "['stored', 'stored']" in said
    assert any(call.startswith("rename") for call in calls)
    assert set(files(folder).values()) == {b"payload", b"other"}
    said, calls = traced(folder, *fails)
    assert "['duplicate', 'duplicate']" in said
    assert not calls[:-1], "nothing is written again"


@pytest.mark.needs("strace")
def test_without_hard_links_another_writers_file_stays(folder):
    hold = "inject=link,linkat:error=EPERM:delay_enter=2000000"
    command = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=link,linkat",
        "-e",
        hold,
        sys.executable,
        "-c",
        SEND,
    ]
    with subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True) as slow:
        until(lambda: any(data == b"payload" for data in files(folder).values()))
        FolderTransport(folder).send([SealedBatch("ab" * 16, 1, b"of another")])
        said, _ = slow.communicate(timeout=60)
    assert "['rejected', 'stored']" in said
    assert set(files(folder).values()) == {b"of another", b"other"}


@pytest.mark.needs("strace")
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_fails_gives_no_receipt_and_is_tried_again(folder, call):
    said, _ = traced(folder, "-e", "trace=fsync,link,linkat", "-e", f"inject={call}:error=EIO")
    assert "retry []" in said
    assert "cannot be written (Input/output error)" in said
    assert "tmp" not in {name.split("/")[0] for name in files(folder)}, "nothing is left behind"
    assert "['stored', 'stored']" in traced(folder)[0]
    assert set(files(folder).values()) == {b"payload", b"other"}


@pytest.mark.needs("strace")
def test_what_was_written_before_a_failure_has_its_receipt(folder):
    said, _ = traced(folder, "-e", "trace=link", "-e", "inject=link:error=EIO:when=2")
    assert "delivered ['stored'] the folder" in said
    assert "Input/output error" in said
    assert list(files(folder).values()) == [b"payload"]


@pytest.mark.needs("strace")
def test_leftovers_of_a_kill_go_when_they_are_old(folder):
    command = [sys.executable, "-c", SEND, str(folder)]
    kill = ["strace", "-f", "-o", "/dev/null", "-e", "trace=link", "-e", "inject=link:signal=KILL:when=2"]
    assert subprocess.run([*kill, *command], timeout=60).returncode != 0
    [leftover] = [name for name in files(folder) if name.startswith("tmp/cd")]
    assert "['duplicate', 'stored']" in traced(folder)[0]
    assert leftover in files(folder), "it may be of another device that writes just now"
    os.utime(folder / leftover, (1, 1))
    FolderTransport(folder).send([])
    assert sorted(files(folder)) == [f"batches/{i[:2]}/{i}.mcib" for i in ("ab" * 16, "cd" * 16)]


# --- what stands in the way ---------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_waited_for_and_never_made(folder):
    transport, sent = FolderTransport(folder), batch()
    folder.rmdir()
    for reply in (transport.send([sent]), transport.send_control([record()]), transport.send([])):
        assert (reply.outcome, reply.receipts, reply.bytes_sent) == (Outcome.RETRY, {}, 0)
        assert "is not there (removed, or its disk not plugged in)" in reply.detail
    assert not folder.exists()
    folder.mkdir()
    assert transport.send([sent]).receipts[sent.batch_id].status is ReceiptStatus.STORED
    shutil.rmtree(folder)
    assert transport.send([sent]).outcome is Outcome.RETRY
    folder.mkdir()  # another disk
    assert transport.send([sent]).receipts[sent.batch_id].status is ReceiptStatus.STORED


def test_a_full_disk_is_retried_and_leaves_nothing_half_written(small_disk):
    disk = small_disk()
    (disk / "mcilib").mkdir()
    transport, small, large = FolderTransport(disk / "mcilib"), batch(1000), batch(2_000_000)
    reply = transport.send([large])
    assert (reply.outcome, reply.receipts) == (Outcome.RETRY, {})
    assert reply.detail == f"the folder {disk / 'mcilib'} is on a disk that is full"
    assert not files(disk)
    reply = transport.send([small, large])
    assert (reply.outcome, set(reply.receipts)) == (Outcome.DELIVERED, {small.batch_id})
    assert list(files(disk).values()) == [small.data]
    assert transport.send([batch(500_000)]).outcome is Outcome.DELIVERED


def test_a_read_only_disk_is_refused(small_disk):
    disk = small_disk()
    (disk / "mcilib").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    reply = FolderTransport(disk / "mcilib").send([batch()])
    assert (reply.outcome, reply.detail) == (Outcome.REFUSED, f"the folder {disk / 'mcilib'} is read-only")


def test_a_folder_of_somebody_else_is_refused(folder):
    folder.chmod(0o500)
    become = "import os\nif os.geteuid() == 0: os.seteuid(65534)\n"
    code = SEND.replace("reply =", f"{become}reply =")
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=60)
    assert "refused [] the folder" in done.stdout, done.stderr
    assert "may not be written by this user" in done.stdout


@pytest.mark.parametrize(
    ("lies_there", "words"),
    [("", "is not a folder"), ("tmp", "has a file where a folder belongs"),
     ("batches", "has a file where a folder belongs")],
)  # fmt: skip
def test_something_else_in_its_place_is_refused(folder, lies_there, words):
    place = folder / lies_there
    if not lies_there:
        folder.rmdir()
    place.write_text("not ours")
    reply = FolderTransport(folder).send([batch()])
    assert (reply.outcome, reply.detail) == (Outcome.REFUSED, f"the folder {folder} {words}")
    assert place.read_text() == "not ours"


def test_a_folder_in_the_place_of_a_file_is_refused(folder):
    sent = batch()
    (folder / f"batches/{sent.batch_id[:2]}/{sent.batch_id}.mcib").mkdir(parents=True)
    reply = FolderTransport(folder).send([sent])
    assert (reply.outcome, reply.receipts) == (Outcome.REFUSED, {})


def test_a_link_that_leads_to_itself_is_refused(folder):
    (folder / "loop").symlink_to(folder / "loop")
    assert FolderTransport(folder / "loop").send([batch()]).outcome is Outcome.REFUSED


# --- the whole way ------------------------------------------------------------------------------------------


def test_spool_to_folder_to_reader(tmp_path, folder):
    """What the operator reads is what was committed; the spool is empty then."""
    with DirectorySpool(tmp_path / "spool") as spool:
        ids = [spool.commit(example_batch).batch_id for _ in range(3)]
        uploader = Uploader(spool, FolderTransport(folder))
        assert uploader.flush(10.0).delivered
        assert not spool.waiting()
        assert spool.statistics().delivered_batches == 3
    carried = Path(shutil.copytree(folder, tmp_path / "operator"))
    reader = Reader(carried)
    assert sorted(header.batch_id for header in reader.headers()) == sorted(ids)
    assert not reader.damaged
