"""Forgetting, narrowing and withdrawing: whole batches go from here, and the receiver is asked for what it may have."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from deciding import Place

from mcilib import limits
from mcilib.consent import ExemptScope, Grant
from mcilib.delivery import control
from mcilib.errors import ConfigError, GrantError, SpoolError
from mcilib.participant import Participant
from mcilib.protocols import Fate
from mcilib.testing.fakes import example_grant

YEAR_S = 365 * 86_400.0


def asked(place: Place) -> list[str]:
    """Of which batches the receiver is asked to delete them, oldest request first."""
    requests = [control.parse(record.data) for record in place.spool.controls()]
    return [
        batch_id for one in requests if one["kind"] == "delete" for batch_id in one.get("batches", ["all"])
    ]


# --- forget -------------------------------------------------------------------------------------------------


def test_whole_batches_that_touch_the_time_go_here_and_are_asked_for(place):
    old, touched, new = (place.batch() for _ in range(3))  # 60 s each
    delivered = place.batch()
    place.spool.settle(delivered, Fate.DELIVERED)
    gone = place.participant.forget(121)  # a second of the second one
    assert (gone.batches, gone.asked) == (2, 1)
    assert place.waiting == [old]
    assert asked(place) == [touched, new, delivered]
    (entry,) = place.participant.audit.entries()
    assert dict(entry.facts) == {"batches": 2, "asked": 1, "last_s": 121}


def test_one_that_ended_before_stays(place):
    before = place.batch()
    place.clock.advance(100)
    assert place.participant.forget(99).batches == 0
    assert place.waiting == [before]
    assert not asked(place)
    assert place.participant.forget(101).batches == 1


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S])
def test_within_a_boot_no_step_of_the_clock_hides_a_batch(place, step_s):
    place.batch()
    place.clock.step_wall(step_s)
    place.clock.advance(30)
    place.again()
    assert place.participant.forget(60).batches == 1


def test_time_asleep_counts(place):
    place.batch()
    place.clock.suspend(3_600)
    assert place.participant.forget(3_599).batches == 0
    assert place.participant.forget(3_601).batches == 1


def test_after_another_boot_the_wall_clock_counts(place):
    place.batch()
    place.clock.advance(600)
    place.next_boot()
    assert place.participant.forget(599).batches == 0
    place.clock.step_wall(-YEAR_S)  # it seems to be still to come
    assert place.participant.forget(60).batches == 1


def test_a_clock_that_is_put_right_while_it_runs_hides_nothing_of_the_boot_before(place):
    place.batch()
    place.next_boot()
    place.clock.step_wall(YEAR_S)
    place.clock.advance(10)
    assert place.participant.forget(60).batches == 1


def test_what_is_not_in_the_journal_counts_as_touched(place):
    unknown = place.batch(journaled=False)
    place.clock.advance(3_600)
    known = place.batch()
    place.clock.advance(3_600)
    assert place.participant.forget(60).batches == 1
    assert place.waiting == [known]
    assert asked(place) == [unknown]


def test_what_is_kept_for_a_look_goes_too(place):
    batch_id = place.batch()
    place.spool.settle(batch_id, Fate.REJECTED)
    assert list((place.folder / "spool" / "bad").iterdir())
    place.participant.forget(60)
    assert not list((place.folder / "spool" / "bad").iterdir())


def test_it_is_not_asked_for_twice(place):
    place.batch()
    assert place.participant.forget(600).asked == 1
    assert place.participant.forget(600).asked == 0
    place.again()
    assert place.participant.forget(600).asked == 0


def test_many_are_asked_for_in_as_many_records_as_it_takes(place):
    made = [place.batch(lasts_s=0.001) for _ in range(limits.DELETE_IDS_MAX + 1)]
    gone = place.participant.forget(60)
    assert (gone.batches, gone.asked) == (len(made), 2)
    assert asked(place) == made
    assert not place.participant.journal.unfinished()


@pytest.mark.parametrize("last_s", [0, -1, limits.FORGET_CAP_S + 1, float("nan")])
def test_what_is_no_time_is_refused(place, last_s):
    place.batch()
    with pytest.raises(ConfigError, match="cannot be forgotten"):
        place.participant.forget(last_s)
    assert place.waiting


def test_a_journal_that_cannot_be_read_forgets_all_that_is_here_and_says_so(place):
    place.batch()
    path = place.folder / "batches.jsonl"
    path.rename(place.folder / "elsewhere")
    path.mkdir()
    with pytest.raises(SpoolError, match="journal"):
        place.participant.forget(1)
    assert not place.waiting
    assert asked(place)


def test_without_a_grant_it_goes_here_and_the_receiver_is_asked_later(place):
    batch_id = place.batch(journaled=False)  # else it is known whose it is
    (place.folder / "grant.json").rename(place.folder / "kept")
    place.again()
    with pytest.raises(GrantError, match="no grant to ask"):
        place.participant.forget(60)
    assert not place.waiting
    (place.folder / "kept").rename(place.folder / "grant.json")
    place.again()
    assert asked(place) == [batch_id]


# --- a narrower grant ---------------------------------------------------------------------------------------


def test_each_whole_batch_outside_goes(place):
    inside = place.batch("pointer")
    mixed = place.batch("pointer", "keys")
    delivered = place.batch("keys")
    place.spool.settle(delivered, Fate.DELIVERED)
    gone = place.participant.narrow(place.grant, example_grant("pointer", earlier=place.grant))
    assert (gone.batches, gone.asked) == (1, 1)
    assert place.waiting == [inside]
    assert asked(place) == [mixed, delivered]


@pytest.mark.parametrize(
    ("scopes", "new", "goes"),
    [
        (("apps", "titles"), ("apps",), True),
        (("apps",), ("titles",), False),  # who may have titles may have their programs
        (("titles",), ("apps",), True),
        (("apps",), ("pointer",), True),
        ((), ("pointer",), False),
    ],
)
def test_titles_cover_programs(place, scopes, new, goes):
    def seal_nothing(*_: object) -> None: ...

    place.batch(*(scopes or ("pointer",)))
    old = example_grant("apps", "titles", "pointer", earlier=place.grant)
    place.participant.narrow(old, example_grant(*new, earlier=place.grant))
    assert bool(place.waiting) is not goes


def test_a_wider_one_or_other_words_take_nothing(place):
    place.batch(journaled=False)
    wider = example_grant("pointer", "keys", "titles", "apps", earlier=place.grant)
    assert place.participant.narrow(place.grant, wider).batches == 0
    assert place.participant.narrow(place.grant, replace(place.grant, purpose="another")).asked == 0
    assert place.waiting


# --- withdrawal ---------------------------------------------------------------------------------------------


def withdraw(place: Place) -> Participant:
    place.participant.withdraw(place.grant.participant, place.grant.device)
    return place.participant


def left(place: Place) -> str:
    """All that lies in the folder, in one text."""
    return " ".join(
        [
            path.name + path.read_bytes().decode("latin-1")
            for path in sorted(place.folder.rglob("*"))
            if path.is_file()
        ]
    )


def test_what_is_left_is_the_pseudonym_the_request_and_the_audit_log(place):
    place.participant.request_exemption(ExemptScope(apps=("keepassxc",)), "personal", "my passwords", None)
    place.participant.pause(60)
    waiting, refused = place.batch(), place.batch()
    place.spool.settle(refused, Fate.REJECTED)
    gone = place.participant.withdraw(place.grant.participant, place.grant.device)
    assert (gone.batches, gone.asked) == (1, 1)
    assert not place.waiting
    (record,) = place.spool.controls()
    content = control.parse(record.data)
    assert (content["kind"], content["participant"], content["device"]) == (
        "delete", place.grant.participant, place.grant.device
    )  # fmt: skip
    assert "batches" not in content
    assert place.participant.state.withdrawal.record_id == record.record_id
    assert sorted(path.name for path in place.folder.iterdir()) == ["audit.jsonl", "controls.json", "spool"]
    for gone_too in (waiting, refused, "keepassxc", "my passwords", place.grant.policy[:40]):
        assert gone_too not in left(place)


def test_after_the_receiver_has_confirmed_its_hash_is_left(place):
    participant = withdraw(place)
    assert participant.barred().all.code == "withdrawn"
    record_id = participant.state.withdrawal.record_id
    participant.confirm("f" * 32)  # another deletion
    assert participant.barred().all.code == "withdrawn"
    participant.confirm(record_id)
    place.spool.settle_control(record_id)
    participant.confirm(record_id)  # told again after a crash
    digest = hashlib.sha256(place.grant.participant.encode()).hexdigest()
    participant = place.again()
    assert participant.state.withdrawn == (digest,)
    assert participant.state.withdrawal.confirmed_ns is not None
    assert place.grant.participant not in left(place)
    assert participant.is_withdrawn(place.grant.participant)
    assert not participant.is_withdrawn("f" * 32)
    assert not place.spool.controls()


def test_a_grant_that_was_withdrawn_is_void_and_one_with_another_pseudonym_begins_anew(place):
    withdraw(place)
    place.grant.save(place.folder)  # put back from a backup
    assert place.again().is_withdrawn(place.grant.participant)
    assert not (place.folder / "grant.json").exists()
    new = example_grant("pointer")
    new.save(place.folder)
    participant = place.again()
    assert participant.barred().all is None
    assert not participant.is_withdrawn(new.participant)
    assert participant.is_withdrawn(place.grant.participant)
    assert Grant.load(place.folder) == new
    place.grant = new
    place.batch()
    participant = place.again()
    assert place.waiting, "the old withdrawal has nothing to do with it"
    record_id = participant.state.withdrawal.record_id
    assert [record.record_id for record in place.spool.controls()] == [record_id]
    participant.confirm(record_id)
    assert participant.state.withdrawal.confirmed_ns is not None
    withdraw(place)
    assert len(place.participant.state.withdrawn) == 1
    assert place.participant.state.pending_withdrawal == new.participant


def test_a_request_that_was_lost_is_made_again(place):
    participant = withdraw(place)
    place.spool.settle_control(participant.state.withdrawal.record_id)
    participant = place.again()
    (record,) = place.spool.controls()
    assert participant.state.withdrawal.record_id == record.record_id
    participant.confirm(record.record_id)
    place.spool.settle_control(record.record_id)
    place.again()
    assert not place.spool.controls()


def test_another_participants_grant_stays_and_one_that_cannot_be_read_goes(place):
    other = example_grant()
    other.save(place.folder)
    withdraw(place)
    assert Grant.load(place.folder) == other
    (place.folder / "grant.json").write_bytes(b'{"participant": "' + place.grant.participant.encode())
    place.participant.withdraw(place.grant.participant, place.grant.device)
    assert not (place.folder / "grant.json").exists()


def test_twice_it_is_one(place):
    withdraw(place)
    first = place.participant.state
    withdraw(place)
    assert place.participant.state == first
    assert len(place.spool.controls()) == 1


def test_all_that_can_be_done_is_done_when_a_step_fails(place, monkeypatch):
    """A disk that refuses one file and takes the others is not to be had here."""
    place.batch()
    monkeypatch.setattr(place.spool, "purge", lambda *_: (_ for _ in ()).throw(SpoolError("no", "none")))
    with pytest.raises(SpoolError, match="no"):
        withdraw(place)
    assert asked(place) == ["all"]
    assert not (place.folder / "grant.json").exists()
    assert place.participant.barred().all.code == "withdrawn"
    place.again()
    assert not place.waiting


def test_the_request_is_never_evicted(place):
    withdraw(place)
    for _ in range(50):
        place.batch()
    place.spool.purge()
    assert asked(place) == ["all"]


def test_the_id_of_the_device_goes_with_the_pseudonym(place):
    """It is in each batch too: who finds the folder could tell whose the operator's copies are."""
    participant = withdraw(place)
    record_id = participant.state.withdrawal.record_id
    assert place.grant.device in left(place)
    participant.confirm(record_id)
    place.spool.settle_control(record_id)
    assert place.again().state.withdrawal.device == ""
    assert place.grant.device not in left(place)
