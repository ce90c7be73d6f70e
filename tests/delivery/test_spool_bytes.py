"""Every byte of every file in a spool, changed or cut off: nothing raises, nothing blocks the others."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcilib.delivery.control import delete_request
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.errors import BatchFormatError
from mcilib.format.frame import unpack_frame
from mcilib.protocols import Fate
from mcilib.testing.fakes import example_batch


def opened(path: Path) -> DirectorySpool:
    spool = DirectorySpool(path, intact=intact_frame)
    spool.open()
    return spool


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def harms(data: bytes, step: int = 1) -> list[bytes]:
    places = range(0, len(data), step)
    return [flipped(data, at) for at in places] + [data[:at] for at in places]


@pytest.fixture
def filled() -> Iterator[Path]:
    """Two batches, two control records, one batch kept for a look."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # an fsync costs nothing there
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        path = Path(folder) / "filled"
        with DirectorySpool(path) as spool:
            spool.settle(spool.commit(example_batch).batch_id, Fate.REJECTED)
            for _ in range(2):
                spool.commit(example_batch)
                spool.commit_control(delete_request("a" * 32, "d" * 32))
        yield path


def test_a_batch(filled, conserves):
    spool = opened(filled)
    first, second = spool.waiting()
    file = next((filled / "ready").glob(f"*-{first}.mcib"))
    data, number = file.read_bytes(), 0
    for number, harmed in enumerate(harms(data), 1):
        # The same file, of a batch of its own, in front of the other.
        file.write_bytes(harmed)
        again = opened_again(spool, number)
        assert again.read(first) is None
        after = again.read(second)
        assert after is not None
        assert after.data != data
        assert again.waiting() == (second,)
        assert again.statistics().lost["damaged"] == 1
        assert len(list((again.path / "bad").iterdir())) == 2
        assert conserves(again)
        again.close()
    assert number == 2 * len(data)
    spool.close()


def opened_again(spool: DirectorySpool, number: int) -> DirectorySpool:
    """A copy of its folder, as a crash leaves it."""
    place = spool.path.parent / "copy"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(spool.path, place, ignore=shutil.ignore_patterns("reserve", "owner.lock"))
    return opened(place)


def test_while_it_is_open_a_byte_that_changes_is_found_when_it_is_read(filled):
    spool = opened(filled)
    first, second = spool.waiting()
    file = next((filled / "ready").glob(f"*-{first}.mcib"))
    file.write_bytes(flipped(file.read_bytes(), 60))
    assert spool.read(first) is None
    assert spool.read(second) is not None
    assert spool.statistics().lost["damaged"] == 1
    spool.close()


def test_without_the_check_only_the_length_tells(filled):
    with DirectorySpool(filled) as spool:
        first, _ = spool.waiting()
        file = next((filled / "ready").glob(f"*-{first}.mcib"))
        file.write_bytes(flipped(file.read_bytes(), 60))
        assert spool.read(first) is not None


def test_a_control_record(filled, caplog):
    caplog.set_level(logging.CRITICAL)
    spool = opened(filled)
    first, second = spool.controls()
    file = filled / "control" / f"{1:016d}-{first.record_id}.json"
    for number, harmed in enumerate(harms(first.data)):
        file.write_bytes(harmed)
        again = opened_again(spool, number)
        assert again.controls()[-1] == second
        assert len(again.controls()) + len(list((again.path / "bad").glob("*.json"))) == 2
        assert len(again.waiting()) == 2
        again.close()
    spool.close()


def test_the_state(filled, caplog):
    caplog.set_level(logging.CRITICAL)
    spool = opened(filled)
    ids, records = spool.waiting(), spool.controls()
    data = (filled / "state.json").read_bytes()
    for number, harmed in enumerate(harms(data, step=2)):
        (filled / "state.json").write_bytes(harmed)
        again = opened_again(spool, number)
        assert again.controls() == records
        assert again.waiting() == ids
        batch = again.commit(example_batch)
        assert again.read(batch.batch_id) == batch
        again.close()
    spool.close()


def test_the_check_takes_every_version_and_agrees_with_the_reader():
    data = example_batch().data
    assert intact_frame(data)
    newer = bytearray(data)
    newer[4] = 9
    newer[-4:] = zlib.crc32(newer[:-4]).to_bytes(4, "big")
    assert intact_frame(bytes(newer)), "what a newer version wrote is none of our business"
    for harmed in [*harms(data), data + b"x", b"", os.urandom(100)]:
        assert not intact_frame(harmed)
        with pytest.raises(BatchFormatError):
            unpack_frame(harmed)
