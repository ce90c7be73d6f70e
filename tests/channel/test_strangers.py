"""Who is refused: other users, who cannot read the secret, who replays or changes what others said, who sits in the
agent's place, what others have put into the folder. With real processes and real sockets; nothing they say is carried
out, and the agent's own clients get their answers all the while."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from channels import Agent, connect, flipped, relay, speak, told
from waiting import until

from mcilib import limits
from mcilib.channel import wire
from mcilib.channel.client import ask
from mcilib.channel.server import ControlServer
from mcilib.errors import ControlError, McilibError, SpoolError

NOBODY = 65534
PAUSE = wire.request("echo", {"duration_s": 60})
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

BECOMES_NOBODY = f"""
import os, socket, sys
sys.path.insert(0, sys.argv[1])
import channels
from mcilib.channel import wire

secret, request = bytes.fromhex(sys.argv[3]), {PAUSE!r}
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    connection = socket.socket(fileno=int(sys.argv[4])) if len(sys.argv) > 4 else channels.connect(channels.Path(sys.argv[2]))
except OSError as error:
    print(type(error).__name__)
else:
    connection.settimeout(10)
    try:
        open(sys.argv[2] + "/control.key").close()
    except PermissionError:
        print("no key", end=" ")
    print(channels.speak(connection, secret, request) or "hung up")
