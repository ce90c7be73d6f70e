"""Every control in every situation, with real input on a real display; what it did is read from the data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from controls import CONTROLS, Control
from hosts import Nursery
from scenes import FULL, NOTHING, Scene
from wire import Wire

from mcilib import limits
from mcilib.reader import Reader
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11


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


def begin(scene: Scene, control: Control) -> None:
    """An agent runs, what is in force at first is, and somebody has worked."""
    scene.start()
    if control.first is not None:
        scene.control(*control.first)
    work(scene, "before", control.before if control.first is not None else frozenset({"pointer", "keys"}))


def work(scene: Scene, mark: str, what: frozenset[str]) -> None:
    if what:
        scene.work_heard(mark, what)
    else:
        scene.work_unheard(mark)


def act(scene: Scene, control: Control) -> None:
    if scene.host is not None or control.command != "regrant":  # where the command line changes the file too
        control.prepare(scene)
    if scene.host is not None or control.command not in ("flush", "inspect"):
        scene.control(control.command, control.arguments)


# --- situations: each leaves an agent running on which the control was carried out ------------------------------


def before_start(scene: Scene, control: Control) -> None:
    begin(scene, control)
    scene.end()
    act(scene, control)
    scene.start()


def while_running(scene: Scene, control: Control) -> None:
    begin(scene, control)
    act(scene, control)


def during_an_upload(scene: Scene, control: Control) -> None:
    """The receiver has the batch, and its receipt is on the way, where it is held up a while."""
    begin(scene, control)
    scene.running.call("commit")
    scene.wire.hold()
    scene.running.begin("flush", timeout_s=5)
    assert scene.wire.held.wait(5)
    threading.Timer(0.3, scene.wire.go).start()
    act(scene, control)
    scene.running.join()


def after_a_kill(scene: Scene, control: Control) -> None:
    begin(scene, control)
    scene.running.call("commit")
    act(scene, control)
    scene.kill()
    scene.start()


def after_suspend(scene: Scene, control: Control) -> None:
    begin(scene, control)
    if control.lasts:
        act(scene, control)
    scene.running.sleep_through(600)
    if not control.lasts:
        act(scene, control)


def at_a_batch_border(scene: Scene, control: Control) -> None:
    """A batch has three rows: each mark begins in one and ends in another."""
    scene.options["batch_max_events"] = 3
    begin(scene, control)
    act(scene, control)


def under_late_reading(scene: Scene, control: Control) -> None:
    """What was done before it lies unread with the X server."""
    scene.options["read_interval_s"] = 1.0
    scene.start()
    if control.first is not None:
        scene.control(*control.first)
    scene.work("before")
    act(scene, control)


SITUATIONS: tuple[Callable[[Scene, Control], None], ...] = (
    before_start, while_running, during_an_upload, after_a_kill, after_suspend, at_a_batch_border, under_late_reading,
)  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@pytest.mark.parametrize("name", CONTROLS)
def test_cell(name: str, situation: Callable[[Scene, Control], None], scene: Scene) -> None:
    control = CONTROLS[name]
    situation(scene, control)
    check(scene, control, situation)


def check(scene: Scene, control: Control, situation: Callable[..., None]) -> None:
    """What can be read afterwards."""
    upload, late = situation is during_an_upload, situation is under_late_reading
    if control.command == "inspect" and not (upload or late):
        assert scene.spooled()["before"] == FULL, "it can be looked at"
    if control.command == "flush" and not (late or situation is before_start):
        assert scene.stored()["before"] == FULL
    work(scene, "during", control.during)
    if control.command == "exempt" and "apps" in control.arguments["scope"]:
        scene.use("Editor")  # which is not exempt
        time.sleep(limits.EXCLUSION_EDGE_S)
        scene.work_heard("after")
    scene.deliver()
    if control.command == "withdraw":  # the receiver has confirmed that all is deleted
        scene.work_unheard("after")
    scene.end()
    found = scene.recorded()
    assert found["during"] == control.during
    if late and control.first is None:  # what nobody had read yet may be dropped with what is off now
        assert found["before"] <= control.before
    elif control.command == "regrant":  # a batch without keys may stay
        assert "keys" not in found["before"]
    else:
        assert found["before"] == control.before
    if control.command == "hold":
        assert scene.stored()["during"] == NOTHING
        assert upload or scene.stored()["before"] == NOTHING, "nothing goes before its time"
    if control.command == "withdraw":
        assert found["after"] == NOTHING
        assert list(Reader(scene.state / "spool").events()) == []
        assert not list((scene.state / "spool").rglob("*.mcib"))
