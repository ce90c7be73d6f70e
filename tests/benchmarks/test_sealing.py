"""The figures of sealing, in their short version: that the tries save something, and nothing is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    command = [sys.executable, str(FOLDER / "sealing.py"), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_sealing_costs(result: dict[str, Any]) -> None:
    assert [one["recipients"] for one in result["sealing"]] == [1, 2, 3]
    for one in result["sealing"]:
        least = 115 + 98 * one["recipients"]
        assert least <= one["added_bytes"]["low"] <= one["added_bytes"]["high"] <= least + 175
        assert one["added_bytes"]["mean"] < one["added_bytes_one_try"]["mean"]
        assert one["seal_us"] > 0 < one["open_us"]
    assert [(one["header_bytes"], one["refused_by_mcilib"]) for one in result["worst_headers"]] == [
        (1024, False), (4096, False)
    ]  # fmt: skip


def test_its_text_is_a_table(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the figures above: what they are is measured once."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import sealing

    headers = iter(result["worst_headers"])
    monkeypatch.setattr(sealing, "sealing", lambda recipients, _: result["sealing"][recipients - 1])
    monkeypatch.setattr(sealing, "worst_header", lambda _: next(headers))
    monkeypatch.setattr(sys, "argv", ["sealing.py", "--quick"])
    sealing.main()
    assert capsys.readouterr().out.startswith("| recipients | bytes added")
