"""After what is in memory was lost, displays, layout and program in use are told again: what comes then has a meaning."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from recording import batches, rows

from mcilib import Focus, Gap, KeyPress, Move, Recorder
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate
from mcilib.consent.pause import Now
from mcilib.events import Display, Event, Layout
from mcilib.policy.plan import Motion, Plan
from mcilib.testing.fakes import FakeSource, ManualClock, MemorySpool, example_grant

VAULT = ExemptScope(apps=("Vault",))


class Subject:
    """A recorder whose turns the test takes, on a machine with two displays and an editor in use."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(wall_ns=int(datetime.now(UTC).timestamp() * 1e9))
        self.gate, self.spool = Gate(example_grant("keys", "pointer", "titles")), MemorySpool()
        self.recorder = Recorder(
            gate=self.gate, spool=self.spool, sources=[FakeSource(), FakeSource("window", "titles")],
            clock=self.clock, **options,
        )  # fmt: skip
        self.recorder._running = self.recorder._taking = True
        self.apply()
        self.tell(
            self.display(0), self.display(1), Layout(0, "us"), Focus(0, "editor", "a letter", 1, 2, 3, 4)
        )
        self.tell(self.move(1))

    def display(self, number: int, width: int = 800) -> Display:
        return Display(0, number, 0, 0, width, 600)

    def move(self, x: int) -> Move:
        return Move(0, x, x)

    def key(self) -> KeyPress:
        return KeyPress(0, "letter")

    def apply(self, *exempt: ExemptScope) -> None:
        made = tuple(
            Exemption(f"{n}" * 32, scope, "personal", "", self.clock.wall_ns())
            for n, scope in enumerate(exempt, 1)
        )
        self.gate.apply(Now.by(self.clock, "boot"), state=ControlState(exemptions=made))

    def emit(self, *events: Event, ago_s: float = 0.0) -> None:
        for event in events:
            self.recorder.emit(replace(event, t_ns=self.clock.monotonic_ns() - int(ago_s * 1e9)))

    def tell(self, *events: Event, ago_s: float = 0.0) -> None:
        self.emit(*events, ago_s=ago_s)
        self.recorder._turn()
        self.clock.advance(0.01)

    def forget(self) -> None:
        self.clock.advance(0.5)
        self.gate.restart(Now.by(self.clock, "boot"))
        self.recorder.discard()
        self.spool.purge()
        self.clock.advance(0.5)

    def batches(self) -> list[list[Event]]:
        """The events of each, without their times."""
        self.recorder.commit()
        return [[replace(event, t_ns=0) for event in batch.events] for batch in batches(self.spool)]

    @property
    def now(self) -> list[Event]:
        """How things are."""
        return [self.display(0), self.display(1), Layout(0, "us"), Focus(0, "editor", None, 1, 2, 3, 4)]


def test_before_the_next_input_and_once():
    subject = Subject()
    subject.forget()
    subject.tell(subject.move(2), subject.key())
    assert subject.batches() == [[*subject.now, subject.move(2), subject.key()]]
    assert len({event.t_ns for event in rows(subject.spool)[:5]}) == 1, "at the time of that input"
    subject.tell(subject.move(3))
    assert subject.batches()[1:] == [[subject.move(3)]]
    subject.forget()
    subject.forget()
    subject.tell(subject.key())
    assert subject.batches() == [[*subject.now, subject.key()]]


def test_nothing_is_told_again_without_input():
    subject = Subject()
    subject.forget()
    subject.tell(Gap(0, 5, "pointer"))
    assert subject.batches() == [[Gap(0, 5, "pointer")]]
    subject.tell(subject.move(2))
    assert subject.batches()[1:] == [[*subject.now, subject.move(2)]]


