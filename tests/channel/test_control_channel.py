"""Commands reach the agent, answers and errors come back, and the channel comes and goes without a trace."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import channels
import pytest
from channels import Agent, connect, speak
from costs import cost_at_rest, thread_cost
from waiting import until

from mcilib import errors, limits
from mcilib.channel import local, wire
from mcilib.channel.client import ask
from mcilib.channel.server import ControlServer
from mcilib.errors import ConfigError, ControlError, McilibError, NoAgent, SpoolError

# --- commands -----------------------------------------------------------------------------------------------


def test_a_command_reaches_another_process_and_its_answer_comes_back(folder, agent):
    arguments = {"note": "naïve 日本語 \U0001f512", "until_ns": 2**62, "parts": [1.5, None, True, {}]}
    assert ask(folder, "echo", arguments) == arguments
    assert ask(str(folder), "process")["pid"] == agent.process.pid
    assert ask(folder, "carried") == {"echo": 1, "process": 1}


@pytest.mark.parametrize(
    "kind",
    [
        "McilibError",
        "ConfigError",
        "GrantError",
        "SpoolError",
        "DeliveryError",
        "NoAgent",
        "SealError",
        "TraceError",
    ],
)
def test_an_error_of_the_agent_comes_out_as_the_same_error(folder, server, kind):
    with pytest.raises(McilibError) as caught:
        ask(folder, "fail", {"kind": kind, "problem": "It went wrong", "next_step": "Do that."})
    assert caught.value == getattr(errors, kind)("It went wrong", "Do that.")


def test_errors_that_are_not_made_of_words_or_not_known_here_come_out_as_what_they_are_made_from(folder):
    class OfTheHost(errors.SpoolError):
        pass

    def handle(name, arguments):
        raise {"host": OfTheHost("Its own", "Look."), "bytes": errors.BatchFormatError("torn", 3)}[name]

    server = ControlServer(folder, handle)
    server.start()
    with pytest.raises(SpoolError) as of_host:
        ask(folder, "host")
    with pytest.raises(McilibError) as of_bytes:
        ask(folder, "bytes")
    server.stop()
    assert of_host.value == SpoolError("Its own", "Look.")
    assert type(of_bytes.value) is McilibError
    assert "torn" in of_bytes.value.problem


@pytest.mark.parametrize("what", ["raises", "no mapping", "no json", "too large", "endless words"])
def test_a_handler_that_fails_is_told_by_its_type_only(folder, caplog, what):
    def handle(name, arguments):
        if what == "raises":
            raise ValueError("private words")
        if what == "endless words":
            raise ConfigError("private words" * 6_000, "")
        return {"no mapping": 3, "no json": {"a": object()}, "too large": {"a": "private words" * 6_000}}[
            what
        ]

    server = ControlServer(folder, handle)
    server.start()
    with pytest.raises(McilibError) as caught:
        ask(folder, "echo")
    assert ask_again(folder, server) is caught.type
    server.stop()
    assert "private words" not in str(caught.value) + caplog.text
    assert what == "endless words" or isinstance(caught.value, ControlError)


def ask_again(folder: Path, server: ControlServer) -> type[McilibError]:
    with pytest.raises(McilibError) as caught:
        ask(folder, "echo")
    assert len(server.threads()) >= 1, "the channel goes on"
    return caught.type


def test_a_command_that_cannot_be_sent_is_refused_here(folder, server, commands):
    for arguments in ({"note": "x" * 70_000}, {"note": object()}, {"note": float("nan")}):
        with pytest.raises(ConfigError):
            ask(folder, "echo", arguments)
    assert not commands.carried


def test_a_command_that_takes_long_keeps_no_other_waiting(folder, server, commands):
    slow = [threading.Thread(target=ask, args=(folder, "wait")) for _ in range(4)]
    for thread in slow:
        thread.start()
    until(lambda: commands.waiting == 4)
    assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    until(lambda: len(server.threads()) == 5)
    ask(folder, "release")
    for thread in slow:
        thread.join(10)
    until(lambda: len(server.threads()) == 1)


def test_more_commands_than_are_carried_out_at_once_are_told_so(folder, server, commands, monkeypatch):
    monkeypatch.setattr(limits, "CHANNEL_REQUESTS_MAX", 2)
    slow = [threading.Thread(target=ask, args=(folder, "wait")) for _ in range(2)]
    for thread in slow:
        thread.start()
    until(lambda: commands.waiting == 2)
    with pytest.raises(ControlError, match="too many commands"):
        ask(folder, "echo")
    commands.released.set()
    for thread in slow:
        thread.join(10)
    until(lambda: len(server.threads()) == 1)
    assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    assert commands.carried["echo"] == 1


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_told(folder, server, commands):
    with pytest.raises(ControlError, match=r"not answered within 0\.2 s"):
        ask(folder, "wait", timeout_s=0.2)
    commands.released.set()
    until(lambda: len(server.threads()) == 1)  # who asked is gone; nothing is raised


# --- files --------------------------------------------------------------------------------------------------


def test_secret_and_socket_are_this_users_alone_new_at_each_start_and_gone_after_the_end(folder, commands):
    secrets = set()
    for _ in range(3):
        server = ControlServer(folder, commands)
        server.start()
        key, sock = folder / "control.key", folder / "control.sock"
        before = key.read_bytes()
        server.start()  # does nothing
        assert key.read_bytes() == before
        assert stat.S_IMODE(key.stat().st_mode) == stat.S_IMODE(sock.stat().st_mode) == 0o600
        assert len(key.read_bytes()) == 32
        secrets.add(key.read_bytes())
        assert ask(folder, "echo", {"a": 1}) == {"a": 1}
        server.stop()
        server.stop()
        assert list(folder.iterdir()) == []
        assert server.threads() == []
    assert len(secrets) == 3


def test_the_end_removes_nothing_that_it_did_not_make(folder, server):
    (folder / "control.key").unlink()
    (folder / "control.key").write_text("another's")
    server.stop()
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("control.key", "another's")]


def test_what_a_killed_agent_leaves_is_no_agent_and_the_next_one_takes_it_over(folder, commands):
    with Agent(folder) as agent:
        agent.process.send_signal(signal.SIGKILL)
        agent.process.wait()
    assert {p.name for p in folder.iterdir()} == {"control.sock", "control.key"}
    before = (folder / "control.key").read_bytes()
    with pytest.raises(NoAgent):
        ask(folder, "echo")
    server = ControlServer(folder, commands)
    server.start()
    assert (folder / "control.key").read_bytes() != before
    assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    server.stop()
    assert list(folder.iterdir()) == []


def test_without_an_agent_or_a_folder_there_is_no_agent(folder):
    for place in (folder, folder / "nothing"):
        with pytest.raises(NoAgent, match="No agent runs") as caught:
            ask(place, "echo")
        assert isinstance(caught.value, ControlError)
        assert "mcilib run" in caught.value.next_step


@pytest.mark.skipif(sys.platform != "linux", reason="by the folder's descriptor, on Linux only")
def test_a_folder_with_a_path_longer_than_a_socket_may_have(folder, commands):
    deep = folder / ("long" * 20) / ("name" * 20) / "state"
    deep.mkdir(parents=True, mode=0o700)
    assert len(str(deep)) > 108
    server = ControlServer(deep, commands)
    server.start()
    assert ask(deep, "echo", {"a": 1}) == {"a": 1}
    server.stop()
    assert list(deep.iterdir()) == []


def test_where_the_folder_is_not_to_be_had_by_a_descriptor_a_long_path_is_refused(
    folder, commands, monkeypatch
):
    """As on macOS, or without /proc."""
    monkeypatch.setattr(local, "_FOLDERS", "/nowhere")
    server = ControlServer(folder, commands)
    server.start()
    assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    server.stop()
    deep = folder / ("long" * 30)
    deep.mkdir(mode=0o700)
    with pytest.raises(ControlError, match="too long"):
        ControlServer(deep, commands).start()
    assert list(deep.iterdir()) == []


def test_a_folder_that_is_put_in_the_place_of_the_agents_own_gets_nothing(folder, server, commands):
    aside = folder.with_name(folder.name + "-aside")
    folder.rename(aside)
    folder.mkdir(mode=0o700)
    try:
        with pytest.raises(NoAgent):
            ask(folder, "echo")
        server.stop()
        assert list(folder.iterdir()) == list(aside.iterdir()) == []
    finally:
        folder.rmdir()
        aside.rename(folder)


# --- life ---------------------------------------------------------------------------------------------------


def test_a_command_may_end_the_channel_and_is_answered(folder):
    def handle(name, arguments):
        server.stop()
        return {"stopped": True}

    server = ControlServer(folder, handle)
    server.start()
    assert ask(folder, "withdraw") == {"stopped": True}
    assert server.threads() == []
    assert list(folder.iterdir()) == []


def test_the_end_waits_half_a_second_for_a_command_and_it_is_answered_after_it(folder, server, commands):
    got = []
    slow = threading.Thread(target=lambda: got.append(ask(folder, "wait")))
    slow.start()
    until(lambda: commands.waiting)
    server.stop()
    assert list(folder.iterdir()) == []
    commands.released.set()
    slow.join(10)
    assert got == [{}]


def test_the_interpreter_ends_with_the_channel_and_a_command_running(folder, agent):
    def wait() -> None:
        with pytest.raises(ControlError):
            ask(folder, "wait")

    slow = threading.Thread(target=wait)
    slow.start()
    until(lambda: ask(folder, "carried").get("wait"))
    agent.tell("exit")
    _, err = agent.process.communicate(timeout=10)
    slow.join(10)
    assert agent.process.returncode == 0
    assert err == ""


def test_a_forks_child_does_not_answer_and_holds_nothing(folder, agent):
    agent.tell("fork")
    lines = {agent.line(), agent.line()}
    assert "child 0 {}" in lines, lines  # no thread; and it called `stop`
    assert ask(folder, "process")["pid"] == agent.process.pid
    (child,) = (int(line.split()[1]) for line in lines if line.startswith("forked"))
    assert not [fd for fd in sockets_of(child) if fd in sockets_of(agent.process.pid)]
    os.kill(agent.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, agent.process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NoAgent):  # refused, not unanswered
        ask(folder, "echo")
    os.kill(child, signal.SIGKILL)


def sockets_of(pid: int) -> list[str]:
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts context switches in /proc")
def test_while_nobody_asks_the_thread_never_wakes(folder, server):
    ask(folder, "echo", {"a": 1})
    silent = connect(folder)
    until(lambda: server.refused.get("too slow"))  # who says nothing leaves no timer behind
    silent.close()
    until(lambda: len(server.threads()) == 1)
    before = cost_at_rest(server.threads())
    threading.Event().wait(2.0)
    after = thread_cost(server.threads())
    assert before.threads == 1
    assert before.wakeups
    assert after.wakeups == before.wakeups


def test_a_start_that_fails_leaves_nothing(folder, commands, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    threads, fds = threading.active_count(), os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            ControlServer(folder, commands).start()
    folder.chmod(0o755)
    with pytest.raises(SpoolError):
        ControlServer(folder, commands).start()
    folder.chmod(0o700)
    assert list(folder.iterdir()) == []
    assert threading.active_count() == threads
    assert not fds or len(os.listdir("/proc/self/fd")) == len(fds)


@pytest.mark.parametrize("lacking", ["fchmod", "chmod"])
def test_the_socket_is_this_users_alone_from_its_first_moment_and_on_systems_without_fchmod(
    folder, commands, monkeypatch, lacking
):
    def fails(*args, **options):
        if lacking == "fchmod":  # macOS, for a socket
            raise OSError("Invalid argument")

    monkeypatch.setattr(f"mcilib.channel.local.os.{lacking}", fails)
    before, server = os.umask(0), ControlServer(folder, commands)
    try:
        server.start()
        assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o600
    finally:
        os.umask(before)
        server.stop()


def test_what_comes_in_the_secrets_place_just_then_is_not_written_into(folder, commands, monkeypatch):
    """A stand-in for the moment between the look and the making: what is removed is there again."""
    (folder / "control.key").write_bytes(b"another's")
    (folder / "control.key").chmod(0o600)
    monkeypatch.setattr("mcilib.channel._serving.os.unlink", lambda name, dir_fd: None)
    with pytest.raises(SpoolError, match="File exists"):
        ControlServer(folder, commands).start()
    assert (folder / "control.key").read_bytes() == b"another's"


def test_a_long_answer_comes_through_a_small_buffer(folder, server, monkeypatch):
    """Those of macOS hold 8 KiB; here it is made as small."""

    def small(connection: socket.socket) -> socket.socket:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        return connection

    monkeypatch.setattr(local, "without_signal", small)
    arguments = {"note": "x" * 60_000}
    assert ask(folder, "echo", arguments) == arguments


def test_without_room_for_the_secret_nothing_listens_and_nothing_is_left(folder):
    done = subprocess.run(
        [sys.executable, channels.__file__, folder, "no room"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert "SpoolError: The control channel cannot be made" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_channel_that_fails_says_so_and_removes_its_files(folder, commands, monkeypatch, caplog):
    """A stand-in for the failure: nothing that anybody can send makes one."""
    told = []

    def tell(problem):
        told.append(problem)
        raise ValueError("the host's own")

    server = ControlServer(folder, commands, tell)
    server.start()

    def broken(self):
        raise OSError("private words")

    monkeypatch.setattr("mcilib.channel._serving.Serving._accept", broken)
    with pytest.raises(McilibError):
        ask(folder, "echo", timeout_s=5)
    until(lambda: not server.threads())
    assert [problem.part for problem in told] == ["control"]
    assert list(folder.iterdir()) == []
    assert "the control channel has failed (OSError)" in caplog.text
    assert "private words" not in caplog.text
    server.stop()


def test_where_there_is_no_channel_a_start_does_nothing_and_says_so(folder, commands, monkeypatch):
    """Windows: the answer of `local.missing` there."""
    monkeypatch.setattr(sys, "platform", "win32")
    server = ControlServer(folder, commands)
    server.start()
    assert server.missing == "not built for this system yet"
    assert server.threads() == []
    assert list(folder.iterdir()) == []
    with pytest.raises(NoAgent):
        ask(folder, "echo")
    server.stop()


def test_there_is_a_channel_here(server):
    assert server.missing == ""


def test_macos_tells_who_is_there_as_its_headers_say(monkeypatch):
    """The layout of `struct xucred`; not yet run on hardware."""
    monkeypatch.setattr(sys, "platform", "darwin")

    class Told:
        def __init__(self, version: int) -> None:
            self.version = version

        def getsockopt(self, level, option, size):
            assert (level, option, size) == (0, 1, 76)
            return self.version.to_bytes(4, sys.byteorder) + (501).to_bytes(4, sys.byteorder) + bytes(68)

    assert local.peer_uid(Told(0)) == 501  # type: ignore[arg-type]
    with pytest.raises(OSError, match="xucred"):
        local.peer_uid(Told(1))  # type: ignore[arg-type]


def test_who_hung_up_while_the_answer_was_made_harms_nobody(folder, server, commands):
    """Even where the host does not ignore SIGPIPE."""

    def hang_up() -> None:
        until(lambda: commands.waiting)
        connection.shutdown(socket.SHUT_RDWR)

    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        connection = connect(folder)
        threading.Thread(target=hang_up).start()
        assert speak(connection, (folder / "control.key").read_bytes(), wire.request("wait", {})) == b""
        connection.close()
        commands.released.set()
        until(lambda: len(server.threads()) == 1)
        assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    finally:
        signal.signal(signal.SIGPIPE, before)
