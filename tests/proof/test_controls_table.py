"""The table of controls: each does what it says from the host's API, from the command line beside a running agent, and on
a folder on which none runs. What it did is read from the data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run
from controls import CONTROLS, Control
from hosts import Nursery
from scenes import FULL, Scene
from wire import Wire

from mcilib.cli._program import COMMANDS as WORDS
from mcilib.collector import Collector
from mcilib.consent import COMMANDS
from mcilib.consent.dispatch import _STEPS
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11

#: Controls of the table that change nothing in the data, and have tests of their own below.
SAYS_ONLY = {"status"}


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    xserver: VirtualDisplay,
    nursery: Nursery,
    wire: Wire,
    store: Path,
    tmp_path: Path,
) -> Iterator[Scene]:
    scopes = ("keys", "pointer", "apps") if "program" in request.node.name else ("keys", "pointer")
    made = Scene(xserver, nursery, wire, store, tmp_path / "state", *scopes)
    if "program" in request.node.name:
        made.use("Editor")
    yield made
    made.close()


def test_every_control_is_in_the_table() -> None:
    assert {control.command for control in CONTROLS.values()} | SAYS_ONLY == set(COMMANDS) == set(_STEPS)
    for command in COMMANDS.values():
        assert callable(getattr(Collector, command.api))
    # The last three are what `grant` does.
    assert set(COMMANDS) - {"unexempt", "regrant", "ask", "answered"} <= set(WORDS)


@pytest.mark.parametrize("name", CONTROLS)
def test_api(name: str, scene: Scene) -> None:
    control = CONTROLS[name]
    begin(scene, control)
    control.prepare(scene)
    scene.control(control.command, control.arguments)
    check(scene, control)


@pytest.mark.parametrize("name", CONTROLS)
def test_command_line(name: str, scene: Scene) -> None:
    control = CONTROLS[name]
    begin(scene, control)
    if control.command != "regrant":  # where the command changes the file too
        control.prepare(scene)
    control.line(scene)
    check(scene, control)


@pytest.mark.parametrize(
    "name", [name for name, control in CONTROLS.items() if control.command not in ("flush", "inspect")]
)
def test_without_an_agent(name: str, scene: Scene) -> None:
    control = CONTROLS[name]
    begin(scene, control)
    scene.end()
    if control.command != "regrant":
        control.prepare(scene)
    scene.control(control.command, control.arguments)
    scene.start()
    check(scene, control)


def test_status(scene: Scene) -> None:
    """It says why nothing is captured, in the API and on the command line."""
    scene.start()
    scene.work_heard("before")
    scene.running.call("pause", duration_s=900)
    told = scene.running.call("control_status")
    assert "paused" in told["held"]
    assert told["pid"] == scene.running.pid
    assert told["statistics"]["capture"]["captured"]["press"] >= 1
    asked = scene.running.call("control", name="status", arguments={})
    assert (asked["held"][:15], asked["pid"]) == (told["held"][:15], told["pid"])
    done = run("status", "--state", scene.state, "--json")
    said = json.loads(done.stdout)
    assert str(scene.running.pid) in json.dumps(said)
    assert "paused" in run("status", "--state", scene.state).stdout
    assert os.getpid() != scene.running.pid


# --- as the matrix has it while an agent runs -------------------------------------------------------------------


def begin(scene: Scene, control: Control) -> None:
    scene.start()
    if control.first is not None:
        scene.control(*control.first)
    work(scene, "before", control.before if control.first is not None else FULL)


def work(scene: Scene, mark: str, what: frozenset[str]) -> None:
    if what:
        scene.work_heard(mark, what)
    else:
        scene.work_unheard(mark)


def check(scene: Scene, control: Control) -> None:
    if control.command == "inspect":
        assert scene.spooled()["before"] == FULL
    if control.command == "flush":
        assert scene.stored()["before"] == FULL
    work(scene, "during", control.during)
    scene.deliver()
    scene.end()
    found = scene.recorded()
    assert (found["before"], found["during"]) == (control.before, control.during)
    if control.command == "hold":
        assert not any(scene.stored().values())
