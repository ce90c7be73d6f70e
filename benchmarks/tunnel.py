"""A receiver with TLS that has a name of the network, and the proxy through which an agent reaches it: it counts
bytes and what is sent in one go, and can be slow to give answers back.

Not run by itself. An endpoint on loopback needs no network, so policies of the network do not concern it; one behind
a name does.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rig import receiver

NAME = "receiver.test"
DATA_BYTES = 3 * 1024
"""What a client sends in one go is a request with data from here on; a handshake takes less."""


@dataclass
class Going:
    """What a client sends before the server speaks again: a part of a handshake, or a request."""

    wall_s: float
    bytes: int


class Proxy:
    """Understands CONNECT, whatever name it is given, and nothing else. `answer_s` is how long an answer takes more;
    it may be changed meanwhile. Any thread."""

    def __init__(self, port: int) -> None:
        self._to, self._lock = port, threading.Lock()
        self._up = self._down = 0
        self._goings: list[Going] = []
        self.answer_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def carried(self) -> tuple[int, int]:
        """Bytes up and down so far, without those of CONNECT."""
        with self._lock:
            return self._up, self._down

    def requests(self, since_s: float = 0.0) -> list[Going]:
        """Those with data, that began after a moment (Unix time)."""
        with self._lock:
            return [one for one in self._goings if one.wall_s > since_s and one.bytes >= DATA_BYTES]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = client.recv(1)
                if not byte:
                    return
                head += byte
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                up = threading.Thread(target=self._carry_up, args=(client, server), daemon=True)
                up.start()
                self._carry_down(server, client)
                up.join()

    def _carry_up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                with self._lock:
                    self._up += len(data)
                    if not self._goings or self._goings[-1].bytes < 0:
                        self._goings.append(Going(time.time(), 0))
                    self._goings[-1].bytes += len(data)
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _carry_down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                time.sleep(self.answer_s)
                with self._lock:
                    self._down += len(data)
                    self._goings.append(Going(time.time(), -1))  # what comes next is another
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Far:
    """A receiver that can be reached through `proxy` alone."""

    store: Path
    proxy: Proxy
    endpoint: str
    flags: tuple[str, ...]
    """What `mcilib run` needs for it, but for the endpoint."""


@contextmanager
def far_receiver(folder: Path) -> Iterator[Far]:
    """`folder` takes its store and certificates."""
    import trustme

    authority = trustme.CA()
    mine = authority.issue_cert(NAME)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    mine.private_key_pem.write_to_path(str(folder / "key.pem"))
    for part in mine.cert_chain_pems:
        part.write_to_path(str(folder / "cert.pem"), append=True)
    tls = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    with receiver(folder / "store", 0, *tls) as address:
        port = int(address.rpartition(":")[2].rstrip("/"))
        proxy = Proxy(port)
        flags = ("--proxy", proxy.url, "--ca-file", str(folder / "authority.pem"))
        try:
            yield Far(folder / "store", proxy, f"https://{NAME}:{port}", flags)
        finally:
            proxy.close()
