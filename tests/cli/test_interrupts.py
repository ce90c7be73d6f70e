"""Ctrl-C at any moment, once or again and again: quiet, and with the exit code of what was done."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import INPUT, Background, Done, Receiver, input_on, kinds

from mcilib.testing.xvfb import VirtualDisplay

Start = Callable[..., Background]


@pytest.fixture
def deaf_display() -> Iterator[dict[str, str]]:
    """Keeps `doctor` waiting: the environment with a display that takes connections and never answers."""
    for port in range(6_100, 6_200):
        try:
            listener = socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
        with listener:
            yield {**os.environ, "DISPLAY": f"127.0.0.1:{port - 6_000}"}
        return
    pytest.skip("no free port for a display")


def test_in_the_middle_of_a_command(here: Path, deaf_display: dict[str, str]) -> None:
    command = Background("doctor", env=deaf_display)
    command.line("platform")
    time.sleep(0.3)
    done = command.end(signal.SIGINT)
    assert (done.returncode, done.stderr) == (130, "")


def wait_for_import(command: Background, module: str) -> None:
    """Python, told by PYTHONPROFILEIMPORTTIME, says on stderr when it has imported a module."""
    assert command.process.stderr is not None
    for line in command.process.stderr:
        if line.rpartition("|")[2].strip() == module:
            return
    raise AssertionError(f"{module} was not imported")


def said(done: Done) -> list[str]:
    return [line for line in done.stderr.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    "module",
    ["signal", "argparse", "mcilib.consent", "mcilib.cli._program", "subprocess", "mcilib.cli._checks"],
)
def test_while_modules_are_imported(module: str, here: Path, deaf_display: dict[str, str]) -> None:
    command = Background("doctor", env={**deaf_display, "PYTHONPROFILEIMPORTTIME": "1"})
    wait_for_import(command, module)
    done = command.end(signal.SIGINT)
    assert (done.returncode, said(done)) == (130, [])


def again_and_again(command: Background, number: int) -> None:
    """The signal every 5 ms until the process has ended."""
    deadline_s = time.monotonic() + 10
    while command.process.poll() is None and time.monotonic() < deadline_s:
        command.process.send_signal(number)
        time.sleep(0.005)


@pytest.mark.x11
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_again_and_again(
    number: int, xserver: VirtualDisplay, granted: Path, background: Start, endpoint: str
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting.")
    input_on(xserver)
    again_and_again(agent, number)
    done = agent.end(None)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Committed:" in done.stdout
    assert kinds(granted / "spool") == INPUT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_receive_again_and_again(number: int, receiver: Callable[..., Receiver]) -> None:
    command = receiver().command
    again_and_again(command, number)
    done = command.end(None)
    assert (done.returncode, done.stderr) == (0, "Stopped.\n")


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_run_before_it_collects(delay_s: float, granted: Path, background: Start) -> None:
    """From the moment on that its modules are imported, nothing was captured and nothing is said."""
    agent = background(
        "run", "--state", granted, "--endpoint", "http://127.0.0.1:9",
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    )  # fmt: skip
    wait_for_import(agent, "signal")
    time.sleep(delay_s)
    done = agent.end(signal.SIGINT)
    if done.returncode == 4:  # it has come to the display, which is not there
        assert "There is no display" in said(done)[-1]
    else:
        assert done.returncode in (0, 130)
        assert not [line for line in said(done) if "cannot be reached now" not in line]
