"""Each test of the sources is one of both backends, where it does not choose itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from patience import time_to_spare as time_to_spare
from xwindows import Manager, Program

from mcilib.sources import _input
from mcilib.testing.xvfb import VirtualDisplay


@pytest.fixture(params=["xrecord", "pynput"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `auto` takes."""
    chosen: str = request.param
    monkeypatch.setattr(_input, "AUTO_ON_X11", chosen)
    return chosen


@pytest.fixture
def program(xserver: VirtualDisplay) -> Iterator[Program]:
    """Somebody's program, with windows."""
    program = Program()
    yield program
    program.close()


@pytest.fixture
def manager(xserver: VirtualDisplay) -> Iterator[Manager]:
    """A window manager, as the test plays it."""
    manager = Manager()
    yield manager
    manager.retire()
