"""The decoder that was written from the document alone, in another language, reads and refuses the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[Path], subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
DECODER = ROOT / "tests" / "decoder_js"
VECTORS = ROOT / "tests" / "vectors"

pytestmark = pytest.mark.needs("node", "npm")


@pytest.fixture(scope="session")
def check(needs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Runs check.mjs over a folder, in a copy of the decoder that has its packages."""
    needs("node", "npm")
    place = tmp_path_factory.mktemp("decoder_js") / "decoder_js"
    shutil.copytree(DECODER, place, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "ci", "--prefer-offline"], cwd=place, capture_output=True, text=True, timeout=100, check=False
    )
    if installed.returncode != 0:
        reason = f"npm could not install the decoder's packages: {installed.stderr[-500:]}"
        if os.environ.get("CI") == "true" or os.environ.get("MCILIB_REQUIRE_SYSTEM") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return lambda folder: subprocess.run(
        ["node", "check.mjs", str(folder)], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_reads_and_refuses_every_vector_as_it_says(check: Check) -> None:
    ran = check(VECTORS)
    *lines, summary = ran.stdout.splitlines()
    names = sorted(path.stem for path in VECTORS.glob("*.mcib"))
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert lines == [f"ok {name}" for name in names]
    assert summary == f"{len(names)} passed, 0 failed"
    assert ran.returncode == 0, ran.stderr


def _metadata(told: dict[str, Any]) -> None:
    told["metadata"]["tick_ns"] += 1


def _row(told: dict[str, Any]) -> None:
    told["rows"][-1]["t_ns"] += 1


def _row_less(told: dict[str, Any]) -> None:
    told["rows"].pop()


def _field_more(told: dict[str, Any]) -> None:
    told["rows"][0]["more"] = None


def _rule(told: dict[str, Any]) -> None:
    told["refused"] = "F4"


def _none_refused(told: dict[str, Any]) -> None:
    del told["refused"]


def _header(told: dict[str, Any]) -> None:
    told["header"]["device"] = told["header"]["device"][:-1] + "0"


def test_it_reports_what_differs(check: Check, tmp_path: Path) -> None:
    """Were it to compare nothing, the test above would pass."""
    changes: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
        ("every_kind", _header),
        ("every_kind", _metadata),
        ("every_kind", _row),
        ("every_kind", _row_less),
        ("every_kind", _field_more),
        ("bad_checksum", _rule),
        ("bad_checksum", _none_refused),
    ]
    for name, change in changes:
        told = json.loads((VECTORS / f"{name}.json").read_text("ascii"))
        change(told)
        (tmp_path / f"{change.__name__}.json").write_text(json.dumps(told), "ascii")
        shutil.copy(VECTORS / f"{name}.mcib", tmp_path / f"{change.__name__}.mcib")
    shutil.copy(VECTORS / "every_kind.mcib", tmp_path / "told_by_none.mcib")
    for suffix in (".json", ".mcib"):
        shutil.copy(VECTORS / f"every_kind{suffix}", tmp_path)
    ran = check(tmp_path)
    *lines, summary = ran.stdout.splitlines()
    assert [line for line in lines if not line.startswith("DIFFERENT ")] == ["ok every_kind"]
    assert summary == f"1 passed, {len(changes) + 1} failed"
    assert ran.returncode == 1


def test_it_reports_a_folder_without_vectors(check: Check, tmp_path: Path) -> None:
    assert check(tmp_path).returncode == 1