"""


def as_nobody(folder: Path, secret: bytes, *connection: socket.socket) -> str:
    """What another user gets for a command; with the secret, if it is given that."""
    support = str(Path(__file__).parents[1] / "support")
    fds = [c.fileno() for c in connection]
    done = subprocess.run(
        [sys.executable, "-c", BECOMES_NOBODY, support, str(folder), secret.hex(), *map(str, fds)],
        capture_output=True,
        text=True,
        pass_fds=fds,
        timeout=30,
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


# --- other users --------------------------------------------------------------------------------------------


@as_root
def test_another_user_does_not_get_to_the_socket(folder, agent):
    secret = (folder / "control.key").read_bytes()
    assert as_nobody(folder, secret) == "PermissionError"
    assert ask(folder, "carried") == {}


@as_root
def test_another_user_who_gets_to_the_socket_and_has_the_secret_is_refused_all_the_same(
    folder, server, commands
):
    secret = (folder / "control.key").read_bytes()
    folder.chmod(0o711)
    (folder / "control.sock").chmod(0o666)
    assert as_nobody(folder, secret) == "no key hung up"
    assert server.refused == {"another user": 1}
    assert not commands.carried
    assert b"answer" in speak(connect(folder), secret, PAUSE), "the same words from this user are heard"


@as_root
def test_another_user_who_is_given_a_connection_of_this_user_has_no_secret(folder, server, commands):
    with connect(folder) as connection:
        assert as_nobody(folder, os.urandom(32), connection) == "no key hung up"
    assert server.refused == {"wrong secret, or changed on its way": 1}
    assert not commands.carried


@as_root
def test_a_client_believes_no_other_user(folder):
    """Someone else's program that listens where the agent should."""
    folder.chmod(0o777)
    code = (
        f"import os, socket, sys\nos.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + '/control.sock'); s.listen()\n"
        "print('ready', flush=True); c, _ = s.accept(); print(len(c.recv(100)), flush=True)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ready\n"
        folder.chmod(0o700)
        with pytest.raises(SpoolError, match="belongs to another user"):
            ask(folder, "echo")
        os.chown(folder / "control.sock", 0, 0)  # and were the file this user's, the process is not
        (folder / "control.sock").chmod(0o600)
        (folder / "control.key").write_bytes(bytes(32))
        (folder / "control.key").chmod(0o600)
        with pytest.raises(ControlError, match="Another user's program"):
            ask(folder, "echo")
        assert other.communicate(timeout=10)[0] == "0\n", "it was told nothing"
    finally:
        other.kill()
        other.communicate()


# --- the same user ------------------------------------------------------------------------------------------


def test_who_does_not_know_the_secret_is_refused_whatever_it_says(folder, server, commands):
    secret = (folder / "control.key").read_bytes()
    changed = bytearray(secret)
    changed[31] ^= 1
    for wrong in (bytes(32), os.urandom(32), b"", bytes(changed), secret[:31]):
        assert speak(connect(folder), wrong, PAUSE) == b""
    assert server.refused == {"wrong secret, or changed on its way": 5}
    assert not commands.carried
    assert b"answer" in speak(connect(folder), secret, PAUSE)


@pytest.mark.needs("unshare", "mount")
def test_a_process_of_this_user_from_which_the_secret_is_hidden_is_refused(folder, agent):
    """In a sandbox, where something else is mounted over it."""
    support = str(Path(__file__).parents[1] / "support")
    code = (
        f"import sys; sys.path.insert(0, {support!r})\n"
        "import channels; from pathlib import Path; from mcilib.channel.client import ask\n"
        "folder = Path(sys.argv[1]); secret = (folder / 'control.key').read_bytes()\n"
        f"print(len(secret), channels.speak(channels.connect(folder), secret.ljust(32, b'\\0'), {PAUSE!r}))\n"
        "try: ask(folder, 'echo')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    hidden = folder / "empty"
    hidden.touch(mode=0o600)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = f'mount --bind "{hidden}" "{folder}/control.key" && exec "$0" -c "$1" "{folder}"'
    done = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", inside, sys.executable, code],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if user and not done.stdout:
        pytest.skip("no namespaces of a user's own here")
    first, second = done.stdout.splitlines()
    assert first == "0 b''", done.stderr
    assert second.startswith("SpoolError"), second
    assert ask(folder, "carried") == {}


# --- who sits between ---------------------------------------------------------------------------------------


def test_a_recorded_conversation_played_again_is_refused(folder, agent):
    with relay(folder) as between:
        assert ask(folder, "echo", {"a": 1}) == {"a": 1}
        recording = bytes(between.up)
    assert len(recording) > 100
    assert ask(folder, "carried") == {"echo": 1}
    with connect(folder) as connection:
        connection.sendall(recording[:40])
        assert len(connection.recv(100)) == 72
        connection.sendall(recording[40:])
        assert told(connection) == b""
    with connect(folder) as connection:  # all at once
        connection.sendall(recording)
        assert len(told(connection)) == 72
    assert ask(folder, "carried") == {"echo": 1}


def test_each_byte_of_a_request_that_is_changed_on_its_way_keeps_it_from_being_carried_out(folder, agent):
    with relay(folder) as between:
        ask(folder, "echo", {"a": 1})
        length = len(between.up)
        for place in range(length):
            between.change = flipped(True, place)
            # A length that was made longer by little: the agent waits for the rest until its patience ends.
            with pytest.raises(McilibError):
                ask(folder, "echo", {"a": 1}, timeout_s=5)
        between.change = lambda upwards, at, byte: byte
        assert ask(folder, "carried") == {"echo": 1}


def test_each_byte_of_an_answer_that_is_changed_on_its_way_keeps_it_from_being_believed(folder, agent):
    with relay(folder) as between:
        ask(folder, "echo", {"a": 1})
        length = len(between.down)
        for place in range(length):
            between.change = flipped(False, place)
            with pytest.raises(ControlError):
                ask(folder, "echo", {"a": 1}, timeout_s=5)
        between.change = lambda upwards, at, byte: byte
        assert ask(folder, "echo", {"a": 1}) == {"a": 1}


def test_an_answer_played_again_is_not_believed(folder):
    """By who has recorded it, in the place of an agent that was killed."""
    with Agent(folder) as agent:
        with relay(folder) as between:
            ask(folder, "echo", {"a": 1})
            recording = bytes(between.down)
        agent.process.kill()
        agent.process.wait()
    (folder / "control.sock").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        (folder / "control.sock").chmod(0o600)
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(40)
                client.sendall(recording)
                told(client)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError, match="not the agent"):
            ask(folder, "echo", {"a": 1})
        thread.join(10)


def test_who_answers_a_byte_at_a_time_is_waited_for_no_longer_than_told(folder, agent):
    with relay(folder) as between:
        between.dribbles_s = 0.05
        with pytest.raises(ControlError, match=r"not answered within 0\.3 s"):
            ask(folder, "echo", {"a": 1}, timeout_s=0.3)


def test_who_is_hung_up_on_before_it_said_anything_tries_again_a_few_times(folder, agent, monkeypatch):
    with relay(folder) as between:
        between.hangs_up = 4
        assert ask(folder, "echo", {"a": 1}) == {"a": 1}
        assert between.connected == 5
        between.hangs_up = 100
        monkeypatch.setattr(limits, "CHANNEL_TRY_WAIT_S", 0.1)
        began_s = time.monotonic()
        with pytest.raises(ControlError, match="takes no commands"):
            ask(folder, "echo", {"a": 1})
        assert between.connected == 10
        assert time.monotonic() - began_s >= 0.4
    assert ask(folder, "carried") == {"echo": 1}


@pytest.mark.parametrize("says", ["nothing", "hangs up", "noise", "an agent's words", "what it heard"])
def test_an_impostor_in_the_agents_place_is_not_believed_and_learns_nothing(folder, says):
    (folder / "control.key").write_bytes(bytes(32))
    (folder / "control.key").chmod(0o600)
    heard = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        (folder / "control.sock").chmod(0o600)
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                if says == "hangs up":
                    client.close()
                    continue
                client.settimeout(5)
                heard.append(client.recv(40))
                hello = heard[-1]
                words = {
                    "nothing": b"",
                    "noise": os.urandom(200),
                    "an agent's words": wire.AgentSide(b"x" * 32, os.urandom(32)).receive(hello),
                    "what it heard": hello + hello[8:],
                }[says]
                try:
                    client.sendall(words)
                    while more := client.recv(4096):
                        heard.append(more)
                except OSError:
                    pass
                client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError) as caught:
            ask(folder, "exempt", {"note": "private words"}, timeout_s=1 if says == "nothing" else 20)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert b"private" not in b"".join(heard)
    assert {len(part) for part in heard} <= {0, 40}, "a nonce and nothing else"
    assert "private" not in str(caught.value) + repr(caught.value)


