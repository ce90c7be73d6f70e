"""Spool and uploader together against the reference model: any order of commits, uploads with every outcome, damage,
restarts, clock steps, withdrawals, other processes. The spool alone: `test_spool_model.py`; crashes: `tests/crash`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from spool_model import CAUSES, Model

from mcilib.delivery.control import delete_request
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.errors import SpoolError
from mcilib.protocols import (
    Allowed,
    ControlRecord,
    Fate,
    Outcome,
    Receipt,
    ReceiptStatus,
    Reply,
    SealedBatch,
    SendPlan,
)
from mcilib.testing.fakes import ManualClock

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forks

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # an fsync costs nothing there
MAX_BYTES, MAX_FILES = 1_000, 6
DAY_S = 86_400.0
MAX_AGE_S, HOLD_S, FALLBACK_AGE_S = 5 * DAY_S, DAY_S, 2 * DAY_S
SECONDS = st.integers(0, 4 * 86_400)
PARTICIPANT, DEVICE = "9" * 32, "d" * 32
FAILURES = [outcome for outcome in Outcome if outcome not in (Outcome.DELIVERED, Outcome.BAD_BATCH)]


class Line:
    """A transport that answers as it is told, and takes note of what went over it."""

    def __init__(self) -> None:
        self.outcome = Outcome.DELIVERED
        self.status = ReceiptStatus.STORED
        self.refused: str | None = None
        """A batch that is refused: its request, or (`by_receipt`) by its receipt."""
        self.by_receipt = False
        self.silent: str | None = None
        """A batch that gets no receipt."""
        self.sent: dict[str, bytes] = {}
        """The bytes of each batch when it was first sent."""
        self.batches: set[str] = set()
        self.records: set[str] = set()
        """Of the last round."""

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        for batch in batches:
            assert self.sent.setdefault(batch.batch_id, batch.data) == batch.data, "resent with other bytes"
        ids = [batch.batch_id for batch in batches]
        self.batches.update(ids)
        if self.refused in ids and not self.by_receipt:
            return Reply(Outcome.BAD_BATCH)
        return self._answer(ids)

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        ids = [record.record_id for record in records]
        self.records.update(ids)
        return self._answer(ids)

    def _answer(self, ids: list[str]) -> Reply:
        if self.outcome is not Outcome.DELIVERED:
            return Reply(self.outcome)
        receipts = {i: Receipt(i, self.status) for i in ids if i != self.silent}
        if self.refused in receipts:
            receipts[self.refused] = Receipt(self.refused, ReceiptStatus.REJECTED)
        return Reply(Outcome.DELIVERED, receipts)

    def close(self) -> None:
        pass


class DeliveryMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.model = Model(MAX_FILES, MAX_BYTES, MAX_AGE_S)
        self.clock = ManualClock()
        self.line = Line()
        self.withdrawn = self.tried = False
        self.count = 0

    @initialize(target=ids, size_bytes=st.integers(1, 400))
    def begin(self, size_bytes: int) -> str:
        self.spool = self._spool()
        self.spool.open()
        return self._commit(size_bytes)

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    def _spool(self) -> DirectorySpool:
        return DirectorySpool(
            self.folder,
            max_bytes=MAX_BYTES,
            max_files=MAX_FILES,
            max_age_s=MAX_AGE_S,
            min_free_bytes=0,
            clock=self.clock,
            boot="one",
        )

    # --- in ---

    @rule(target=ids, size_bytes=st.integers(1, 400))
    def commit(self, size_bytes: int) -> str:
        """After a withdrawal too: what was open when it came is not sent either."""
        return self._commit(size_bytes)

    def _commit(self, size_bytes: int) -> str:
        self.count += 1
        batch_id, data = f"{self.count:032x}", os.urandom(size_bytes)
        batch = self.spool.commit(lambda sequence: SealedBatch(batch_id, sequence, data))
        self.model.commit(batch_id, data)
        assert batch.sequence == self.model.counts["committed"]
        return batch_id

    @rule(size_bytes=st.integers(1, 400))
    def a_commit_that_fails_uses_no_sequence(self, size_bytes: int) -> None:
        with pytest.raises(SpoolError):
            self.spool.commit(lambda n: SealedBatch("f" * 32, n, b"x" * (MAX_BYTES + size_bytes)))

    # --- out ---

    def _upload(self, allowed: Allowed = Allowed.ALL, hold_s: float = 0.0) -> list[str]:
        """Ids of the batches that should go, as the model sees it, and that nothing else went."""
        least_age_s = max(hold_s, 0.0 if allowed is Allowed.ALL else FALLBACK_AGE_S)
        due = [] if self.withdrawn else self.model.older_than(least_age_s)
        self.line.batches, self.line.records = set(), set()
        uploader = Uploader(
            self.spool,
            self.line,
            may_send=lambda: "the participant has withdrawn" if self.withdrawn else None,
            plan=lambda: SendPlan(allowed, "as drawn"),
            hold_s=hold_s,
            fallback_age_s=FALLBACK_AGE_S,
            attempts=1,
            clock=self.clock,
            random=random.Random(1),
        )
        uploader.flush(5)
        assert self.line.batches <= set(due), "sent though it must not be"
        assert self.line.records <= self.model.controls.keys()
        return due

    @rule(outcome=st.sampled_from(FAILURES))
    def an_upload_that_fails(self, outcome: Outcome) -> None:
        self.line.outcome = outcome
        self._upload()
        self.line.outcome = Outcome.DELIVERED

    @rule(
        allowed=st.sampled_from(Allowed),
        hold_s=st.sampled_from([0.0, HOLD_S]),
        status=st.sampled_from([ReceiptStatus.STORED, ReceiptStatus.DUPLICATE]),
        odd=st.sampled_from(["", "", "refused", "refused by receipt", "silent"]),
        which=st.integers(0, MAX_FILES - 1),
    )
    def upload(self, allowed: Allowed, hold_s: float, status: ReceiptStatus, odd: str, which: int) -> None:
        """One of the batches may be refused, or may get no receipt."""
        one = dict(enumerate(self.model.waiting)).get(which)
        self.line.status = status
        self.line.refused, self.line.by_receipt = (
            (one, "receipt" in odd) if "refused" in odd else (None, False)
        )
        self.line.silent = one if odd == "silent" else None
        due = self._upload(allowed, hold_s)
        for batch_id in due:
            if batch_id != self.line.silent:
                self.model.leave(batch_id, "rejected" if batch_id == self.line.refused else "delivered")
        self.line.refused = self.line.silent = None
        if allowed is not Allowed.NOTHING or due:  # with data that is too old to wait they go too
            assert self.line.records == self.model.controls.keys(), (
                "control records go whatever holds data back"
            )
            self.model.controls.clear()

    @rule(batch_id=ids, cut=st.booleans())
    def damage(self, batch_id: str, cut: bool) -> None:
        file = next((self.folder / "ready").glob(f"*-{batch_id}.mcib"), None)
        if file is None:
            return
        if cut:
            os.truncate(file, file.stat().st_size - 1)
        else:
            file.unlink()
        assert self.spool.read(batch_id) is None
        self.model.leave(batch_id, "damaged")

    # --- consent ---

    @precondition(lambda self: not self.withdrawn)
    @rule()
    def withdraw(self) -> None:
        """All goes, and the wish to delete waits; nothing else is sent until consent is given again."""
        record = self.spool.commit_control(delete_request(PARTICIPANT, DEVICE))
        self.model.controls[record.record_id] = record.data
        assert self.spool.purge() == len(self.model.waiting)
        self.model.purge()
        self.withdrawn = True

    @precondition(lambda self: self.withdrawn)
    @rule()
    def give_again(self) -> None:
        self.withdrawn = False

    @rule(batch_ids=st.lists(ids, min_size=1, max_size=3))
    def purge(self, batch_ids: list[str]) -> None:
        self.spool.purge(batch_ids)
        self.model.purge(batch_ids)
        for batch_id in batch_ids:
            assert not list(self.folder.rglob(f"*{batch_id}*"))

    # --- time, and who runs ---

    @rule(seconds=SECONDS, asleep=st.booleans())
    def time_passes(self, seconds: int, asleep: bool) -> None:
        self.clock.suspend(seconds) if asleep else self.clock.advance(seconds)
        self.model.now_s += seconds

    @rule(seconds=st.sampled_from([-3_600, 7 * 86_400, 10 * 365 * 86_400]))
    def the_wall_clock_steps(self, seconds: int) -> None:
        self.clock.step_wall(seconds)

    @rule(seconds=SECONDS, step_s=st.sampled_from([0, -3_600, 10 * 365 * 86_400]))
    def restart(self, seconds: int, step_s: int) -> None:
        self.spool.close()
        assert not DirectorySpool.owned(self.folder)
        self.time_passes(seconds, False)
        self.clock.step_wall(step_s)
        self.spool = self._spool()
        self.spool.open()

    @rule()
    def another_process_looks(self) -> None:
        assert DirectorySpool.owned(self.folder)
        assert DirectorySpool.read_statistics(self.folder) == self.spool.statistics()

    @precondition(lambda self: self.count == 7 and not self.tried)  # seldom: it takes a quarter of a second
    @rule()
    def another_process_wants_it(self) -> None:
        self.tried = True
        with pytest.raises(SpoolError, match="Another mcilib agent"):
            self._spool().open()

    @precondition(lambda self: self.model.waiting and hasattr(os, "fork"))
    @rule()
    def a_child_is_no_owner(self) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                self.spool.settle(next(iter(self.model.waiting)), Fate.DELIVERED)
                try:
                    self.spool.purge()
                except SpoolError:
                    code = int(self.spool.waiting() != ())
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    # --- always ---

    @invariant()
    def equals_the_model(self) -> None:
        model, now = self.model, self.spool.statistics()
        assert self.spool.waiting() == tuple(model.waiting)
        assert self.spool.waiting(HOLD_S) == tuple(model.older_than(HOLD_S))
        for batch_id, data in model.waiting.items():
            batch = self.spool.read(batch_id)
            assert batch is not None
            assert batch.data == data
        assert {r.record_id: r.data for r in self.spool.controls()} == model.controls
        assert now.committed_batches == model.counts["committed"]
        assert now.delivered_batches == model.counts["delivered"]
        assert now.lost == {cause: model.counts[cause] for cause in CAUSES}
        assert now.committed_batches == now.delivered_batches + now.waiting_batches + sum(now.lost.values())
        assert now.waiting_batches == len(model.waiting) <= MAX_FILES
        assert now.waiting_bytes == model.waiting_bytes <= MAX_BYTES
        assert now.control_records == len(model.controls)


TestDeliveryAgainstModel = DeliveryMachine.TestCase
TestDeliveryAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
