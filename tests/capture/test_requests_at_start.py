"""A start that a grant does not allow sends what the participant has asked of the receiver, and says so all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Background
from running import Run, rows

from mcilib import GrantError, HttpTransport, Reader, limits
from mcilib.consent import Grant
from mcilib.consent.exemption import ExemptionState, ExemptScope
from mcilib.delivery import control
from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import ControlRecord, Outcome, Reply
from mcilib.testing.fakes import FakeTransport, example_grant

DAY_S = 86_400.0


def offline() -> FakeTransport:
    return FakeTransport([Outcome.RETRY] * 100)


class Place:
    """A state folder in which a grant has expired, a batch waits, and the receiver was asked to delete another one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.grant = folder, example_grant(expires_in=timedelta(days=1))
        with Run(folder, grant=self.grant, transport=offline()) as run:
            run.move(1)
            run.collector.commit()
            run.collector.forget(600)
            run.clock.advance(1)
            run.move(2)
            self.clock = run.clock
        self.clock.advance(2 * DAY_S)

    def run(self, **options: Any) -> Run:
        options.setdefault("grant", self.grant)
        return Run(self.folder, clock=self.clock, **options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def refused(run: Run, match: str = "expired") -> None:
    """And nothing is left running, nor was anything begun."""
    before = set(threading.enumerate())
    with pytest.raises(GrantError, match=match):
        run.collector.start()
    assert set(threading.enumerate()) <= before
    assert not run.move(3)
    assert run.indicator.kinds == []
    assert not run.collector.statistics().running
    assert rows(run.folder) == [2]


def test_it_is_sent_and_nothing_else(place: Place) -> None:
    run = place.run()
    refused(run)
    [record] = run.transport.controls.values()
    assert control.parse(record.data)["kind"] == "delete"
    assert run.transport.received == {}
    assert run.transport.closed == 1
    again = place.run()
    refused(again)
    assert again.transport.requests == [], "once"
    with place.run(grant=example_grant(earlier=place.grant)) as renewed:
        assert renewed.move(4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"grant": None}, "no grant"),
        ({"policy": "another"}, "policy has changed"),
        ({"grant": example_grant("keys")}, "covers keys"),
    ],
)
def test_whatever_is_wrong_with_the_grant(place: Place, options: dict[str, Any], match: str) -> None:
    run = place.run(**options)
    refused(run, match)
    assert len(run.transport.controls) == 1
    assert run.transport.received == {}


def test_data_is_not_sent_whatever_the_hold_and_the_age(place: Place) -> None:
    place.clock.advance(10 * DAY_S)
    run = place.run(hold_s=0.0, fallback_age_s=0.0)
    refused(run)
    assert len(run.transport.controls) == 1
    assert run.transport.received == {}


def test_nobody_is_asked_when_nothing_waits(tmp_path: Path) -> None:
    grant = example_grant(expires_in=timedelta(seconds=1))
    run = Run(tmp_path / "state", grant=grant)
    run.clock.advance(2)
    with pytest.raises(GrantError, match="expired"):
        run.collector.start()
    assert not (tmp_path / "state").exists(), "nothing is made either"
    assert run.transport.requests == []
    assert run.transport.closed == 0


def test_without_a_transport(place: Place) -> None:
    refused(place.run(transport=None))


def test_an_exemption_that_was_asked_for(tmp_path: Path) -> None:
    grant = example_grant(expires_in=timedelta(days=1))
    with Run(tmp_path, grant=grant, transport=offline()) as run:
        exemption = run.collector.request_exemption(ExemptScope(everything=True), "personal").exemption_id
    run.clock.advance(2 * DAY_S)
    again = Run(tmp_path, grant=grant, clock=run.clock)
    again.transport.decisions[exemption] = "denied"
    with pytest.raises(GrantError, match="expired"):
        again.collector.start()
    assert [change.what for change in again.changes] == ["decided"]
    with Run(tmp_path, grant=example_grant(earlier=grant), clock=run.clock) as renewed:
        assert renewed.collector.decisions.exemptions[0].state is ExemptionState.DENIED
        assert renewed.collector.held is None


def test_a_request_that_a_crash_cut_off_or_the_disk_has_damaged(place: Place) -> None:
    for file in (place.folder / "spool" / "control").iterdir():
        file.write_bytes(b"")
    run = place.run()
    refused(run)
    assert len(run.transport.controls) == 1


def test_a_receiver_that_cannot_be_reached_is_asked_at_the_next_start(place: Place) -> None:
    refused(place.run(transport=offline()))
    run = place.run()
    refused(run)
    assert len(run.transport.controls) == 1


def test_one_that_does_not_answer_holds_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(FakeTransport):
        asked, ends = threading.Event(), threading.Event()

        def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
            self.asked.set()
            self.ends.wait(20)
            return super().send_control(records)

    monkeypatch.setattr(limits, "REQUESTS_TIMEOUT_S", 0.1)
    transport = Silent()
    run = place.run(transport=transport)
    began_s = time.monotonic()
    try:
        with pytest.raises(GrantError, match="expired"):
            run.collector.start()
        assert time.monotonic() - began_s < 10, "of the 20 that it would take"
        assert transport.asked.is_set()
        assert transport.closed == 1
    finally:
        transport.ends.set()


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: folder.chmod(0o755),
        lambda folder: (folder / "audit.jsonl").rename(folder / "x") and (folder / "audit.jsonl").mkdir(),
    ],
    ids=["open to all", "no audit log"],
)
def test_a_folder_that_cannot_be_used_changes_nothing_in_what_is_said(
    place: Place, harm: Callable[[Path], object]
) -> None:
    harm(place.folder)
    run = place.run()
    refused(run)
    assert run.transport.requests == []


def test_whoever_has_the_folder_sends(place: Place) -> None:
    with DirectorySpool(place.folder / "spool"):
        run = place.run()
        refused(run)
        assert run.transport.requests == []
    refused(run)
    assert len(run.transport.controls) == 1


def test_a_real_receiver_deletes(tmp_path: Path) -> None:
    """Its batch was delivered; it was forgotten while the receiver was away; the grant has expired since."""
    store, grant = tmp_path / "store", example_grant(expires_in=timedelta(days=1))

    def batches() -> list[str]:
        found = Reader(store).batches()
        return [batch.header.batch_id for batch in found if batch.header.participant == grant.participant]

    command = Background("receive", store, "--port", "0")
    try:
        url = command.line("Receiving at").split()[2]
        with Run(tmp_path / "state", grant=grant, transport=HttpTransport(url)) as run:
            run.move(1)
            assert run.collector.flush().delivered
        assert len(batches()) == 1
        with Run(tmp_path / "state", grant=grant, transport=offline(), clock=run.clock) as run:
            run.collector.forget(600)
        assert len(batches()) == 1
        run.clock.advance(2 * DAY_S)
        again = Run(tmp_path / "state", grant=grant, transport=HttpTransport(url), clock=run.clock)
        with pytest.raises(GrantError, match="expired"):
            again.collector.start()
        assert batches() == []
    finally:
        command.end()


@pytest.mark.as_shipped
def test_the_one_that_is_told_to_end_meanwhile_ends(place: Place) -> None:
    """`stop` does not wait longer than it may, and nothing goes on after it."""

    class Stopping(FakeTransport):
        def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
            began_s = time.monotonic()
            run.collector.stop()
            self.took_s = time.monotonic() - began_s
            return super().send_control(records)

    run = place.run(transport=Stopping())
    refused(run)
    assert run.transport.took_s < limits.STOP_TIMEOUT_S + 1
    assert isinstance(run.collector._grant, Grant)
