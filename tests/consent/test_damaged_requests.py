"""A request to delete that the disk has damaged is made again, until the receiver has confirmed it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from deciding import Place

from mcilib.consent import Gate
from mcilib.consent.journal import BatchJournal
from mcilib.consent.pause import Now
from mcilib.delivery import control
from mcilib.delivery.uploader import Uploader
from mcilib.errors import SpoolError
from mcilib.protocols import Fate
from mcilib.testing.fakes import FakeTransport, example_grant


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x80
    file.write_bytes(data)


HARM: dict[str, Callable[[Path], object]] = {
    "a byte": flip,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
}
harmed = pytest.mark.parametrize("harm", HARM.values(), ids=HARM)


def files(place: Place) -> list[Path]:
    return sorted((place.folder / "spool" / "control").iterdir())


def asked(place: Place) -> list[tuple[str, list[str]]]:
    """Under which pseudonym, and for which batches."""
    requests = [control.parse(record.data) for record in place.spool.controls()]
    return [(one["participant"], one.get("batches", ["all"])) for one in requests]


def confirm(place: Place) -> None:
    """As the uploader does."""
    for record in place.spool.controls():
        place.participant.confirm(record.record_id)
        place.spool.settle_control(record.record_id)


@harmed
def test_at_the_next_start(place: Place, harm: Callable[[Path], object]) -> None:
    batch_ids = [place.batch(), place.batch()]
    place.participant.forget(600)
    [file] = files(place)
    place.close()
    harm(file)
    place.open()
    assert asked(place) == [(place.grant.participant, batch_ids)]
    place.again()
    assert len(asked(place)) == 1, "once"
    confirm(place)
    place.again()
    assert asked(place) == [], "and not after it is confirmed"


@harmed
def test_while_it_runs_before_the_next_upload(place: Place, harm: Callable[[Path], object]) -> None:
    """Whoever finds it: the uploader does."""
    forgotten = place.batch()
    transport = FakeTransport()
    place.participant.forget(600)
    harm(files(place)[0])
    sent = place.batch()
    gate = Gate(place.grant)
    uploader = Uploader(
        place.spool, transport, may_send=lambda: place.participant.may_send(gate),
        on_carried_out=place.participant.confirm, clock=place.clock,
    )  # fmt: skip
    uploader.flush(5)
    uploader.flush(5)
    assert list(transport.received) == [sent]
    [record] = transport.controls.values()
    assert control.parse(record.data)["batches"] == [forgotten]
    place.again()
    assert asked(place) == []


def test_only_what_is_damaged(place: Place) -> None:
    first = place.batch()
    place.participant.forget(600)
    second = place.batch()
    place.participant.forget(600)
    place.close()
    flip(files(place)[0])
    place.open()
    assert sorted(ids for _, ids in asked(place)) == [[first], [second]]


def test_one_that_the_disk_does_not_take_is_made_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses one file and takes the others is not to be had here."""
    forgotten = place.batch()
    place.participant.forget(600)
    flip(files(place)[0])
    with monkeypatch.context() as refusing:
        refusing.setattr(
            place.spool, "commit_control", lambda _: (_ for _ in ()).throw(SpoolError("no", "none"))
        )
        assert place.participant.may_send(Gate(place.grant)) is None
        assert asked(place) == []
    assert place.participant.may_send(Gate(place.grant)) is None
    assert asked(place) == [(place.grant.participant, [forgotten])]


def test_who_deletes_meanwhile_is_not_waited_for(place: Place) -> None:
    place.batch()
    place.participant.forget(600)
    flip(files(place)[0])
    held, done = threading.Event(), threading.Event()

    def deletes() -> None:
        with place.participant._erasure.lock:
            held.set()
            assert done.wait(20)

    thread = threading.Thread(target=deletes)
    thread.start()
    assert held.wait(5)
    assert place.participant.may_send(Gate(place.grant)) is None
    done.set()
    thread.join()
    assert asked(place) == []
    place.participant.may_send(Gate(place.grant))
    assert len(asked(place)) == 1


def test_it_is_known_when_it_is_confirmed_that_the_record_was_asked_with(place: Place) -> None:
    """A receipt that comes while the request is being noted waits for that."""
    place.batch()
    place.participant.forget(600)
    assert place.participant.journal.awaited == {record.record_id for record in place.spool.controls()}
    confirm(place)
    assert place.participant.journal.awaited == frozenset()
    place.again()
    assert place.participant.journal.awaited == frozenset()


