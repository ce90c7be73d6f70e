"""From a device to its operator and back: real receivers in processes of their own, real uploaders, real spools."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import commands
import pytest
import urllib3
from places import DAY

from mcilib.consent import Exemption, ExemptionState, ExemptScope
from mcilib.delivery.control import delete_request, exemption_request, exemption_withdrawal
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Flushed, Uploader
from mcilib.protocols import Outcome, Receipt
from mcilib.receiver import FolderStore
from mcilib.testing.fakes import example_batch, example_grant

TOKENS = {"token": "of-the-devices", "operator_token": "of-the-operator"}
P, D = "1" * 32, "d" * 32
ALL_IS_WELL = Flushed(True, True, Outcome.DELIVERED, "")


class Device:
    """A spool, and uploads to whichever receiver is named."""

    def __init__(self, folder: Path, participant: str = P) -> None:
        self.participant = participant
        self.spool = DirectorySpool(folder)
        self.spool.open()
        self.decisions: list[tuple[str, str, str]] = []
        self.carried_out: list[str] = []
        self.problems: list[str] = []

    def _on_decision(self, record_id: str, receipt: Receipt) -> None:
        assert record_id in self.waiting
        self.decisions.append((record_id, receipt.decision, receipt.answer))

    def ask(self, **fields: Any) -> str:
        given = {"scope": ExemptScope(apps=("keepassxc",)), "reason_class": "medical", "note": "", **fields}
        exemption = Exemption(uuid.uuid4().hex, requested_ns=5, **given)
        self.spool.commit_control(exemption_request(self.participant, D, exemption))
        return exemption.exemption_id

    def take_back(self, exemption_id: str) -> None:
        self.spool.commit_control(exemption_withdrawal(self.participant, D, exemption_id))

    @property
    def waiting(self) -> list[str]:
        return [record.record_id for record in self.spool.controls()]

    def upload(self, url: str) -> Flushed:
        transport = HttpTransport(url, token=TOKENS["token"], timeout_s=10)
        uploader = Uploader(
            self.spool, transport, on_decision=self._on_decision, on_carried_out=self.carried_out.append
        )
        result = uploader.flush()
        self.problems = [problem.message for problem in uploader.health().problems]
        transport.close()
        return result


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    with ExitStack() as stack:

        def make(name: str = "device", participant: str = P) -> Device:
            made = Device(tmp_path / name / "spool", participant)
            stack.callback(made.spool.close)
            return made

        yield make


def operator(method: str, url: str, path: str = "", body: Any = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKENS['operator_token']}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    answer = urllib3.request(
        method, f"{url}/v1/exemptions{path}", body=data, headers=headers, retries=False, timeout=10
    )
    return answer.status, answer.json()


@pytest.mark.parametrize(("action", "decision"), [("approve", "approved"), ("deny", "denied")])
@pytest.mark.parametrize("by", ["command", "http"])
def test_asked_seen_decided_heard(receiver, device, tmp_path, action, decision, by):
    """With a restart of the receiver between each of them, SIGKILL among these."""
    store = tmp_path / "store"
    agent = device()
    batch = agent.spool.commit(example_batch)
    exemption_id = agent.ask(note="private\npasswords")

    running = receiver(store, **TOKENS)
    assert agent.upload(running.url) == ALL_IS_WELL
    assert (agent.waiting, agent.decisions, agent.problems) == ([exemption_id], [], [])
    assert batch.batch_id not in agent.spool.waiting()
    running.end(signal.SIGKILL)

    listed = commands.run("exemptions", store, "list")
    for words in (exemption_id, P, "the program keepassxc", "medical", "passwords", "pending"):
        assert words in listed.stdout
    running = receiver(store, **TOKENS)
    assert operator("GET", running.url)[1]["exemptions"][0]["exemption"] == exemption_id
    assert agent.upload(running.url) == ALL_IS_WELL
    assert agent.decisions == []
    if by == "command":
        done = commands.run("exemptions", store, action, exemption_id[:6], "--note", "Well.")
        assert done.returncode == 0
    else:
        body = {"decision": decision, "note": "Well."}
        assert operator("POST", running.url, f"/{exemption_id}", body)[0] == 200
    running.end(signal.SIGKILL)

    running = receiver(store, **TOKENS)
    assert agent.upload(running.url) == ALL_IS_WELL
    assert agent.decisions == [(exemption_id, decision, "Well.")]
    assert agent.waiting == []
    assert agent.upload(running.url) == Flushed(True, True)
    assert len(agent.decisions) == 1, "told once"


def test_two_receivers_on_one_store(receiver, device, tmp_path):
    """The device asks at one and hears from the other, whichever the balancer gives."""
    urls = [receiver(tmp_path / "store", **TOKENS).url for _ in range(2)]
    agent = device()
    first, second = agent.ask(), agent.ask(scope=ExemptScope(everything=True))
    agent.upload(urls[0])
    agent.upload(urls[1])
    assert len(operator("GET", urls[0])[1]["exemptions"]) == 2
    assert operator("POST", urls[1], f"/{first}", {"decision": "denied"})[0] == 200
    assert operator("POST", urls[0], f"/{first}", {"decision": "approved"})[0] == 409
    agent.upload(urls[0])
    assert agent.decisions == [(first, "denied", "")]
    operator("POST", urls[0], f"/{second}", {"decision": "approved"})
    agent.upload(urls[1])
    assert agent.decisions[1:] == [(second, "approved", "")]


def test_taken_back_before_and_after_it_was_decided(receiver, device, tmp_path):
    url = receiver(tmp_path / "store", **TOKENS).url
    agent = device()
    early, late = agent.ask(), agent.ask()
    agent.upload(url)
    operator("POST", url, f"/{late}", {"decision": "approved"})
    for exemption_id in (early, late):
        agent.take_back(exemption_id)
    assert agent.upload(url) == ALL_IS_WELL
    assert agent.waiting == []
    assert agent.decisions == [], "what was taken back is not told any more"
    assert {one["state"] for one in operator("GET", url)[1]["exemptions"]} == {"withdrawn"}
    assert operator("POST", url, f"/{early}", {"decision": "approved"})[0] == 409


def test_a_participant_who_ends_it_is_forgotten_with_their_requests(receiver, device, tmp_path):
    store = tmp_path / "store"
    url = receiver(store, **TOKENS).url
    agent, other = device(), device("other", "2" * 32)
    agent.ask(note="who I am")
    kept = other.ask()
    agent.upload(url)
    other.upload(url)
    deletion = agent.spool.commit_control(delete_request(P, D)).record_id
    late = agent.ask(note="who I am")
    assert agent.upload(url) == ALL_IS_WELL
    assert (agent.carried_out, agent.waiting, agent.problems) == ([deletion], [], [])
    assert agent.decisions == []
    assert [one["exemption"] for one in operator("GET", url)[1]["exemptions"]] == [kept]
    for path in store.rglob("*"):
        assert P not in path.name
        assert late not in path.name
        assert not path.is_file() or b"who I am" not in path.read_bytes()


def test_batches_that_come_after_their_deletion_are_refused_and_not_kept(receiver, device, tmp_path):
    """Those that were never sent, and those that somebody sends later: tombstones."""
    store = tmp_path / "store"
    url = receiver(store, **TOKENS).url
    grant = example_grant()
    agent = device(participant=grant.participant)
    sent, unsent, later = (
        agent.spool.commit(lambda sequence: example_batch(sequence, grant=grant)) for _ in range(3)
    )
    transport = HttpTransport(url, token=TOKENS["token"])
    transport.send([sent])
    ids = [sent.batch_id, unsent.batch_id]
    agent.spool.commit_control(delete_request(grant.participant, grant.device, ids))
    assert agent.upload(url).settled
    assert agent.spool.statistics().lost["purged"] == 2
    stored = [path.stem.partition("-")[2] for path in (store / "batches").rglob("*.mcib")]
    assert stored == [later.batch_id]
    reply = transport.send([unsent, sent])
    transport.close()
    assert {receipt.reason for receipt in reply.receipts.values()} == {"deleted"}
    assert len(list((store / "batches").rglob("*.mcib"))) == 1


def test_an_old_receiver_takes_the_data_and_the_request_waits_for_a_newer_one(
    receiver, device, tmp_path, run_app
):
    """One that keeps no requests answers as one did before there were any."""
    from mcilib.receiver import create_app

    class Old:
        def __init__(self) -> None:
            self.store = FolderStore(tmp_path / "store", today=lambda: DAY)

        def put(self, batches):
            return self.store.put(batches)

        def delete(self, deletion):
            return self.store.delete(deletion)

        def expire(self, before):
            return self.store.expire(before)

    url = run_app(create_app(Old(), token=TOKENS["token"]))
    agent = device()
    batch, exemption_id = agent.spool.commit(example_batch), agent.ask()
    result = agent.upload(url)
    assert not result.delivered
    assert "does not know records of that kind" in result.detail
    assert batch.batch_id not in agent.spool.waiting()
    assert (agent.waiting, agent.decisions) == ([exemption_id], [])
    newer = receiver(tmp_path / "store", **TOKENS).url
    assert agent.upload(newer) == ALL_IS_WELL
    store = FolderStore(tmp_path / "store", today=lambda: DAY)
    store.decide(exemption_id, ExemptionState.APPROVED, "", 9)
    agent.upload(newer)
    assert agent.decisions == [(exemption_id, "approved", "")]


def test_two_receivers_on_one_bucket(object_server, receiver, device, monkeypatch):
    for name, value in object_server.environ.items():
        monkeypatch.setenv(name, value)
    bucket = f"s3://{object_server.bucket()}/some/prefix"
    urls = [receiver(bucket, **TOKENS).url for _ in range(2)]
    agent = device()
    exemption_id = agent.ask()
    agent.upload(urls[0])
    seen = json.loads(commands.run("exemptions", bucket, "list", "--json").stdout)
    assert [one["exemption"] for one in seen["exemptions"]] == [exemption_id]
    assert commands.run("exemptions", bucket, "deny", exemption_id, "--note", "No.").returncode == 0
    assert agent.upload(urls[1]) == ALL_IS_WELL
    assert agent.decisions == [(exemption_id, "denied", "No.")]
