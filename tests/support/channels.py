"""An agent that is nothing but its control channel, in a process of its own; strangers who talk to it; who sits between.

Run as a program (`python channels.py FOLDER`) it is that agent: it says `ready`, carries out the commands in `carry_out`
and ends when its input does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mcilib import errors
from mcilib.channel import wire
from mcilib.channel.server import ControlServer


class Commands:
    """What the agent of the tests does. `carried` counts what was really carried out."""

    def __init__(self) -> None:
        self.carried: Counter[str] = Counter()
        self.waiting = 0
        self.released = threading.Event()

    def __call__(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "carried":
            return dict(self.carried)
        self.carried[name] += 1
        if name == "echo":
            return arguments
        if name == "wait":
            self.waiting += 1
            self.released.wait(30)
            return {}
        if name == "release":
            self.released.set()
            return {}
        if name == "fail":
            raise getattr(errors, arguments["kind"])(arguments["problem"], arguments["next_step"])
        if name == "crash":
            raise ValueError(arguments["words"])
        if name == "process":
            import resource

            with open("/proc/self/statm") as file:
                rss_bytes = int(file.read().split()[1]) * resource.getpagesize()
            return {"rss_bytes": rss_bytes, "fds": len(os.listdir("/proc/self/fd")), "pid": os.getpid()}
        raise errors.ConfigError(f"There is no command {name}", "Look at the table.")


def main() -> None:
    folder, *rest = sys.argv[1:]
    if rest and rest[0] == "fds":
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (int(rest[1]), int(rest[1])))
    if rest == ["no room"]:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))  # a part of a secret, and nothing more
    server = ControlServer(folder, Commands(), lambda problem: print(problem.message, flush=True))
    server.start()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "fork":
            pid = os.fork()
            if pid == 0:
                words = f"child {len(server.threads())} {server.refused}\n"
                server.stop()
                os.write(1, words.encode())
                signal.pause()  # it lives on, with nothing to do
            os.write(1, f"forked {pid}\n".encode())
        elif line.strip() == "fill":
            held = []
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            print("full", flush=True)
        elif line.strip() == "empty":
            for fd in held:
                os.close(fd)
            print("emptied", flush=True)
        elif line.strip() == "exit":
            return  # the interpreter ends with the channel running
    server.stop()


class Agent:
    """That program. `with Agent(folder) as agent:` listens."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready", self.process.communicate()[1]

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()


# --- strangers ----------------------------------------------------------------------------------------------


def connect(folder: Path) -> socket.socket:
    """A connection that has said nothing."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(folder / "control.sock"))
    return connection


def told(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(4096):
            got += data
    return got


def speak(connection: socket.socket, secret: bytes, request: bytes) -> bytes:
    """Does what a client does, but for believing nothing and checking nothing. What came after the agent's greeting."""
    nonce = os.urandom(32)
    hello = b""
    with contextlib.suppress(ConnectionError):
        connection.sendall(wire.GREETING + nonce)
        while len(hello) < 72 and (data := connection.recv(72 - len(hello))):
            hello += data
    if len(hello) < 72:
        return b""
    key = wire.hmac_sha256(secret, b"mcilib control 1" + nonce + hello[8:40])
    tag = wire.hmac_sha256(key, b"request" + request)
    with contextlib.suppress(ConnectionError):
        connection.sendall(len(request).to_bytes(4, "big") + tag + request)
    return told(connection)


def flipped(upwards: bool, place: int) -> Callable[[bool, int, int], int]:
    """A `Relay.change` of one bit."""
    return lambda up, at, byte: byte ^ (up == upwards and at == place)


class Relay:
    """Sits between a client and the agent: in the place of `control.sock`, with that one put aside.

    `up` is what clients have said, `down` what the agent has; `change(upwards, place, byte)` gives each byte as it goes
    on. The first `hangs_up` clients are hung up on; `connected` counts all.
    `dribbles_s`: so long after each byte of the agent's the next one goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.up, self.down = bytearray(), bytearray()
        self.change: Callable[[bool, int, int], int] = lambda upwards, place, byte: byte
        self.hangs_up = self.connected = 0
        self.dribbles_s = 0.0
        self._aside, self._path = folder / "aside", folder / "control.sock"
        self._path.rename(self._aside)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._path.chmod(0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        self._path.unlink()
        self._aside.rename(self._path)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connected += 1
            if self.connected <= self.hangs_up:
                client.close()
                continue
            agent = socket.socket(socket.AF_UNIX)
            agent.connect(str(self._aside))
            self.up.clear()
            self.down.clear()
            back = threading.Thread(target=self._pump, args=(agent, client, False))
            back.start()
            self._pump(client, agent, True)
            back.join(10)
            client.close()
            agent.close()

    def _pump(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        seen = self.up if upwards else self.down
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                place = len(seen)
                seen += data
                changed = bytes(self.change(upwards, place + n, byte) for n, byte in enumerate(data))
                if not upwards and self.dribbles_s:
                    for byte in changed:
                        target.sendall(bytes([byte]))
                        time.sleep(self.dribbles_s)
                else:
                    target.sendall(changed)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(folder: Path) -> Iterator[Relay]:
    between = Relay(folder)
    try:
        yield between
    finally:
        between.close()


if __name__ == "__main__":
    main()
