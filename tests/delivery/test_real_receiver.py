"""Our spool and transport keep the promises of their seams; with the real receiver, all the way to its store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Flushed, Uploader
from mcilib.protocols import Outcome, ReceiptStatus, SealedBatch
from mcilib.testing.conformance import check_spool, check_transport
from mcilib.testing.fakes import example_batch

SERVE = """
import json, sys
from mcilib.receiver import serve
serve(on_ready=lambda url: print(url, flush=True), **json.loads(sys.argv[1]))
"""

Receive = Callable[..., str]


@pytest.fixture
def receive(tmp_path: Path) -> Iterator[Receive]:
    """`receive(token=None, port=0)` starts the receiver and gives its address."""
    running: list[subprocess.Popen[str]] = []

    def start(**options: object) -> str:
        given = {"store": str(tmp_path / "store"), "port": 0, "token": None, **options}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, json.dumps(given)], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    yield start
    for process in running:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_the_spool_keeps_its_promise(spool):
    check_spool(lambda: spool)


def test_the_transport_keeps_its_promise(receive):
    url = receive()
    check_transport(lambda: HttpTransport(url))


def test_from_the_spool_to_the_store_once_in_effect(receive, spool, tmp_path):
    url = receive(token="s3cret")
    sent = [spool.commit(example_batch) for _ in range(20)]
    transport = HttpTransport(url, token="s3cret")
    assert transport.check().outcome is Outcome.DELIVERED
    assert transport.send(sent[:5]).outcome is Outcome.DELIVERED  # and then the device forgot it
    uploader = Uploader(spool, transport)
    uploader.start()
    assert uploader.flush() == Flushed(True, True, Outcome.DELIVERED, "")
    uploader.stop()
    transport.close()
    assert spool.statistics().delivered_batches == 20
    now = uploader.statistics()
    assert (now.requests, now.delivered_batches, now.duplicate_batches) == (1, 20, 5)
    assert now.bytes_sent == sum(len(batch.data) for batch in sent)
    stored = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    for batch in sent:
        assert sum(file.read_bytes() == batch.data for file in stored) == 1


def test_a_wrong_token_is_refused_and_everything_is_kept(receive, spool):
    url = receive(token="s3cret")
    batch = spool.commit(example_batch)
    with_token, without = HttpTransport(url, token="other"), HttpTransport(url)
    for transport in (with_token, without):
        result = Uploader(spool, transport).flush()
        assert result.outcome is Outcome.REFUSED
        assert "does not accept the token" in result.detail
        transport.close()
    assert spool.waiting() == (batch.batch_id,)


def test_what_is_no_batch_goes_to_bad_and_the_others_arrive(receive, spool, seal):
    good = [spool.commit(example_batch) for _ in range(2)]
    spool.commit(seal(200))  # not in the batch format
    good += [spool.commit(example_batch) for _ in range(2)]
    transport = HttpTransport(receive())
    result = Uploader(spool, transport).flush()
    transport.close()
    assert (result.settled, result.delivered) == (True, False)
    assert spool.statistics().delivered_batches == len(good)
    assert spool.statistics().lost["rejected"] == 1


@pytest.mark.parametrize("good", [0, 2])
def test_a_batch_of_a_version_to_come_is_rejected_by_its_place(receive, spool, good):
    """Its header cannot be read, so its receipt has no id: the place among the receipts tells."""
    sent = [spool.commit(example_batch) for _ in range(good)]

    def of_version_9(sequence):
        batch = example_batch(sequence)
        return SealedBatch(batch.batch_id, sequence, batch.data[:4] + b"\x09" + batch.data[5:])

    strange = spool.commit(of_version_9)
    sent += [spool.commit(example_batch) for _ in range(good)]
    transport = HttpTransport(receive())
    reply = transport.send([spool.read(batch_id) for batch_id in spool.waiting()])
    assert reply.outcome is Outcome.DELIVERED
    assert {r.batch_id: r.status for r in reply.receipts.values()} == {
        **{batch.batch_id: ReceiptStatus.STORED for batch in sent},
        strange.batch_id: ReceiptStatus.REJECTED,
    }
    assert Uploader(spool, transport).flush().settled
    transport.close()
    assert spool.statistics().delivered_batches == 2 * good
    assert spool.statistics().lost["rejected"] == 1


def test_the_receiver_comes_up_later(receive, tmp_path, free_port):
    with DirectorySpool(tmp_path / "spool") as spool:
        batch = spool.commit(example_batch)
        transport = HttpTransport(f"http://127.0.0.1:{free_port}")
        uploader = Uploader(spool, transport)
        assert uploader.flush().detail == f"connection refused by 127.0.0.1:{free_port}"
        assert spool.waiting() == (batch.batch_id,)
    receive(port=free_port)
    with DirectorySpool(tmp_path / "spool") as spool:
        uploader = Uploader(spool, transport)
        assert uploader.flush().delivered
        transport.close()
