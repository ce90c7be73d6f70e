"""The virtual display itself: what is injected is heard, in time; it freezes, dies and comes back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from random import randrange
from typing import TYPE_CHECKING, Any

import pytest

from mcilib.errors import DisplayError
from mcilib.testing.xvfb import VirtualDisplay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def heard(xserver: VirtualDisplay) -> Iterator[list[tuple[str, Any]]]:
    """What a listener of pynput hears on the server, without evdev, which the X backend does not need."""
    from pynput import keyboard, mouse

    events: list[tuple[str, Any]] = []

    def note(kind: str) -> Callable[..., None]:
        return lambda *args: events.append((kind, args[:-1]))

    pointer = mouse.Listener(on_move=note("move"), on_click=note("click"), on_scroll=note("scroll"))
    keys = keyboard.Listener(on_press=note("press"), on_release=note("release"))
    for listener in (pointer, keys):
        listener.start()
        listener.wait()
    # A listener is ready a little before the server has enabled its record context: knock until it answers.
    shift = xserver.keycode("Shift_L")

    def answers() -> bool:
        xserver.tap(shift)
        xserver.click(2)
        return {kind for kind, _ in events} >= {"press", "click"}

    wait_until(answers)
    # When this has come, all of that has.
    xserver.tap(xserver.keycode("Escape"))
    xserver.click(3)
    last = {("release", keyboard.Key.esc), ("click", mouse.Button.right, False)}
    wait_until(lambda: last <= {(kind, *args[-2:]) for kind, args in list(events)})
    events.clear()
    yield events
    for listener in (pointer, keys):
        listener.stop()
    xserver.tap(shift)  # a stopped listener ends with the next event
    xserver.click(2)
    for listener in (pointer, keys):
        listener.join(20)
        assert not listener.is_alive()


def test_pointer_and_keys_are_heard(xserver: VirtualDisplay, heard: list[tuple[str, Any]]) -> None:
    xserver.move(100, 200)
    xserver.click(1)
    xserver.scroll(dx=1, dy=-2)
    xserver.tap(xserver.keycode("a"))
    xserver.sync()
    wait_until(lambda: len(heard) >= 8)
    pointer = [(kind, args) for kind, args in heard if kind in ("move", "click", "scroll")]
    assert pointer[0] == ("move", (100, 200))
    assert [args[3] for kind, args in pointer if kind == "click"] == [True, False]
    assert [args[2:] for kind, args in pointer if kind == "scroll"] == [(1, 0), (0, -1), (0, -1)]
    assert [args[0].char for kind, args in heard if kind in ("press", "release")] == ["a", "a"]


def test_nothing_is_lost_and_order_is_kept(xserver: VirtualDisplay, heard: list[tuple[str, Any]]) -> None:
    path = [(10 + i % 1000, 10 + i % 700) for i in range(5000)]
    for i, (x, y) in enumerate(path):
        xserver.move(x, y)
        if i % 20 == 0:
            xserver.sync()  # without this pacing the server's RECORD extension drops some
    xserver.sync()
    wait_until(lambda: len(heard) >= len(path), 30)
    assert [args for kind, args in heard if kind == "move"] == path


def test_one_event_is_heard_at_once(xserver: VirtualDisplay, heard: list[tuple[str, Any]]) -> None:
    """Without the window that takes events it would wait for 31 others."""
    xserver.click(1)
    wait_until(lambda: len(heard) == 2)


def test_layouts_change_and_come_back(xserver: VirtualDisplay) -> None:
    us = xserver.keycode("z")
    xserver.setxkbmap("de")
    assert xserver.keycode("z") != us
    assert xserver.keycode("udiaeresis")
    with pytest.raises(DisplayError, match="setxkbmap failed"):
        xserver.setxkbmap("no-such-layout")
    with pytest.raises(KeyError):
        xserver.keycode("no-such-key")


def test_the_next_test_finds_the_us_layout(xserver: VirtualDisplay) -> None:
    with pytest.raises(KeyError):
        xserver.keycode("udiaeresis")
    assert os.environ["DISPLAY"] == xserver.display


def test_everything_held_is_released(xserver: VirtualDisplay) -> None:
    from Xlib import display

    xserver.key(xserver.keycode("Shift_L"), True)
    xserver.button(3, True)
    xserver.sync()
    other = display.Display(xserver.display)
    try:
        assert any(other.query_keymap())
        assert other.screen().root.query_pointer().mask
        xserver.release_all()
        assert not any(other.query_keymap())
        assert not other.screen().root.query_pointer().mask
    finally:
        other.close()


def test_it_freezes_and_thaws(own_xserver: VirtualDisplay) -> None:
    own_xserver.freeze()
    own_xserver.move(5, 5)
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (own_xserver._injector.sync(), done.set()))  # type: ignore[func-returns-value]
    waiting.start()
    assert not done.wait(0.3)
    own_xserver.thaw()
    assert done.wait(20)
    waiting.join()


def test_it_is_killed_and_comes_back_on_the_same_display(own_xserver: VirtualDisplay) -> None:
    name, pid = own_xserver.display, own_xserver.pid
    own_xserver.kill()
    assert not own_xserver.alive
    own_xserver.restart()
    assert own_xserver.alive
    assert own_xserver.display == name
    assert own_xserver.pid != pid
    own_xserver.move(1, 1)
    own_xserver.sync()


def test_a_frozen_one_can_be_ended(own_xserver: VirtualDisplay) -> None:
    own_xserver.freeze()
    own_xserver.stop()
    assert not own_xserver.alive
    own_xserver.stop()


def test_two_live_side_by_side(xserver: VirtualDisplay, own_xserver: VirtualDisplay) -> None:
    assert own_xserver.display != xserver.display
    assert own_xserver.environ()["DISPLAY"] == own_xserver.display


def test_none_is_left_when_the_owner_is_killed(needs: Callable[..., None]) -> None:
    needs("Xvfb")
    code = """
        import time
        from mcilib.testing.xvfb import VirtualDisplay
        display = VirtualDisplay()
        display.start()
        print(display.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_number_in_use_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the server that could not have it is waited for: none is left to the garbage collector."""
    with VirtualDisplay(take_events=False) as first:
        taken = [int(first.display[1:])] * 2
        monkeypatch.setattr(
            "mcilib.testing.xvfb.randrange", lambda *r: taken.pop() if taken else randrange(*r)
        )
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", ResourceWarning)
            with VirtualDisplay(take_events=False) as second:
                assert second.display != first.display
                assert not taken
            gc.collect()
    assert [str(warning.message) for warning in warned] == []


def test_without_xvfb_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    with pytest.raises(DisplayError, match="apt-get install xvfb"):
        VirtualDisplay().start()


def test_using_it_before_start_is_a_clear_error() -> None:
    with pytest.raises(DisplayError, match="not running"):
        VirtualDisplay().move(1, 1)


def test_importing_it_loads_no_xlib() -> None:
    code = "import sys, mcilib.testing.xvfb; print('Xlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