# --- what stands in the folder ------------------------------------------------------------------------------


def leave(folder: Path, name: str, kind: str) -> Path:
    """Something in the place of a file of the channel's; returns what must not be touched."""
    path, target = folder / name, folder / "precious"
    target.write_bytes(b"p" * 32)
    target.chmod(0o600)
    if kind == "link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(mode=0o700)
    elif kind == "device":
        os.mknod(path, 0o020600, os.makedev(1, 3))
    elif kind == "file":
        path.write_bytes(bytes(32))
        path.chmod(0o600)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
        path.chmod(0o600)
    elif kind == "open":
        leave(folder, name, "file" if name.endswith("key") else "socket")
        path.chmod(0o644)
    elif kind == "another user's":
        leave(folder, name, "file" if name.endswith("key") else "socket")
        os.chown(path, NOBODY, NOBODY)
    elif kind == "short":
        path.write_bytes(bytes(31))
        path.chmod(0o600)
    elif kind == "long":
        path.write_bytes(bytes(33))
        path.chmod(0o600)
    return target


EVIL = [
    *(
        (name, kind)
        for name in ("control.key", "control.sock")
        for kind in ("link", "fifo", "folder", "open")
    ),
    ("control.key", "socket"),
    ("control.sock", "file"),
    *(
        pytest.param(name, kind, marks=as_root)
        for name in ("control.key", "control.sock")
        for kind in ("device", "another user's")
    ),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("name", "kind"), EVIL)
def test_an_agent_does_not_start_over_what_it_cannot_have_left(folder, commands, name, kind):
    precious = leave(folder, name, kind)
    before = sorted((p.name, p.lstat().st_mode, p.lstat().st_uid) for p in folder.iterdir())
    server = ControlServer(folder, commands)
    with pytest.raises(SpoolError) as caught:
        server.start()
    assert str(folder / name) in caught.value.problem
    assert sorted((p.name, p.lstat().st_mode, p.lstat().st_uid) for p in folder.iterdir()) == before
    assert precious.read_bytes() == b"p" * 32
    assert server.threads() == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("name", "kind"), [*EVIL, ("control.key", "short"), ("control.key", "long")])
