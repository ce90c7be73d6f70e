"""One upload of all that waits: packed into few requests, each batch's fate told by its receipt.

Knows neither threads nor sleeps: whether a request may be made, and making it with its few attempts, are given
(see `uploader`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from mcilib import limits
from mcilib.errors import SpoolError
from mcilib.protocols import ControlRecord, Fate, Outcome, ReceiptStatus, Reply, SealedBatch, Spool
from mcilib.statistics import Problem

if TYPE_CHECKING:
    from mcilib.delivery._controls import Controls

REQUEST_MAX_BATCHES = limits.RESPONSE_MAX_BYTES // 128
"""A receipt takes 75 bytes and a reason: so many that the answer can still be read."""

HOUR_USED_UP = "the plan's bytes for this hour are used up"

DELETED = "deleted"
"""The reason by which a receiver says that a batch was deleted on its participant's request (upload protocol)."""

_FAILURES_TOLD = 3
"""Failed uploads in a row before a busy or unreachable server counts as a problem: one is nothing."""

_NEXT_STEP = MappingProxyType(
    {
        Outcome.RETRY: "Check the network and the endpoint. Everything is kept and tried again.",
        Outcome.NOT_OUR_SERVER: "Sign in to this network, or check the endpoint. Everything is kept.",
        Outcome.REFUSED: "Check the token, the endpoint and the certificates. Everything is kept; next try in "
        "2 to 4 h.",
        Outcome.GONE: "Stop the agent. What waits stays on this device and nothing more is sent.",
    }
)


@dataclass(frozen=True, slots=True)
class Permit:
    """What may be in the next request."""

    control: bool = True
    min_age_s: float | None = 0.0
    """Of data; None: no data at all."""
    room_bytes: int | None = None
    """For data; None: no bound."""
    crowded: bool = False
    """Something was sent within the last hour, or the plan has no room at all: only then does `room_bytes` stop a
    single batch that is larger."""
    forbidden: str | None = None
    """Why no data may be sent at all (consent)."""
    left: str = ""
    """Why some must wait (plan, hold)."""

    def covers(self, earlier: Permit) -> bool:
        """Whether the data that `earlier` let through may go now too."""
        return self.min_age_s is not None and self.min_age_s <= (earlier.min_age_s or 0.0)

    def fits(self, size_bytes: int, *, alone: bool = True) -> bool:
        """Whether so much data may go now; one batch larger than the room of an hour goes in an hour `alone`."""
        return self.room_bytes is None or size_bytes <= self.room_bytes or (alone and not self.crowded)


@dataclass(slots=True)
class Round:
    """While it goes on: may it go on; afterwards: what came of it."""

    stop: threading.Event
    deadline_ns: int | None = None
    """Monotonic; no request begins after it."""
    flush: bool = False
    """Somebody waits for it."""
    over: bool = False
    """No further request in this round."""
    outcome: Outcome | None = None
    """Of the last request; None when none was made."""
    detail: str = ""
    retry_after_s: float = 0.0
    held: str | None = None
    """Why nothing may be sent."""
    left: str = ""
    """Why something was left for later though nothing is wrong."""
    suspicion: str = ""
    """Why it may be the set-up that is bad, and not the batches; empty once one is taken."""
    suspects: int = 0
    """Batches that were refused as bad and are kept because of that."""
    spool_error: SpoolError | None = None
    cause: str = "data"
    """Why the next request is made (`UploadStatistics.requests_by_cause`)."""
    requests: Counter[str] = field(default_factory=Counter)
    bytes_sent: Counter[str] = field(default_factory=Counter)
    """Both by cause."""
    outcomes: Counter[str] = field(default_factory=Counter)
    delivered: set[str] = field(default_factory=set)
    duplicates: int = 0
    """Of the delivered."""
    carried_out: set[str] = field(default_factory=set)
    """Ids of control records."""
    pending: set[str] = field(default_factory=set)
    """Ids of those that were answered: not decided yet."""

    def end(self, outcome: Outcome, detail: str) -> None:
        self.over, self.outcome, self.detail = True, outcome, detail

    def note(self, reply: Reply) -> None:
        self.outcome, self.detail, self.retry_after_s = reply.outcome, reply.detail, reply.retry_after_s
        self.requests[self.cause] += 1
        self.bytes_sent[self.cause] += reply.bytes_sent
        self.outcomes[reply.outcome.value] += 1

    def problem(self, failures: int) -> Problem | None:
        """What is wrong, in words, after so many failed uploads in a row."""
        if self.spool_error is not None:
            return Problem("spool", self.spool_error.problem, self.spool_error.next_step)
        if self.held is not None:
            return Problem(
                "uploader", f"Nothing is sent: {self.held}", "Everything is kept until that has changed."
            )
        if self.outcome is None or self.outcome not in _NEXT_STEP:
            return None
        if self.outcome is Outcome.RETRY and failures < _FAILURES_TOLD:
            return None
        often = f" ({failures} uploads in a row)" if failures > 1 else ""
        return Problem("uploader", f"Nothing is delivered: {self.detail}{often}", _NEXT_STEP[self.outcome])


