"""An agent killed at random moments, again and again, and a real receiver: all that was committed is there once.

The agent is a fork with a spool, an uploader with its thread, and an HTTP transport; it tells each id through a pipe
as soon as `commit` has returned, and is killed within a quarter of a second: of its start, of its first commit, or of
its first delivery. `make crash` does 200 rounds of it, each on what the last one left behind.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import powercut
import pytest
import urllib3  # noqa: F401  (so that no agent spends its short life on importing it)

from mcilib.delivery.control import delete_request
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import SealedBatch
from mcilib.testing.fakes import example_batch

ROUNDS = 200 if os.environ.get("MCILIB_CRASH") == "all" else 20
LIFE_S = 0.25
ASKED = "asked:"
"""Before the pseudonym in a request to delete that was committed; no batch is of that participant."""
DELIVERED = "delivered:"
"""A word alone: something of this life has arrived."""
LIVES_UNTIL = ("", "\n", DELIVERED)
SERVE = """
import sys
from mcilib.receiver import serve
serve(sys.argv[1], port=0, on_ready=lambda url: print(url, flush=True))
"""

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Killing loses nothing that was written, so a disk would only make it slow."""
    folder = powercut.memory(tmp_path)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def receiver(memory: Path) -> Iterator[str]:
    command = [sys.executable, "-P", "-c", SERVE, str(memory / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def agent(folder: Path, url: str, seed: int, say: int) -> None:
    """Commits and uploads until it is killed."""
    random_ = random.Random(seed)
    spool = DirectorySpool(folder)
    spool.open()
    uploader = Uploader(spool, HttpTransport(url), interval_s=0.01, random=random_)
    uploader.start()
    while True:
        for _ in range(random_.randint(1, 4)):
            batch = spool.commit(example_batch)
            os.write(say, f"{batch.batch_id}\n".encode())
            uploader.notify()
        if random_.random() < 0.3:
            participant = uuid.UUID(int=random_.getrandbits(128)).hex
            spool.commit_control(delete_request(participant, participant))
            os.write(say, f"{ASKED}{participant}\n".encode())
            uploader.notify()
        time.sleep(random_.uniform(0, 0.02))
        if uploader.statistics().delivered_batches:
            os.write(say, f"{DELIVERED}\n".encode())


def live_and_die(folder: Path, url: str, seed: int) -> list[str]:
    """One round: what the agent had said when it was killed."""
    reading, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            agent(folder, url, seed, saying)
        finally:
            os._exit(1)  # only an error comes here
    os.close(saying)
    said = b""
    while LIVES_UNTIL[seed % len(LIVES_UNTIL)].encode() not in said and (piece := os.read(reading, 4_096)):
        said += piece
    time.sleep(random.Random(-seed).uniform(0, LIFE_S))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, "the agent failed by itself"
    with os.fdopen(reading, "rb") as lines:
        return (said + lines.read()).decode().split()


@pytest.mark.timeout(600)
def test_all_that_was_committed_arrives_once(receiver, memory, record_property):
    folder, store, told = memory / "spool", memory / "store", set()
    on_disk: dict[str, SealedBatch] = {}
    asked: set[str] = set()
    began = interrupted = 0
    for seed in range(1, ROUNDS + 1):
        lines = live_and_die(folder, receiver, seed)
        asked.update(line.removeprefix(ASKED) for line in lines if line.startswith(ASKED))
        ids = [line for line in lines if not line.startswith((ASKED, DELIVERED))]
        began += bool(ids)
        told.update(ids)
        if (folder / "ready").exists():  # what waits now must arrive with these bytes
            with DirectorySpool(folder) as spool:
                waiting = spool.waiting()
                interrupted += bool(waiting)
                on_disk.update({i: batch for i in waiting if (batch := spool.read(i)) is not None})
    with DirectorySpool(folder) as spool:
        on_the_way = spool.statistics().delivered_batches
        transport = HttpTransport(receiver)
        uploader = Uploader(spool, transport)
        result, resent = uploader.flush(60), uploader.statistics().duplicate_batches
        transport.close()
        assert not spool.waiting(), result
        assert not spool.controls(), result
        now = spool.statistics()
    carried_out = {path.name for path in (store / "deleted").rglob("*")}
    assert asked
    assert {hashlib.sha256(participant.encode()).hexdigest() for participant in asked} <= carried_out
    copies = list((store / "batches").rglob("*.mcib"))
    arrived = {path.stem.partition("-")[2]: path.read_bytes() for path in copies}
    assert len(copies) == len(arrived), "a batch is in the store twice"
    assert told <= arrived.keys(), f"lost: {len(told - arrived.keys())}"
    assert len(arrived) - len(told) <= ROUNDS  # committed, and killed before it could say so
    assert now.committed_batches == now.delivered_batches == len(arrived)
    assert sum(now.lost.values()) == 0
    assert all(arrived[i] == batch.data for i, batch in on_disk.items())
    assert began >= ROUNDS // 2
    assert interrupted > ROUNDS / 10, "it was never killed with something on its way"
    assert on_the_way >= ROUNDS // 4, "it was always killed before it sent anything"
    record_property("batches", len(arrived))
    print(
        f"{ROUNDS} rounds, {len(asked)} requests to delete, {len(arrived)} batches, {on_the_way} of them delivered between kills, "
        f"{resent} resent at the end: lost 0, twice 0"
    )
