"""What the proofs share: a receiver, one process that forks hosts, and per test a state folder and a wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Background
from hosts import Nursery
from wire import Wire


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("n")) as made:
        yield made


@pytest.fixture(scope="module")
def store_and_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The store of one receiver for all tests of a file, each of which is another participant, and its port."""
    store = tmp_path_factory.mktemp("receiver") / "store"
    command = Background("receive", store, "--port", "0", "--device-requests", "10000")
    url = command.line("Receiving at").split()[2]
    yield store, int(url.rpartition(":")[2])
    assert command.end().returncode == 0


@pytest.fixture
def wire(store_and_port: tuple[Path, int]) -> Iterator[Wire]:
    with Wire(store_and_port[1]) as made:
        yield made


@pytest.fixture
def store(store_and_port: tuple[Path, int]) -> Path:
    return store_and_port[0]
