"""Receivers that are killed, race, or lose their disk: every id ends in the store once, its bytes equal."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3
from dying import DIE_AT
from waiting import until

TYPE = "application/vnd.mcilib.batches"
DONE = {"stored", "duplicate"}


def upload(url: str, frames: list[bytes]) -> dict[str, str] | None:
    """Receipts by id, or None when the receiver is not there (any more)."""
    try:
        answer = urllib3.request(
            "POST",
            url + "/v1/batches",
            body=b"".join(frames),
            headers={"Content-Type": TYPE, "Connection": "close"},
            retries=False,
            timeout=10,
        )
    except urllib3.exceptions.HTTPError:
        return None
    assert answer.status == 200, answer.data
    return {r["batch"]: r["status"] for r in answer.json()["receipts"]}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_mid_upload_restarted_and_resent(receiver, frame, copies, tmp_path, number):
    store = tmp_path / "store"
    random_ = random.Random(7)
    frames = {f"{n:032x}": frame(n, size=20_000) for n in range(240)}
    waiting = dict(frames)
    rounds = cut = 0
    while waiting:
        rounds += 1
        running = receiver(store)
        delay_s = random_.uniform(0.002, 0.04) if rounds <= 12 else 10  # a slow disk finishes too
        ended = threading.Event()

        def end(process=running.process, ended=ended):
            """Once: a second signal may meet a process that has ended its service and listens no more."""
            if not ended.is_set():
                ended.set()
                process.send_signal(number)

        killer = threading.Timer(delay_s, end)
        killer.start()
        while waiting:
            ids = random_.sample(sorted(waiting), min(10, len(waiting)))
            receipts = upload(running.url, [waiting[i] for i in ids])
            if receipts is None:
                cut += 1
                break
            assert set(receipts) == set(ids)
            assert set(receipts.values()) <= DONE
            for batch_id in receipts:
                del waiting[batch_id]
        killer.cancel()
        killer.join()
        end()
        assert running.process.wait(20) == (-number if number == signal.SIGKILL else 0)
        assert set(frames) - set(waiting) <= set(copies(store)), "a receipt was given for what is not there"
    assert not waiting
    assert copies(store) == frames
    assert cut >= 2, "it was never killed while it worked"
    leftovers = list((store / "tmp").iterdir())
    assert len(leftovers) <= 21 * rounds if number == signal.SIGKILL else not leftovers


def test_two_receivers_on_one_store_race_for_the_same_ids(receiver, frame, copies, tmp_path):
    store = tmp_path / "store"
    urls = [receiver(store).url, receiver(store).url]
    frames = [frame(n, size=500) for n in range(60)]
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(upload, url, frames[at : at + 3])
            for at in range(0, 60, 3)
            for url in urls
            for _ in range(2)
        ]
        answers = [future.result() for future in futures]
    statuses = sorted(status for answer in answers for status in (answer or {}).values())
    assert statuses == ["duplicate"] * 180 + ["stored"] * 60
    assert copies(store) == {f"{n:032x}": data for n, data in enumerate(frames)}
    assert list((store / "tmp").iterdir()) == []


def test_two_receivers_race_with_different_bytes_for_one_id(receiver, frame, copies, tmp_path):
    store = tmp_path / "store"
    urls = [receiver(store).url, receiver(store).url]
    with ThreadPoolExecutor(2) as pool:
        for n in range(30):
            pair = [frame(n, size=500), frame(n, size=500)]
            got = list(pool.map(upload, urls, [[data] for data in pair]))
            statuses = [(answer or {})[f"{n:032x}"] for answer in got]
            assert sorted(statuses) == ["rejected", "stored"]
            assert copies(store)[f"{n:032x}"] == pair[statuses.index("stored")]


# Deletes in a child that dies just before its n-th call into the file system, then deletes again.
CRASH = (
    DIE_AT
    + """
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from mcilib.receiver import Deletion, FolderStore

folder, kind = Path(sys.argv[1]), sys.argv[2]
P, D = "1" * 32, "d" * 32

