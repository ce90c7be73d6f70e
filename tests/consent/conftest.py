"""A state folder of a participant, with a clock that is moved by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from deciding import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Of a user who lets everybody read everything."""
    before = os.umask(0)
    yield
    os.umask(before)
