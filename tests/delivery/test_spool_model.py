"""The spool against the reference model: any order of commits, fates, damage, clocks, purges, crashes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from spool_model import Model

from mcilib.delivery.control import delete_request
from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import Fate, SealedBatch
from mcilib.testing.fakes import ManualClock

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # an fsync costs nothing there
MAX_BYTES, MAX_FILES, MAX_AGE_S = 1_000, 6, 100_000.0


class SpoolMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.model = Model(MAX_FILES, MAX_BYTES, MAX_AGE_S)
        self.clock = ManualClock()
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.spool = self._opened()

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    def _opened(self) -> DirectorySpool:
        spool = DirectorySpool(
            self.folder, max_bytes=MAX_BYTES, max_files=MAX_FILES, max_age_s=MAX_AGE_S, min_free_bytes=0,
            clock=self.clock, boot="one",
        )  # fmt: skip
        spool.open()
        return spool

    @rule(target=ids, size_bytes=st.integers(1, 400))
    def commit(self, size_bytes: int) -> str:
        self.count += 1
        batch_id, data = f"{self.count:032x}", os.urandom(size_bytes)
        batch = self.spool.commit(lambda sequence: SealedBatch(batch_id, sequence, data))
        self.model.commit(batch_id, data)
        assert batch.sequence == self.count
        return batch_id

    @rule(batch_id=ids, fate=st.sampled_from(Fate))
    def settle(self, batch_id: str, fate: Fate) -> None:
        self.spool.settle(batch_id, fate)
        self.model.leave(batch_id, fate.value)

    @rule(fates=st.dictionaries(ids, st.sampled_from(Fate)))
    def settle_all(self, fates: dict[str, Fate]) -> None:
        self.spool.settle_all(fates)
        for batch_id, fate in fates.items():
            self.model.leave(batch_id, fate.value)

    @rule(batch_ids=st.none() | st.lists(ids, max_size=3))
    def purge(self, batch_ids: list[str] | None) -> None:
        before = self.model.counts["purged"]
        self.model.purge(batch_ids)
        assert self.spool.purge(batch_ids) == self.model.counts["purged"] - before

    @rule()
    def ask(self) -> None:
        record = self.spool.commit_control(delete_request("a" * 32, "d" * 32))
        self.model.controls[record.record_id] = record.data

    @rule(nth=st.integers(0, 3))
    def settle_control(self, nth: int) -> None:
        record_id = ([*self.model.controls] or ["f" * 32])[nth % (len(self.model.controls) or 1)]
        self.spool.settle_control(record_id)
        self.model.controls.pop(record_id, None)

    @rule(seconds=st.integers(0, 60_000), asleep=st.booleans())
    def time_passes(self, seconds: int, asleep: bool) -> None:
        (self.clock.suspend if asleep else self.clock.advance)(seconds)
        self.model.now_s += seconds

    @rule(seconds=st.integers(-400_000_000, 400_000_000))
    def somebody_sets_the_clock(self, seconds: int) -> None:
        self.clock.step_wall(seconds)

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

    @rule(batch_id=ids, fate=st.sampled_from(Fate))
    def crash_after_the_count_of_a_fate(self, batch_id: str, fate: Fate) -> None:
        """The unlink was not synced before the power cut."""
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
        if not hasattr(self, "spool"):
            return
        assert self.spool.waiting() == tuple(self.model.waiting)
        for min_age_s in (1, 50_000):
            assert self.spool.waiting(min_age_s) == tuple(self.model.older_than(min_age_s))
        for batch_id, data in self.model.waiting.items():
            batch = self.spool.read(batch_id)
            assert batch is not None
            assert batch.data == data
        assert {r.record_id: r.data for r in self.spool.controls()} == self.model.controls
        now, counts = self.spool.statistics(), self.model.counts
        assert DirectorySpool.read_statistics(self.folder) == now
        assert (now.committed_batches, now.delivered_batches) == (counts["committed"], counts["delivered"])
        assert all(number == counts[cause] for cause, number in now.lost.items())
        assert now.committed_batches == now.delivered_batches + now.waiting_batches + sum(now.lost.values())
        assert now.waiting_bytes == self.model.waiting_bytes <= MAX_BYTES
        assert sorted(f.name[17:49] for f in (self.folder / "ready").iterdir()) == sorted(self.model.waiting)
        assert len(list((self.folder / "bad").iterdir())) <= 5
        assert len((self.folder / "state.json").read_bytes()) < 4_000


TestSpoolAgainstModel = SpoolMachine.TestCase
TestSpoolAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
