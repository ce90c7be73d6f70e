"""A wire that remembers: a relay of TCP connections which records what goes each way and may hold answers back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_PIECE = 65_536


class Wire:
    """Listens on 127.0.0.1 (`port`) and relays to `target` there; a context manager.

    `asked` and `answered` are all bytes that went each way, over all connections. After `hold()` requests arrive and
    are carried out while their answers wait in here, until `go()`; `held` is set once one waits.
    """

    def __init__(self, target: int) -> None:
        self.asked, self.answered = bytearray(), bytearray()
        self.held = threading.Event()
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._target = target
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._run(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self) -> None:
        self.held.clear()
        self._may_answer.clear()

    def go(self) -> None:
        self._may_answer.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go()
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _run(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target), 5)
                server.settimeout(None)
                self._sockets += [client, server]
                self._run(self._pass, client, server, self.asked)
                self._run(self._pass, server, client, self.answered)

    def _pass(self, source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                record += data
                if record is self.answered and not self._may_answer.is_set():
                    self.held.set()
                    self._may_answer.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
