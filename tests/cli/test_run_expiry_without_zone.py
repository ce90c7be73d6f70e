"""A grant that a host has written by hand: a time without a zone is one in UTC, for the agent too."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import Run

pytestmark = pytest.mark.x11


@pytest.mark.usefixtures("xserver")
def test_it_runs_until_then(mcilib: Run, granted: Path, endpoint: str) -> None:
    path = granted / "grant.json"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(tzinfo=None)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": tomorrow.isoformat()}))
    done = mcilib("run", "--state", granted, "--endpoint", endpoint, "--for", "1s")
    assert (done.returncode, "Ended by itself." in done.stdout) == (0, True), done
