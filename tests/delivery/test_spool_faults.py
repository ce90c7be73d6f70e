"""The spool's process dies before its k-th file operation, for every k: nothing is lost, doubled, miscounted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import Fate, SealedBatch

MAX_FILES = 3
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir"}  # audited before they happen
DIED = 9


def work(folder: Path, say: int, die_at: int) -> None:
    """In a child: opens, commits beyond the limit, settles both ways, closes; says what it does."""
    done = 0

    def count(event: str, _: object) -> None:
        nonlocal done
        if event in OPERATIONS:
            done += 1
            if done == die_at:
                os._exit(DIED)

    def commit(number: int) -> str:
        name = f"{number:032x}"
        spool.commit(lambda sequence: SealedBatch(name, sequence, name.encode()))
        os.write(say, f"committed {name}\n".encode())
        return name

    def settle(name: str, fate: Fate) -> None:
        os.write(say, f"settling {name}\n".encode())
        spool.settle(name, fate)
        os.write(say, f"settled {name}\n".encode())

    sys.addaudithook(count)
    with DirectorySpool(folder, max_files=MAX_FILES) as spool:
        first, second = commit(1), commit(2)
        settle(first, Fate.DELIVERED)
        for number in (3, 4, 5, 6):  # the last two evict
            commit(number)
        settle(f"{5:032x}", Fate.REJECTED)
        spool.settle(second, Fate.DELIVERED)  # evicted: nothing happens
        commit(7)


def run(folder: Path, die_at: int) -> tuple[int, set[str], set[str], set[str]]:
    reading, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(folder, saying, die_at)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(saying)
    with os.fdopen(reading) as lines:
        said = [line.split() for line in lines]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    committed, settling, settled = (
        {name for word, name in said if word == verb} for verb in ("committed", "settling", "settled")
    )
    return code, committed, settling, settled


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_death_before_every_file_operation(tmp_path, conserves):
    for die_at in range(1, 500):
        folder = tmp_path / str(die_at)
        code, committed, settling, settled = run(folder, die_at)
        assert code in (0, DIED), f"the child failed before operation {die_at}"
        with DirectorySpool(folder) as spool:
            assert conserves(spool), f"death before operation {die_at}"
            now, waiting = spool.statistics(), set(spool.waiting())
            assert now.committed_batches - len(committed) in (0, 1)  # one more: died before it could say so
            assert len(settled) <= now.delivered_batches + now.lost["rejected"] <= len(settling)
            assert len(committed - waiting - settling) <= now.lost["evicted"]
            assert now.lost["damaged"] == 0
            assert not waiting & settled
            for name in waiting:
                batch = spool.read(name)
                assert batch is not None
                assert batch.data == name.encode()
            again = spool.commit(lambda sequence: SealedBatch("f" * 32, sequence, b"x"))
            assert again.sequence == now.committed_batches + 1
            assert not list((folder / "tmp").iterdir())
        if code == 0:
            assert die_at > 50, "the operations were not counted"
            return
    pytest.fail("the child never finished")
