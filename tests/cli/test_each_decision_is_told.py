"""What the operator has decided is said of each exemption, in whichever order it was decided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Background, Receiver, Run

from mcilib.participant import Participant

pytestmark = pytest.mark.x11


@pytest.mark.usefixtures("xserver")
def test_two_decisions_that_come_together(
    mcilib: Run,
    granted: Path,
    here: Path,
    background: Callable[..., Background],
    receiver: Callable[..., Receiver],
) -> None:
    agent = background("run", "--state", granted, "--endpoint", receiver().url)
    agent.line("Collecting")
    for scope in ("keys", "pointer"):
        done = mcilib("exempt", "--state", granted, "--scope", scope, "--reason", "other")
        assert done.returncode == 0
    assert mcilib("flush", "--state", granted).returncode == 0
    keys, pointer = (one.exemption_id for one in Participant.read_state(granted).exemptions)
    # The one that was asked for last is decided first: its decision comes last, with the earlier time.
    assert mcilib("exemptions", here / "store", "deny", pointer).returncode == 0
    assert mcilib("exemptions", here / "store", "approve", keys).returncode == 0
    assert mcilib("flush", "--state", granted).returncode == 0
    agent.line("The operator has decided. keys: approved: not captured.")
    agent.line("The operator has decided. pointer: denied: captured.")
