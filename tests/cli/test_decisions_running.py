"""What a participant decides while an agent runs: each command, real input, and what is in the data afterwards."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, START, Background, Receiver, Run, input_on, kinds, on_terminal, refused
from left_batches import leave, requests, waiting

from mcilib.consent import Grant
from mcilib.events import Move
from mcilib.participant import Participant
from mcilib.reader import Reader
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11

KEYS = {"key_press", "key_release"}
POINTER = {"move", "press", "release"}


class Agent:
    """A running `mcilib run`, and commands on its folder."""

    def __init__(self, command: Background, state: Path, mcilib: Run, display: VirtualDisplay) -> None:
        self.command, self.state, self._mcilib, self.display = command, state, mcilib, display

    def do(self, *args: str) -> str:
        """`mcilib ARGS` on the folder, which must work; what it prints."""
        done = self._mcilib(*args, "--state", self.state)
        assert done.returncode == 0, done
        return done.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.do(*args, "--json"))

    def input(self) -> None:
        input_on(self.display)

    def heard(self) -> set[str]:
        """Kinds of input in the batches that wait, with what is in memory."""
        self.do("inspect")
        return set(kinds(self.state / "spool" / "ready")) & (KEYS | POINTER)

    def hears(self, wanted: set[str]) -> bool:
        """Whether input is captured as these kinds, and no others: sources that start again take a moment."""
        heard: set[str] = set()
        ends_s = time.monotonic() + 20
        while heard != wanted and time.monotonic() < ends_s:
            self.input()
            heard = self.heard()
        return heard == wanted

    def forget(self) -> None:
        self.do("forget", "1d", "--yes")


@pytest.fixture
def agent(
    background: Callable[..., Background], granted: Path, mcilib: Run, xserver: VirtualDisplay, endpoint: str
) -> Callable[..., Agent]:
    """Starts an agent on `granted`; a receiver that is somewhere unless one is named."""

    def start(*args: str, to: str = endpoint) -> Agent:
        command = background("run", "--state", granted, "--endpoint", to, *args)
        command.line("Collecting")
        return Agent(command, granted, mcilib, xserver)

    return start


# --- pause, resume ------------------------------------------------------------------------------------------


def test_what_is_done_during_a_pause_is_nowhere(agent: Callable[..., Agent]) -> None:
    one = agent()
    told = one.json("pause", "10m")
    assert told["running"] is True
    assert 590 < told["left_s"] <= 600
    assert "You have paused. Nothing is captured now: you have paused it" in one.command.line(
        "You have paused"
    )
    one.display.move(700, 700)
    one.input()
    assert one.heard() == set()
    assert one.do("resume") == "There is no pause any more: the agent captures again.\n"
    one.command.line("You have ended the pause.")
    assert one.hears(KEYS | POINTER)
    assert 700 not in {
        row.event.x for row in Reader(one.state / "spool").rows() if isinstance(row.event, Move)
    }
    assert one.command.end().returncode == 0


def test_a_pause_ends_by_itself(agent: Callable[..., Agent]) -> None:
    one = agent()
    one.do("pause", "2s")
    one.command.line("A time is over. What may be captured is.")
    assert one.hears(KEYS | POINTER)


def test_a_pause_before_the_start_holds(agent: Callable[..., Agent], mcilib: Run, granted: Path) -> None:
    mcilib("pause", "10m", "--state", granted)
    one = agent()
    one.command.line("Nothing is captured now: you have paused it")
    one.input()
    assert one.heard() == set()


def test_a_pause_holds_over_a_kill(agent: Callable[..., Agent]) -> None:
    one = agent()
    one.do("pause", "10m")
    one.command.kill()
    two = agent()
    two.input()
    assert two.heard() == set()


@pytest.mark.parametrize("how", ["flag", "file"])
def test_the_longest_pause_is_the_operators(
    how: str, agent: Callable[..., Agent], mcilib: Run, here: Path
) -> None:
    (here / "lab.toml").write_text("[consent]\npause_cap_s = 3600\n")
    one = agent(*(["--longest-pause", "1h"] if how == "flag" else ["--config", str(here / "lab.toml")]))
    assert one.json("pause", "45m")["left_s"] > 2_600
    refused(mcilib("pause", "61m", "--state", one.state), 2, "At most 3600 s")


# --- exempt -------------------------------------------------------------------------------------------------


def test_exempt_kinds_are_off_until_withdrawn(agent: Callable[..., Agent]) -> None:
    one = agent()
    told = one.json("exempt", "--scope", "keys", "--reason", "medical")
    assert told["running"] is True
    one.command.line("You have asked for an exemption: keys.")
    assert one.hears(POINTER)
    one.do("exempt", "--withdraw", told["exemption"]["exemption"])
    one.command.line("You have taken an exemption back.")
    assert one.hears(KEYS | POINTER)


@pytest.mark.parametrize("args", [["--everything"], ["--hours", "00:00-24:00"], ["--app", "*"]])
def test_exempt_of_all_kinds(args: list[str], agent: Callable[..., Agent]) -> None:
    one = agent()
    one.do("exempt", *args, "--reason", "personal")
    one.input()
    assert one.heard() == set()


@pytest.mark.parametrize(("decision", "state", "kept"), [
    ("approve", "approved", POINTER), ("deny", "denied", KEYS | POINTER),
])  # fmt: skip
def test_the_operators_answer_comes_back_and_is_shown(
    decision: str, state: str, kept: set[str], agent: Callable[..., Agent], receiver: Callable[..., Receiver],
    mcilib: Run,
) -> None:  # fmt: skip
    store = receiver()
    one = agent(to=store.url)
    exemption = one.json("exempt", "--scope", "keys", "--reason", "medical")["exemption"]["exemption"]
    one.do("flush")
    done = mcilib("exemptions", store.store, decision, exemption, "--note", "as you like")
    assert done.returncode == 0, done
    one.do("flush")
    line = one.command.line("The operator has decided.")
    assert f"keys: {state}" in line
    assert "as you like" in line
    (listed,) = one.json("exempt", "--list")["exemptions"]
    assert (listed["state"], listed["answer"]) == (state, "as you like")
    shown = one.do("exempt", "--list")
    assert "the operator writes: as you like" in shown
    one.forget()
    assert one.hears(kept)


# --- forget, hold, inspect, flush ---------------------------------------------------------------------------


def test_forget_takes_what_is_in_memory_too(agent: Callable[..., Agent]) -> None:
    one = agent()
    one.input()
    told = one.json("forget", "10m", "--yes")
    assert (told["done"], told["running"]) == (True, True)
    assert told["events"] > 0
    one.command.line("You have deleted what was captured last.")
    assert one.heard() == set()
    assert one.hears(KEYS | POINTER)
    one.json("forget", "10m", "--yes")
    assert waiting(one.state) == []


def test_hold_keeps_batches_here(
    agent: Callable[..., Agent], receiver: Callable[..., Receiver], mcilib: Run
) -> None:
    store = receiver()
    one = agent(to=store.url)
    one.do("hold", "1h")
    one.command.line("Batches rest here for 1 h.")
    one.input()
    done = mcilib("flush", "--state", one.state)
    refused(done, 5, "still on this device", "held on this device")
    assert (store.batches, len(waiting(one.state))) == (0, 1)
    one.do("hold", "off")
    assert one.do("flush") == "Uploaded: nothing waits any more.\n"
    assert (store.batches, waiting(one.state)) == (1, [])


def test_inspect_shows_what_was_just_captured(agent: Callable[..., Agent]) -> None:
    one = agent()
    one.input()
    (batch,) = one.json("inspect")["batches"]
    assert batch["kinds"] == {**START, "move": 10, "press": 1, "release": 1, "key_press": 1, "key_release": 1}
    shown = one.do("inspect", batch["batch"])
    assert "left button down at 109, 109" in shown
    assert "key down: letter" in shown


def test_flush_tells_as_json(agent: Callable[..., Agent], receiver: Callable[..., Receiver]) -> None:
    store = receiver()
    one = agent(to=store.url)
    one.input()
    told = one.json("flush")
    assert (told["delivered"], told["waiting_batches"], store.batches) == (True, 0, 1)


def test_a_log_that_was_cut_is_seen_by_what_batches_carry(agent: Callable[..., Agent], mcilib: Run) -> None:
    one = agent()
    one.do("hold", "1h")
    one.do("hold", "off")
    one.input()
    assert "1 batch on this device" in one.do("inspect") + one.do("audit", "--verify")
    assert one.command.end().returncode == 0
    log = one.state / "audit.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:1]))
    done = mcilib("audit", "--verify", "--state", one.state)
    assert done.returncode == 7
    assert "which a batch carries" in done.stderr


# --- withdraw -----------------------------------------------------------------------------------------------


def test_withdraw_ends_it_here_and_at_the_receiver(
    agent: Callable[..., Agent], receiver: Callable[..., Receiver]
) -> None:
    store = receiver()
    one = agent(to=store.url)
    one.input()
    one.do("flush")
    one.input()
    assert store.batches == 1
    said = one.do("withdraw", "--yes")
    assert "The agent sends that request and then ends." in said
    done = one.command.end(None)
    assert (done.returncode, done.stderr) == (0, "")
    assert "You have withdrawn: all data on this device is deleted." in done.stdout
    assert done.stdout.endswith("It has confirmed that all is deleted.\n")
    assert store.batches == 0
    assert not list(one.state.rglob("*.mcib"))
    assert not (one.state / "grant.json").exists()
    assert requests(one.state) == []


def test_withdraw_without_a_receiver_ends_the_agent_after_one_try(agent: Callable[..., Agent]) -> None:
    one = agent(to="http://127.0.0.1:9")
    one.input()
    one.do("withdraw", "--yes")
    done = one.command.end(None)
    assert done.returncode == 0
    assert "It has not confirmed yet" in done.stdout
    assert "`mcilib run` asks again, and captures nothing." in done.stdout
    assert not list(one.state.rglob("*.mcib"))
    assert [request["kind"] for request in requests(one.state)] == ["delete"]


# --- the grant ----------------------------------------------------------------------------------------------

TERMS = ["--operator", "Example Lab", "--purpose", "tests"]


def test_fewer_scopes_take_effect_at_once(agent: Callable[..., Agent]) -> None:
    one = agent()
    one.input()
    one.do("inspect")
    told = one.json("grant", *TERMS, "--scope", "pointer", "--yes")
    assert (told["running"], told["deleted_batches"]) == (True, 1)
    one.command.line("Your grant has changed. What may be captured is.")
    assert one.hears(POINTER)
    digests = {batch.header.grant for batch in Reader(one.state / "spool").batches()}
    assert digests == {told["digest"]} == {Grant.load(one.state).digest}


class Asked:
    """`mcilib grant` on a terminal that waits for an answer."""

    def __init__(self, state: Path, *args: str) -> None:
        self._master, slave = pty.openpty()
        command = [*COMMAND, "grant", "--state", str(state), *TERMS, *args]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""
        self._until("Type yes: ")

    def _until(self, text: str | None) -> None:
        while (text is None or text not in self.seen) and select.select([self._master], [], [], 20)[0]:
            try:
                self.seen += os.read(self._master, 4096).decode().replace("\r\n", "\n")
            except OSError:
                break

    def answer(self, text: str) -> int:
        os.write(self._master, f"{text}\n".encode())
        self._until(None)
        return self.process.wait(20)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        os.close(self._master)


@pytest.fixture
def asked(granted: Path) -> Iterator[Callable[..., Asked]]:
    made: list[Asked] = []

    def ask(*args: str) -> Asked:
        made.append(Asked(granted, *args))
        return made[-1]

    yield ask
    for one in made:
        one.end()


MORE = ["--scope", "pointer,keys,apps"]


def test_nothing_is_captured_while_more_is_asked_for(
    agent: Callable[..., Agent], asked: Callable[..., Asked]
) -> None:
    one = agent()
    question = asked(*MORE)
    assert "which program the window in use belongs to" in question.seen
    one.command.line("Nothing is captured now: ")
    one.input()
    assert one.heard() == set()
    first = Grant.load(one.state)
    assert question.answer("yes") == 0
    second = Grant.load(one.state)
    assert second.scopes == ("apps", "keys", "pointer")
    assert second.participant == first.participant
    assert "It captures apps from its next start on." in question.seen
    one.command.line("Your grant has changed. What may be captured is.")
    assert one.hears(KEYS | POINTER)
    assert {batch.header.grant for batch in Reader(one.state / "spool").batches() if batch.events} >= {
        second.digest
    }


def test_a_no_leaves_the_old_grant_in_force(agent: Callable[..., Agent], asked: Callable[..., Asked]) -> None:
    one = agent()
    first = Grant.load(one.state)
    question = asked(*MORE)
    assert question.answer("no") == 3
    assert Grant.load(one.state) == first
    one.command.line("You have answered; your grant stays as it is.")
    assert one.hears(KEYS | POINTER)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_question_that_nobody_answers_leaves_capture_off(
    number: int, agent: Callable[..., Agent], asked: Callable[..., Asked]
) -> None:
    one = agent()
    question = asked(*MORE)
    question.process.send_signal(number)
    question.process.wait(20)
    one.input()
    assert one.heard() == set()
    assert one.command.end().returncode == 0
    two = agent()
    two.command.line("Nothing is captured now: ")
    two.input()
    assert two.heard() == set()
    assert on_terminal("grant", "--state", str(two.state), *TERMS, *MORE, answer="no")[0] == 3
    assert two.hears(KEYS | POINTER)


def test_another_policy_asks_and_a_no_goes_on_only_if_it_is_not_required(
    agent: Callable[..., Agent], asked: Callable[..., Asked], here: Path
) -> None:
    one = agent()
    (here / "policy.txt").write_text("Another policy.\n")
    (here / "lab.toml").write_text('[consent]\npolicy_file = "policy.txt"\n')
    same = ["--scope", "pointer,keys"]
    assert asked(*same, "--policy", "policy.txt").answer("no") == 3
    assert one.hears(KEYS | POINTER)
    one.forget()
    question = asked(*same, "--config", "lab.toml")
    assert "Another policy." in question.seen
    assert question.answer("no") == 3
    assert "another policy than the one now required: nothing is captured" in question.seen
    one.input()
    assert one.heard() == set()


# --- an upload without capture obeys too ---------------------------------------------------------------------


class Draining:
    """`mcilib run --drain` of three batches, of which the first request is with a receiver that says nothing, until
    it hangs up."""

    def __init__(
        self, background: Callable[..., Background], state: Path, here: Path, silent: socket.socket
    ) -> None:
        for _ in range(3):
            leave(state)
        (here / "lab.toml").write_text("[upload]\ntimeout_s = 30\n")
        self.silent = silent
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        self.command = background(
            "run", "--state", state, "--endpoint", url, "--drain", "--config", here / "lab.toml"
        )
        self.command.line("Uploading what waits")
        silent.settimeout(20)
        self.connection, _ = silent.accept()
        first = b""
        while b"MCIB" not in first:
            first += self.connection.recv(65_536)

    def requests_until_it_ends(self) -> list[bytes]:
        """What comes to the receiver after the first request, on which it hangs up."""
        self.connection.close()
        found: list[bytes] = []
        self.silent.settimeout(0.2)
        while self.command.process.poll() is None:
            try:
                connection, _ = self.silent.accept()
            except TimeoutError:
                continue
            connection.settimeout(1)
            found.append(_read(connection))
        return found


def _read(connection: socket.socket) -> bytes:
    data = b""
    with connection:
        try:
            while piece := connection.recv(65_536):
                data += piece
        except TimeoutError:
            pass
    return data


@pytest.fixture
def draining(background: Callable[..., Background], granted: Path, here: Path) -> Iterator[Draining]:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = Draining(background, granted, here, silent)
        yield one
        one.connection.close()


def test_a_withdrawal_ends_a_drain(draining: Draining, mcilib: Run, granted: Path) -> None:
    told = json.loads(mcilib("withdraw", "--yes", "--json", "--state", granted).stdout)
    assert (told["batches"], told["running"]) == (3, True)
    assert waiting(granted) == []
    later = draining.requests_until_it_ends()
    done = draining.command.end(None)
    assert done.returncode == 3
    assert "The receiver has not confirmed yet that all is deleted" in done.stderr
    frames = [data for data in later if b"MCIB" in data]
    assert not frames, "no data goes after a withdrawal"
    assert [request["kind"] for request in requests(granted)] == ["delete"]


def test_a_hold_ends_a_drain(draining: Draining, mcilib: Run, granted: Path) -> None:
    told = json.loads(mcilib("hold", "1h", "--json", "--state", granted).stdout)
    assert told["running"] is True
    later = draining.requests_until_it_ends()
    done = draining.command.end(None)
    assert (done.returncode, later) == (5, []), "what was not on its way yet stays"
    assert len(waiting(granted)) == 3
    assert Participant.read_state(granted).hold_s == 3_600


# --- a host that takes no commands --------------------------------------------------------------------------


def test_a_host_without_a_channel_is_named(mcilib: Run, granted: Path) -> None:
    from mcilib.collector import Collector
    from mcilib.testing.fakes import FakeSource

    with Collector(sources=[FakeSource()], grant=Grant.load(granted), state_dir=granted, channel=False):
        started_s = time.monotonic()
        done = mcilib("pause", "--state", granted)
        refused(done, 6, "takes no commands, and goes on as before", "`mcilib status` says which process")
        refused(
            mcilib("grant", *TERMS, "--scope", "pointer", "--yes", "--state", granted),
            6,
            "takes no commands",
            "Stop it",
        )
        assert time.monotonic() - started_s < 30
