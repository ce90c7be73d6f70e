"""The benchmark of the control channel runs, and what it finds of silence is what the channel promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "control_channel.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_measures_round_trips_a_crowd_and_silence() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 0 < result["bare"]["median_ms"] < result["command"]["median_ms"]
    assert result["in_a_crowd"]["p99_ms"] < 2_000
    assert result["silence"]["wakeups"] == 0