def test_a_title_is_neither_told_again_nor_kept():
    subject = Subject()
    subject.forget()
    assert "a letter" not in repr([subject.recorder._batcher._known, subject.recorder._batcher._untold])
    subject.emit(Focus(0, "editor", "another letter", 1, 2, 3, 4))
    subject.forget()
    assert "letter" not in repr([subject.recorder._batcher._known, subject.recorder._batcher._untold])


def test_a_source_that_tells_anew_is_not_told_again():
    subject = Subject()
    subject.forget()
    subject.tell(subject.display(1, 1024), Layout(0, "de"), Focus(0, "browser"))
    subject.tell(subject.move(2), subject.key())
    [batch] = subject.batches()
    assert sorted(map(repr, batch)) == sorted(
        map(
            repr,
            [subject.display(1, 1024), Layout(0, "de"), Focus(0, "browser"), subject.display(0), subject.move(2), subject.key()],
        )
    )  # fmt: skip


@pytest.mark.parametrize("waits", ["in the buffer", "with a batch that waits for the disk"])
def test_what_nobody_had_looked_at_is_told_again_too(waits: str) -> None:
    subject = Subject()
    new = (subject.display(1, 1024), Layout(0, "de"), Focus(0, "browser"))
    if waits == "in the buffer":
        subject.emit(*new)
    else:
        subject.tell(*new, subject.move(9))
        subject.spool.fail_next = 1
        assert not subject.recorder.commit()
    subject.forget()
    subject.tell(subject.move(2))
    assert subject.batches() == [[subject.display(0), *new, subject.move(2)]]


def test_told_late_it_is_true_still():
    subject = Subject()
    subject.forget()
    subject.tell(Layout(0, "de"), ago_s=0.8)  # from before
    subject.tell(subject.key())
    assert Layout(0, "de") in subject.batches()[0]
    assert subject.recorder.statistics().excluded == 6


@pytest.mark.parametrize(
    ("exempt", "left"),
    [
        ("keys", "display focus move"),
        ("apps", "display layout move"),
        ("titles", "display focus layout move"),
    ],
)
def test_what_is_closed_is_not(exempt: str, left: str) -> None:
    subject = Subject()
    subject.apply(ExemptScope(scopes=(exempt,)))
    subject.gate.shut()
    subject.forget()
    subject.tell(subject.move(2))
    [batch] = subject.batches()
    assert " ".join(sorted({event.kind for event in batch})) == left
    subject.apply()
    subject.tell(subject.move(3))
    assert subject.batches()[1:] == [[subject.move(3)]], "when it is open again, who hears it tells"


def test_nor_a_program_of_which_nobody_knows_whether_it_is_in_use_still():
    subject = Subject()
    subject.forget()
    subject.recorder.settle(blind=True)
    subject.tell()
    subject.tell(subject.move(2))
    assert subject.batches() == [[*subject.now[:3], subject.move(2)]]


def test_nor_what_was_so_before_a_new_start():
    subject = Subject()
    subject.recorder._batcher.lose_open()
    subject.recorder._batcher.begin_run()
    subject.tell(subject.move(2))
    assert subject.batches() == [[subject.move(2)]]


def test_where_moves_are_thinned():
    subject = Subject()
    subject.recorder.adopt(Plan(motion=Motion.THINNED, tolerance_px=2))
    subject.tell(*map(subject.move, range(10)))
    subject.forget()
    subject.tell(*map(subject.move, range(10)))
    subject.tell(Layout(0, "de"), ago_s=0.8)  # from before, in the midst of a batch
    subject.tell(*map(subject.move, range(10)))
    first, second = subject.batches()
    assert first[:4] == subject.now
    assert second[0] == Layout(0, "de")


def test_where_a_batch_has_no_room_for_it():
    subject = Subject(max_events=1)
    subject.forget()
    subject.tell(subject.move(2))
    assert subject.batches() == [[event] for event in [*subject.now, subject.move(2)]]


# --- while programs are exempt ---------------------------------------------------------------------------------


