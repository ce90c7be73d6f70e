"""What a recorder does when the gate closes, when all is to be forgotten, and what it tells of each batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from recording import batches, recorder, rows
from waiting import until

from mcilib import Focus, Gap, KeyPress, Move, Recorder, SpoolError
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate, Grant
from mcilib.consent.pause import Now, Pause
from mcilib.consent.state import Withdrawal
from mcilib.events import Event
from mcilib.protocols import SealedBatch
from mcilib.testing.fakes import FakeSource, ManualClock, MemorySpool, example_grant

S = 10**9
ALL = ("keys", "pointer", "titles")


class Subject:
    """A recorder whose turns the test takes, its gate and its clock."""

    def __init__(self, grant: Grant | None = None, **options: Any) -> None:
        self.clock = ManualClock(wall_ns=int(datetime.now(UTC).timestamp() * 1e9))
        self.gate = Gate(grant or example_grant(*ALL))
        self.spool = options.pop("spool", None) or MemorySpool()
        self.recorder = Recorder(
            gate=self.gate, spool=self.spool, sources=[FakeSource(), FakeSource("window", "titles")],
            clock=self.clock, **options,
        )  # fmt: skip
        self.recorder._running = self.recorder._taking = True
        self.apply()

    @property
    def now(self) -> Now:
        return Now.by(self.clock, "boot")

    def apply(self, **fields: Any) -> None:
        self.gate.apply(self.now, state=ControlState(**fields))

    def exempt(self, **scope: Any) -> None:
        self.apply(
            exemptions=(Exemption("e" * 32, ExemptScope(**scope), "personal", "", self.clock.wall_ns()),)
        )

    def move(self, x: int, ago_s: float = 0.0) -> Move:
        return Move(self.clock.monotonic_ns() - int(ago_s * 1e9), x, x)

    def key(self, ago_s: float = 0.0) -> KeyPress:
        return KeyPress(self.clock.monotonic_ns() - int(ago_s * 1e9), "letter")

    @property
    def excluded(self) -> int:
        return self.recorder.statistics().excluded


# --- a scope is closed ---------------------------------------------------------------------------------------


def test_settled_nothing_more_from_before_is_taken():
    subject = Subject()
    subject.recorder.emit(subject.key())
    subject.clock.advance(1)
    subject.exempt(scopes=("keys",))
    assert subject.recorder.emit(subject.key(ago_s=0.5))  # told late, until it is settled
    subject.recorder.settle(["key_press"])
    assert not subject.recorder.emit(subject.key(ago_s=0.5))
    assert subject.recorder.emit(subject.move(1))
    assert subject.recorder.emit_all([subject.key(), subject.move(2)]) == 1
    subject.recorder._turn()
    assert subject.recorder._taking
    assert subject.recorder.emit(subject.key(ago_s=0.5))  # and the gate excludes it
    assert subject.recorder.commit()
    assert [event.kind for event in rows(subject.spool)] == ["key_press", "key_press", "move", "move"]
    assert subject.excluded == 3


def test_two_that_settle_at_once_shun_until_both_are_done():
    subject = Subject()
    subject.recorder.settle(["key_press"])
    take = subject.recorder._guarding.take

    def slow(buffer: Any) -> None:
        take(buffer)
        subject.recorder._guarding.take = take  # type: ignore[method-assign]
        subject.recorder.settle(["move"])

    subject.recorder._guarding.take = slow  # type: ignore[method-assign]
    subject.recorder._turn()
    assert not subject.recorder.emit(subject.key())
    assert not subject.recorder.emit(subject.move(1))
    subject.recorder._turn()
    assert subject.recorder.emit(subject.key())


def test_settled_while_it_is_held_it_stays_held_and_the_other_way_round():
    subject = Subject()
    subject.recorder.hold()
    subject.recorder.settle(["key_press"])
    subject.recorder._turn()
    assert not subject.recorder.emit(subject.move(1))
    subject.recorder.settle(["key_press"])
    subject.recorder.release()
    assert not subject.recorder.emit(subject.key())
    assert subject.recorder.emit(subject.move(1))
    subject.recorder._turn()
    assert subject.recorder.emit(subject.key())


def test_a_new_start_shuns_nothing():
    subject = Subject()
    subject.recorder.settle(["key_press"])
    subject.recorder.stop(0)
    subject.recorder.start()
    assert subject.recorder.emit(subject.key())
    subject.recorder.stop()


@pytest.mark.parametrize("what", ["hold", "settle"])
def test_while_the_disk_hangs_nothing_waits_and_nothing_is_taken(what: str) -> None:
    class Hanging(MemorySpool):
        hangs, goes_on = threading.Event(), threading.Event()

        def commit(self, seal: Any, /) -> SealedBatch:
            self.hangs.set()
            assert self.goes_on.wait(20)
            return super().commit(seal)

    spool = Hanging()
    subject = Subject(spool=spool, max_events=1)
    subject.recorder.start()
    try:
        subject.recorder.emit_all([subject.move(1), subject.move(2)])
        subject.recorder._wake.set()
        assert spool.hangs.wait(20)
        began_s = time.monotonic()
        if what == "hold":
            subject.recorder.hold()
        else:
            subject.recorder.settle(["move"])
        assert time.monotonic() - began_s < 10, "the disk hangs for 20 s"
        assert not subject.recorder.emit(subject.move(3))
    finally:
        spool.goes_on.set()
        subject.recorder.stop(5)
    assert [event.x for event in rows(spool) if isinstance(event, Move)] == [1, 2]


def test_what_was_told_before_a_pause_is_kept_and_what_is_told_late_is_not():
    subject = Subject()
    subject.recorder.emit(subject.move(1))
    subject.clock.advance(1)
    subject.apply(pause=Pause(subject.now, 60 * S))
    subject.recorder.hold()
    assert not subject.recorder.emit(subject.move(2, ago_s=0.5))
    subject.clock.advance(60)
    subject.apply()
    subject.recorder.release()
    subject.recorder.emit(subject.move(3, ago_s=30))  # from within the pause, told later still
    subject.recorder.emit(subject.move(4))
    subject.recorder.commit()
    assert [event.x for event in rows(subject.spool) if isinstance(event, Move)] == [1, 4]
    assert subject.excluded == 2
    assert batches(subject.spool)[-1].metadata.coverage.not_collected_ns == 60 * S


# --- programs ------------------------------------------------------------------------------------------------


def test_a_program_that_is_exempt_leaves_nothing_and_costs_a_wait():
    subject = Subject()
    subject.recorder.emit_all([Focus(subject.clock.monotonic_ns(), "editor", "a letter")])
    subject.recorder._turn()
    subject.clock.advance(1)
    assert subject.recorder.guards_programs is False
    subject.exempt(apps=("KeePassXC",))
    assert subject.recorder.guards_programs is True
    subject.clock.advance(1)
    subject.recorder.emit(subject.move(1))
    subject.recorder.commit()
    assert [event.kind for event in rows(subject.spool)] == ["focus"]
    assert subject.recorder._patience_s() == pytest.approx(2.0)
    assert subject.recorder._batcher.open is None
    subject.recorder._turn()
    assert subject.recorder._armed, "it wakes anyway: an event that comes needs no more"
    subject.clock.advance(2)
    subject.recorder._turn()
    subject.recorder.emit_all(
        [Focus(subject.clock.monotonic_ns(), "keepassxc", "passwords"), subject.move(2)]
    )
    subject.clock.advance(2)
    subject.recorder.commit()
    assert [event.x for event in rows(subject.spool) if isinstance(event, Move)] == [1]
    assert subject.recorder._patience_s() is None, "nothing wakes until something is told"
    assert b"passwords" not in repr(rows(subject.spool)).encode()
    assert subject.excluded == 1


@pytest.mark.parametrize("how", ["hold", "stop", "discard"])
def test_what_waits_to_be_known_is_excluded(how: str) -> None:
    subject = Subject()
    subject.recorder.emit(Focus(subject.clock.monotonic_ns(), "editor"))
    subject.exempt(apps=("keepassxc",))
    subject.clock.advance(10)
    subject.recorder.emit(subject.move(1))
    subject.recorder._turn()
    if how == "hold":
        subject.recorder.hold()
        subject.recorder._turn()
    elif how == "stop":
        subject.recorder.stop(0)
        subject.recorder._run()
    else:
        assert subject.recorder.discard() == 2
    assert not any(isinstance(event, Move) for event in rows(subject.spool))
    assert subject.excluded == (2 if how == "discard" else 1)


def test_after_a_hold_it_is_not_known_which_program_is_in_use():
    subject = Subject()
    subject.recorder.emit(Focus(subject.clock.monotonic_ns(), "editor"))
    subject.recorder.hold()
    subject.clock.advance(10)
    subject.recorder.release()
    subject.exempt(apps=("keepassxc",))
    subject.recorder.emit(subject.move(1))
    subject.clock.advance(10)
    subject.recorder.commit()
    assert [event.kind for event in rows(subject.spool)] == ["focus"]


@pytest.mark.parametrize("before", [True, False])
def test_nor_after_who_tells_was_stopped(before: bool) -> None:
    subject = Subject()
    subject.recorder.emit(Focus(subject.clock.monotonic_ns(), "editor"))
    subject.recorder._turn()
    subject.clock.advance(10)
    if before:
        subject.exempt(apps=("keepassxc",))
    subject.recorder.settle(blind=True)
    subject.recorder._turn()
    subject.exempt(apps=("keepassxc",))
    subject.clock.advance(1)
    subject.recorder.emit(subject.move(1))
    subject.clock.advance(10)
    subject.recorder.commit()
    assert [event.kind for event in rows(subject.spool)] == ["focus"]


# --- all is to be forgotten ----------------------------------------------------------------------------------


def test_discard_forgets_all_that_is_in_memory():
    spool = MemorySpool()
    subject = Subject(spool=spool)
    spool.fail_next = 1
    subject.recorder.emit_all([subject.move(1), subject.move(2)])
    assert not subject.recorder.commit()  # waits for the disk
    subject.recorder.emit(subject.move(3))
    subject.recorder.statistics()  # into the open batch
    subject.recorder.emit_all([subject.move(4), Gap(subject.clock.monotonic_ns(), S, "pointer")])
    subject.clock.advance(1)
    subject.gate.restart(subject.now)
    assert subject.recorder.discard() == 5
    assert subject.recorder.discard() == 0
    assert subject.recorder.statistics().open_events == 0
    assert subject.recorder.emit(subject.move(5, ago_s=1))  # told late: the gate excludes it
    subject.recorder.emit(subject.move(3))  # where the pointer was: that is forgotten too
    subject.recorder.commit()
    [batch] = batches(spool)
    assert [event.x for event in batch.events if isinstance(event, Move)] == [3]
    assert batch.metadata.coverage.excluded == subject.excluded == 6
    assert not subject.recorder._buffer


@pytest.mark.parametrize("why", ["withdrawn", "expired"])
def test_closed_it_commits_nothing_and_counts_it(why: str) -> None:
    spool = MemorySpool()
    subject = Subject(example_grant(*ALL, expires_in=timedelta(seconds=3600)), spool=spool)
    spool.fail_next = 1
    subject.recorder.emit(subject.move(1))
    assert not subject.recorder.commit()
    subject.recorder.emit(subject.move(2))
    subject.recorder.statistics()
    if why == "withdrawn":
        grant = subject.gate.grant
        subject.apply(withdrawal=Withdrawal(grant.participant, grant.device, 1, ""))
    else:
        subject.clock.advance(3601)
    assert subject.recorder.commit()
    assert batches(spool) == []
    assert subject.excluded == 2
    assert subject.recorder.statistics().dropped == {}


# --- another grant -------------------------------------------------------------------------------------------


def test_a_batch_is_of_the_grant_under_which_it_was_captured():
    subject = Subject()
    before = subject.gate.grant
    subject.recorder.emit(subject.move(1))
    subject.recorder.statistics()
    after = replace(before, purpose="something else")
    subject.gate.apply(subject.now, grant=after)
    subject.recorder.emit(subject.move(2))
    subject.recorder.commit()
    first, second = batches(subject.spool)
    assert (first.header.grant, second.header.grant) == (before.digest, after.digest)


@pytest.mark.parametrize("where", ["open", "waiting"])
@pytest.mark.parametrize(
    ("event", "kept"),
    [(KeyPress(0, "letter"), False), (Focus(0, "editor", "a letter"), False), (Move(0, 1, 1), True)],
)
def test_what_a_narrower_grant_does_not_cover_is_not_committed(where: str, event: Event, kept: bool) -> None:
    spool = MemorySpool()
    subject = Subject(spool=spool)
    subject.recorder.emit(replace(event, t_ns=subject.clock.monotonic_ns()))
    if where == "waiting":
        spool.fail_next = 1
        subject.recorder.commit()
    else:
        subject.recorder.statistics()
    narrow = replace(subject.gate.grant, scopes=("apps", "pointer"))
    subject.gate.apply(subject.now, grant=narrow)
    assert subject.recorder.commit()
    assert len(rows(spool)) == kept
    assert subject.excluded == (not kept)


# --- what is told of each batch ------------------------------------------------------------------------------


def test_before_a_batch_is_in_the_spool_it_is_told():
    told: list[tuple[str, int, int, int, Collection[str], int]] = []

    def on_batch(batch_id: str, sequence: int, began_ns: int, ended_ns: int, kinds: Collection[str]) -> None:
        told.append((batch_id, sequence, began_ns, ended_ns, kinds, len(spool._batches)))

    spool = MemorySpool()
    subject = Subject(spool=spool, on_batch=on_batch)
    at_ns = subject.clock.monotonic_ns()
    subject.clock.advance(1)
    subject.recorder.emit_all([Move(at_ns, 1, 1), Move(at_ns, 1, 1), KeyPress(at_ns + S, "letter")])
    subject.recorder.statistics()
    subject.clock.advance(5)
    subject.recorder.commit()
    [(batch_id, sequence, began_ns, ended_ns, kinds, waiting)] = told
    assert [batch_id] == spool.waiting()
    assert (sequence, waiting) == (1, 0)
    assert (began_ns, ended_ns) == (at_ns, at_ns + 6 * S)
    assert set(kinds) == {"move", "key_press"}
    subject.recorder.emit(Move(subject.clock.monotonic_ns() + S, 2, 2))  # a clock that is ahead
    subject.recorder.commit()
    assert told[1][2] <= subject.clock.monotonic_ns()
    assert told[1][3] == subject.clock.monotonic_ns() + S


def test_a_batch_that_cannot_be_noted_waits():
    def on_batch(*_: object) -> None:
        if fails:
            raise SpoolError("The journal cannot be written", "Free some space.")

    subject, fails = Subject(on_batch=on_batch), True
    subject.recorder.emit(subject.move(1))
    assert not subject.recorder.commit()
    assert batches(subject.spool) == []
    assert "journal" in subject.recorder.health().problems[0].message
    fails = False
    assert subject.recorder.commit()
    assert len(batches(subject.spool)) == 1


def test_each_batch_has_the_head_of_the_audit_log():
    heads = iter(["", "0a" * 32])
    subject = Subject(audit_head=lambda: next(heads))
    for x in (1, 2):
        subject.recorder.emit(subject.move(x))
        subject.recorder.commit()
    assert [batch.metadata.audit for batch in batches(subject.spool)] == ["", "0a" * 32]


def test_with_a_thread_a_closed_scope_is_settled_at_once():
    subject, _ = recorder()
    subject.settle(["move"])
    until(lambda: subject._taking)
    subject.stop()
