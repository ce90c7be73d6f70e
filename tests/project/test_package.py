"""What is installed: the wheel's content, its metadata, the console script, the pinned requirements."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import mcilib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")


def canonical(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def wheel_names() -> list[str]:
    wheel = os.environ.get("MCILIB_WHEEL")
    if not wheel:
        pytest.skip("`make test` says which wheel is tested (MCILIB_WHEEL)")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel_names: list[str]) -> None:
    files = (p for p in (ROOT / "mcilib").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    expected = {p.relative_to(ROOT).as_posix() for p in files}
    info = f"mcilib-{mcilib.__version__}.dist-info/"
    assert {n for n in wheel_names if not n.startswith(info)} == expected
    assert "mcilib/py.typed" in wheel_names


def test_the_licences_are_in_the_wheel(wheel_names: list[str]) -> None:
    info = f"mcilib-{mcilib.__version__}.dist-info/"
    assert {info + "licenses/LICENSE", info + "licenses/THIRD_PARTY.md"} <= set(wheel_names)
    assert metadata.metadata("mcilib")["License-Expression"] == "Apache-2.0"


def test_the_version_is_the_modules() -> None:
    assert metadata.version("mcilib") == mcilib.__version__


def test_the_console_script_runs(tmp_path: Path) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="mcilib")
    assert script.value == "mcilib.cli:main"
    command = Path(sysconfig.get_path("scripts")) / "mcilib"
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    for verb in ("grant", "run", "status", "receive", "export", "doctor", "demo"):
        assert verb in done.stdout


def test_every_requirement_is_pinned_and_hashed() -> None:
    wanted = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        wanted += extra
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", PINS, flags=re.MULTILINE))
    assert {canonical(w) for w in wanted} - {"mcilib"} <= set(pinned)
    for block in re.split(r"^(?=[a-z0-9])", PINS, flags=re.MULTILINE):
        assert "--hash=sha256:" in block or not block.strip(), f"no hash: {block.splitlines()[0]}"


def test_the_pins_name_no_address_and_no_compiler() -> None:
    assert "://" not in PINS
    assert not re.search(r"^\s*(-i|--(extra-)?index-url|--find-links)\b", PINS, flags=re.MULTILINE)
    assert not re.search(r"^(evdev|mcilib|uv)==", PINS, flags=re.MULTILINE)
