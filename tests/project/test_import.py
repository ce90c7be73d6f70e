"""`import mcilib` is cheap: one module, nothing foreign, no thread, no name that leads nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import mcilib

if TYPE_CHECKING:
    from pathlib import Path

PROBE = """
import json, sys, threading
before = set(sys.modules)
threads = threading.active_count()
import mcilib
new = set(sys.modules) - before
json.dump({
    "mcilib": sorted(m for m in new if m.partition(".")[0] == "mcilib"),
    "foreign": sorted(m for m in new if m.partition(".")[0] not in {"mcilib", *sys.stdlib_module_names}),
    "asyncio": "asyncio" in new,
    "threads": threading.active_count() - threads,
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run([sys.executable, "-I", "-c", PROBE], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_it_loads_one_module(seen: Any) -> None:
    assert seen["mcilib"] == ["mcilib"]


def test_it_loads_nothing_foreign(seen: Any) -> None:
    assert seen["foreign"] == []
    assert not seen["asyncio"]


def test_it_starts_no_thread(seen: Any) -> None:
    assert seen["threads"] == 0


@pytest.mark.parametrize("name", mcilib.__all__)
def test_every_public_name_leads_somewhere(name: str) -> None:
    assert getattr(mcilib, name) is not None
    assert name in dir(mcilib)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Spyware'"):
        _ = mcilib.Spyware