class Line(Protocol):
    """The way to the receiver, guarded."""

    def permit(self, run: Round, /) -> Permit | None:
        """What the next request may hold; None when the round is over."""

    def send(self, batches: Sequence[SealedBatch], permit: Permit, run: Round, /) -> Reply | None:
        """One request with its few attempts, the first under `permit`; None when none was made."""

    def send_control(self, records: Sequence[ControlRecord], permit: Permit, run: Round, /) -> Reply | None:
        """As `send`."""


class Delivery:
    """Carries out rounds, one at a time. Remembers how many batches in a row were refused as bad."""

    def __init__(self, spool: Spool, line: Line, controls: Controls, max_request_bytes: int) -> None:
        self._spool, self._line, self._controls = spool, line, controls
        self._max_request_bytes = max_request_bytes
        self.rejects_in_a_row = 0

    def carry_out(self, run: Round) -> None:
        """Sends what waits now: control records first, then batches, oldest first, each at most once. Raises
        nothing."""
        rejects_in_a_row = self.rejects_in_a_row
        try:
            self._controls.deliver(run)
            if not run.over:
                self._deliver_batches(run)
            if run.suspicion and run.outcome in (Outcome.BAD_BATCH, Outcome.DELIVERED):
                run.end(Outcome.REFUSED, run.suspicion)
        except SpoolError as error:
            # What could not be counted will be refused again.
            self.rejects_in_a_row = min(self.rejects_in_a_row, rejects_in_a_row)
            run.spool_error = error
            run.end(Outcome.RETRY, error.problem)
        except Exception as error:  # a spool that breaks its promise must not end the thread
            run.end(Outcome.RETRY, f"the spool failed ({type(error).__name__})")

    # --- batches --------------------------------------------------------------------------------------------

    def _deliver_batches(self, run: Round) -> None:
        todo = dict.fromkeys(self._spool.waiting())
        while todo and not run.over:
            permit = self._line.permit(run)
            if permit is None:
                run.over = True
                return
            run.held = permit.forbidden
            request = self._packed(todo, permit, run)
            if not request:
                run.left = run.left or (permit.left if todo else "")
                return
            self._deliver(request, permit, run, "data")

    def _packed(self, todo: dict[str, None], permit: Permit, run: Round) -> list[SealedBatch]:
        """The oldest that may go now, up to the limits of one request (a larger batch goes alone). What is
        looked at leaves `todo`."""
        if permit.min_age_s is None:
            return []
        request: list[SealedBatch] = []
        size_bytes = 0
        for batch_id in self._spool.waiting(permit.min_age_s):
            if batch_id not in todo:
                continue
            batch = self._spool.read(batch_id)
            if batch is None:
                del todo[batch_id]
                continue
            total_bytes = size_bytes + len(batch.data)
            if request and (total_bytes > self._max_request_bytes or len(request) >= REQUEST_MAX_BATCHES):
                break
            if not permit.fits(total_bytes, alone=not request):
                run.left = HOUR_USED_UP
                break
            del todo[batch_id]
            request.append(batch)
            size_bytes = total_bytes
        return request

    def _deliver(self, batches: Sequence[SealedBatch], permit: Permit, run: Round, cause: str) -> None:
        """Sends `batches`; a request that is refused as bad is halved until the bad ones are alone."""
        run.cause = cause
        reply = self._line.send(batches, permit, run)
        if reply is None:
            run.over = True
        elif reply.outcome is Outcome.DELIVERED:
            self._take_receipts(batches, reply, run)
            run.over = run.over or reply.retry_after_s > 0
        elif reply.outcome is not Outcome.BAD_BATCH:
            run.over = True
        elif reply.retry_after_s > 0:  # bad for now: a 413 may be (RFC 9110)
            run.end(Outcome.RETRY, reply.detail)
        elif len(batches) == 1:
            self._settle({Fate.REJECTED: self._rejected(batches, reply, run)})
        else:
            half = len(batches) // 2
            for part in (batches[:half], batches[half:]):
                again = None if run.over else self._line.permit(run)
                if again is None:
                    run.over = True
                    return
                run.held = again.forbidden
                if not again.covers(permit):
                    run.over, run.left = True, again.left
                    return
                self._deliver(part, again, run, "split")

    def _take_receipts(self, batches: Sequence[SealedBatch], reply: Reply, run: Round) -> None:
        """Settles what a receipt names; everything else still waits."""
        accepted, refused, purged, missing = [], [], [], 0
        for batch in batches:
            receipt = reply.receipts.get(batch.batch_id)
            if receipt is None:
                missing += 1
            elif receipt.status is not ReceiptStatus.REJECTED:
                accepted.append(batch)
                run.duplicates += receipt.status is ReceiptStatus.DUPLICATE
            elif receipt.reason == DELETED:
                purged.append(batch)
            else:
                refused.append(batch)
        if accepted:  # a receiver that takes others means these ones
            self.rejects_in_a_row, run.suspicion = 0, ""
        else:
            refused = self._rejected(refused, reply, run)
        self._settle({Fate.DELIVERED: accepted, Fate.REJECTED: refused, Fate.PURGED: purged})
        run.delivered.update(batch.batch_id for batch in accepted)
        if missing and not run.over:
            why = f": {reply.detail}" if reply.receipts and reply.detail else ""
            run.end(
                Outcome.RETRY, f"the receiver gave no receipt for {missing} of {len(batches)} batches{why}"
            )

    def _rejected(self, batches: Sequence[SealedBatch], reply: Reply, run: Round) -> list[SealedBatch]:
        """Those to give up, unless so many in a row were refused that it may not be the batches: these are kept. A few
        more are tried, so that a bad one never blocks the others; if one is taken, it was the batches."""
        given_up = []
        for batch in batches:
            self.rejects_in_a_row = min(self.rejects_in_a_row + 1, limits.REJECTS_IN_A_ROW)
            if self.rejects_in_a_row < limits.REJECTS_IN_A_ROW:
                given_up.append(batch)
                continue
            receipt = reply.receipts.get(batch.batch_id)
            why = receipt.reason if receipt and receipt.reason else reply.detail
            run.suspicion = f"{self.rejects_in_a_row} batches in a row were refused as bad: {why}"
            run.suspects += 1
            if run.suspects >= limits.REJECTS_IN_A_ROW:
                run.end(Outcome.REFUSED, run.suspicion)
                break
        return given_up

    def _settle(self, by_fate: Mapping[Fate, Sequence[SealedBatch]]) -> None:
        fates = {batch.batch_id: fate for fate, batches in by_fate.items() for batch in batches}
        if fates:
            self._spool.settle_all(fates)