# --- a withdrawal ----------------------------------------------------------------------------------------------


@harmed
@pytest.mark.parametrize("new_grant", [False, True])
def test_that_of_a_withdrawal(place: Place, harm: Callable[[Path], object], new_grant: bool) -> None:
    place.batch()
    participant = place.grant.participant
    place.participant.withdraw(participant, place.grant.device)
    if new_grant:
        place.grant = example_grant("pointer")
        place.grant.save(place.folder)
        place.again()
        assert place.participant.barred().all is None
    [file] = files(place)
    place.close()
    harm(file)
    place.open()
    assert asked(place) == [(participant, ["all"])]
    [record] = place.spool.controls()
    assert place.participant.state.withdrawal is not None
    assert place.participant.state.withdrawal.record_id == record.record_id
    confirm(place)
    place.again()
    assert place.participant.state.withdrawal.confirmed_ns is not None
    assert asked(place) == []
    left = [path for path in place.folder.rglob("*.json*") if participant.encode() in path.read_bytes()]
    assert [path for path in left if not new_grant or path.parent.name != "bad"] == []  # there, for a day


def test_that_of_a_withdrawal_while_another_grant_is_collected_under(place: Place) -> None:
    participant = place.grant.participant
    place.participant.withdraw(participant, place.grant.device)
    place.grant = example_grant("pointer")
    place.grant.save(place.folder)
    place.again()
    flip(files(place)[0])
    place.participant.may_send(Gate(place.grant))
    assert asked(place) == [(participant, ["all"])]


@harmed
def test_a_withdrawal_takes_no_request_of_another_participant(
    place: Place, harm: Callable[[Path], object]
) -> None:
    """Data of a grant before, which was forgotten under its pseudonym."""
    first, old = place.grant, place.batch()
    place.spool.settle(old, Fate.DELIVERED)
    place.grant = example_grant("pointer")
    place.grant.save(place.folder)
    place.again()
    place.participant.forget(600)
    place.participant.withdraw(place.grant.participant, place.grant.device)
    [file] = [file for file in files(place) if first.participant.encode() in file.read_bytes()]
    place.close()
    harm(file)
    place.open()
    assert sorted(asked(place)) == sorted([(first.participant, [old]), (place.grant.participant, ["all"])])
    confirm(place)
    place.participant.withdraw(place.grant.participant, place.grant.device)
    assert not (place.folder / "batches.jsonl").exists()


# --- the journal -----------------------------------------------------------------------------------------------


def test_what_is_not_confirmed_is_kept_within_bounds(tmp_path: Path) -> None:
    journal = BatchJournal(tmp_path / "batches.jsonl", max_bytes=8_000)
    now = Now(10**12, 0, 10**18, "b0")
    journal.open(now)
    journal.intend(["never asked"], participant="p")
    for n in range(200):
        journal.intend([f"{n:032x}"], participant="p")
        journal.asked([f"{n:032x}"], f"record {n}")
        journal.record(f"batch {n}", 1, now, now, (), example_grant())
        assert journal.path.stat().st_size <= 8_800
    kept = [ids for ids, who in journal.unfinished(()) if who == {"participant": "p"}]
    assert kept[0] == ["never asked"]
    assert kept[-1] == [f"{199:032x}"]
    assert len(kept) > 5
    assert journal.unfinished([f"record {n}" for n in range(200)]) == [
        (["never asked"], {"participant": "p"})
    ]
    again = BatchJournal(journal.path)
    again.open(now)
    assert again.unfinished(()) == journal.unfinished(())
    assert f"record {199}" in again.awaited


def test_of_a_version_before_nothing_is_asked_again(place: Place) -> None:
    """It did not write down with which record it asked, nor that it was confirmed."""
    place.close()
    with open(place.folder / "batches.jsonl", "ab") as file:
        ids = f'["{"a" * 32}"]'.encode()
        file.write(
            b'{"delete":%b,"participant":"%b","device":"%b"}\n{"asked":%b}\n'
            % (ids, b"c" * 32, b"d" * 32, ids)
        )
    place.open()
    assert asked(place) == []
