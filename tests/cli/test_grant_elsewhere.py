"""An agent that runs while its grant is not in the folder: the file was removed or damaged, or its host keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Background, Receiver, Run, kinds, on_terminal, refused
from left_batches import leave
from waiting import until

from mcilib.consent import Grant
from mcilib.participant import Participant
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11

NARROWER = ("--operator", "Example Lab", "--purpose", "tests", "--scope", "pointer", "--yes")


@pytest.fixture
def agent(
    background: Callable[..., Background], granted: Path, xserver: VirtualDisplay, endpoint: str
) -> Background:
    command = background("run", "--state", granted, "--endpoint", endpoint)
    command.line("Collecting")
    return command


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("damaged", [False, True])
def test_withdraw_ends_it_all_the_same(
    mcilib: Run, granted: Path, agent: Background, xserver: VirtualDisplay, damaged: bool
) -> None:
    grant = Grant.load(granted)
    xserver.move(300, 300)
    until(
        lambda: mcilib("inspect", "--state", granted).returncode == 0 and kinds(granted / "spool" / "ready")
    )
    if damaged:
        (granted / "grant.json").write_text("{")
    else:
        (granted / "grant.json").unlink()
    code, said = on_terminal("withdraw", "--state", str(granted), answer="yes")
    assert code == 0, said
    assert "You withdraw from what is collected here. 1 batch" in said
    assert "Withdrawn: nothing is captured any more." in said
    agent.line("It has confirmed that all is deleted.")
    assert agent.end(None).returncode == 0
    assert not kinds(granted / "spool" / "ready")
    assert Participant.read_state(granted).is_withdrawn(grant.participant)


@pytest.mark.usefixtures("agent")
def test_status_does_not_say_that_nothing_is_collected(mcilib: Run, granted: Path) -> None:
    (granted / "grant.json").unlink()
    said = mcilib("status", "--state", granted).stdout
    assert "Nothing is collected without one" not in said
    assert "not in this folder. The agent keeps to its own until `mcilib withdraw`" in said
    assert "records into this folder" in said


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("damaged", [False, True])
def test_no_grant_is_recorded_that_the_agent_does_not_keep_to(
    mcilib: Run, granted: Path, damaged: bool
) -> None:
    (granted / "grant.json").unlink()
    if damaged:
        (granted / "grant.json").write_text("{")
    before = sorted(granted.glob("grant.json"))
    done = mcilib("grant", "--state", granted, *NARROWER)
    refused(done, 3, "The agent that runs keeps to another grant")
    assert sorted(granted.glob("grant.json")) == before


def test_without_an_agent_there_is_nothing_to_withdraw_from(mcilib: Run, granted: Path) -> None:
    (granted / "grant.json").unlink()
    refused(mcilib("withdraw", "--state", granted, "--yes"), 3, "There is no grant")
    assert mcilib("grant", "--state", granted, *NARROWER).returncode == 0


@pytest.mark.parametrize("damaged", [False, True])
def test_withdraw_reaches_what_was_collected_under_a_grant_that_is_lost(
    mcilib: Run, granted: Path, receiver: Callable[[], Receiver], damaged: bool
) -> None:
    """Else a new grant, with another pseudonym, would leave it with the receiver for ever."""
    store, grant = receiver(), Grant.load(granted)
    leave(granted)
    run = ["run", "--state", granted, "--endpoint", store.url]
    assert mcilib(*run, "--drain").returncode == 0
    assert store.batches == 1
    (granted / "grant.json").unlink()
    if damaged:
        (granted / "grant.json").write_text("{")
    code, said = on_terminal("withdraw", "--state", str(granted), answer="yes")
    assert code == 0, said
    assert "You withdraw from what is collected here." in said
    assert not (granted / "grant.json").exists()
    assert mcilib(*run).stdout.endswith("It has confirmed that all is deleted.\n")
    assert store.batches == 0
    assert Participant.read_state(granted).is_withdrawn(grant.participant)
    refused(mcilib("withdraw", "--state", granted, "--yes"), 3, "You have withdrawn on")
