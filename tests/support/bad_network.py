"""A network that fails: a relay of TCP connections which resets them, swallows what is sent, or lets it trickle.

It knows nothing of what it carries (TLS, as a rule), so a fault strikes anywhere: in the handshake, in a request, between
a request that was carried out and its answer.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from collections import Counter

KINDS = ("reset", "hang-up", "black hole", "slow loris")
_PIECE = 16_384
_TRICKLE_S = 0.1
_FAULT_WITHIN_BYTES = 12_000
_HOLE_S = 30.0


class BadNetwork:
    """Listens on 127.0.0.1 (`port`) and relays to `target` there. Each connection gets a fault with the chance
    `ratio`, which may be changed while it runs. `faults` counts those that struck."""

    def __init__(self, target: int, *, ratio: float, seed: int) -> None:
        self.ratio = ratio
        self.faults: Counter[str] = Counter()
        self._target = target
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._closed = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No new connection; those that live end soon."""
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def calm(self) -> None:
        """No faults from now on, on living connections neither."""
        self.ratio = 0.0

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fault = self._random.choice(KINDS) if self._random.random() < self.ratio else ""
            after_bytes = self._random.randrange(_FAULT_WITHIN_BYTES)
            threading.Thread(target=self._serve, args=(client, fault, after_bytes), daemon=True).start()

    def _serve(self, client: socket.socket, fault: str, after_bytes: int) -> None:
        try:
            with client, socket.create_connection(("127.0.0.1", self._target), 2) as server:
                self._relay(client, server, fault, after_bytes)
        except OSError:
            pass  # one side went away: so does the other

    def _relay(self, client: socket.socket, server: socket.socket, fault: str, after_bytes: int) -> None:
        other, passed, struck = {client: server, server: client}, 0, False
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while not self._closed.is_set():
                for key, _ in selector.select(0.5):
                    side = key.fileobj
                    assert isinstance(side, socket.socket)
                    data = side.recv(_PIECE)
                    if not data:
                        return
                    passed += len(data)
                    if fault and passed > after_bytes and self.ratio > 0:
                        if not struck:
                            struck = True
                            with self._lock:
                                self.faults[fault] += 1
                        if fault != "slow loris":
                            self._end(client, fault)
                            return
                        _trickle(other[side], data)
                    else:
                        other[side].sendall(data)

    def _end(self, client: socket.socket, fault: str) -> None:
        if fault == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "black hole":
            until_s = time.monotonic() + _HOLE_S
            client.settimeout(0.5)
            while time.monotonic() < until_s and not self._closed.is_set():
                try:
                    if not client.recv(_PIECE):
                        return
                except TimeoutError:
                    pass


def _trickle(target: socket.socket, data: bytes) -> None:
    """A byte now and then, each soon enough that nobody times out while waiting for the next."""
    for at in range(len(data)):
        target.sendall(data[at : at + 1])
        time.sleep(_TRICKLE_S)
