"""A state folder with a short path, a channel on it in this process, and an agent in another."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from channels import Agent, Commands

from mcilib.channel.server import ControlServer

collect_ignore_glob = ["test_*"] if sys.platform == "win32" else []  # no channel there yet


@pytest.fixture
def folder() -> Iterator[Path]:
    """0700, and short: plain sockets of strangers have to fit."""
    made = Path(tempfile.mkdtemp(prefix="mc"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def commands() -> Iterator[Commands]:
    made = Commands()
    yield made
    made.released.set()


@pytest.fixture
def server(folder: Path, commands: Commands) -> Iterator[ControlServer]:
    """Started, in this process; carries out `commands`."""
    made = ControlServer(folder, commands)
    made.start()
    yield made
    commands.released.set()
    made.stop()


@pytest.fixture
def agent(folder: Path) -> Iterator[Agent]:
    """Started, in a process of its own."""
    with Agent(folder) as made:
        yield made
