"""The network of agents that are compared: before each one's server a relay that counts what TCP carries, and for
agents that have no server of their own one that answers 200. A process of its own, so that it disturbs nobody.

    python wires.py 8750 0 0    relays to port 8750 and to two servers of its own; prints their ports, and after
                                each line that it reads what was counted, as JSON
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rig import Process

ANSWER = b'{"status":"ok"}'
_REQUEST = re.compile(rb"([A-Z]{3,7}) (/\S*) HTTP/1\.[01]\r\n")

RECORD_BYTES, RECORD_MAX_BYTES = 22, 16_384
"""Of TLS 1.3 around each record: header 5, content type 1, tag 16 (RFC 8446, 5.2); and what one holds."""
RECORDS_PER_REQUEST = 4
"""Headers and body, there and back."""


class Wire:
    """Passes TCP on to `port` and counts bytes and requests by method and path. A request begins with what a client
    sends after the server has spoken, or first."""

    def __init__(self, port: int) -> None:
        self._to, self._lock = port, threading.Lock()
        self.connections = 0
        self.causes: dict[str, Counter[str]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def counts(self) -> dict[str, Any]:
        with self._lock:
            return {
                "connections": self.connections,
                "causes": {name: dict(count) for name, count in self.causes.items()},
            }

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with self._lock:
                self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._to))
            talk = {"cause": "", "spoke": "server"}
            for source, to, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._carry, args=(source, to, way, talk), daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket, way: str, talk: dict[str, str]) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                with self._lock:
                    self._count(way, data, talk)
                to.sendall(data)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def _count(self, way: str, data: bytes, talk: dict[str, str]) -> None:
        begins = way == "up" and talk["spoke"] == "server"
        talk["spoke"] = "client" if way == "up" else "server"
        if begins:
            found = _REQUEST.match(data)
            talk["cause"] = b" ".join(found.groups()).decode() if found else "other"
        count = self.causes.setdefault(talk["cause"], Counter(requests=0, up=0, down=0))
        count["requests"] += begins
        count[way] += len(data)


class Sink(ThreadingHTTPServer):
    """Answers 200, and counts the events that it is sent by kind: JSON lines, or one list, perhaps with gzip."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kinds = Counter[str]()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        events = json.loads(body) if body.startswith(b"[") else map(json.loads, body.splitlines())
        self.server.kinds.update(event["kind"] for event in events)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Wires:
    """The process, from the other side: the port of each relay, in the order in which they were asked for."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.ports: list[int] = json.loads(process.line("["))

    def counts(self) -> list[dict[str, Any]]:
        """Of each relay: `connections`, `causes` (`POST /path` -> requests, up, down in bytes) and, of a server here,
        `kinds` of the events."""
        self._process.tell("counts")
        counts: list[dict[str, Any]] = json.loads(self._process.line("["))
        return counts


@contextmanager
def wires(ports: Sequence[int]) -> Iterator[Wires]:
    with Process([sys.executable, str(Path(__file__)), *map(str, ports)]) as process:
        yield Wires(process)


def tls_bytes(counts: dict[str, Any]) -> int:
    """What TLS 1.3 would add to it: a handshake for each connection, and what surrounds each record."""
    requests = sum(cause["requests"] for cause in counts["causes"].values())
    carried = sum(cause["up"] + cause["down"] for cause in counts["causes"].values())
    records = requests * RECORDS_PER_REQUEST + carried // RECORD_MAX_BYTES
    return int(counts["connections"] * handshake_bytes() + records * RECORD_BYTES)


_handshake: list[int] = []


def handshake_bytes() -> int:
    """Of a full handshake with one certificate below its authority, both ways, with the tickets after it; measured."""
    if not _handshake:
        _handshake.append(_shake_hands())
    return _handshake[0]


def _shake_hands() -> int:
    import trustme

    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    to_client, to_server = (
        ssl.MemoryBIO(),
        ssl.MemoryBIO(),
    )  # written and read at once, so pending is one flight
    client = ours.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = theirs.wrap_bio(to_server, to_client, server_side=True)
    carried = 0
    for end, sent in ((client, to_server), (server, to_client), (client, to_server), (server, to_client)):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
        carried += sent.pending
    return carried


def main(ports: Sequence[int]) -> None:
    sinks = [None if port else Sink() for port in ports]
    relays = [
        Wire(port if sink is None else sink.server_port) for port, sink in zip(ports, sinks, strict=True)
    ]
    print(json.dumps([relay.port for relay in relays]), flush=True)
    for _ in sys.stdin:
        said = [
            relay.counts() | ({"kinds": dict(sink.kinds)} if sink else {})
            for relay, sink in zip(relays, sinks, strict=True)
        ]
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main([int(port) for port in sys.argv[1:]])