n = 0
while True:
    n += 1
    root = folder / str(n)
    ids = [f"{n:08x}{k:024x}" for k in range(3)]
    batches = [
        (SimpleNamespace(batch_id=i, participant=P, device=D, sequence=k), b"bytes of %d" % k)
        for k, i in enumerate(ids)
    ]
    store = FolderStore(root, today=lambda: date(2026, 3, 1))
    assert [r.status.value for r in store.put(batches[:2])] == ["stored"] * 2
    # The third is one whose upload died after its claim.
    (root / "ids" / ids[2][:2] / ids[2]).write_text(f"batches/2026-03-01/{D}/{2:016}-{ids[2]}.mcib\\n")
    (root / "tmp" / f"{P}-{ids[2]}-{'0' * 32}").write_bytes(b"bytes o")
    deletion = Deletion(P, D, tuple(ids) if kind == "ids" else None)
    pid = os.fork()
    if pid == 0:
        die_at(n)
        for _ in store.delete(deletion):
            pass
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    # In between each batch is whole or gone, and an upload never brings back what has begun to go.
    begun = any((root / "deleted").glob("*/*"))
    there = [p.read_bytes() for p in root.rglob("*.mcib")]
    assert all(data in (b"bytes of 0", b"bytes of 1") for data in there), there
    assert begun or len(there) == 2
    store = FolderStore(root, today=lambda: date(2026, 3, 2))
    for _ in store.delete(deletion):
        pass
    for path in root.rglob("*"):
        assert not any(i in path.as_posix() for i in ids), (n, path)
        assert kind == "ids" or not (P in path.as_posix() or D in path.as_posix()), (n, path)
        assert not path.is_file() or b"bytes" not in path.read_bytes(), (n, path)
    assert {r.reason for r in store.put(batches)} == {"deleted"}
    if code == 0:
        print(n - 1)
        break
"""
)


@pytest.mark.parametrize("kind", ["ids", "participant"])
def test_a_deletion_that_dies_before_any_call_is_completed_by_the_next(tmp_path, kind):
    done = subprocess.run([sys.executable, "-P", "-c", CRASH, tmp_path, kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 30, "the crash points were not counted"


@pytest.mark.parametrize("by_id", [True, False])
def test_uploads_through_two_receivers_race_a_deletion(receiver, frame, tmp_path, by_id):
    store = tmp_path / "store"
    urls = [receiver(store, device_requests=10_000).url for _ in range(2)]
    frames = [frame(n, participant="1" * 32, size=500) for n in range(60)]
    ids = [f"{n:032x}" for n in range(60)]
    record = {"record": "c" * 32, "kind": "delete", "participant": "1" * 32, "device": "d" * 32}
    body = json.dumps({"records": [{**record, "batches": ids} if by_id else record]}).encode()
    seen: list[str] = []
    confirmed = threading.Event()

    def send(worker: int) -> None:
        done = False
        while not done:
            done = confirmed.is_set()  # once more after it
            for at in range(worker // 2 * 30, worker // 2 * 30 + 30, 5):
                seen.extend((upload(urls[worker % 2], frames[at : at + 5]) or {}).values())

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(send, worker) for worker in range(4)]
        until(lambda: len(seen) > 40)
        answer = urllib3.request(
            "POST", urls[1] + "/v1/control", body=body, headers={"Content-Type": "application/json"}
        )
        left = [p for p in store.rglob("*") if any(i in p.name for i in ids)]
        assert answer.json()["receipts"][0]["status"] == "stored"
        assert left == []
        confirmed.set()
        for future in working:
            future.result()
    assert {"stored", "rejected"} <= set(seen) <= {"stored", "duplicate", "rejected"}
    assert [p for p in store.rglob("*") if any(i in p.name for i in ids)] == []
    assert set((upload(urls[0], frames) or {}).values()) == {"rejected"}


# --- disks --------------------------------------------------------------------------------------------------


def root_command(*command: str) -> None:
    """Runs a command that makes or mounts a disk, or skips the test; in CI as root it must work."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting needs root on Linux")
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": search}
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"{command[0]} does not work here: {getattr(error, 'stderr', '') or error}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    root_command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_asks_to_come_back_and_nothing_half_written_stays(receiver, frame, copies, small_disk):
    store = small_disk / "store"
    running = receiver(store)
    (small_disk / "filler").write_bytes(b"x" * 300_000)
    frames = {f"{n:032x}": frame(n, size=60_000) for n in range(14)}
    stored, refused = [], 0
    for batch_id, data in frames.items():
        answer = urllib3.request(
            "POST", running.url + "/v1/batches", body=data, headers={"Content-Type": TYPE}, retries=False
        )
        if answer.status == 200:
            stored.append(batch_id)
        else:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert str(store).encode() not in answer.data
            refused += 1
        assert list((store / "tmp").iterdir()) == []
        assert copies(store) == {i: frames[i] for i in stored}
    assert len(stored) >= 5
    assert refused >= 2
    # What is there is still known, and with space again the rest comes in.
    assert upload(running.url, [frames[stored[0]]]) == {stored[0]: "duplicate"}
    (small_disk / "filler").unlink()
    for batch_id, data in frames.items():
        assert (upload(running.url, [data]) or {})[batch_id] in DONE
    assert copies(store) == frames


