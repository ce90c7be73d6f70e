"""Real receivers: `serve` in processes of their own, and any application in a thread."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import urllib3
from object_server import object_server as object_server

from mcilib.clock import ClockAnchor
from mcilib.consent import Grant
from mcilib.events import Move
from mcilib.format.open_batch import OpenBatch
from mcilib.receiver import FolderStore, create_app

SERVE = """
import json, sys
from mcilib.errors import McilibError
from mcilib.receiver import serve
options = json.loads(sys.argv[1])
if "grace_s" in options:
    sys.modules["mcilib.receiver.serve"].GRACE_S = options.pop("grace_s")
try:
    serve(on_ready=lambda url: print(url, flush=True), **options)
except McilibError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

CONTENT_TYPE = "application/vnd.mcilib.batches"


class ReceiverProcess:
    """`serve` in a process. `port` 0 unless given; `grace_s` in place of `GRACE_S`; `url` once it is ready."""

    def __init__(self, store: Path | str, **options: Any) -> None:
        options = {"store": str(store), "port": 0, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(20), "the receiver says nothing"
        self.url = self.process.stdout.readline().strip()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str, float]:
        """Exit code, rest of stdout, stderr, and how many seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err, time.monotonic() - started

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def receiver() -> Iterator[Callable[..., ReceiverProcess]]:
    """`receiver(store, **options of serve)` starts one; all are gone when the test ends."""
    with ExitStack() as stack:

        def start(store: Path | str, **options: Any) -> ReceiverProcess:
            started = ReceiverProcess(store, **options)
            stack.callback(started.close)
            return started

        yield start


@pytest.fixture(scope="session")
def _server() -> Iterator[tuple[str, list[Any]]]:
    """One server for all tests, since starting and ending one takes 0.3 s: its URL, and the application."""
    import uvicorn

    slot: list[Any] = [None]

    async def whichever(scope: Any, receive: Any, send: Any) -> None:
        await slot[0](scope, receive, send)

    config = uvicorn.Config(
        whichever, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield url, slot
        server.should_exit = server.force_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def run_app(_server: tuple[str, list[Any]]) -> Iterator[Callable[[Any], str]]:
    """`run_app(app)` serves one application from a thread and gives its URL."""
    url, slot = _server

    def run(app: Any) -> str:
        assert slot == [None]
        slot[0] = app
        return url

    yield run
    slot[0] = None


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=10, maxsize=16, block=True) as pool:
        yield pool


@pytest.fixture
def post(http: urllib3.PoolManager) -> Callable[..., tuple[int, Any]]:
    """`post(url, body, **headers to change)` -> status and JSON; a header of None is left out."""

    def send(url: str, body: Any, headers: dict[str, str | None] | None = None) -> tuple[int, Any]:
        all_headers = {"Content-Type": CONTENT_TYPE, **(headers or {})}
        answer = http.request(
            "POST",
            url + "/v1/batches",
            body=body,
            headers={name: value for name, value in all_headers.items() if value is not None},
        )
        return answer.status, answer.json()

    return send


@pytest.fixture(scope="session")
def frame() -> Callable[..., bytes]:
    """`frame(n)`: a batch whose id is n in 32 hex digits. `size`: random bytes in place of the rows;
    `version`: as a later format would have it. The receiver looks at the header only."""
    grant = Grant.give(operator="Tests", purpose="testing", scopes=["pointer"])
    prefix = struct.Struct(">4sBBII")

    def make(
        n: int,
        *,
        participant: str = "e" * 32,
        device: str = "d" * 32,
        sequence: int = 1,
        size: int = 0,
        version: int = 1,
    ) -> bytes:
        batch = OpenBatch(ClockAnchor(0, 1_700_000_000_000_000_000))
        batch.add(Move(n, 1, 2))
        data = batch.seal(
            sequence=sequence,
            grant=replace(grant, device=device, participant=participant),
            boot="b" * 16,
            clocks={"pointer": "callback"},
            batch_id=f"{n:032x}",
        ).data
        magic, _, flags, head_bytes, payload_bytes = prefix.unpack_from(data)
        head, payload = data[prefix.size :][:head_bytes], data[prefix.size + head_bytes :][:payload_bytes]
        payload = os.urandom(size) if size else payload
        data = prefix.pack(magic, version, flags, len(head), len(payload)) + head + payload
        return data + struct.pack(">I", zlib.crc32(data))

    return make


@pytest.fixture(scope="session")
def copies() -> Callable[[Path], dict[str, bytes]]:
    """The bytes of each batch id in a store; fails when an id is there twice, or anything is half-written."""

    def look(store: Path) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in (store / "batches").rglob("*"):
            if path.is_file():
                batch_id = path.stem.partition("-")[2]
                assert path.suffix == ".mcib", path
                assert batch_id not in found, f"{batch_id} twice"
                found[batch_id] = path.read_bytes()
        return found

    return look


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the application of `url` stores."""
    return tmp_path / "store"


@pytest.fixture
def url(run_app: Callable[..., str], folder: Path) -> str:
    """An application on a folder, on one day of receipt, open to all."""
    return run_app(create_app(FolderStore(folder, today=lambda: date(2026, 3, 1)), token=None))
