"""The folder: each id once, durable, private, whatever crashes or races."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from dying import DIE_AT
from hypothesis import given, settings
from hypothesis import strategies as st

from mcilib.errors import StoreError
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver import FolderStore

DAY = date(2026, 3, 1)
ID, DEVICE, PARTICIPANT = "ab" * 16, "cd" * 16, "ef" * 16
PLACE = f"batches/2026-03-01/{DEVICE}/0000000000000007-{ID}.mcib"
NOTE = f"participants/2026-03-01/{PARTICIPANT}/{DEVICE}"

STORED, DUPLICATE, REJECTED = ReceiptStatus.STORED, ReceiptStatus.DUPLICATE, ReceiptStatus.REJECTED


@dataclass
class Header:
    batch_id: str = ID
    device: str = DEVICE
    sequence: int = 7
    participant: str = PARTICIPANT


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store", today=lambda: DAY)


def put(store: FolderStore, header: Any, data: bytes) -> Receipt:
    [receipt] = store.put([(header, data)])
    return receipt


def files(store: FolderStore) -> set[str]:
    """All but the locks."""
    found = {p.relative_to(store.path).as_posix() for p in store.path.rglob("*") if p.is_file()}
    return {name for name in found if not name.startswith("locks/")}


def test_layout(store):
    receipt = put(store, Header(), b"bytes")
    assert (receipt.batch_id, receipt.status, receipt.reason) == (ID, STORED, "")
    assert files(store) == {PLACE, NOTE, f"ids/ab/{ID}"}
    assert (store.path / PLACE).read_bytes() == b"bytes"
    assert (store.path / NOTE).read_bytes() == b""
    assert [p.name for p in (store.path / "locks").iterdir()] == [PARTICIPANT[:2]]
    assert (store.path / "ids" / "ab" / ID).read_text() == PLACE + "\n"


def test_only_the_owner_may_look(tmp_path):
    before = os.umask(0)
    try:
        store = FolderStore(tmp_path / "new" / "store", today=lambda: DAY)
        put(store, Header(), b"bytes")
    finally:
        os.umask(before)
    for path in (tmp_path / "new").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_the_same_again_is_a_duplicate_also_on_another_day_and_after_a_restart(store):
    put(store, Header(), b"bytes")
    before = files(store)
    assert put(store, Header(), b"bytes").status is DUPLICATE
    later = FolderStore(store.path, today=lambda: date(2026, 3, 2))
    assert put(later, Header(), b"bytes").status is DUPLICATE
    assert put(later, Header(sequence=8, device="ef" * 16), b"bytes").status is DUPLICATE
    assert files(store) == before


def test_the_date_of_receipt_is_the_one_given(store):
    put(FolderStore(store.path, today=lambda: date(2027, 12, 31)), Header(), b"bytes")
    assert [p.parent.parent.name for p in store.path.rglob("*.mcib")] == ["2027-12-31"]


@pytest.mark.parametrize("other", [b"other", b"byteS", b"", b"bytes and more"])
def test_the_same_id_with_other_bytes_is_rejected_and_the_first_kept(store, other):
    put(store, Header(), b"bytes")
    receipt = put(store, Header(), other)
    assert receipt.status is REJECTED
    assert "other bytes" in receipt.reason
    assert (store.path / PLACE).read_bytes() == b"bytes"
    assert files(store) == {PLACE, NOTE, f"ids/ab/{ID}"}


@pytest.mark.parametrize(
    "header",
    [
        Header(batch_id="../../../../tmp/evil"),
        Header(batch_id="/" + "a" * 31),
        Header(batch_id="A" * 32),
        Header(batch_id="a" * 31),
        Header(batch_id="a" * 32 + "\n"),
        Header(batch_id="\N{ARABIC-INDIC DIGIT ONE}" * 32),
        Header(device="../../../../../tmp/evil"),
        Header(device=".."),
        Header(device=""),
        Header(device="a" * 31 + "\0"),
        Header(device="a" * 33),
        Header(participant="../../../../../tmp/evil"),
        Header(participant=""),
        Header(participant="A" * 32),
        Header(sequence=-1),
        Header(sequence=10**16),
    ],
)
def test_names_from_outside_never_become_paths(store, tmp_path, header):
    receipt = put(store, header, b"bytes")
    assert receipt.status is REJECTED
    assert receipt.reason
    assert receipt.batch_id in ("", ID)
    assert files(store) == set()
    assert list(tmp_path.iterdir()) == [store.path]


@settings(deadline=None)  # a slow disk is no failure
@given(
    batch_id=st.text(max_size=40) | st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    device=st.text(max_size=40) | st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    participant=st.text(max_size=40) | st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    sequence=st.integers(),
)
def test_whatever_the_header_says_the_bytes_end_in_their_place_or_nowhere(
    tmp_path_factory, batch_id, device, participant, sequence
):
    store = FolderStore(tmp_path_factory.mktemp("any") / "store", today=lambda: DAY)
    receipt = put(store, Header(batch_id, device, sequence, participant), b"bytes")
    if receipt.status is STORED:
        assert files(store) == {
            f"batches/2026-03-01/{device}/{sequence:016}-{batch_id}.mcib",
            f"participants/2026-03-01/{participant}/{device}",
            f"ids/{batch_id[:2]}/{batch_id}",
        }
    else:
        assert files(store) == set()
    assert list(store.path.parent.iterdir()) == [store.path]


@pytest.mark.parametrize("data", [["same"], ["one", "two"]])
def test_a_race_of_threads_ends_with_one_copy(store, data):
    racers = 8
    gate = threading.Barrier(racers)
    for round_ in range(20):
        header = Header(batch_id=f"{round_:032x}", sequence=round_)
        receipts: list[tuple[bytes, ReceiptStatus]] = []

        def race(number: int, header: Header = header, receipts: list = receipts) -> None:
            mine = data[number % len(data)].encode()
            gate.wait()
            receipts.append((mine, put(store, header, mine).status))

        threads = [threading.Thread(target=race, args=(n,)) for n in range(racers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [mine for mine, status in receipts if status is STORED]
        assert len(receipts) == racers
        for mine, status in receipts:
            assert status in ((STORED, DUPLICATE) if mine == winner else (REJECTED,))
        [copy] = store.path.rglob(f"*{header.batch_id}.mcib")
        assert copy.read_bytes() == winner
    assert list((store.path / "tmp").iterdir()) == []


# Puts one batch in a child that dies just before its n-th call into the file system, then puts it again.
CRASH = (
    DIE_AT
    + """
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from mcilib.receiver import FolderStore

