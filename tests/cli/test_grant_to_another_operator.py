"""What was captured for one operator, and waits, does not go to another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Background, Run, input_on, kinds
from left_batches import leave, waiting

from mcilib.testing.xvfb import VirtualDisplay


def granted_to(operator: str, mcilib: Run, state: Path) -> Any:
    terms = ["--operator", operator, "--purpose", "tests", "--scope", "pointer,keys,apps", "--yes", "--json"]
    done = mcilib("grant", "--state", state, *terms)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_without_an_agent(mcilib: Run, granted: Path) -> None:
    leave(granted)
    assert granted_to("Example Lab", mcilib, granted)["deleted_batches"] == 0
    assert len(waiting(granted)) == 1
    assert granted_to("Another Lab", mcilib, granted)["deleted_batches"] == 1
    assert waiting(granted) == []


@pytest.mark.x11
def test_beside_an_agent(
    mcilib: Run,
    granted: Path,
    endpoint: str,
    background: Callable[..., Background],
    xserver: VirtualDisplay,
) -> None:
    background("run", "--state", granted, "--endpoint", endpoint).line("Collecting")
    leave_input(mcilib, granted, xserver)
    input_on(xserver)  # in memory
    told = granted_to("Another Lab", mcilib, granted)
    assert told["running"]
    assert told["deleted_batches"] >= 1
    assert mcilib("inspect", "--state", granted).returncode == 0
    assert not {"move", "press", "key_press"} & set(kinds(granted / "spool" / "ready"))


def leave_input(mcilib: Run, state: Path, display: VirtualDisplay) -> None:
    input_on(display)
    assert mcilib("inspect", "--state", state).returncode == 0
    assert "move" in kinds(state / "spool" / "ready")
