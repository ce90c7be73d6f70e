"""The state folder lies in the home folder as a rule, whose name is its user's: no log line names it."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import pytest

from mcilib.collector import Collector
from mcilib.delivery.folder import FolderTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.events import Move
from mcilib.files import without_home
from mcilib.participant import Participant
from mcilib.testing.fakes import FakeResources, FakeSession, FakeSource, example_grant

NAME = "zqhome7f"


class Seen:
    def show(self, notice: object, /) -> bool:
        return True


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    caplog.set_level(logging.DEBUG)
    home = tmp_path / NAME
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home / "state"


def test_an_agent_whose_disk_fails(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    grant = example_grant("pointer")
    grant.save(state)
    (state / "spool").mkdir(mode=0o700)
    (state / "spool" / "state.json").write_text("{")
    (state.parent / "out").write_text("no folder")
    source = FakeSource("pointer", "pointer")
    collector = Collector(
        sources=[source], grant=grant, state_dir=state, transport=FolderTransport(state.parent / "out"),
        resources=FakeResources(), session=FakeSession(), indicator=Seen(),
    )  # fmt: skip
    with collector:
        source.feed(Move(time.monotonic_ns(), 1, 1))
        assert collector.commit()
        collector.flush(5)
        shutil.rmtree(state / "spool" / "tmp")
        source.feed(Move(time.monotonic_ns(), 2, 2))
        collector.commit()
    said = caplog.text
    assert "~/state/spool was damaged" in said
    assert "cannot be stored (~/state/spool)" in said
    assert "~/out" in said
    assert NAME not in said


def test_decisions_that_cannot_be_carried_out(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    example_grant("pointer").save(state)
    (state / "grant.json").write_text("{")
    with DirectorySpool(state / "spool") as spool:
        Participant(state, spool).open()
    assert "The grant ~/state/grant.json cannot be read" in caplog.text
    assert NAME not in caplog.text


def test_another_folder_that_begins_alike_is_named(state: Path) -> None:
    home = str(state.parent)
    assert without_home(f"{home}/a ({home}), {home}2/b, {home}-c") == f"~/a (~), {home}2/b, {home}-c"
