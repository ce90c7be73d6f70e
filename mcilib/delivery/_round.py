"""One upload of all that waits: packed into few requests, each batch's fate told by its receipt.

Knows neither threads nor time: `Sender` is one request with its few attempts (see `uploader`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from mcilib import limits
from mcilib.errors import SpoolError
from mcilib.protocols import Fate, Outcome, ReceiptStatus, Reply, SealedBatch, Spool
from mcilib.statistics import Problem

REQUEST_MAX_BATCHES = limits.RESPONSE_MAX_BYTES // 128
"""A receipt takes 75 bytes and a reason: so many that the answer can still be read."""


_FAILURES_TOLD = 3
"""Failed uploads in a row before a busy or unreachable server counts as a problem: one is nothing."""

_NEXT_STEP = MappingProxyType(
    {
        Outcome.RETRY: "Check the network and the endpoint. Everything is kept and tried again.",
        Outcome.NOT_OUR_SERVER: "Sign in to this network, or check the endpoint. Everything is kept.",
        Outcome.REFUSED: "Check the token, the endpoint and --ca-file. Everything is kept; next try in 4 h.",
        Outcome.GONE: "Stop the agent. What waits stays on this device and nothing more is sent.",
    }
)


@dataclass(slots=True)
class Round:
    """While it goes on: may it go on; afterwards: what came of it."""

    stop: threading.Event
    deadline_ns: int | None = None
    """Monotonic; no request begins after it."""
    over: bool = False
    """No further request in this round."""
    outcome: Outcome | None = None
    """Of the last request; None when none was made."""
    detail: str = ""
    retry_after_s: float = 0.0
    held: str | None = None
    """Why nothing may be sent."""
    spool_error: SpoolError | None = None
    requests: int = 0
    bytes_sent: int = 0
    delivered: set[str] = field(default_factory=set)
    duplicates: int = 0
    """Of the delivered."""

    def end(self, outcome: Outcome, detail: str) -> None:
        self.over, self.outcome, self.detail = True, outcome, detail

    def note(self, reply: Reply) -> None:
        self.outcome, self.detail, self.retry_after_s = reply.outcome, reply.detail, reply.retry_after_s
        self.requests += 1
        self.bytes_sent += reply.bytes_sent

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


#: Makes one request; None when none may be made (any more).
Sender: TypeAlias = Callable[[Sequence[SealedBatch], Round], Reply | None]


class Delivery:
    """Carries out rounds, one at a time. Remembers only how many batches in a row were refused as bad."""

    def __init__(self, spool: Spool, send: Sender, max_request_bytes: int) -> None:
        self._spool, self._send, self._max_request_bytes = spool, send, max_request_bytes
        self._rejects_in_a_row = 0

    def carry_out(self, run: Round) -> None:
        """Sends what waits now, oldest first, each batch at most once; raises nothing."""
        try:
            for batches in self._requests(self._spool.waiting()):
                self._deliver(batches, run)
                if run.over:
                    return
        except SpoolError as error:
            run.spool_error = error
            run.end(Outcome.RETRY, error.problem)
        except Exception as error:  # a spool that breaks its promise must not end the thread
            run.end(Outcome.RETRY, f"the spool failed ({type(error).__name__})")

    def _requests(self, batch_ids: Iterable[str]) -> Iterator[list[SealedBatch]]:
        """The batches packed up to the limits of one request; a larger batch goes alone."""
        request: list[SealedBatch] = []
        size_bytes = 0
        for batch_id in batch_ids:
            batch = self._spool.read(batch_id)
            if batch is None:
                continue
            too_long = size_bytes + len(batch.data) > self._max_request_bytes
            if request and (too_long or len(request) >= REQUEST_MAX_BATCHES):
                yield request
                request, size_bytes = [], 0
            request.append(batch)
            size_bytes += len(batch.data)
        if request:
            yield request

    def _deliver(self, batches: Sequence[SealedBatch], run: Round) -> None:
        """Sends `batches`; a request that is refused as bad is halved until the bad ones are alone."""
        reply = self._send(batches, run)
        if reply is None:
            run.over = True
        elif reply.outcome is Outcome.DELIVERED:
            self._take_receipts(batches, reply, run)
            run.over = run.over or reply.retry_after_s > 0
        elif reply.outcome is not Outcome.BAD_BATCH:
            run.over = True
        elif len(batches) == 1:
            self._reject(batches[0], reply.detail, run)
        else:
            half = len(batches) // 2
            self._deliver(batches[:half], run)
            if not run.over:
                self._deliver(batches[half:], run)

    def _take_receipts(self, batches: Sequence[SealedBatch], reply: Reply, run: Round) -> None:
        """Settles what a receipt names; everything else still waits."""
        by_status: dict[ReceiptStatus | None, list[SealedBatch]] = {status: [] for status in ReceiptStatus}
        by_status[None] = []
        for batch in batches:
            receipt = reply.receipts.get(batch.batch_id)
            by_status[receipt.status if receipt else None].append(batch)
        accepted = by_status[ReceiptStatus.STORED] + by_status[ReceiptStatus.DUPLICATE]
        for batch in accepted:
            self._spool.settle(batch.batch_id, Fate.DELIVERED)
            run.delivered.add(batch.batch_id)
            self._rejects_in_a_row = 0
        run.duplicates += len(by_status[ReceiptStatus.DUPLICATE])
        for batch in by_status[ReceiptStatus.REJECTED]:
            if accepted:  # a receiver that takes others means this one
                self._spool.settle(batch.batch_id, Fate.REJECTED)
            elif not run.over:
                self._reject(batch, reply.receipts[batch.batch_id].reason or reply.detail, run)
        missing = len(by_status[None])
        if missing and not run.over:
            run.end(Outcome.RETRY, f"the receiver gave no receipt for {missing} of {len(batches)} batches")

    def _reject(self, batch: SealedBatch, detail: str, run: Round) -> None:
        """Gives one batch up, unless so many in a row were refused that it cannot be the batches."""
        self._rejects_in_a_row += 1
        if self._rejects_in_a_row < limits.REJECTS_IN_A_ROW:
            self._spool.settle(batch.batch_id, Fate.REJECTED)
        else:
            run.end(
                Outcome.REFUSED, f"{self._rejects_in_a_row} batches in a row were refused as bad: {detail}"
            )
