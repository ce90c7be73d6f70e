"""A decision that dies before its k-th file operation, for every k: by SIGKILL, or with the power of its disk.

A child decides and is stopped at the entry of the k-th system call that changes a file. There it dies. The next process
on the folder must find the decision not begun or, when it has opened the folder, carried out whole: never half of it,
and always whole when the child had returned. Then it dies a second time, in the opening.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deaths
import pytest
from deciding import Place
from powercut import Cut

from mcilib.consent import ExemptionState, ExemptScope
from mcilib.consent.decisions import Decisions
from mcilib.consent.grant import Grant
from mcilib.consent.journal import BatchJournal
from mcilib.delivery import control
from mcilib.participant import Participant
from mcilib.protocols import Fate
from mcilib.testing.fakes import example_grant

OLD, MIXED, NEW, DELIVERED, REFUSED = (f"{n:032x}" for n in range(1, 6))
GRANT = example_grant("pointer", "keys", "titles")
POINTER = example_grant("pointer", earlier=GRANT)


@pytest.fixture(params=[None, *Cut], ids=["process-death", "power-cut-early", "power-cut-late"])
def died(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    yield from deaths.places(tmp_path, "state", request.param)


def prepare(folder: Path) -> Any:
    """What there is before: three batches wait, one is delivered and one refused; the clock as it was then."""
    folder.mkdir(mode=0o700)
    GRANT.save(folder)
    place = Place(folder, found=GRANT)
    for scopes in (("pointer",), ("pointer", "keys"), ("pointer",), ("keys",), ("keys",)):
        place.batch(*scopes)
    place.spool.settle(DELIVERED, Fate.DELIVERED)
    place.spool.settle(REFUSED, Fate.REJECTED)
    place.participant.request_exemption(ExemptScope(apps=("keepassxc",)), "personal", "mine", None)
    place.close()
    return place.clock


def opened(folder: Path, clock: Any) -> Place:
    place = Place.__new__(Place)
    place.folder, place.clock, place.boot, place.grant = folder, copy.copy(clock), "b0" * 8, GRANT
    place.changes, place.on_change, place.made = [], lambda: None, 100
    place.open()
    return place


# --- what is found ------------------------------------------------------------------------------------------


def asked(place: Place) -> list[list[str]]:
    records = [control.parse(record.data) for record in place.spool.controls()]
    return [record.get("batches", ["all"]) for record in records if record["kind"] == "delete"]


def bad(place: Place) -> list[str]:
    return [path.name[17:49] for path in (place.folder / "spool" / "bad").iterdir()]


def untouched(place: Place) -> bool:
    return place.waiting == [OLD, MIXED, NEW] and bad(place) == [REFUSED] and not asked(place)


def forgotten(place: Place) -> bool:
    """All that touches the last four minutes. Asked for once, or twice if it died in between."""
    ids = [MIXED, NEW, DELIVERED, REFUSED]
    requests = asked(place)
    return (
        place.waiting == [OLD] and not bad(place) and requests in ([ids], [ids, ids])
        and not place.participant.journal.unfinished()
    )  # fmt: skip


def narrowed(place: Place) -> bool:
    ids = [MIXED, DELIVERED, REFUSED]
    return place.waiting == [OLD, NEW] and not bad(place) and asked(place) in ([ids], [ids, ids])


def withdrawn(place: Place) -> bool:
    state = place.participant.state
    if state.withdrawal is None:
        return False
    (request,) = place.spool.controls()
    assert state.withdrawal.record_id == request.record_id
    assert not state.exemptions
    files = sorted(path.name for path in place.folder.iterdir())
    return (
        not place.waiting and not bad(place) and asked(place) == [["all"]]
        and files == ["audit.jsonl", "controls.json", "spool"]
        and state.pending_withdrawal == GRANT.participant
    )  # fmt: skip


def paused(place: Place) -> bool:
    return place.participant.state.pause is not None


def exempt(place: Place) -> bool:
    """And the operator will be asked."""
    states = [one.state for one in place.participant.state.exemptions]
    sent = [record.record_id for record in place.spool.controls()]
    return states == [ExemptionState.PENDING] * 2 and sent == [
        one.exemption_id for one in place.participant.state.exemptions
    ]


CASES: dict[str, tuple[Callable[[Participant], object], Callable[[Place], bool], Callable[[Place], bool]]] = {
    "forget": (lambda p: p.forget(200), forgotten, untouched),
    "narrow": (lambda p: p.narrow(GRANT, POINTER), narrowed, untouched),
    "withdraw": (lambda p: p.withdraw(GRANT.participant, GRANT.device), withdrawn, untouched),
    "pause": (lambda p: p.pause(60), paused, lambda place: not paused(place) and untouched(place)),
    "exempt": (
        lambda p: p.request_exemption(ExemptScope(everything=True), "other", "", None),
        exempt,
        lambda place: len(place.participant.state.exemptions) == 1 and untouched(place),
    ),
}


def check(name: str, folder: Path, clock: Any, returned: bool) -> None:
    _, done, not_begun = CASES[name]
    place = opened(folder, clock)
    try:
        assert place.participant.audit.verify() == ()
        assert not place.participant.state.unreadable
        assert not [path for path in folder.iterdir() if path.name.startswith(".controls")]
        if returned or not not_begun(place):
            assert done(place), f"waiting {place.waiting}, bad {bad(place)}, asked {asked(place)}"
        if name != "withdraw" or not done(place):
            assert Grant.load(folder) == GRANT
    finally:
        place.close()


def deaths_in(died: Any, name: str, sabotage: Callable[[], None] = lambda: None) -> int:
    """Dies everywhere; at how many points. Raises AssertionError that says where it went wrong."""
    decide = CASES[name][0]
    clock = prepare(died.folder)
    died.keep()

    def work(say: Callable[[str], None]) -> None:
        sabotage()
        place = opened(died.folder, clock)
        say("opened")
        decide(place.participant)
        say("decided")

    def reopen(_: object) -> None:
        opened(died.folder, clock).close()

    step = 1 if died.cut is None or deaths.EVERY else 3
    point, ended, points = 0, False, 0
    while not ended:
        point += step
        died.bring_back()
        ended, said, operation = died.die(work, point)
        points += 1
        try:
            if deaths.EVERY or points % 4 == 0:  # and once more, in the opening
                died.die(reopen, 1 + point % 17)
            check(name, died.folder, clock, "decided" in said)
        except AssertionError as error:
            raise AssertionError(
                f"death at point {point}, before {operation}, after {said}: {error}"
            ) from error
    return point


@pytest.mark.parametrize("name", CASES)
def test_death_before_every_file_operation(died, name):
    assert deaths_in(died, name) > 12, "the operations were not counted"


# --- that this would find it --------------------------------------------------------------------------------


def no_fsync() -> None:
    os.fsync = os.fdatasync = lambda fd: None


def no_intention() -> None:
    BatchJournal.intend = lambda *_, **__: None  # type: ignore[method-assign]


def no_marker() -> None:
    """Not before the end."""
    really, calls = Decisions.save, list[int]()

    def save(decisions: Decisions) -> None:
        calls.append(1)
        if len(calls) > 2:  # the first is that of `open`
            really(decisions)

    Decisions.save = save  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("died", [None], indirect=True, ids=["process-death"])
@pytest.mark.parametrize(("name", "sabotage"), [("forget", no_intention), ("withdraw", no_marker)])
def test_without_the_intention_first_it_is_caught(died, name, sabotage):
    with pytest.raises(AssertionError, match="death at point"):
        deaths_in(died, name, sabotage)


@pytest.mark.parametrize("died", [*Cut], indirect=True, ids=["power-cut-early", "power-cut-late"])
def test_without_fsync_it_is_caught(died):
    with pytest.raises(AssertionError, match="death at point"):
        deaths_in(died, "withdraw", no_fsync)


# --- what the receiver says ---------------------------------------------------------------------------------


def test_a_receivers_word_that_dies_is_told_again(died):
    """The record leaves the spool only after it is on the disk here."""
    clock = prepare(died.folder)
    place = opened(died.folder, clock)
    place.participant.withdraw(GRANT.participant, GRANT.device)
    record_id = place.participant.state.withdrawal.record_id
    place.close()
    died.keep()

    def work(say: Callable[[str], None]) -> None:
        place = opened(died.folder, clock)
        say("opened")
        place.participant.confirm(record_id)
        say("confirmed")
        place.spool.settle_control(record_id)

    point, ended = 0, False
    while not ended:
        point += 1
        died.bring_back()
        ended, said, operation = died.die(work, point)
        place = opened(died.folder, clock)
        state = place.participant.state
        where = f"point {point}, before {operation}"
        if state.withdrawal.confirmed_ns is None:
            assert "confirmed" not in said, where
            assert state.pending_withdrawal == GRANT.participant, where
            assert asked(place) == [["all"]], where
        else:
            assert GRANT.participant not in (died.folder / "controls.json").read_text(), where
            assert len(asked(place)) <= 1, where
        assert state.is_withdrawn(GRANT.participant)
        place.close()
