"""Decisions: in memory first, then told, then durable and in the audit log; what cannot be read bars everything."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from deciding import Place

from mcilib import limits
from mcilib.consent import Exemption, ExemptionState, ExemptScope, Gate, Grant
from mcilib.consent.state import ControlState
from mcilib.delivery import control
from mcilib.errors import ConfigError, SpoolError
from mcilib.participant import Participant

APPS = ExemptScope(apps=("keepassxc",))


def ids(folder: Path) -> tuple[str, str]:
    grant = Grant.load(folder)
    return grant.participant, grant.device


DECISIONS = {
    "pause": lambda p: p.pause(60),
    "exempt": lambda p: p.request_exemption(APPS, "personal", "mine", None),
    "hold": lambda p: p.hold(3_600),
    "ask": lambda p: p.ask("Do you agree to the new text?"),
    "withdraw": lambda p: p.withdraw(*ids(p.folder)),
}


def kinds(place: Place) -> list[str]:
    return [control.parse(record.data)["kind"] for record in place.spool.controls()]


def audited(place: Place) -> list[tuple[str, str]]:
    return [(entry.what, entry.by) for entry in place.participant.audit.entries()]


# --- each decision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECISIONS)
def test_it_holds_is_told_and_is_found_again(place, name):
    seen: list[ControlState] = []

    def on_change() -> None:
        seen.append(place.participant.state)
        assert not (place.folder / "controls.json").exists(), "told after the disk"

    place.on_change = on_change
    DECISIONS[name](place.participant)
    assert len(seen) == 1
    assert seen[0] != ControlState()
    assert audited(place) == [(name, "agent" if name == "ask" else "participant")]
    before = place.participant.state
    assert Participant.read_state(place.folder) == before
    assert place.again().state == before


def test_files_are_private_and_whole(place, open_umask):
    for decide in DECISIONS.values():
        decide(place.participant)
    for path in place.folder.iterdir():
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert {path.name for path in place.folder.iterdir()} <= {
        "controls.json", "audit.jsonl", "batches.jsonl", "grant.json", "spool"
    }  # fmt: skip


def test_hold(place):
    place.participant.hold(3_600)
    assert place.participant.state.hold_s == 3_600
    for wrong in (-1, limits.HOLD_CAP_S + 1, float("nan")):
        with pytest.raises(ConfigError, match="cannot be held"):
            place.participant.hold(wrong)


def test_a_question_bars_everything_until_it_is_answered(place):
    place.participant.ask("Do you agree to the new text?")
    whole = place.participant.barred().all
    assert (whole.code, whole.words) == ("asked", "Do you agree to the new text?")
    assert place.again().barred().all.code == "asked"
    place.participant.answered()
    assert place.again().barred().all is None


@pytest.mark.parametrize("why", ["", "  ", "a\x1b[2J", "x" * 2_001])
def test_a_question_that_nobody_can_read_is_refused(place, why):
    with pytest.raises(ConfigError, match="question"):
        place.participant.ask(why)


# --- exemptions ---------------------------------------------------------------------------------------------


def test_it_is_off_while_it_is_pending_and_the_operator_is_asked(place):
    exemption = place.participant.request_exemption(ExemptScope(scopes=("keys",)), "medical", "hands", None)
    assert exemption.state is ExemptionState.PENDING
    assert "keys" in place.participant.barred().scopes
    (record,) = place.spool.controls()
    assert record.record_id == exemption.exemption_id
    content = control.parse(record.data)
    assert (content["participant"], content["device"]) == (place.grant.participant, place.grant.device)
    assert content["exemption"]["note"] == "hands"


@pytest.mark.parametrize(
    ("approved", "state"), [(True, ExemptionState.APPROVED), (False, ExemptionState.DENIED)]
)
def test_the_operator_decides(place, approved, state):
    exemption = place.participant.request_exemption(ExemptScope(everything=True), "legal", "", None)
    decided = place.participant.decide(exemption.exemption_id, approved, 7, "so\x1b be it")
    assert (decided.state, decided.decided_ns, decided.answer) == (state, 7, "so be it")
    assert (place.again().barred().all is not None) is approved
    assert audited(place)[-1] == ("decided", "operator")
    assert place.participant.decide(exemption.exemption_id, not approved, 8, "") is None  # once
    assert place.participant.state.exemptions[0].state is state


def test_what_was_taken_back_or_is_unknown_cannot_be_decided(place):
    exemption = place.participant.request_exemption(APPS, "other", "", None)
    place.participant.withdraw_exemption(exemption.exemption_id[:6])
    assert place.participant.decide(exemption.exemption_id, True, 1, "") is None
    assert place.participant.decide("f" * 32, True, 1, "") is None
    assert place.participant.state.exemptions[0].state is ExemptionState.WITHDRAWN
    assert kinds(place) == ["exemption", "exemption_withdrawn"]
    with pytest.raises(ConfigError, match="withdrawn already"):
        place.participant.withdraw_exemption(exemption.exemption_id)


def test_an_answer_may_be_anything(place):
    exemption = place.participant.request_exemption(APPS, "other", "", None)
    decided = place.participant.decide(exemption.exemption_id, True, None, "\ud800é" * 5_000 + "\x00")
    assert decided.decided_ns == place.clock.wall_ns()
    assert len(decided.answer.encode()) <= limits.EXEMPTION_NOTE_MAX_BYTES
    assert place.again().state.exemptions[0] == decided


def test_it_ends_by_itself_and_again_not_when_the_clock_goes_back(place):
    until_ns = place.clock.wall_ns() + 60 * 10**9
    place.participant.request_exemption(ExemptScope(everything=True), "other", "", until_ns)
    assert place.participant.barred().due_s == 60
    place.clock.advance(60)
    assert place.participant.barred().all is None
    place.clock.step_wall(-30)  # it is that time again, and it was said until then
    assert place.participant.barred().all is not None
    with pytest.raises(ConfigError, match="over already"):
        place.participant.request_exemption(APPS, "other", "", place.clock.wall_ns())


def test_a_request_that_a_crash_or_a_missing_grant_held_up_is_sent_at_the_next_open(place):
    exemption = place.participant.request_exemption(APPS, "other", "", None)
    place.spool.settle_control(exemption.exemption_id)
    place.again()
    assert [record.record_id for record in place.spool.controls()] == [exemption.exemption_id]
    place.again()
    assert len(place.spool.controls()) == 1
    place.participant.decide(exemption.exemption_id, True, 1, "")
    place.spool.settle_control(exemption.exemption_id)
    place.again()
    assert not place.spool.controls()


def test_too_many(place):
    for _ in range(limits.EXEMPTIONS_MAX):
        place.participant.request_exemption(APPS, "other", "", None)
    with pytest.raises(ConfigError, match="already"):
        place.participant.request_exemption(APPS, "other", "", None)
    assert place.participant.withdraw_exemption(place.participant.state.exemptions[0].exemption_id)
    place.participant.request_exemption(APPS, "other", "", None)
    assert len(place.participant.state.exemptions) == limits.EXEMPTIONS_MAX


def test_the_largest_state_that_there_can_be_is_read_again():
    scope = ExemptScope(
        apps=tuple("ż" * (limits.EXEMPT_APP_MAX_BYTES // 2) for _ in range(limits.EXEMPT_PARTS_MAX))
    )
    note = "ż" * (limits.EXEMPTION_NOTE_MAX_BYTES // 2)
    all_of_them = [
        Exemption(f"{n:032x}", scope, "representation", note, 2**60, 2**60, answer=note)
        for n in range(limits.EXEMPTIONS_MAX)
    ]
    state = ControlState(exemptions=tuple(all_of_them), asked="ż" * 1_000)
    assert len(state.to_json()) < limits.CONTROLS_MAX_BYTES
    assert ControlState.from_json(state.to_json()) == state


# --- what cannot be read ------------------------------------------------------------------------------------


def a_link(path: Path) -> None:
    other = path.with_name("other.json")
    other.write_bytes(ControlState().to_json())
    path.symlink_to(other)


def too_large(path: Path) -> None:
    path.write_bytes(ControlState().to_json() + b" " * limits.CONTROLS_MAX_BYTES)


def a_newer_version(path: Path) -> None:
    path.write_bytes(json.dumps({**json.loads(ControlState().to_json()), "schema": 2}).encode())


def of_another_user(path: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("gives a file away: root only")
    path.write_bytes(ControlState().to_json())
    os.chown(path, 65_534, 65_534)


UNREADABLE = {
    "cut": lambda path: path.write_bytes(ControlState().to_json()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b'{"schema": 1}'),
    "list": lambda path: path.write_bytes(b"[]"),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "bytes": lambda path: path.write_bytes(b"\xff\x00"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "link": a_link,
    "large": too_large,
    "newer": a_newer_version,
    "another user": of_another_user,
}


@pytest.mark.parametrize("harm", UNREADABLE)
def test_what_cannot_be_read_bars_everything_and_stays_as_it_is(place, harm):
    place.close()
    path = place.folder / "controls.json"
    UNREADABLE[harm](path)
    before = os.lstat(path)
    participant = place.open()
    whole = participant.barred().all
    assert whole.code == "unreadable"
    assert whole.words.startswith("what you have decided cannot be read (controls.json: ")
    gate = Gate(place.grant)
    gate.apply(participant.now(), state=participant.state)
    assert not gate.allows("pointer")
    assert gate.closed(0) == whole.words, "it may have been withdrawn"
    for decide in (
        lambda: participant.pause(60), participant.resume, participant.answered, lambda: participant.hold(1),
        lambda: participant.request_exemption(APPS, "other", "", None), lambda: participant.confirm("a" * 32),
        lambda: participant.decide("a" * 32, True, 1, ""), lambda: participant.forget(60),
    ):  # fmt: skip
        with pytest.raises(SpoolError, match="cannot be read"):
            decide()
    after = os.lstat(path)
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    )
    assert not place.changes


def test_one_can_withdraw_all_the_same(place):
    place.batch()
    place.close()
    (place.folder / "controls.json").write_bytes(b"{")
    place.open().withdraw(place.grant.participant, place.grant.device)
    assert not place.waiting
    assert place.again().barred().all.code == "withdrawn"


def test_without_the_file_one_begins_anew(place):
    place.close()
    (place.folder / "controls.json").write_bytes(b"{")
    place.open()
    (place.folder / "controls.json").unlink()
    assert place.again().barred().all is None
    place.participant.pause(60)


# --- disks and processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECISIONS)
def test_on_a_full_disk_it_holds_as_long_as_the_process_and_says_so(small_disk, name):
    place = Place(small_disk() / "state")
    place.participant.audit.append("started", "agent")
    (place.folder / "filler").write_bytes(b"x" * (os.statvfs(place.folder).f_bavail * 4096 - 1))
    with pytest.raises(SpoolError, match=r"cannot be|full"):
        DECISIONS[name](place.participant)
    assert len(place.changes) == 1
    assert place.participant.state != ControlState()
    assert not [path for path in place.folder.iterdir() if path.name.startswith(".")]
    (place.folder / "filler").unlink()
    DECISIONS["pause" if name == "hold" else "hold"](place.participant)  # the next one takes it along
    assert place.again().state == place.participant.state != ControlState()
    place.close()


def test_a_listener_that_fails_keeps_nothing_from_the_disk(place):
    def fails() -> None:
        raise RuntimeError("mine")

    place.on_change = fails
    with pytest.raises(RuntimeError, match="mine"):
        place.participant.pause(60)
    assert place.again().barred().all.code == "paused"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forks_child_decides_nothing(place):
    pid = os.fork()
    if not pid:
        refused = 0
        for decide in DECISIONS.values():
            try:
                decide(place.participant)
            except SpoolError:
                refused += 1
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == len(DECISIONS)
    assert not (place.folder / "controls.json").exists()


def test_many_threads_decide_and_the_last_word_is_on_the_disk(place):
    def decide(n: int) -> None:
        for _ in range(5):
            place.participant.pause(60 + n)
            place.participant.hold(n)

    threads = [threading.Thread(target=decide, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Participant.read_state(place.folder) == place.participant.state
    assert len(audited(place)) == 40
    assert place.participant.audit.verify() == ()


def test_what_a_kill_left_halfway_goes_at_the_next_open(place):
    place.participant.pause(60)
    (place.folder / ".controls.json.0badcafe").write_bytes(b"{")
    assert place.again().state.pause is not None
    assert not (place.folder / ".controls.json.0badcafe").exists()


# --- what a host says wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("until_ns", [float(2**62), 2**63, 10**30, "tomorrow"])
def test_an_end_that_is_no_time_is_refused_and_harms_nothing(place, until_ns):
    """Written down, it would be a file or a request that nobody can read: the folder would never open again."""
    with pytest.raises((ConfigError, TypeError)):
        place.participant.request_exemption(ExemptScope(scopes=("keys",)), "other", "", until_ns)
    participant = place.again()
    assert (participant.state.exemptions, participant.state.unreadable) == ((), "")


def test_one_name_is_no_list_of_its_letters():
    wrong: list[dict[str, Any]] = [{"apps": "keepassxc"}, {"scopes": "keys"}, {"hours": "12:00-13:00"}]
    for given in wrong:
        with pytest.raises(ConfigError, match="of an exemption is one text"):
            ExemptScope(**given)
