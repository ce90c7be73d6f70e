"""Real parts for the delivery tests: spool folders, small file systems, HTTP servers on loopback, TLS."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import ports
import pytest

from mcilib.delivery.http import HttpTransport
from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import SealedBatch
from mcilib.testing.fakes import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# --- spool --------------------------------------------------------------------------------------------------


def sealer(size_bytes: int = 100, batch_id: str = "") -> Callable[[int], SealedBatch]:
    """Seals a batch of exactly `size_bytes` that begins with its own id."""

    def seal(sequence: int) -> SealedBatch:
        name = batch_id or uuid.uuid4().hex
        return SealedBatch(name, sequence, (name.encode() + b"\0" * size_bytes)[:size_bytes])

    return seal


@pytest.fixture
def seal() -> Callable[..., Callable[[int], SealedBatch]]:
    return sealer


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[DirectorySpool]:
    with DirectorySpool(tmp_path / "spool") as opened:
        yield opened


def conserves(spool: DirectorySpool) -> bool:
    """The promise: nothing leaves uncounted; and what is counted as waiting is there."""
    now = spool.statistics()
    there = sorted((spool.path / "ready").iterdir())
    return (
        now.committed_batches == now.delivered_batches + now.waiting_batches + sum(now.lost.values())
        and now.waiting_batches == len(there) == len(spool.waiting())
        and now.waiting_bytes == sum(file.stat().st_size for file in there)
    )


@pytest.fixture(name="conserves")
def conserves_fixture() -> Callable[[DirectorySpool], bool]:
    return conserves


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files and folders that were fsynced, in order."""
    names: list[str] = []
    really = os.fsync

    def fsync(fd: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        really(fd)

    if not sys.platform.startswith("linux"):
        pytest.skip("asks /proc which file is fsynced")
    monkeypatch.setattr(os, "fsync", fsync)
    return names


# --- servers ------------------------------------------------------------------------------------------------


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(Protocol):
    """What `serve` wants of an answer."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass
class Server:
    port: int
    secure: bool
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """`serve(answer, tls=None)`: a real HTTP/1.1 server that answers each request with `answer(request)`."""
    with contextlib.ExitStack() as stack:

        def start(answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None) -> Server:
            class Handler(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def setup(self) -> None:
                    server.connections += 1
                    super().setup()

                def _any(self) -> None:
                    length = int(self.headers.get("Content-Length") or 0)
                    request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
                    server.requests.append(request)
                    reply = answer(request)
                    self.send_response(reply.status)
                    headers = {"Content-Length": str(len(reply.body)), **reply.headers}
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body)

                do_GET = do_POST = do_PUT = _any

                def log_message(self, *_: Any) -> None:
                    pass

            class Listener(ThreadingHTTPServer):
                daemon_threads = True

                def handle_error(self, *_: Any) -> None:
                    pass  # a client that goes away is part of the tests

            listener = Listener(("127.0.0.1", 0), Handler)
            if tls is not None:
                listener.socket = tls.wrap_socket(
                    listener.socket, server_side=True, do_handshake_on_connect=False
                )
            server = Server(listener.server_port, tls is not None)
            threading.Thread(target=functools.partial(listener.serve_forever, 0.01), daemon=True).start()
            stack.callback(listener.server_close)
            stack.callback(listener.shutdown)
            return server

        yield start


@pytest.fixture
def raw_serve() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    """`raw_serve(talk)`: reads one request of each connection, calls `talk(connection)`, closes."""
    with contextlib.ExitStack() as stack:

        def start(talk: Callable[[socket.socket], None]) -> Server:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = Server(listener.getsockname()[1], False)

            def answer(connection: socket.socket) -> None:
                with connection, contextlib.suppress(OSError):
                    received = piece = connection.recv(65_536)
                    while piece and b"\r\n\r\n" not in received:
                        piece = connection.recv(65_536)
                        received += piece
                    head, _, body = received.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: *(\d+)", head)
                    rest = int(length[1]) - len(body) if length else 0
                    while rest > 0 and (piece := connection.recv(65_536)):
                        rest -= len(piece)
                    talk(connection)

            def listen() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        server.connections += 1
                        threading.Thread(target=answer, args=(connection,), daemon=True).start()

            threading.Thread(target=listen, daemon=True).start()
            return server

        yield start


@pytest.fixture
def transport() -> Iterator[Callable[..., HttpTransport]]:
    """`transport(url, ...)`: one that is closed after the test."""
    made: list[HttpTransport] = []

    def make(url: str, **options: Any) -> HttpTransport:
        made.append(HttpTransport(url, **{"timeout_s": 5.0, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    return ports.free_port()


@dataclass
class Authority:
    """A certificate authority of the test's own."""

    ca_file: Path
    issue: Callable[[str], ssl.SSLContext]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    trustme = pytest.importorskip("trustme")
    ca = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))

    def issue(name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(context)
        return context

    return Authority(ca_file, issue)