folder, device, more = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

n = 0
while True:
    n += 1
    root = folder / str(n)
    store = FolderStore(root, today=lambda: date(2026, 3, 1))
    header = SimpleNamespace(batch_id=f"{n:032x}", participant="ef" * 16, device=device, sequence=n)
    pid = os.fork()
    if pid == 0:
        die_at(n)
        os._exit(0 if store.put([(header, b"bytes")])[0].status.value == "stored" else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    copies = [p.read_bytes() for p in root.rglob("*.mcib")]
    assert copies in ([], [b"bytes"]), copies  # never half of it
    again = FolderStore(root, today=lambda: date(2026, 3, 1 + more)).put([(header, b"bytes")])[0].status.value
    assert again == ("duplicate" if copies else "stored"), (n, again, copies)
    [copy] = root.rglob("*.mcib")
    assert copy.read_bytes() == b"bytes"
    claim = (root / "ids" / header.batch_id[:2] / header.batch_id).read_text()
    assert root / claim.strip() == copy
    assert [p.name for p in (root / "participants" / copy.parent.parent.name / ("ef" * 16)).iterdir()] == [device]
    if code == 0:
        print(n - 1)
        break
"""
)


@pytest.mark.parametrize("days_until_resent", [0, 1])
def test_a_crash_before_any_call_leaves_one_copy_after_the_resend(tmp_path, days_until_resent):
    done = subprocess.run(
        [sys.executable, "-P", "-c", CRASH, str(tmp_path), DEVICE, str(days_until_resent)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15, "the crash points were not counted"


def test_a_claim_without_its_bytes_is_completed_where_it_says(store):
    claimed = f"batches/2026-02-27/{DEVICE}/0000000000000007-{ID}.mcib"
    (store.path / "ids" / "ab").mkdir()
    (store.path / "ids" / "ab" / ID).write_text(claimed + "\n")
    assert put(store, Header(), b"bytes").status is STORED
    assert files(store) == {claimed, NOTE.replace("03-01", "02-27"), f"ids/ab/{ID}"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "batches/2026-03",
        "../../evil\n",
        f"batches/2026-03-01/{DEVICE}/{7:016}-{'ef' * 16}.mcib\n",
        "\xff",
    ],
)
@pytest.mark.parametrize("with_bytes", [True, False])
def test_a_damaged_claim_is_mended_without_a_second_copy(store, text, with_bytes):
    put(store, Header(), b"bytes")
    if not with_bytes:
        (store.path / PLACE).unlink()
    (store.path / "ids" / "ab" / ID).write_text(text, encoding="latin-1")
    later = FolderStore(store.path, today=lambda: date(2026, 3, 2))
    assert put(later, Header(), b"bytes").status is (DUPLICATE if with_bytes else STORED)
    assert len(list(store.path.rglob("*.mcib"))) == 1
    assert put(later, Header(), b"bytes").status is DUPLICATE
    assert list(store.path.parent.iterdir()) == [store.path]


def test_folders_that_were_removed_meanwhile_are_made_again(store):
    put(store, Header(), b"bytes")
    subprocess.run(["rm", "-r", store.path / "batches" / "2026-03-01", store.path / "ids" / "ab"], check=True)
    assert put(store, Header(), b"bytes").status is STORED
    assert files(store) == {PLACE, NOTE, f"ids/ab/{ID}"}


def test_what_crashes_left_in_tmp_goes_and_what_is_being_written_stays(store):
    old, new = store.path / "tmp" / "old", store.path / "tmp" / "new"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (old.stat().st_mtime - 7_200,) * 2)
    FolderStore(store.path, today=lambda: DAY)
    assert list((store.path / "tmp").iterdir()) == [new]


def test_a_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "store", Path("/proc/store")):
        with pytest.raises(StoreError, match="cannot be written") as caught:
            FolderStore(path, today=lambda: DAY)
        assert str(path) in caught.value.problem
        assert "Give a folder" in caught.value.next_step


def test_a_folder_of_somebody_else(tmp_path):
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(StoreError, match="Permission denied"):
            FolderStore(closed, today=lambda: DAY)
        return
    tmp_path.chmod(0o755)
    script = (
        "import os, sys; from mcilib.receiver import FolderStore; from mcilib.errors import StoreError\n"
        "os.seteuid(65534)\n"
        "try: FolderStore(sys.argv[1], today=None)\n"
        "except StoreError as error: print(error)"
    )
    (tmp_path / "theirs").mkdir(mode=0o755)
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, tmp_path / "theirs"], capture_output=True, text=True, check=True
    )
    assert "Permission denied" in done.stdout


def test_bytes_and_names_are_on_disk_before_the_answer(store, monkeypatch):
    """The order of the calls: each file is synced before it gets its name, each folder after."""
    done: list[tuple[str, str]] = []
    fsync, link, mkdir = os.fsync, os.link, Path.mkdir

    def name_of(fd: int) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), store.path)

    def spy_fsync(fd: int) -> None:
        fsync(fd)
        done.append(("fsync", name_of(fd)))

    def spy_link(source: Path, target: Path) -> None:
        link(source, target)
        done.append(("link", os.path.relpath(source, store.path)))
        done.append(("name", os.path.relpath(target, store.path)))

    def spy_mkdir(self: Path, mode: int = 0o777) -> None:
        mkdir(self, mode)
        done.append(("mkdir", os.path.relpath(self, store.path)))

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "link", spy_link)
    monkeypatch.setattr(Path, "mkdir", spy_mkdir)
    put(store, Header(), b"bytes")

    claim = f"ids/ab/{ID}"
    for position, (what, name) in enumerate(done):
        if what == "link":
            assert ("fsync", name) in done[:position], name
        elif what in ("name", "mkdir"):
            assert ("fsync", os.path.dirname(name)) in done[position:], name
    assert [name for what, name in done if what == "name"] == [claim, NOTE, PLACE]
    assert done.index(("fsync", os.path.dirname(NOTE))) < done.index(("name", PLACE)), "so is whose it is"
    assert done.index(("fsync", "ids/ab")) < done.index(("name", PLACE)), "the claim is durable first"

    done.clear()
    (store.path / PLACE).unlink()
    put(store, Header(), b"bytes")
    assert done.index(("fsync", "ids/ab")) < done.index(("name", PLACE)), "whoever claimed it may have died"

    done.clear()
    put(FolderStore(store.path, today=lambda: DAY), Header(), b"bytes")
    for folder in ("batches/2026-03-01", f"batches/2026-03-01/{DEVICE}", "ids/ab"):
        assert ("fsync", folder) in done, "another process may have named it and not yet synced it"