def test_a_client_asks_nobody_through_what_an_agent_cannot_have_made(folder, server, commands, name, kind):
    secret = (folder / "control.key").read_bytes()
    (folder / name).unlink()
    leave(folder, name, kind)
    with pytest.raises(SpoolError) as caught:
        ask(folder, "echo", timeout_s=5)
    assert str(folder / name) in caught.value.problem
    assert not commands.carried
    for shown in (repr(secret)[2:8], secret.hex()):
        assert shown not in str(caught.value)


def test_a_client_does_not_wait_for_a_secret_that_is_missing(folder, server):
    (folder / "control.key").unlink()
    with pytest.raises(ControlError, match="secret of the control channel is missing"):
        ask(folder, "echo", timeout_s=5)


@pytest.mark.parametrize("who", ["agent", "client"])
@pytest.mark.parametrize("how", ["a link", "open", pytest.param("another user's", marks=as_root)])
def test_a_state_folder_that_is_not_this_users_alone_is_refused_by_both(folder, commands, who, how):
    place = folder / "state"
    place.mkdir(mode=0o700)
    server = ControlServer(place, commands)
    if who == "client":
        server.start()
    asked = place
    if how == "a link":
        asked = folder / "link"
        asked.symlink_to(place)
    elif how == "open":
        place.chmod(0o750)
    else:
        os.chown(place, NOBODY, NOBODY)
    tries = (lambda: ask(asked, "echo")) if who == "client" else ControlServer(asked, commands).start
    with pytest.raises(SpoolError):
        tries()
    server.stop()
    assert not commands.carried
    assert list(place.iterdir()) == []


# --- who takes all the room ---------------------------------------------------------------------------------


def test_a_claim_of_4_gib_costs_nothing(folder, agent):
    before = ask(folder, "process")["rss_bytes"]
    for _ in range(50):
        with connect(folder) as connection:
            connection.sendall(wire.GREETING + os.urandom(32))
            assert len(connection.recv(100)) == 72
            connection.sendall(b"\xff" * 4 + os.urandom(32))
            assert told(connection) == b"", "closed at once"
    assert ask(folder, "process")["rss_bytes"] - before < 2_000_000