def test_a_receiver_does_not_start_on_a_full_or_read_only_disk(receiver, small_disk):
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    code, out, err, _ = receiver(small_disk / "store").end()
    assert (code, out) == (1, "")
    assert err.startswith(f"StoreError: The store {small_disk / 'store'} cannot be written: No space left")
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, _, err, _ = receiver(small_disk / "store").end()
    assert code == 1
    assert "Read-only file system" in err


POWER_CUT = """
import fcntl, os, struct, sys
from datetime import date
from types import SimpleNamespace
from mcilib.receiver import Deletion, FolderStore
disk, name = sys.argv[1], sys.argv[2]
store = FolderStore(disk + "/store", today=lambda: date(2026, 3, 1))
for n in range(int(sys.argv[3])):
    header = SimpleNamespace(batch_id=f"{n:02x}" * 16, participant="e" * 32, device="d" * 32, sequence=n)
    print(store.put([(header, b"%d" % n * 5000)])[0].status.value)
if name == "deleted":
    for _ in store.delete(Deletion("e" * 32, "d" * 32, ("00" * 16,))):
        pass
else:
    open(disk + "/unsynced", "w").write("gone?")
fcntl.ioctl(os.open(disk, os.O_RDONLY), 0x8004587D, struct.pack("I", 2))  # FS_IOC_SHUTDOWN, no log flush
"""


def test_receipts_hold_after_a_power_cut(tmp_path):
    """On a real file system that drops all that was not synced; one file written without fsync proves it."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    root_command("mkfs.ext4", "-q", str(image))
    for count, name in ((1, "unsynced"), (3, "unsynced"), (3, "deleted")):
        root_command("mount", "-o", "loop", str(image), str(disk))
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", POWER_CUT, disk, name, str(count)],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        finally:
            subprocess.run(["umount", disk], check=True)
        again = {1: ["stored"], 3: ["duplicate", "stored", "stored"]}[count]
        assert done.stdout.split() == (again if name == "unsynced" else ["duplicate"] * 3)
        root_command("mount", "-o", "loop", str(image), str(disk))
        try:
            assert not (disk / "unsynced").exists() or (disk / "unsynced").read_text() == ""
            left = [p for p in (disk / "store").rglob("*") if "00" * 16 in p.name]
            assert (left == []) == (name == "deleted")
            for n in range(1 if name == "deleted" else 0, count):
                place = f"batches/2026-03-01/{'d' * 32}/{n:016}-{f'{n:02x}' * 16}.mcib"
                assert (disk / "store" / place).read_bytes() == b"%d" % n * 5000
                assert (disk / "store" / "ids" / f"{n:02x}" / (f"{n:02x}" * 16)).read_text() == place + "\n"
        finally:
            subprocess.run(["umount", disk], check=True)


def test_a_folder_that_vanishes_is_an_answer_not_an_end(receiver, frame, copies, tmp_path):
    store: Path = tmp_path / "store"
    running = receiver(store)
    assert upload(running.url, [frame(1)]) is not None
    store.rename(tmp_path / "away")
    answer = urllib3.request(
        "POST", running.url + "/v1/batches", body=frame(2), headers={"Content-Type": TYPE}, retries=False
    )
    assert answer.status == 503
    (tmp_path / "away").rename(store)
    assert upload(running.url, [frame(2)]) == {f"{2:032x}": "stored"}
    assert sorted(copies(store)) == [f"{1:032x}", f"{2:032x}"]
