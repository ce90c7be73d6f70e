"""Receivers that are killed, race, or lose their disk: every id ends in the store once, its bytes equal."""

from __future__ import annotations

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
        assert running.process.wait(5) == (-number if number == signal.SIGKILL else 0)
        assert set(frames) - set(waiting) <= set(copies(store)), "a receipt was given for what is not there"
    assert not waiting
    assert copies(store) == frames
    assert cut >= 2, "it was never killed while it worked"
    leftovers = list((store / "tmp").iterdir())
    assert len(leftovers) <= 2 * rounds if number == signal.SIGKILL else not leftovers


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
from mcilib.receiver import FolderStore
disk, name = sys.argv[1], sys.argv[2]
store = FolderStore(disk + "/store", today=lambda: date(2026, 3, 1))
for n in range(int(sys.argv[3])):
    header = SimpleNamespace(batch_id=f"{n:02x}" * 16, device="d" * 32, sequence=n)
    print(store.put(header, b"%d" % n * 5000).status.value)
if name == "unsynced":
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
    for count, name in ((1, "unsynced"), (3, "unsynced")):
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
        assert done.stdout.split() == (["stored"] if count == 1 else ["duplicate", "stored", "stored"])
        root_command("mount", "-o", "loop", str(image), str(disk))
        try:
            assert not (disk / "unsynced").exists() or (disk / "unsynced").read_text() == ""
            for n in range(count):
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
