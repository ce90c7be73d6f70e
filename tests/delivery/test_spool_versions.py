"""Spool folders of other versions: older ones are read for ever, newer ones are refused and left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import SpoolError
from mcilib.protocols import Fate
from mcilib.testing.fakes import ManualClock

ROOT = Path(__file__).resolve().parents[2]
LAST_OF_VERSION_1 = "7382b53ec5db6071670f5c8d3b5950a8d63bf324"


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        if file.is_file()
        else (b"", 0)
        for file in folder.rglob("*")
    }


# --- version 1 ----------------------------------------------------------------------------------------------

# Six commits and every way out; then it dies, as a crash between two writes would leave it.
FILL = """
import os, sys
from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import Fate, SealedBatch
spool = DirectorySpool(sys.argv[1], max_files=5)
spool.open()
for n in range(1, 8):
    name = f"{n:032x}"
    spool.commit(lambda sequence: SealedBatch(name, sequence, name.encode() * n))
spool.settle(f"{4:032x}", Fate.DELIVERED)
spool.settle(f"{6:032x}", Fate.REJECTED)
os._exit(0)
"""


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it was, from the history of this repository."""
    place = tmp_path_factory.mktemp("version_1")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", LAST_OF_VERSION_1, "mcilib"], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("the history of this repository does not go back to version 1 of the spool")
    subprocess.run(["tar", "-x", "-C", str(place)], input=done.stdout, check=True)
    return place


def with_version_1(package: Path, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # -B and -P: nothing is written beside it, and nothing but it is found.
    return subprocess.run(
        [sys.executable, "-B", "-P", "-c", script, str(folder)],
        env={**os.environ, "PYTHONPATH": str(package)}, cwd=folder.parent, capture_output=True, text=True,
    )  # fmt: skip


def deliver_what_version_1_left(folder: Path, conserves) -> None:
    state = json.loads((folder / "state.json").read_bytes())
    assert state["schema"] == 1
    with DirectorySpool(folder) as spool:
        now = spool.statistics()
        assert now == DirectorySpool.read_statistics(folder)
        assert (now.committed_batches, now.delivered_batches, now.waiting_batches) == (7, 1, 3)
        assert {cause: n for cause, n in now.lost.items() if n} == {"evicted": 2, "rejected": 1}
        assert conserves(spool)
        assert spool.waiting() == tuple(f"{n:032x}" for n in (3, 5, 7))
        for n, batch_id in zip((3, 5, 7), spool.waiting(), strict=True):
            batch = spool.read(batch_id)
            assert batch is not None
            assert (batch.sequence, batch.data) == (n, batch_id.encode() * n)
        assert json.loads((folder / "state.json").read_bytes())["schema"] == 2
        assert (folder / "control").is_dir()
        spool.settle_all(dict.fromkeys(spool.waiting(), Fate.DELIVERED))
        assert spool.statistics().delivered_batches == 4
        assert conserves(spool)


def test_what_version_1_spooled_is_delivered(version_1, tmp_path, conserves):
    done = with_version_1(version_1, FILL, tmp_path / "spool")
    assert done.returncode == 0, done.stderr
    deliver_what_version_1_left(tmp_path / "spool", conserves)


def test_version_1_refuses_this_versions_folder_without_damage(version_1, tmp_path, seal):
    with DirectorySpool(tmp_path / "spool") as spool:
        batch = spool.commit(seal())
        spool.commit_control(control_record())
    before = everything(tmp_path / "spool")
    done = with_version_1(version_1, FILL, tmp_path / "spool")
    assert "was written by a newer mcilib" in done.stderr
    assert everything(tmp_path / "spool") == before
    with DirectorySpool(tmp_path / "spool") as spool:
        assert spool.read(batch.batch_id) == batch
        assert len(spool.controls()) == 1


def control_record():
    from mcilib.delivery.control import delete_request

    return delete_request("a" * 32, "d" * 32)


@pytest.fixture
def folder_of_version_1(tmp_path: Path) -> Path:
    """The same by hand: needs no history."""
    folder = tmp_path / "spool"
    for name in ("tmp", "ready", "bad"):
        (folder / name).mkdir(parents=True)
    for n, place in ((3, "ready"), (5, "ready"), (7, "ready"), (6, "bad")):
        name = f"{n:032x}"
        (folder / place / f"{n:016d}-{name}.mcib").write_bytes(name.encode() * n)
    state = {
        "schema": 1, "next_sequence": 8, "committed_batches": 7, "committed_bytes": 896, "delivered_batches": 1,
        "lost": {"evicted": 2, "rejected": 1, "damaged": 0},
        "leaving": {f"{6:016d}-{6:032x}.mcib": "bad", f"{4:016d}-{4:032x}.mcib": "gone"},
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state, indent=1))
    return folder


def test_a_folder_of_version_1_by_hand(folder_of_version_1, conserves):
    deliver_what_version_1_left(folder_of_version_1, conserves)


@pytest.mark.parametrize("days", [-3_650, 3_650])
def test_batches_of_version_1_begin_to_age_now(folder_of_version_1, seal, days):
    """Their dates are of a wall clock that may have been wrong."""
    clock = ManualClock()
    for file in (folder_of_version_1 / "ready").iterdir():
        at_ns = clock.wall_ns() + days * 86_400 * 10**9
        os.utime(file, ns=(at_ns, at_ns))
    with DirectorySpool(folder_of_version_1, clock=clock, boot="b") as spool:
        clock.advance(13 * 86_400)
        spool.commit(seal())
        assert len(spool.waiting()) == 4
        clock.advance(1.1 * 86_400)
        spool.commit(seal())
        assert len(spool.waiting()) == 2
        assert spool.statistics().lost["expired"] == 3


def test_version_1_on_a_full_disk_still_delivers(folder_of_version_1, small_disk, conserves):
    disk = small_disk()
    subprocess.run(["cp", "-r", str(folder_of_version_1), str(disk)], check=True)
    with pytest.raises(OSError, match="No space"):
        (disk / "filler").write_bytes(b"x" * 2_000_000)
    with DirectorySpool(disk / "spool") as spool:
        spool.settle_all(dict.fromkeys(spool.waiting(), Fate.DELIVERED))
        assert spool.statistics().delivered_batches == 4
        assert conserves(spool)
    assert DirectorySpool.read_statistics(disk / "spool").delivered_batches == 4


# --- newer ones ---------------------------------------------------------------------------------------------


def checked(state: dict) -> bytes:
    """With the check that every version keeps."""
    record = {name: value for name, value in state.items() if name != "check"}
    check = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    return json.dumps({**record, "check": check}).encode()


@pytest.mark.parametrize("check", [True, False])
def test_a_folder_of_a_newer_version_is_not_touched(tmp_path, seal, check):
    with DirectorySpool(tmp_path) as spool:
        spool.commit(seal())
    state = json.loads((tmp_path / "state.json").read_bytes())
    newer = {**state, "schema": 3, "new": "thing", "check": None}
    (tmp_path / "state.json").write_bytes(checked(newer) if check else json.dumps(newer).encode())
    (tmp_path / "tmp" / "theirs").write_bytes(b"x")
    before = everything(tmp_path)
    with pytest.raises(SpoolError, match=r"newer mcilib.*Nothing was changed"):
        DirectorySpool(tmp_path).open()
    with pytest.raises(SpoolError, match="newer mcilib"):
        DirectorySpool.read_statistics(tmp_path)
    assert everything(tmp_path) == before