def test_a_program_that_is_exempt_stays_hidden_when_its_telling_is_lost():
    """It came into use, was told, and before anybody looked all was forgotten."""
    subject = Subject()
    subject.apply(VAULT)
    subject.clock.advance(5)
    subject.tell(subject.move(2))
    subject.clock.advance(5)
    subject.emit(Focus(0, "Vault", "secrets"))
    subject.forget()
    subject.clock.advance(5)
    subject.tell(subject.move(3), subject.key())
    subject.clock.advance(5)
    subject.tell()
    assert subject.batches() == []
    subject.tell(Focus(0, "browser"))
    subject.clock.advance(1)
    subject.tell(subject.move(4))
    subject.clock.advance(5)
    subject.tell()
    [batch] = subject.batches()
    assert sorted(event.kind for event in batch) == ["display", "display", "focus", "layout", "move"]
    assert [event.app for event in batch if isinstance(event, Focus)] == ["browser"]


def test_also_when_it_becomes_exempt_later():
    subject = Subject()
    subject.emit(Focus(0, "Vault", "secrets"))
    subject.forget()
    subject.apply(VAULT)
    subject.clock.advance(5)
    subject.tell(subject.move(3), subject.key())
    subject.clock.advance(5)
    subject.tell()
    assert subject.batches() == []


def test_what_waits_to_be_known_is_told_again():
    subject = Subject()
    subject.apply(VAULT)
    subject.clock.advance(5)
    display, layout = subject.display(1, 1024), Layout(0, "de")
    subject.tell(display, layout, Focus(0, "browser", "news"), subject.move(2))  # waits for 2 s
    subject.forget()
    subject.clock.advance(5)
    subject.tell(subject.move(3))
    subject.clock.advance(5)
    subject.tell()
    assert subject.batches() == [[subject.display(0), display, layout, Focus(0, "browser"), subject.move(3)]]


def test_what_waits_wakes_who_is_to_look():
    subject = Subject()
    subject.apply(VAULT)
    subject.clock.advance(5)
    subject.tell(Layout(0, "de"))
    subject.forget()
    assert subject.recorder._patience_s() == pytest.approx(0.99)


def test_what_waits_is_no_nearer_to_such_a_program_than_anything():
    """What is true passes when it is known that nothing exempt was near: not before."""
    subject = Subject()
    subject.apply(VAULT)
    subject.clock.advance(5)
    subject.tell(Focus(0, "browser"))
    subject.recorder._guarding.exclude_waiting()
    subject.clock.advance(0.3)
    subject.tell(subject.move(3))
    subject.tell(Focus(0, "Vault"))
    subject.clock.advance(5)
    subject.tell()
    assert [event for batch in subject.batches() for event in batch][-1:] == [subject.move(1)]


def test_told_too_late_that_it_is_exempt():
    """What has passed near it is lost, and what comes when it is left has a meaning."""
    subject = Subject()
    subject.apply(VAULT)
    subject.clock.advance(5)
    subject.tell(subject.move(2))
    subject.clock.advance(5)
    subject.tell()
    assert subject.recorder.statistics().open_events
    subject.tell(Focus(0, "Vault"), ago_s=5)
    assert not subject.recorder.statistics().open_events
    subject.clock.advance(5)
    left_ns = subject.clock.monotonic_ns()
    subject.tell(Focus(0, "browser"))
    subject.clock.advance(1)
    subject.tell(subject.move(3))
    subject.clock.advance(5)
    subject.tell()
    [batch] = subject.batches()
    assert sorted(event.kind for event in batch) == ["display", "display", "focus", "layout", "move"]
    assert min(event.t_ns for event in rows(subject.spool)) > left_ns


def test_the_end_of_an_exemption_takes_nothing_that_is_true():
    subject = Subject()
    subject.apply(VAULT)
    subject.clock.advance(5)
    subject.tell(Layout(0, "de"))
    subject.apply()
    subject.tell()
    subject.tell(subject.key())
    assert subject.batches()[-1] == [Layout(0, "de"), subject.key()]
