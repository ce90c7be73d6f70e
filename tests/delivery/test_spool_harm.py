"""The spool where it hurts: killed, forked, shared, on a full or read-only disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from mcilib.delivery.control import delete_request
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import SpoolError
from mcilib.protocols import Fate

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX")

# Commits for ever and says each id once it is committed; settles some and says those before.
LOOP = """
import sys, uuid
from random import Random
from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import Fate, SealedBatch
random = Random()
with DirectorySpool(sys.argv[1], max_files=30) as spool:
    print("open", flush=True)
    while True:
        name = uuid.uuid4().hex
        data = name.encode() * random.randrange(1, 200)
        spool.commit(lambda sequence: SealedBatch(name, sequence, data))
        print("committed", name, flush=True)
        if random.random() < 0.5:
            gone = random.choice(spool.waiting())
            print("settling", gone, flush=True)
            spool.settle(gone, random.choice(list(Fate)))
"""


@posix
def test_sigkill_at_random_moments_loses_and_doubles_nothing(tmp_path, conserves):
    folder, random = tmp_path / "spool", Random(1)
    committed: set[str] = set()
    settling: set[str] = set()
    for _ in range(15):
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", LOOP, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        said = [child.stdout.readline() for _ in range(random.randrange(60))]
        time.sleep(random.uniform(0.0, 0.01))
        child.send_signal(signal.SIGKILL)
        for line in "".join([*said, child.stdout.read()]).splitlines():
            if len(line.split()[-1]) == 32:  # the last line may be cut
                (committed if line.startswith("committed") else settling).add(line.split()[1])
        child.wait()
        child.stdout.close()
        with DirectorySpool(folder) as spool:
            assert conserves(spool)
            now = spool.statistics()
            assert len(committed) <= now.committed_batches
            # One more for each kill: committed, and killed before it could say so.
            committed |= set(spool.waiting())
            gone = committed - set(spool.waiting()) - settling
            assert len(gone) <= now.lost["evicted"]
            assert now.lost["damaged"] == 0
            for batch_id in spool.waiting():
                batch = spool.read(batch_id)
                assert batch is not None
                assert batch.data.decode() == batch_id * (len(batch.data) // 32)
            sequences = [int(file.name[:16]) for file in (folder / "ready").iterdir()]
            assert len(set(sequences)) == len(sequences)
            assert not list((folder / "tmp").iterdir())
    assert len(committed) > 20


# --- owners -------------------------------------------------------------------------------------------------

OPEN = """
import sys
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import SpoolError
try:
    DirectorySpool(sys.argv[1]).open()
    print("opened")
except SpoolError as error:
    print(error)
"""


def another_process_opens(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", OPEN, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_second_process_is_refused_until_the_first_has_gone(spool, seal):
    spool.commit(seal())
    before = spool.statistics()
    said = another_process_opens(spool.path)
    assert said.startswith("Another mcilib agent runs on this state folder")
    assert said.endswith("Stop it, or choose another folder with --state.")
    assert spool.statistics() == before
    spool.close()
    assert another_process_opens(spool.path) == "opened"


def test_a_second_spool_in_the_same_process_is_refused_too(spool):
    with pytest.raises(SpoolError, match="Another mcilib agent"):
        DirectorySpool(spool.path).open()


@posix
def test_the_lock_of_a_killed_owner_is_free(tmp_path):
    child = subprocess.Popen([sys.executable, "-P", "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert DirectorySpool.owned(tmp_path)
    child.kill()
    child.wait()
    child.stdout.close()
    assert not DirectorySpool.owned(tmp_path)
    with DirectorySpool(tmp_path):
        pass


LOOK = """
import fcntl, sys
with open(sys.argv[1]) as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(flush=True)
    sys.stdin.read()
"""


@posix
def test_a_look_at_the_owner_does_not_keep_a_new_one_out(tmp_path, monkeypatch):
    with DirectorySpool(tmp_path):
        pass
    looks = subprocess.Popen(
        [sys.executable, "-P", "-c", LOOK, str(tmp_path / "owner.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert looks.stdin is not None
    assert looks.stdout is not None
    looks.stdout.readline()
    waited = []

    def sleep(seconds: float) -> None:
        """The look ends while the new owner waits."""
        waited.append(seconds)
        looks.communicate()

    monkeypatch.setattr("mcilib.delivery._files.time", SimpleNamespace(sleep=sleep))
    with DirectorySpool(tmp_path):
        pass
    assert len(waited) == 1
    assert 0.01 <= waited[0] <= 0.25


def in_a_child(work) -> None:
    """Runs `work` in a fork; fails when it does."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@posix
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("locked", [False, True])
def test_a_child_of_a_fork_is_no_owner_and_does_no_harm(spool, seal, conserves, locked):
    batch = spool.commit(seal())
    before = (spool.path / "state.json").read_bytes()

    def work() -> None:
        for forbidden in (lambda: spool.commit(seal()), lambda: spool.commit_control(None), spool.purge):
            with pytest.raises(SpoolError, match="fork"):
                forbidden()
        assert spool.controls() == ()
        spool.settle_control("a" * 32)
        with pytest.raises(SpoolError, match="Another mcilib agent"):
            spool.open()
        spool.settle(batch.batch_id, Fate.DELIVERED)
        assert spool.waiting() == ()
        assert spool.read(batch.batch_id) is None
        spool.statistics()
        spool.close()

    if locked:  # as if another thread were in the middle of a commit
        with spool._lock:
            in_a_child(work)
    else:
        in_a_child(work)
    assert (spool.path / "state.json").read_bytes() == before
    assert spool.read(batch.batch_id) == batch
    assert DirectorySpool.owned(spool.path)
    assert conserves(spool)


