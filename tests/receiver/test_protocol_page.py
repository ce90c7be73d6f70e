"""The examples of `docs/spec/upload-protocol.md`, against the reference receiver."""

from __future__ import annotations

import json
from datetime import date

import documents
from batches import with_header

from mcilib import limits
from mcilib.consent import SCOPES
from mcilib.consent.exemption import REASON_CLASSES
from mcilib.receiver import FolderStore, create_app
from mcilib.receiver.app import BATCHES_PER_REQUEST
from mcilib.receiver.control import BATCHES_PER_RECORD, RECORDS_PER_REQUEST
from mcilib.receiver.incoming import BODY_TIMEOUT_S
from mcilib.receiver.operator import PAGE, PAGE_CAP
from mcilib.receiver.serve import HEAD_TIMEOUT_S, KEEP_ALIVE_S
from mcilib.testing.fakes import ManualClock

TEXT = documents.ROOT / "docs/spec/upload-protocol.md"


def test_examples(run_app, http, post, frame, tmp_path):
    blocks = [block.text for block in documents.read(TEXT).blocks if block.language == "json"]
    stored, records, deleted, asked, pending, listed, health = map(json.loads, blocks)
    [record] = records["records"]
    assert record["batches"] == [stored["receipts"][0]["batch"]]
    ids = {name: bytes.fromhex(record[name]) for name in ("participant", "device")}
    data = with_header(frame(1), batch_id=bytes.fromhex(record["batches"][0]), **ids)
    store = FolderStore(tmp_path / "store", today=lambda: date(2026, 3, 1))
    clock = ManualClock(wall_ns=listed["exemptions"][0]["received_ns"])
    url = run_app(create_app(store, token=None, operator_token="operator", clock=clock))
    assert post(url, data) == (200, stored)
    body = next(block for block in blocks if "records" in block).encode()
    answer = http.request(
        "POST", url + "/v1/control", body=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.json()) == (200, deleted)
    assert post(url, data)[1]["receipts"][0]["reason"] == "deleted"
    body = json.dumps(asked).encode()
    answer = http.request(
        "POST", url + "/v1/control", body=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.json()) == (200, pending)
    may = {"Authorization": "Bearer operator"}
    assert http.request("GET", url + "/v1/exemptions", headers=may).json() == listed
    told = http.request("GET", url + "/v1/health").json()
    assert set(told) == set(health)
    assert told["service"] == health["service"]


def test_numbers():
    text = TEXT.read_text(encoding="utf-8")
    for number in (
        f"at most {BATCHES_PER_REQUEST} batches",
        f"1 to {RECORDS_PER_REQUEST} records",
        f"at most {limits.CONTROL_MAX_BYTES // 1024} KiB",
        f"at most {BATCHES_PER_RECORD:,}",
        f"too long ({BODY_TIMEOUT_S:g} s)",
        f"at most {limits.RESPONSE_MAX_BYTES // 1024} KiB",
        f"SHOULD take {limits.RECEIVER_MAX_BODY_BYTES // 1024**2} MiB",
        f"one batch of {limits.FRAME_MAX_BYTES // 1024**2} MiB",
        f"allows {limits.RECEIVER_DEVICE_REQUESTS} at once and one more each second",
        f"allow {limits.REQUESTS_PER_WINDOW} in any minute",
        f"within {HEAD_TIMEOUT_S:g} s",
        f"(1 to {PAGE_CAP:,}, default {PAGE})",
        f"at most {limits.EXEMPTION_NOTE_MAX_BYTES:,} bytes of text",
        f"more of `answer` than {limits.EXEMPTION_NOTE_MAX_BYTES:,} bytes",
        f"programs, {limits.EXEMPT_APP_MAX_BYTES} bytes each",
        f"At most {limits.EXEMPT_PARTS_MAX} parts",
        *(f"`{reason}`" for reason in REASON_CLASSES),
        *(f"`{scope}`" for scope in SCOPES),
    ):
        assert number in text, number
    assert HEAD_TIMEOUT_S == KEEP_ALIVE_S
    assert limits.RECEIVER_DEVICE_REQUESTS == limits.RECEIVER_DEVICE_WINDOW_S