def test_deep_json_of_who_knows_the_secret_is_told_so_and_does_no_harm(folder, agent):
    secret = (folder / "control.key").read_bytes()
    for body in (b"[" * 60_000, b'{"a":' * 10_000, b"\xff" * 60_000, b"{" + b'"' * 60_000):
        assert b"cannot be read" in speak(connect(folder), secret, body)
    assert ask(folder, "echo", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("how", ["one byte each 0.2 s", "nothing", "half a greeting", "a greeting"])
def test_who_is_slow_is_hung_up_on_after_a_second_and_keeps_nobody_waiting(folder, server, how):
    with connect(folder) as connection:
        request = wire.GREETING + os.urandom(32)
        if how == "half a greeting":
            connection.sendall(request[:20])
        elif how == "a greeting":
            connection.sendall(request)
        rest = iter(request)
        while not server.refused.get("too slow"):
            if how == "one byte each 0.2 s":
                with suppress(ConnectionError):  # just now
                    connection.sendall(bytes([next(rest)]))
            assert ask(folder, "echo", {"a": 1}) == {"a": 1}
            threading.Event().wait(0.2)
        assert len(told(connection)) == (72 if how == "a greeting" else 0)


@pytest.mark.parametrize("greets", [False, True])
def test_200_that_connect_at_once_do_not_keep_a_client_from_its_answer(folder, agent, greets):
    before = ask(folder, "process")
    waiting = []
    for n in range(200):
        connection = connect(folder)
        if greets:
            connection.sendall(wire.GREETING + os.urandom(32))
        waiting.append(connection)
        if n % 20 == 0:
            assert ask(folder, "echo", {"n": n}) == {"n": n}
    assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    assert ask(folder, "process")["fds"] <= before["fds"] + 70
    for connection in waiting:
        connection.close()
    until(lambda: ask(folder, "process")["fds"] <= before["fds"] + 1)


def test_who_has_greeted_keeps_its_place_while_those_who_say_nothing_come(folder, server, monkeypatch):
    monkeypatch.setattr(limits, "CHANNEL_PROVE_S", 30.0)
    secret, nonce, request = (folder / "control.key").read_bytes(), os.urandom(32), PAUSE
    side = wire.AskingSide(secret, nonce, request)
    with connect(folder) as early, ExitStack() as silent:
        early.sendall(side.first)
        answer = side.receive(early.recv(72))
        for _ in range(70):
            silent.enter_context(connect(folder))
        until(lambda: server.refused.get("too many at once"))
        early.sendall(answer)
        assert b"answer" in told(early)


def test_who_speaks_at_once_is_heard_before_all_others_are_taken(folder, agent):
    """120 wait when the agent comes to it, the tenth of them a client: more than it keeps."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        with ExitStack() as others:
            for number in range(120):
                connection = others.enter_context(connect(folder))
                if number == 9:
                    client = connection
                    client.sendall(wire.GREETING + os.urandom(32))
            agent.process.send_signal(signal.SIGCONT)
            assert len(client.recv(100)) == 72
    finally:
        agent.process.send_signal(signal.SIGCONT)


def test_where_more_wait_than_the_system_lets_a_client_waits_too(folder, agent):
    agent.process.send_signal(signal.SIGSTOP)
    try:
        with ExitStack() as others:
            full = False
            while not full:
                connection = others.enter_context(socket.socket(socket.AF_UNIX))
                connection.setblocking(False)
                full = connection.connect_ex(str(folder / "control.sock")) == errno.EAGAIN
            with pytest.raises(ControlError, match="not answered"):
                ask(folder, "echo", timeout_s=0.2)
            threading.Timer(0.3, agent.process.send_signal, (signal.SIGCONT,)).start()
            assert ask(folder, "echo", {"a": 1}) == {"a": 1}
    finally:
        agent.process.send_signal(signal.SIGCONT)


@pytest.mark.skipif(sys.platform != "linux", reason="counts what the process has used in /proc")
def test_an_agent_without_a_file_descriptor_left_says_so_waits_and_goes_on(folder):
    with Agent(folder, "fds", "40") as agent:
        agent.tell("fill")
        assert agent.line() == "full"
        first = connect(folder)
        assert agent.line().startswith("The control channel can take no connection")
        stat = Path(f"/proc/{agent.process.pid}/stat")
        ticks = [sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13]))]
        threading.Event().wait(1.5)
        ticks.append(sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13])))
        assert ticks[1] - ticks[0] < 20, "it waits instead of trying all the time"
        agent.tell("empty")
        assert agent.line() == "emptied"
        assert ask(folder, "echo", {"a": 1}) == {"a": 1}
        first.close()


def test_nothing_is_logged_of_what_was_said(folder, commands, caplog):
    server = ControlServer(folder, commands)
    server.start()
    secret = (folder / "control.key").read_bytes()
    speak(connect(folder), bytes(32), wire.request("echo", {"note": "private words"}))
    with pytest.raises(ControlError) as caught:
        ask(folder, "crash", {"words": "private words"})
    speak(connect(folder), secret, b'{"note":"private words"')
    with connect(folder) as connection:
        connection.sendall(b"private words".ljust(40))
        told(connection)
    server.stop()
    shown = caplog.text + str(caught.value) + repr(server) + repr(vars(server)) + repr(server.refused)
    assert "ValueError" in caplog.text
    assert "another protocol" in caplog.text
    for hidden in ("private", secret.hex(), repr(secret)[2:14]):
        assert hidden not in shown


def test_the_same_refusal_is_logged_once(folder, server, caplog):
    for _ in range(20):
        speak(connect(folder), bytes(32), PAUSE)
    assert server.refused == {"wrong secret, or changed on its way": 20}
    assert caplog.text.count("refused a connection") == 1