@posix
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_outlives_its_parent_does_not_keep_the_folder(tmp_path):
    script = """
import os, sys, time
from mcilib.delivery.spool import DirectorySpool
spool = DirectorySpool(sys.argv[1])
spool.open()
if os.fork() == 0:
    print("child", flush=True)
    time.sleep(60)
    os._exit(0)
os._exit(0)
"""
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", script, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        parent.stdout.readline()
        parent.wait()
        assert not DirectorySpool.owned(tmp_path)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


# --- disks --------------------------------------------------------------------------------------------------


def fill(disk: Path) -> Path:
    """Not a byte is left."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def test_a_full_disk_costs_the_oldest_tenth_and_goes_on(small_disk, seal, conserves):
    disk = small_disk()
    with DirectorySpool(disk / "spool", min_free_bytes=0) as spool:
        stored = [spool.commit(seal(4_000)).batch_id for _ in range(50)]
        fill(disk)
        stored.append(spool.commit(seal(4_000)).batch_id)
        assert spool.waiting() == tuple(stored[5:])
        assert spool.statistics().lost["evicted"] == 5
        assert DirectorySpool.read_statistics(spool.path) == spool.statistics(), "counted on disk as well"
        assert conserves(spool)
        assert not list((spool.path / "tmp").iterdir())
        fill(disk)
        big = spool.commit(seal(60_000))  # takes more room than a tenth of them
        assert spool.statistics().lost["evicted"] == 5 + 15
        assert spool.read(big.batch_id) == big
        assert conserves(spool)


def test_a_disk_that_stays_full_costs_a_tenth_once(small_disk, seal, conserves):
    disk = small_disk()
    with DirectorySpool(disk / "spool", min_free_bytes=0) as spool:
        ids = [spool.commit(seal(4_000)).batch_id for _ in range(20)]
        filler = fill(disk)
        for _ in range(3):
            with pytest.raises(SpoolError, match=r"disk is full.*Free some space"):
                spool.commit(seal(200_000))  # more than all of them
            assert spool.waiting() == tuple(ids[2:])
            assert conserves(spool)
            assert not list((spool.path / "tmp").iterdir())
        filler.unlink()
        assert spool.commit(seal(200_000)).sequence == 21
        fill(disk)
        spool.commit(seal(4_000))
        assert spool.statistics().lost["evicted"] == 2 + 2, "a new squeeze has its own price"


def test_an_empty_spool_on_a_full_disk_refuses(small_disk, seal):
    disk = small_disk()
    with DirectorySpool(disk / "spool") as spool:
        filler = fill(disk)
        with pytest.raises(SpoolError, match=r"disk is full.*Free some space"):
            spool.commit(seal())
        filler.unlink()
        assert spool.commit(seal()).sequence == 1


def test_on_a_full_disk_every_fate_is_counted_before_the_file_goes(small_disk, seal, conserves):
    disk = small_disk()
    with DirectorySpool(disk / "spool", min_free_bytes=0) as spool:
        ids = [spool.commit(seal(4_000)).batch_id for _ in range(12)]

        def check(fates: int) -> None:
            fill(disk)  # what has become free
            assert len(spool.waiting()) == 12 - fates
            assert DirectorySpool.read_statistics(spool.path) == spool.statistics()
            assert conserves(spool)

        check(0)
        spool.settle(ids[0], Fate.REJECTED)
        check(1)
        spool.settle_all({ids[5]: Fate.DELIVERED, ids[6]: Fate.REJECTED, ids[2]: Fate.DELIVERED})
        check(4)
        assert spool.purge(ids[3:5]) == 2
        check(6)
        before = spool.statistics()
    with DirectorySpool(disk / "spool", min_free_bytes=0) as spool:
        assert spool.statistics() == before
        assert before.delivered_batches == 2
        assert {c: n for c, n in before.lost.items() if n} == {"rejected": 2, "purged": 2}
        assert spool.waiting() == (ids[1], *ids[7:])
        spool.settle_all(dict.fromkeys(spool.waiting(), Fate.DELIVERED))
        assert spool.statistics().delivered_batches == 8
        assert conserves(spool)


def test_without_any_room_for_the_counters_delivery_makes_it(small_disk, seal, conserves):
    disk = small_disk()
    with DirectorySpool(disk / "spool", min_free_bytes=0) as spool:
        ids = [spool.commit(seal(4_000)).batch_id for _ in range(12)]
        (spool.path / "reserve").unlink()
        fill(disk)
        with pytest.raises(SpoolError, match="disk is full"):
            spool.settle(ids[0], Fate.REJECTED)
        with pytest.raises(SpoolError, match="disk is full"):
            spool.commit(seal(4_000))
        assert spool.waiting() == tuple(ids), "nothing goes that cannot be counted"
        assert conserves(spool)
        spool.settle_all({ids[0]: Fate.REJECTED, ids[1]: Fate.DELIVERED})
        assert spool.waiting() == tuple(ids[2:])
        assert spool.statistics().delivered_batches == spool.statistics().lost["rejected"] == 1
        assert DirectorySpool.read_statistics(spool.path) == spool.statistics()
        assert spool.purge() == 10, "the participant's word counts more than the count"
        assert conserves(spool)


def test_a_full_disk_is_told_at_open(small_disk):
    disk = small_disk()
    with pytest.raises(OSError, match="No space"):
        (disk / "filler").write_bytes(b"x" * 2_000_000)
    with pytest.raises(SpoolError, match="disk is full"):
        DirectorySpool(disk / "spool").open()
    assert not DirectorySpool.owned(disk / "spool")


def test_a_full_disk_does_not_keep_a_clean_spool_from_opening(small_disk, seal):
    disk = small_disk()
    with DirectorySpool(disk / "spool") as spool:
        batch = spool.commit(seal())
    with DirectorySpool(disk / "spool") as spool:
        spool.settle(spool.commit(seal()).batch_id, Fate.DELIVERED)
    with DirectorySpool(disk / "spool"):
        pass
    with pytest.raises(OSError, match="No space"):
        (disk / "filler").write_bytes(b"x" * 2_000_000)
    with DirectorySpool(disk / "spool") as spool:
        assert spool.read(batch.batch_id) == batch


def test_a_disk_that_turns_read_only_harms_nothing(small_disk, seal, conserves):
    disk = small_disk()
    with DirectorySpool(disk / "spool") as spool:
        batch, other = spool.commit(seal()), spool.commit(seal())
        record = spool.commit_control(delete_request("a" * 32, "d" * 32))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(SpoolError, match="not writable"):
            spool.commit(seal())
        with pytest.raises(SpoolError, match="not writable"):
            spool.settle(batch.batch_id, Fate.DELIVERED)
        with pytest.raises(SpoolError, match="not writable"):
            spool.commit_control(delete_request("a" * 32, "d" * 32))
        with pytest.raises(SpoolError, match="not writable"):
            spool.settle_control(record.record_id)
        assert spool.controls() == (record,)
        assert spool.read(batch.batch_id) == batch
        assert conserves(spool)
        with pytest.raises(SpoolError, match="not writable"):
            spool.purge([other.batch_id])
        assert spool.waiting() == (batch.batch_id,), "what was to be purged is never read again"
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert spool.commit(seal()).sequence == 3
        spool.settle(batch.batch_id, Fate.DELIVERED)
        spool.settle_control(record.record_id)
        assert len(spool.waiting()) == 1
    with DirectorySpool(disk / "spool") as spool:
        assert spool.statistics().lost["purged"] == 1
        assert conserves(spool)


def test_a_read_only_folder_is_told_at_open_and_can_still_be_looked_at(small_disk, seal):
    disk = small_disk()
    with DirectorySpool(disk / "spool") as spool:
        spool.commit(seal())
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(SpoolError, match=r"not writable.*--state"):
        DirectorySpool(disk / "elsewhere").open()
    with pytest.raises(SpoolError, match=r"not writable.*--state"):
        DirectorySpool(disk / "spool").open()  # its folders are there and its counters need no change
    assert DirectorySpool.read_statistics(disk / "spool").waiting_batches == 1
    assert DirectorySpool.owned(disk / "spool") is False


@posix
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_of_somebody_else_is_told_at_open(tmp_path):
    def work() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write everywhere, nobody may not
        with pytest.raises(SpoolError, match=r"not writable.*--state"):
            DirectorySpool(tmp_path / "spool").open()

    tmp_path.chmod(0o500)
    try:
        in_a_child(work)
    finally:
        tmp_path.chmod(0o700)
