"""The figures of sealing, in their short version: that the tries save something, and nothing is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sealing.py"


def test_what_sealing_costs() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [one["recipients"] for one in result["sealing"]] == [1, 2, 3]
    for one in result["sealing"]:
        least = 115 + 98 * one["recipients"]
        assert least <= one["added_bytes"]["low"] <= one["added_bytes"]["high"] <= least + 175
        assert one["added_bytes"]["mean"] < one["added_bytes_one_try"]["mean"]
        assert one["seal_us"] > 0 < one["open_us"]
    assert [(one["header_bytes"], one["refused_by_mcilib"]) for one in result["worst_headers"]] == [
        (1024, False), (4096, False)
    ]  # fmt: skip


def test_its_text_is_a_table() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("| recipients | bytes added"), done.stderr
