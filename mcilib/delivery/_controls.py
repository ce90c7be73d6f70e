"""The control records of one upload: sent before all data, and what became of each.

A record leaves the spool when the receiver has carried it out, or has answered it. Until then it is kept: refused
ones are sent again every few hours, those that the operator has not decided once in an interval, or with a flush.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from mcilib import limits
from mcilib.clock import Clock
from mcilib.delivery._round import DELETED, Line, Round
from mcilib.delivery.control import APPROVED, DELETE, DENIED, EXEMPTION, UNDECIDABLE, kind_of
from mcilib.errors import McilibError
from mcilib.protocols import ControlRecord, Outcome, Receipt, ReceiptStatus, Reply, Spool
from mcilib.statistics import Problem

REQUEST_MAX_RECORDS = 64
"""Control records in one request: 1 MiB at most. A device rarely has more than one."""


class _Why(Enum):
    REFUSED = "refused"
    """By the receiver."""
    PENDING = "pending"
    """The operator has not decided."""
    UNTOLD = "untold"
    """It is answered, and the answer could not be recorded on this device."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record that was answered and stays."""

    why: _Why
    again_ns: int
    """Not sent before this time (monotonic)."""
    words: str = ""


class Controls:
    """Delivers the control records of `spool` through `line`. One thread at a time; `problems` from any.

    `on_decision` gets what the operator has decided, `on_carried_out` the id of a deletion that is carried out: each
    before the record leaves the spool, so again after a crash in between. When one raises, the record stays.
    """

    def __init__(
        self,
        spool: Spool,
        line: Line,
        *,
        max_request_bytes: int,
        interval_s: float,
        clock: Clock,
        on_decision: Callable[[str, Receipt], None],
        on_carried_out: Callable[[str], None],
    ) -> None:
        self._spool, self._line, self._clock = spool, line, clock
        self._max_request_bytes, self._interval_s = max_request_bytes, interval_s
        self._on_decision, self._on_carried_out = on_decision, on_carried_out
        self._kept: dict[
            str, _Kept
        ] = {}  # by record id; replaced, never changed where another thread may read

    def deliver(self, run: Round) -> None:
        """Sends those that are due. Raises `SpoolError`."""
        present = {record.record_id: record for record in self._spool.controls()}
        self._kept = {name: kept for name, kept in self._kept.items() if name in present}
        now_ns = self._clock.monotonic_ns()
        due = [record for record in present.values() if self._due(record, now_ns, run)]
        while due and not run.over:
            permit = self._line.permit(run)
            if permit is None or not permit.control:
                run.over, run.left = True, permit.left if permit is not None else run.left
                return
            size_bytes = count = 0
            while count < min(len(due), REQUEST_MAX_RECORDS):
                size_bytes += len(due[count].data)
                if count and size_bytes > self._max_request_bytes:
                    break
                count += 1
            request, due = due[:count], due[count:]
            run.cause = "control"
            reply = self._line.send_control(request, permit, run)
            if reply is None:
                run.over = True
            elif reply.outcome is Outcome.DELIVERED:
                missing = [record for record in request if not self._take(record, reply, run)]
                if missing:
                    run.end(
                        Outcome.RETRY,
                        f"the receiver gave no receipt for {len(missing)} of {len(request)} control records",
                    )
                if reply.retry_after_s > 0:
                    run.over = True
            elif reply.outcome in (Outcome.REFUSED, Outcome.BAD_BATCH):
                # Perhaps a receiver from before there were control records: data goes on, and these wait.
                for record in request:
                    self._keep(record, _Why.REFUSED, limits.BACKOFF_CAP_S, reply.detail)
                run.over = reply.retry_after_s > 0
            else:
                run.over = True

    def _due(self, record: ControlRecord, now_ns: int, run: Round) -> bool:
        kept = self._kept.get(record.record_id)
        if kept is None or kept.again_ns <= now_ns:
            return True
        return run.flush and kept.why is not _Why.REFUSED

    def _take(self, record: ControlRecord, reply: Reply, run: Round) -> bool:
        """Does what the record's receipt says; False when there is none."""
        name, kind = record.record_id, kind_of(record)
        receipt = reply.receipts.get(name)
        if receipt is None:
            return False
        deleted = kind != DELETE and receipt.reason == DELETED  # with all the rest of this participant
        if receipt.status is ReceiptStatus.REJECTED and not deleted:
            self._keep(record, _Why.REFUSED, limits.BACKOFF_CAP_S, receipt.reason or reply.detail)
            return True
        if kind == EXEMPTION and receipt.status is not ReceiptStatus.REJECTED and _undecided(receipt):
            self._keep(record, _Why.PENDING, self._interval_s)
            run.pending.add(name)
            return True
        try:
            if kind == DELETE:
                self._on_carried_out(name)
            elif kind == EXEMPTION and not deleted and receipt.decision in (APPROVED, DENIED):
                self._on_decision(name, receipt)
        except Exception as error:  # the host's own code, or a disk
            words = error.problem if isinstance(error, McilibError) else type(error).__name__
            self._keep(record, _Why.UNTOLD, self._interval_s, words)
            return True
        self._spool.settle_control(name)
        self._kept.pop(name, None)
        run.carried_out.add(name)
        return True

    def _keep(self, record: ControlRecord, why: _Why, wait_s: float, words: str = "") -> None:
        again_ns = self._clock.monotonic_ns() + int(min(wait_s, 1e9) * 1e9)
        self._kept = {**self._kept, record.record_id: _Kept(why, again_ns, words)}

    def problems(self) -> Sequence[Problem]:
        """With records that are kept; that an operator takes time is none."""
        refused, untold = (
            [kept.words for kept in self._kept.values() if kept.why is why]
            for why in (_Why.REFUSED, _Why.UNTOLD)
        )
        found = []
        if refused:
            found.append(
                Problem(
                    "uploader",
                    f"The receiver does not carry out {len(refused)} of this device's requests, such as to "
                    f"delete data: {refused[0]}",
                    "Tell whoever runs the receiver. They are kept and sent again every few hours.",
                )
            )
        if untold:
            found.append(
                Problem(
                    "uploader",
                    f"What the receiver says to {len(untold)} of this device's requests cannot be recorded here: "
                    f"{untold[0]}",
                    "Free space on the disk of the state folder. It is asked again at the next upload.",
                )
            )
        return found


def _undecided(receipt: Receipt) -> bool:
    """Whether a decision is still to come. None ever comes where the receipt says nothing of one (a folder)."""
    return receipt.decision not in ("", APPROVED, DENIED, *UNDECIDABLE)
