"""The examples, run as their readers would run them: real input, a real receiver, real signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from commands import Background
from typed_input import inject, of_keys, of_pointer, said
from waiting import until

from mcilib import Grant, Reader
from mcilib.testing.xvfb import VirtualDisplay

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Program(Background):
    """A script in a process of its own, with a person who types at its terminal."""

    def __init__(self, script: str, *args: str | Path, cwd: Path, stdin: int = -1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLES / script, *map(str, args)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.seen = self.seen_errors = ""

    def prompt(self, text: str) -> None:
        """Waits for output that does not end its line."""
        assert self.process.stdout is not None
        while text not in self.seen:
            piece = os.read(self.process.stdout.fileno(), 4096)
            assert piece, f"no {text!r} in {self.seen!r}"
            self.seen += piece.decode()

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MCILIB_STATE", raising=False)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(script: str, *args: str | Path, **more: int) -> Program:
        started.append(Program(script, *args, cwd=here, **more))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.kill()


@pytest.fixture
def endpoint(here: Path) -> Iterator[str]:
    receiver = Background("receive", here / "store", "--port", "0")
    yield receiver.line("Receiving at").split()[2]
    assert receiver.end().returncode == 0


def test_quickstart(run, here: Path, xserver: VirtualDisplay):
    program = run("quickstart.py")
    program.type("yes\n")
    program.prompt("Enter stops.")
    expected = inject(xserver, 20)
    program.type("\n")
    done = program.end(None)
    assert done.returncode == 0, done.stderr
    got = [said(event) for event in Reader(here / "mcilib-state/spool").events()]
    assert of_pointer(got) == of_pointer(expected)
    assert of_keys(got) == of_keys(expected)
    assert [event[0] for event in got if event not in expected] == ["layout"]
    assert done.stdout.count("Move(") == 20
    assert "key='letter'" in done.stdout


def test_quickstart_takes_a_no(run, here: Path, xserver: VirtualDisplay):
    program = run("quickstart.py")
    program.type("no\n")
    done_process = program.process
    _, err = done_process.communicate(timeout=20)
    assert done_process.returncode != 0
    assert "No grant was given" in err
    assert not (here / "mcilib-state").exists(), "something was written before the grant"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_agent(run, here: Path, xserver: VirtualDisplay, endpoint: str, number: signal.Signals):
    """Asked, recorded, partly delivered, ended by a signal with the rest on disk: all there, once."""
    agent = run("agent.py", endpoint, "--say-every", "0.2", "--commit-every", "0.5", "--upload-every", "0.5")
    agent.type("yes\n")
    agent.line("Recording.")
    store, spool = here / "store", here / "mcilib-state/spool"
    expected = inject(xserver, 10)
    until(lambda: list(Reader(store).headers()), what="a delivered batch")
    expected += inject(xserver, 10, start=10)
    until(lambda: f"{140 + 1} events" in agent.line("events;"), what="all of them counted")
    done = agent.end(number)
    assert done.returncode == 0, done.stderr
    for words in (
        "Example Lab",
        "to train programs",
        endpoint,
        "To stop:",
        "Stopped.",
    ):
        assert words in done.stdout, words
    assert re.search(r"batches: [1-9]\d* delivered", done.stdout)
    got = [said(event) for event in Reader(here).events()]  # store and spool; a batch in both is read once
    assert of_pointer(got) == of_pointer(expected)
    assert of_keys(got) == of_keys(expected)
    assert [event[0] for event in got if event not in expected] == ["layout"]
    assert not list((spool / "tmp").iterdir())


def test_agent_loads_the_grant_it_was_given(run, here: Path, xserver: VirtualDisplay, endpoint: str):
    first = run("agent.py", endpoint)
    first.type("yes\n")
    first.line("Recording.")
    assert first.end().returncode == 0
    grant = Grant.load(here / "mcilib-state")
    second = run("agent.py", endpoint)
    second.line("Recording.")
    done = second.end()
    assert done.returncode == 0
    assert grant.participant in done.stdout
    assert "Do you agree?" not in done.stdout


def test_agent_does_not_start_unasked(run, here: Path, xserver: VirtualDisplay):
    done = run("agent.py", "http://127.0.0.1:9", stdin=subprocess.DEVNULL).end(None)
    assert done.returncode == 3
    assert "No grant was given" in done.stderr
    assert not (here / "mcilib-state").exists()


def test_agent_asks_again_when_the_grant_has_expired(run, here: Path, xserver: VirtualDisplay, endpoint: str):
    state = here / "mcilib-state"
    ended = timedelta(seconds=-1)
    old = Grant.give(operator="Example Lab", purpose="a test", scopes=["pointer"], expires_in=ended)
    old.save(state)
    agent = run("agent.py", endpoint)
    agent.type("yes\n")
    agent.line("Recording.")
    assert agent.end().returncode == 0
    new = Grant.load(state)
    assert (new.device, new.participant) == (old.device, old.participant)
    assert not new.expired(time.time_ns())
