"""The spool against a reference model of a few lines: any order of commits, fates, damage, crashes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import Fate, SealedBatch

MAX_BYTES, MAX_FILES = 1_000, 6


class Model:
    """What a spool is: a list with limits and counters."""

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[int, bytes]] = {}
        self.sequence = self.committed = self.delivered = 0
        self.lost = {"evicted": 0, "rejected": 0, "damaged": 0}

    def commit(self, batch_id: str, data: bytes) -> None:
        self.sequence += 1
        self.committed += 1
        self.waiting[batch_id] = (self.sequence, data)
        while len(self.waiting) > MAX_FILES or sum(len(d) for _, d in self.waiting.values()) > MAX_BYTES:
            del self.waiting[next(iter(self.waiting))]
            self.lost["evicted"] += 1

    def leave(self, batch_id: str, cause: str | None) -> None:
        if self.waiting.pop(batch_id, None) is not None:
            if cause is None:
                self.delivered += 1
            else:
                self.lost[cause] += 1


class SpoolMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Model()
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.spool = self._opened()

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    def _opened(self) -> DirectorySpool:
        spool = DirectorySpool(self.folder, max_bytes=MAX_BYTES, max_files=MAX_FILES)
        spool.open()
        return spool

    def _commit(self, size_bytes: int) -> str:
        self.count += 1
        batch_id, data = f"{self.count:032x}", os.urandom(size_bytes)
        batch = self.spool.commit(lambda sequence: SealedBatch(batch_id, sequence, data))
        self.model.commit(batch_id, data)
        assert batch.sequence == self.model.sequence
        return batch_id

    @rule(target=ids, size_bytes=st.integers(1, 400))
    def commit(self, size_bytes: int) -> str:
        return self._commit(size_bytes)

    @rule(batch_id=ids, fate=st.sampled_from(Fate))
    def settle(self, batch_id: str, fate: Fate) -> None:
        self.spool.settle(batch_id, fate)
        self.model.leave(batch_id, None if fate is Fate.DELIVERED else "rejected")

    @rule(batch_id=consumes(ids), cut=st.booleans())
    def damage(self, batch_id: str, cut: bool) -> None:
        file = self._file(batch_id)
        if file is None:
            return
        if cut:
            os.truncate(file, file.stat().st_size - 1)
        else:
            file.unlink()
        assert self.spool.read(batch_id) is None
        self.model.leave(batch_id, "damaged")

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = self._opened()

    @rule(target=ids, size_bytes=st.integers(1, 100))
    def crash_before_the_count_of_a_commit(self, size_bytes: int) -> str:
        """The rename was the last thing that happened (an eviction comes after the count)."""
        before = (self.folder / "state.json").read_bytes()
        evicted = dict(self.model.lost)
        batch_id = self._commit(size_bytes)
        if self.model.lost == evicted:
            self.spool.close()
            (self.folder / "state.json").write_bytes(before)
            self.spool = self._opened()
        return batch_id

    @rule(batch_id=ids, fate=st.sampled_from(Fate))
    def crash_after_the_count_of_a_fate(self, batch_id: str, fate: Fate) -> None:
        file = self._file(batch_id)
        if file is None:
            return
        data = file.read_bytes()
        self.settle(batch_id, fate)
        self.spool.close()
        file.write_bytes(data)
        self.spool = self._opened()

    def _file(self, batch_id: str) -> Path | None:
        return next((self.folder / "ready").glob(f"*-{batch_id}.mcib"), None)

    @invariant()
    def equals_the_model(self) -> None:
        if self.count == 0:
            return
        assert self.spool.waiting() == tuple(self.model.waiting)
        for batch_id, (sequence, data) in self.model.waiting.items():
            assert self.spool.read(batch_id) == SealedBatch(batch_id, sequence, data)
        now = self.spool.statistics()
        assert DirectorySpool.read_statistics(self.folder) == now
        assert (now.committed_batches, now.delivered_batches) == (self.model.committed, self.model.delivered)
        assert now.lost == self.model.lost
        assert now.committed_batches == now.delivered_batches + now.waiting_batches + sum(now.lost.values())
        assert now.waiting_bytes == sum(len(data) for _, data in self.model.waiting.values()) <= MAX_BYTES
        assert len(list((self.folder / "bad").iterdir())) <= 5


TestSpoolAgainstModel = SpoolMachine.TestCase
TestSpoolAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
