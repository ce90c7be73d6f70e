"""Why each request was made, and what it came to."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from mcilib.delivery.control import delete_request
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import Outcome, Receipt, ReceiptStatus, Reply


class Taker:
    """Answers with what `outcomes` says, one after the other, then takes all."""

    def __init__(self, *outcomes: Outcome, refuses: int = 0) -> None:
        self.outcomes, self.refuses = list(outcomes), refuses

    def _answer(self, ids: list[str], sent: int) -> Reply:
        if self.outcomes:
            return Reply(self.outcomes.pop(0), bytes_sent=sent)
        return Reply(Outcome.DELIVERED, {i: Receipt(i, ReceiptStatus.STORED) for i in ids}, bytes_sent=sent)

    def send(self, batches, /) -> Reply:
        if self.refuses in [b.sequence for b in batches]:
            return Reply(Outcome.BAD_BATCH, bytes_sent=10)
        return self._answer([b.batch_id for b in batches], sum(len(b.data) for b in batches))

    def send_control(self, records, /) -> Reply:
        return self._answer([r.record_id for r in records], 7)

    def close(self) -> None:
        pass


@pytest.fixture
def told(spool, seal, clock) -> Callable[..., tuple[dict, dict, dict]]:
    def told(
        transport: Taker, *, batches: int = 4, records: int = 0, flushes: int = 1
    ) -> tuple[dict, dict, dict]:
        for _ in range(batches):
            spool.commit(seal(100))
        for n in range(records):
            spool.commit_control(delete_request(f"{n:032x}", f"{n:032x}"))
        uploader = Uploader(spool, transport, clock=clock)
        for _ in range(flushes):
            uploader.flush()
        now = uploader.statistics()
        assert sum(now.requests_by_cause.values()) == sum(now.requests_by_outcome.values()) == now.requests
        assert sum(now.bytes_by_cause.values()) == now.bytes_sent
        json.dumps([dict(now.requests_by_cause), dict(now.bytes_by_cause)])
        return dict(now.requests_by_cause), dict(now.bytes_by_cause), dict(now.requests_by_outcome)

    return told


def test_data(told):
    assert told(Taker()) == ({"data": 1}, {"data": 400}, {"delivered": 1})


def test_control(told):
    assert told(Taker(), records=2) == (
        {"control": 1, "data": 1},
        {"control": 7, "data": 400},
        {"delivered": 2},
    )


def test_retries_of_control_records(told):
    assert told(Taker(Outcome.RETRY), records=1) == (
        {"control": 1, "retry": 1, "data": 1},
        {"control": 7, "retry": 7, "data": 400},
        {"retry": 1, "delivered": 2},
    )


def test_retries_of_data(told):
    assert told(Taker(Outcome.RETRY, Outcome.RETRY)) == (
        {"data": 1, "retry": 2},
        {"data": 400, "retry": 800},
        {"retry": 2, "delivered": 1},
    )


def test_parts_of_what_was_refused(told):
    """1 to 4 in one; then 1 and 2, 3 and 4; then 3 and 4 each alone."""
    assert told(Taker(refuses=3)) == (
        {"data": 1, "split": 4},
        {"data": 10, "split": 10 + 200 + 10 + 100},
        {"bad_batch": 3, "delivered": 2},
    )


def test_they_add_up_over_uploads(told):
    causes, _, outcomes = told(Taker(Outcome.REFUSED, Outcome.NOT_OUR_SERVER), flushes=3)
    assert causes == {"data": 3}
    assert outcomes == {"refused": 1, "not_our_server": 1, "delivered": 1}


def test_as_plain_dictionaries(spool, seal):
    from dataclasses import asdict

    spool.commit(seal())
    uploader = Uploader(spool, Taker())
    uploader.flush()
    assert asdict(uploader.statistics())["requests_by_cause"] == {"data": 1}
